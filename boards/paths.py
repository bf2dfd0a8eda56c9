"""Paths of a netlist of ECP5 cells by their length, without placing it.

Place and route of a core takes an hour; this takes seconds once yosys is done, and says which paths
are in the way of a clock. Cells have the delays of speed grade 6 that nextpnr-ecp5 reports
(LUT4, flip-flop, carry, block RAM and multiplier of Project Trellis' timing); a wire has one that
grows with its fan-out, since its length is not known. What it is worth: docs/boards.md.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from model.errors import UserError

__all__ = ["LIMITS", "Paths"]

#: A multiplier with registers at its operands and its product.
_REGISTERED = "MULT18X18D with registers"
#: Nanoseconds from a clock edge to the output of a cell, and how its output pins begin.
_CLOCKED = {"TRELLIS_FF": (0.52, "Q"), "DP16KD": (5.7, "DO"), _REGISTERED: (0.74, "P")}
#: Nanoseconds an input must be there before the edge; others need none.
_SETUP = {("TRELLIS_FF", "CE"): 0.1, "DP16KD": 0.2, "TRELLIS_DPR16X4": 0.1, _REGISTERED: 0.1}
_CLOCKS = frozenset({"CLK", "CLK0", "CLKA", "CLKB", "WCK"})
_TABLE, _MULTIPLY = 0.24, 3.9
#: Into a carry cell, to its second sum, and from carry to carry of two bits.
_CARRY, _CARRY_SECOND, _CARRY_CHAIN = 0.45, 0.6, 0.07
#: A wire to one input, and more for each doubling of the inputs.
_WIRE, _WIRE_DOUBLED = 0.75, 0.18
#: Cells without a path of the clock, and one that is no cell.
_OUTSIDE = frozenset({"EHXPLLL", "TRELLIS_IO", "$scopeinfo"})
#: Beyond how many nanoseconds paths are counted.
LIMITS = (7, 8, 9, 10, 11, 13)
#: Levels of the hierarchy that make a unit.
_UNIT_LEVELS = 5


@dataclass(frozen=True)
class _Cell:
    """A cell of yosys' JSON."""

    name: str
    kind: str
    inputs: Mapping[str, list[int]] = field(default_factory=dict)
    outputs: Mapping[str, list[int]] = field(default_factory=dict)

    def pins(self, names: str) -> list[int]:
        """Nets at inputs whose names have one letter each."""
        return [net for name in names for net in self.inputs.get(name, ())]

    def arcs(self) -> Iterator[tuple[int, int, float]]:
        """Ways through the cell without a clock: output, input, nanoseconds."""
        if self.kind == "LUT4":
            pairs = [("Z", self.pins("ABCD"), _TABLE)]
        elif self.kind == "TRELLIS_DPR16X4":
            pairs = [("DO", self.inputs.get("RAD", []), _TABLE)]
        elif self.kind == "CCU2C":
            low = [net for pin in "ABCD" for net in self.inputs.get(f"{pin}0", ())]
            high = [net for pin in "ABCD" for net in self.inputs.get(f"{pin}1", ())]
            carry = self.inputs.get("CIN", [])
            pairs = [
                ("S0", low + carry, _CARRY), ("S1", low + high, _CARRY_SECOND),
                ("S1", carry, _CARRY), ("COUT", low + high, _CARRY), ("COUT", carry, _CARRY_CHAIN),
            ]
        elif self.kind == "MULT18X18D":
            factors = [net for pin, nets in self.inputs.items() if pin[0] in "AB" for net in nets]
            pairs = [(pin, factors, _MULTIPLY) for pin in self.outputs if pin[0] == "P"]
        else:
            pairs = []
        for pin, inputs, delay in pairs:
            for out in self.outputs.get(pin, ()):
                yield from ((out, net, delay) for net in inputs)

    def ends(self) -> Iterator[tuple[str, int, float]]:
        """List the inputs that a clock reads: pin, net, set-up time."""
        if self.kind in _CLOCKED or self.kind == "TRELLIS_DPR16X4":
            for pin, nets in self.inputs.items():
                if pin not in _CLOCKS and pin != "RAD":
                    setup = _SETUP.get((self.kind, pin), _SETUP.get(self.kind, 0.0))
                    yield from ((pin, net, setup) for net in nets)


class Paths:
    """The longest path to every register of a flat design.

    Parameters
    ----------
    module : dict
        The top module of yosys' ``write_json``.

    Attributes
    ----------
    ends : list of (float, str, int)
        Nanoseconds, register and last net of each, longest first.

    Raises
    ------
    UserError
        A cell has no known delays, or nets form a loop.
    """

    def __init__(self, module: Mapping[str, Any]) -> None:
        cells = [_cell(name, data) for name, data in module["cells"].items()]
        self._names = _names(module["netnames"])
        self._fan_out = Counter(net for cell in cells for pin, nets in cell.inputs.items()
                                if pin not in _CLOCKS for net in nets)
        begin: dict[int, float] = {}
        ways: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for cell in cells:
            delay, prefix = _CLOCKED.get(cell.kind, (0.0, ""))
            for pin, nets in cell.outputs.items():
                begin.update((net, delay) for net in nets if pin.startswith(prefix))
            # A carry goes to the next cell of its chain by a wire of its own.
            chained = cell.inputs.get("CIN", []) if cell.kind == "CCU2C" else []
            for out, net, inner in cell.arcs():
                ways[out].append((net, inner + (0 if net in chained else self._wire(net))))
        self._arrival, self._before = self._walk(begin, ways)
        self.ends = sorted(((self._arrival.get(net, 0.0) + self._wire(net) + setup,
                             self._register(cell, pin), net)
                            for cell in cells for pin, net, setup in cell.ends()), reverse=True)

    def _wire(self, net: int) -> float:
        return _WIRE + _WIRE_DOUBLED * math.log2(max(1, self._fan_out[net]))

    @staticmethod
    def _walk(begin: Mapping[int, float], ways: Mapping[int, list[tuple[int, float]]],
              ) -> tuple[dict[int, float], dict[int, int]]:
        """When each net has its value, and the net that it waits for."""
        arrival, before = dict(begin), {}
        try:
            order = TopologicalSorter(
                {net: [source for source, _ in inputs] for net, inputs in ways.items()}
            ).static_order()
            for net in order:
                if net in ways:
                    arrival[net], before[net] = max(
                        (arrival.get(source, 0.0) + delay, source) for source, delay in ways[net]
                    )
        except CycleError as error:
            raise UserError(f"nets {error.args[1][:4]} of the netlist form a loop") from None
        return arrival, before

    def _register(self, cell: _Cell, pin: str) -> str:
        """Name of a cell by its output, if that has one, and of the pin unless it is the data."""
        nets = cell.outputs.get("Q", [])
        name = self._names.get(nets[0], cell.name) if nets else cell.name
        return name if pin == "DI" else f"{name}:{pin}"

    def trace(self, net: int) -> list[str]:
        """Names of the nets of the longest path to a net, its register first."""
        path = [net]
        while (net := self._before.get(net, -1)) >= 0:
            path.append(net)
        return [self._names.get(net, str(net)) for net in reversed(path)]

    def summary(self, most: int = 12) -> dict[str, Any]:
        """Return counts beyond `LIMITS` and the longest path into each of the slowest units."""
        units: dict[str, dict[str, Any]] = {}
        for length, end, net in self.ends:
            unit = ".".join(end.split(":")[0].split(".")[:-1][:_UNIT_LEVELS])
            if unit not in units:
                if len(units) == most:
                    break
                path = self.trace(net)
                units[unit] = {"unit": unit, "ns": round(length, 2), "from": path[0], "to": end,
                               "nets": len(path)}
        return {
            "endpoints": len(self.ends), "longest_ns": round(self.ends[0][0], 2),
            "beyond": {str(limit): sum(length > limit for length, _, _ in self.ends)
                       for limit in LIMITS},
            "units": list(units.values()),
        }


def _cell(name: str, data: Mapping[str, Any]) -> _Cell:
    kind = data["type"]
    if kind in _OUTSIDE:
        return _Cell(name, kind)
    if kind == "MULT18X18D":
        used = {name for name in ("INPUTA", "INPUTB", "PIPELINE", "OUTPUT")
                if data["parameters"].get(f"REG_{name}_CLK", "NONE").strip() != "NONE"}
        if used:
            whole = used == {"INPUTA", "INPUTB", "OUTPUT"}
            kind = _REGISTERED if whole else f"{kind} with other registers"
    if kind not in (*_CLOCKED, "LUT4", "CCU2C", "MULT18X18D", "TRELLIS_DPR16X4"):
        raise UserError(f"cell {name} ({kind}) has no known delays")
    pins: dict[str, dict[str, list[int]]] = {"input": {}, "output": {}}
    for pin, bits in data["connections"].items():
        pins[data["port_directions"][pin]][pin] = [bit for bit in bits if isinstance(bit, int)]
    return _Cell(name, kind, pins["input"], pins["output"])


def _names(netnames: Mapping[str, Any]) -> dict[int, str]:
    """Shortest name of each net, one that yosys made only if there is no other."""
    best: dict[int, tuple[bool, int, str]] = {}
    for name, net in netnames.items():
        for index, bit in enumerate(net["bits"]):
            if isinstance(bit, int):
                whole = f"{name}[{index}]" if len(net["bits"]) > 1 else name
                rank = (bool(net.get("hide_name")), len(whole), whole)
                best[bit] = min(best.get(bit, rank), rank)
    return {bit: name for bit, (_, _, name) in best.items()}
