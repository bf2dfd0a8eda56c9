"""A netlist of ECP5 cells as tables that `ecp5.cpp` simulates.

The cells are those `synth_ecp5` writes for this project, each as yosys' own model of it (``LUT4``,
``PFUMX``, ``L6MUX21``, ``CCU2C``, ``INV``, ``TRELLIS_FF``, ``TRELLIS_DPR16X4``). It has none of
``DP16KD`` and ``MULT18X18D``: they are here as yosys' techlibs/lattice (brams_16kd.txt,
brams_map_16kd.v, dsp_map_18x18.v) uses them. A cell, mode or clock beyond that is a `UserError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model.errors import UserError

__all__ = ["Netlist"]

#: Kinds of nodes, modes of a port of a block RAM: see ecp5.cpp.
LUT, RAM, MULT = range(3)
WRITE_MODES = {"NORMAL": 0, "WRITETHROUGH": 1, "READBEFOREWRITE": 2}
#: Nets that are always 0 and 1, and one that open outputs drive.
ZERO, ONE, OPEN = range(3)
#: Table of ``c ? b : a``, of ``a ^ b`` and of ``!a``.
MUX, XOR, NOT = 0xCACA, 0x6666, 0x5555
ROWS_OF_A_BLOCK = 512

_VERILATED = """\
#pragma once
#include <cstddef>
#include <cstdint>
struct VerilatedContext {};
template <std::size_t N> struct VlWide {
    uint32_t words[N];
    uint32_t &operator[](std::size_t i) { return words[i]; }
    const uint32_t &operator[](std::size_t i) const { return words[i]; }
};
struct Engine;
"""


@dataclass
class _Node:
    """What gives nets their values without a clock."""

    inputs: list[int]
    outputs: list[int]
    table: int
    kind: int = LUT


@dataclass
class _Tables:
    """Lists of 32-bit words per cell, in the order of the structures in ecp5.cpp."""

    flipflops: list[list[int]] = field(default_factory=list)
    rams: list[list[int]] = field(default_factory=list)
    mults: list[list[int]] = field(default_factory=list)
    blocks: list[list[int]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)


class _Cell:
    """One cell of the netlist.

    Parameters
    ----------
    name, data : str, dict
        Of yosys' JSON.
    nets : function
        From bits of yosys to net numbers.
    """

    def __init__(self, name: str, data: dict[str, Any], nets: Any) -> None:
        self.name, self.kind = name, data["type"]
        self._parameters, self._pins, self._nets = data["parameters"], data["connections"], nets

    def pin(self, name: str) -> int:
        """Net at a pin of one bit; nothing is 0."""
        return self.pins(name)[0]

    def pins(self, name: str, width: int = 1) -> list[int]:
        """Nets at a pin of several bits."""
        return self._nets(self._pins.get(name, ["0"] * width))

    def row(self, prefix: str, width: int) -> list[int]:
        """Nets at pins ``prefix0``, ``prefix1`` and so on."""
        return [self.pin(f"{prefix}{index}") for index in range(width)]

    def output(self, name: str) -> int:
        """Net that a pin of one bit drives; an open one drives a net nobody reads."""
        return self._nets(self._pins.get(name, ["open"]))[0]

    def text(self, name: str, default: str) -> str:
        """Parameter that is a word; yosys adds a blank to those that look like numbers."""
        return self._parameters.get(name, default).strip()

    def number(self, name: str, default: int = 0) -> int:
        """Parameter that is a number."""
        bits = self._parameters.get(name)
        return default if bits is None else int(bits.replace("x", "0"), 2)

    def require(self, good: bool, what: str) -> None:
        """Refuse what is not modelled."""
        if not good:
            raise UserError(f"cell {self.name} ({self.kind}): {what} is not simulated")


class Netlist:
    """A flat design of ECP5 cells.

    Parameters
    ----------
    module : dict
        The top module of yosys' ``write_json``.

    Attributes
    ----------
    luts : dict
        Name of each LUT4 and the number of its node, for planted faults.
    ports : dict
        Direction and nets of each port.
    cells : dict
        How often it has each kind of cell.
    """

    def __init__(self, module: dict[str, Any]) -> None:
        self._numbers: dict[int | str, int] = {
            "0": ZERO, "x": ZERO, "z": ZERO, "1": ONE, "open": OPEN,
        }
        self._nodes: list[_Node] = []
        self._tables = _Tables()
        self.cells: dict[str, int] = {}
        luts: dict[str, _Node] = {}
        self.ports = {name: (port["direction"], self._nets(port["bits"]))
                      for name, port in module["ports"].items()}
        if "clk" not in self.ports:
            raise UserError("the netlist has no clock clk")
        self._clock = self.ports["clk"][1][0]
        for name, data in module["cells"].items():
            cell = _Cell(name, data, self._nets)
            if cell.kind == "$scopeinfo":
                continue
            self.cells[cell.kind] = self.cells.get(cell.kind, 0) + 1
            convert = getattr(self, f"_{cell.kind.lower()}", None)
            if convert is None:
                raise UserError(f"cell {name} is a {cell.kind}, which is not simulated")
            convert(cell)
            if cell.kind == "LUT4":
                luts[name] = self._nodes[-1]
        self._nodes = _sorted(self._nodes)
        order = {id(node): index for index, node in enumerate(self._nodes)}
        self.luts = {name: order[id(node)] for name, node in luts.items()}

    def _nets(self, bits: Sequence[int | str]) -> list[int]:
        return [self._numbers.setdefault(bit, len(self._numbers)) for bit in bits]

    def _new(self) -> int:
        return self._nets([f"new {len(self._numbers)}"])[0]

    def _lut(self, inputs: Sequence[int], output: int, table: int) -> None:
        filled = [*inputs, ZERO, ZERO, ZERO][:4]
        self._nodes.append(_Node(filled, [output], table))

    # One method for each kind of cell, named after it.

    def _lut4(self, cell: _Cell) -> None:
        self._lut([cell.pin(pin) for pin in "ABCD"], cell.output("Z"), cell.number("INIT"))

    def _inv(self, cell: _Cell) -> None:
        self._lut([cell.pin("A")], cell.output("Z"), NOT)

    def _pfumx(self, cell: _Cell) -> None:
        self._lut([cell.pin("BLUT"), cell.pin("ALUT"), cell.pin("C0")], cell.output("Z"), MUX)

    def _l6mux21(self, cell: _Cell) -> None:
        self._lut([cell.pin("D0"), cell.pin("D1"), cell.pin("SD")], cell.output("Z"), MUX)

    def _ccu2c(self, cell: _Cell) -> None:
        carry = cell.pin("CIN")
        for half in "01":
            init, inject = cell.number(f"INIT{half}"), cell.text(f"INJECT1_{half}", "YES") == "YES"
            inputs = [cell.pin(f"{pin}{half}") for pin in "ABCD"]
            value = self._new()
            self._lut(inputs, value, init)
            self._lut([value, ZERO if inject else carry], cell.output(f"S{half}"), XOR)
            # ~value & the table's first four bits (of A, B), or value & carry.
            first = 0 if inject else init
            table = sum((index >> 3 if index & 1 else first >> (index >> 1 & 3) & 1) << index
                        for index in range(16))
            out = cell.output("COUT") if half == "1" else self._new()
            self._lut([value, *inputs[:2], carry], out, table)
            carry = out

    def _trellis_ff(self, cell: _Cell) -> None:
        cell.require(cell.pin("CLK") == self._clock and cell.text("CLKMUX", "CLK") == "CLK",
                     "a clock other than clk")
        cell.require(cell.text("LSRMODE", "LSR") == "LSR", "a reset to M")
        inverted = cell.text("LSRMUX", "LSR") == "INV"
        cell.require(cell.text("SRMODE", "LSR_OVER_CE") == "LSR_OVER_CE"
                     or cell.pin("LSR") == (ONE if inverted else ZERO), "an asynchronous reset")
        mux = cell.text("CEMUX", "1")
        enable = {"1": ONE, "0": ZERO}.get(mux)
        flags = ((cell.text("REGSET", "RESET") == "SET") | (mux == "INV") << 1 | inverted << 2)
        self._tables.flipflops.append([
            cell.output("Q"), cell.pin("DI"), cell.pin("CE") if enable is None else enable,
            cell.pin("LSR"), flags,
        ])

    def _trellis_dpr16x4(self, cell: _Cell) -> None:
        cell.require(cell.pin("WCK") == self._clock and cell.text("WCKMUX", "WCK") == "WCK",
                     "a clock other than clk")
        cell.require(cell.text("WREMUX", "WRE") == "WRE", "an inverted write enable")
        read, init = cell.pins("RAD", 4), cell.number("INITVAL")
        out = self._nets(cell._pins["DO"])
        self._nodes.append(_Node(read, out, len(self._tables.rams), RAM))
        self._tables.rams.append([
            *cell.pins("DI", 4), *cell.pins("WAD", 4), cell.pin("WRE"), *read, *out,
            init & 0xFFFF_FFFF, init >> 32,
        ])

    def _mult18x18d(self, cell: _Cell) -> None:
        for register in ("INPUTC", "PIPELINE"):
            cell.require(cell.text(f"REG_{register}_CLK", "NONE") == "NONE", "this register")
        cell.require(cell.text("MULT_BYPASS", "DISABLED") == "DISABLED"
                     and cell.pin("SOURCEA") == cell.pin("SOURCEB") == ZERO, "another source")
        signs = [cell.pin("SIGNEDA"), cell.pin("SIGNEDB")]
        inputs, out = [], [cell.output(f"P{index}") for index in range(36)]
        for pin in "AB":
            operand = cell.row(pin, 18)
            if self._registered(cell, f"INPUT{pin}"):
                held = {ZERO: ZERO, ONE: ONE}
                for net in operand:
                    if net not in held:
                        held[net] = self._new()
                        self._register(net, held[net])
                operand = [held[net] for net in operand]
                cell.require(set(signs) <= {ZERO, ONE}, "a sign that changes, with a register")
            inputs += operand
        inputs += signs
        if self._registered(cell, "OUTPUT"):
            for index, net in enumerate(out):
                if net != OPEN:
                    out[index] = self._new()
                    self._register(out[index], net)
        self._nodes.append(_Node(inputs, out, len(self._tables.mults), MULT))
        self._tables.mults.append([*inputs, *out])

    def _registered(self, cell: _Cell, name: str) -> bool:
        """Whether operands or product of a multiplier have a register, which is always enabled."""
        used = {part: cell.text(f"REG_{name}_{part}", "NONE") for part in ("CLK", "CE", "RST")}
        if used["CLK"] == "NONE":
            return False
        cell.require(used == {part: f"{part}0" for part in used}
                     and cell.pin("CLK0") == self._clock
                     and cell.text("CLK0_DIV", "ENABLED") == "ENABLED"
                     and cell.pin("CE0") == ONE and cell.pin("RST0") == ZERO,
                     "a register with an enable, a reset or a clock other than clk")
        return True

    def _register(self, d: int, q: int) -> None:
        """Add a flip-flop with nothing but a clock."""
        self._tables.flipflops.append([q, d, ONE, ZERO, 0])

    def _dp16kd(self, cell: _Cell) -> None:
        words = []
        for side in "AB":
            width = cell.number(f"DATA_WIDTH_{side}", 18)
            mode = cell.text(f"WRITEMODE_{side}", "NORMAL")
            cell.require(cell.text(f"REGMODE_{side}", "NOREG") == "NOREG", "an output register")
            cell.require(cell.pin(f"RST{side}") == ZERO, "a reset")
            cell.require(all(cell.pin(f"CS{side}{index}") == ZERO for index in range(3))
                         and cell.text(f"CSDECODE_{side}", "0b000") == "0b000", "a chip select")
            clocked = cell.pin(f"CLK{side}") == self._clock or cell.pin(f"CE{side}") == ZERO
            cell.require(clocked and cell.text(f"CLK{side}MUX", f"CLK{side}") == f"CLK{side}",
                         "a clock other than clk")
            cell.require(width != 36 or (mode == "NORMAL" and cell.pin(f"WE{side}")
                                         == (ONE if side == "A" else ZERO)),
                         "a port of 36 bits but A to write and B to read")
            words += [
                *cell.row(f"AD{side}", 14), *cell.row(f"DI{side}", 18),
                *(cell.output(f"DO{side}{index}") for index in range(18)),
                cell.pin(f"CE{side}"), cell.pin(f"WE{side}"), width, WRITE_MODES[mode],
            ]
        rows = self._contents(cell)
        first = 0xFFFF_FFFF
        if any(rows):
            first = len(self._tables.rows)
            self._tables.rows += rows
        self._tables.blocks.append([*words, first])

    @staticmethod
    def _contents(cell: _Cell) -> list[int]:
        """Read the initial rows of 36 bits: INITVAL_xx has 16 words of 18, 20 bits apart."""
        words = []
        for index in range(64):
            value = cell.number(f"INITVAL_{index:02X}")
            words += [value >> 20 * word & 0x3FFFF for word in range(16)]
        return [words[2 * row] | words[2 * row + 1] << 18 for row in range(ROWS_OF_A_BLOCK)]

    # ---------------------------------------------------------------- C++

    def header(self) -> str:
        """``Vtop.h``: the ports, and what harnesses know of Verilator, as Verilator declares it."""
        ports = "\n".join(f"    {_type(len(nets))} {_member(name)} = {{}};"
                          for name, (_, nets) in self.ports.items())
        return (
            f"{_VERILATED}struct Vtop {{\n{ports}\n    explicit Vtop(VerilatedContext *);\n"
            "    ~Vtop();\n    void eval();\n    void final() {}\n    Engine *engine;\n};\n"
        )

    def source(self) -> str:
        """``netlist.h``: all tables."""
        nodes = [[*node.inputs, *node.outputs, node.table, LUT] if node.kind == LUT
                 else [ZERO] * 5 + [node.table, node.kind] for node in self._nodes]
        pins: list[int] = []
        sides: dict[str, list[str]] = {"input": [], "output": []}
        for name, (direction, nets) in self.ports.items():
            sides[direction].append(f"{{&top->{_member(name)}, {len(pins)}, {len(nets)}}}")
            pins += nets
        tables = self._tables
        return "\n".join([
            f"constexpr size_t NETS = {len(self._numbers)};",
            _array("Node", "NODE", nodes, constant=False),
            _array("FlipFlop", "FLIPFLOP", tables.flipflops),
            _array("LutRam", "RAM", tables.rams), _array("Multiplier", "MULT", tables.mults),
            _array("BlockRam", "BLOCK", tables.blocks),
            f"const uint64_t ROWS[] = {{{_numbers([*tables.rows, 0])}}};",
            f"const uint32_t PINS[] = {{{_numbers(pins)}}};",
            *(f"std::array<Pins, {len(ports)}> {side}_ports(Vtop *top) {{\n"
              f"    return {{{{{', '.join(ports)}}}}};\n}}"
              for side, ports in (("in", sides["input"]), ("out", sides["output"]))),
        ]) + "\n"


def _sorted(nodes: list[_Node]) -> list[_Node]:
    """Nodes in an order in which each comes after those that give it its inputs."""
    driver = {net: index for index, node in enumerate(nodes) for net in node.outputs if net != OPEN}
    order: list[_Node] = []
    state = np.zeros(len(nodes), np.uint8)      # 1: begun, 2: in the order
    for root in range(len(nodes)):
        stack = [root]
        while stack:
            index = stack[-1]
            if state[index] == 2:
                stack.pop()
                continue
            begun, state[index] = state[index], 1
            waiting = [] if begun else [
                driver[net] for net in nodes[index].inputs
                if net in driver and state[driver[net]] != 2
            ]
            if any(state[other] == 1 for other in waiting):
                raise UserError("the netlist has a loop without a flip-flop")
            if waiting:
                stack += waiting
                continue
            stack.pop()
            state[index] = 2
            order.append(nodes[index])
    return order


def _type(width: int) -> str:
    for bits in (8, 16, 32, 64):
        if width <= bits:
            return f"uint{bits}_t"
    return f"VlWide<{(width + 31) // 32}>"


def _member(port: str) -> str:
    return port.replace("__", "___05F")


def _numbers(values: Sequence[int]) -> str:
    return ",".join(map(str, values))


def _array(kind: str, name: str, rows: Sequence[Sequence[int]], *, constant: bool = True) -> str:
    """C++ array of structures, whose braces may be left out."""
    text = ",\n".join(map(_numbers, rows)) or "0"
    return (f"constexpr size_t {name}_COUNT = {len(rows)};\n{'const ' if constant else ''}"
            f"{kind} {name}S[] = {{\n{text}\n}};")
