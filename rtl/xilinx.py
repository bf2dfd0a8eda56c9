"""Resources of a large config on UltraScale+ or 7 series, part by part: ``python -m rtl.xilinx``.

yosys (``synth_xilinx -family xcup``, or ``xc7``) cannot take a core of 896 lanes at once, so each
kind of part is synthesised by itself and multiplied by how often the core has it; multiplexers
between the parts are few. Yosys maps each product to a DSP48 and leaves the accumulator in the
fabric, where Vivado would take it into the same DSP48.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from amaranth.lib import wiring
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from model.config import AcceleratorConfig, load_config
from model.console import report_console
from model.errors import Parser, UserError, command
from model.files import check_target, write_output
from rtl.checker import Checker
from rtl.control import Controller
from rtl.convert import convert_rtlil
from rtl.csr import Csr
from rtl.dma import InputDma, OutputDma
from rtl.drain import Drain
from rtl.feature import FeatureMemory
from rtl.fft.forward import ForwardFFT
from rtl.fft.inverse import InverseFFT
from rtl.issue import Issue
from rtl.kernelbuffer import KernelBuffer
from rtl.loader import Loader
from rtl.mac import MacLane
from rtl.mappool import MapPool
from rtl.memory import ReadArbiter
from rtl.parameters import ParamMemory
from rtl.places import Places
from rtl.postrows import RowPost, RowQueue
from rtl.prefetch import Prefetch
from rtl.resources import HIDE_NAMES, run_yosys
from rtl.sequencer import Sequencer
from rtl.signatures import StoreTag
from rtl.sums import SumBuffer, SumReader
from rtl.tilebuffer import TileBuffer
from rtl.walker import TileWalker
from rtl.writer import BankWriter

__all__ = ["FAMILIES", "count_parts", "main", "parts", "xilinx_resources"]

#: Families of yosys, and the multiplier of each.
FAMILIES = {"xcup": "DSP48E2", "xc7": "DSP48E1"}
#: What else is counted; the cells of each kind are found by how their names begin.
_KINDS = {
    "LUT": ("LUT",), "FF": ("FDRE", "FDSE", "FDCE", "FDPE"),
    "SRL": ("SRL",), "LUTRAM": ("RAM32", "RAM64", "RAM128", "RAM256"), "BRAM36": ("RAMB36",),
    "BRAM18": ("RAMB18",), "URAM": ("URAM",),
}


def parts(
    config: AcceleratorConfig,
) -> dict[str, tuple[int, Callable[[], wiring.Component]]]:
    """Return how often a core has each part, and what builds the part."""
    lane = dataclasses.replace(config, tile_lanes=1, dot_lanes=1)
    bank = dataclasses.replace(config, feature_banks=1, post_values=1, port_bits=64,
                               kernel_lanes=8, inverse_rows=1, window=1, dot_lanes=1)
    lanes, banks = config.tile_lanes, config.feature_banks
    return {
        "complex lane": (lanes * config.kernel_lanes, lambda: MacLane(
            banks=config.banks, word_bits=config.word_bits, weight_bits=config.weight_bits,
            acc_bits=config.acc_bits, window=config.window)),
        # Its tile lanes' sums meet: no part of one lane alone.
        **({"drain": (1, lambda: Drain(config))} if config.dot_lanes > 1 else
           {"drain of a tile lane": (lanes, lambda: Drain(lane))}),
        "tile buffer of a tile lane": (lanes, lambda: TileBuffer(config=lane)),
        "forward FFT": (banks, lambda: ForwardFFT(config)),
        "sum buffer of a tile lane": (lanes, lambda: SumBuffer(config=lane)),
        "inverse FFT": (lanes, lambda: InverseFFT(StoreTag, config.inverse_rows)),
        "row post": (lanes, lambda: RowPost(config=config)),
        "row queue": (banks, lambda: RowQueue(config=config)),
        "bank writer": (banks, lambda: BankWriter(config=config)),
        "feature bank": (banks, lambda: FeatureMemory(config=bank)),
        "tile walker": (1, lambda: TileWalker(config=config)),
        **({"map pool": (1, lambda: MapPool(config=config))} if config.map_pool else {}),
        "sum reader": (1, lambda: SumReader(config=config)),
        "loader": (1, lambda: Loader(config=config)),
        "issue": (1, lambda: Issue(config)),
        **({"places": (1, lambda: Places(config))} if config.window > 1 else {}),
        "kernel buffer": (1, lambda: KernelBuffer(config=config)),
        "parameters": (1, lambda: ParamMemory(config=config)),
        "prefetch": (1, lambda: Prefetch(config=config)),
        "checker": (1, lambda: Checker(config=config)),
        "read arbiter": (1, lambda: ReadArbiter(clients=3, port_bits=config.port_bits)),
        "input DMA": (1, lambda: InputDma(config=config)),
        "output DMA": (1, lambda: OutputDma(config=config)),
        "sequencer": (1, lambda: Sequencer(config=config, clients=5)),
        "registers": (1, lambda: Csr(config=config)),
        "control": (1, Controller),
    }


def _kinds(family: str) -> dict[str, tuple[str, ...]]:
    multiplier = FAMILIES[family]
    return {multiplier: (multiplier,), **_KINDS}


def xilinx_resources(component: wiring.Component, family: str = "xcup") -> dict[str, int]:
    """Cells of a component after ``synth_xilinx -family FAMILY``, by kind."""
    uram = " -uram" if family == "xcup" else ""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "top.il").write_text(convert_rtlil(component, initial=False))
        run_yosys(
            f"read_rtlil top.il; {HIDE_NAMES}; synth_xilinx -family {family}{uram} -noiopad "
            "-noclkbuf -top top; tee -q -o stat.json stat -json", folder,
        )
        cells = json.loads((folder / "stat.json").read_text())["design"]["num_cells_by_type"]
    return {
        kind: sum(count for cell, count in cells.items() if cell.startswith(begins))
        for kind, begins in _kinds(family).items()
    }


def count_parts(config: AcceleratorConfig, family: str = "xcup", *, chosen: Sequence[str] = (),
                rows: dict[str, dict[str, int]] | None = None) -> dict[str, Any]:
    """Synthesise the parts of a config, one after the other.

    Parameters
    ----------
    config : AcceleratorConfig
        With several feature banks.
    family : str
        One of `FAMILIES`.
    chosen : sequence of str
        Only these parts; by default all.
    rows : dict or None
        Counts of others, from before.

    Returns
    -------
    dict
        ``parts`` (each with its ``count``), ``total`` and whether it is ``complete``.
    """
    known, rows = parts(config), dict(rows or {})
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for name in progress.track(chosen or list(known), description="synth_xilinx"):
            count, build = known[name]
            rows[name] = {"count": count} | xilinx_resources(build(), family)
    rows = {name: rows[name] for name in known if name in rows}
    total = {kind: sum(row["count"] * row[kind] for row in rows.values())
             for kind in _kinds(family)}
    return {"complete": len(rows) == len(known), "parts": rows, "total": total}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m rtl.xilinx", description=__doc__)
    parser.add_argument("--config", default="u200", metavar="NAME|FILE", help="default: u200")
    parser.add_argument("--family", default="xcup", choices=sorted(FAMILIES),
                        help="xcup: UltraScale+ (default); xc7: 7 series and Zynq-7000")
    parser.add_argument("--part", action="append", metavar="NAME", help="only this one (or these)")
    parser.add_argument("--json", type=Path, metavar="FILE",
                        help="write the numbers; with --part, the other ones stay in it")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Synthesise the parts of a config and print what they take."""
    args = _parser().parse_args(argv)
    config = load_config(args.config)
    if config.feature_banks == 1:
        raise UserError(f"config {config.name} has one feature bank: count it as a whole with "
                        "python -m rtl.build")
    check_target(args.json)
    known = parts(config)
    chosen = args.part or list(known)
    for name in chosen:
        if name not in known:
            raise UserError(f"unknown part {name!r}: known are {', '.join(known)}")
    rows: dict[str, dict[str, int]] = {}
    if args.part and args.json is not None and args.json.exists():
        rows = json.loads(args.json.read_text())["parts"]
    found = count_parts(config, args.family, chosen=chosen, rows=rows)
    table = Table("part", "count", *found["total"])
    for name, row in found["parts"].items():
        table.add_row(name, *(str(value) for value in row.values()))
    table.add_row("total", "", *(str(value) for value in found["total"].values()))
    report_console().print(table)
    if args.json is not None:
        content = {"config": config.name, "digest": f"{config.digest:08x}",
                   "family": args.family, **found}
        write_output(args.json, json.dumps(content, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
