"""Zynq boards: the core as an IP with AXI ports, and a design with the processors around it.

Writes Verilog and Tcl for Vivado; the Tcl lies in ``boards/tcl``, with its settings in a file of
its own. Ports follow Arm IHI 0022H; commands AMD UG835 (Tcl), UG1118 (packaging), UG994 (block
designs).
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from amaranth.build.run import BuildPlan

from boards.table import ZynqBoard
from boards.vivado import extract, read_figures, run_vivado
from model.config import AcceleratorConfig
from model.errors import UserError
from rtl import __version__
from rtl.axi.lite import AxiLite
from rtl.axi.signatures import DATA_BITS, Axi4LiteSignature, Axi4Signature
from rtl.build import top_name, verilog_of

__all__ = ["build_board", "make_plan", "split"]

_TCL = Path(__file__).parent / "tcl"
#: Bursts the core has under way on each port, and beats of its longest one (LOAD).
_OUTSTANDING, _LONGEST_BURST = 8, 64

_SCRIPT = """\
#!/bin/sh
# Packages the core as an IP, then builds {name}.bit and {name}.xsa around it.
set -e
cd "$(dirname "$0")"
: "${{VIVADO:=vivado}}"
for step in package system; do
    "$VIVADO" -mode batch -notrace -nojournal -log "$step.log" -source "$step.tcl"
done
"""


def split(board: ZynqBoard, config: AcceleratorConfig) -> tuple[int, int]:
    """Memory ports that a config takes of a board, and bits of each as the core has them.

    They may have twice the bits of the board's ports; then the interconnect halves them, and the
    board's ports get a faster clock of their own (``memory_clock_hz``).
    """
    count = min(board.ports, max(1, config.port_bits // board.widest))
    width = config.port_bits // count
    if width > 2 * board.widest or width not in DATA_BITS:
        raise UserError(f"config {config.name} has a memory port of {config.port_bits} bits, "
                        f"{board.id} has {board.ports} of {board.widest}, or of twice as many "
                        "through its interconnect: choose another config")
    return count, width


def _tcl(value: Any) -> str:
    """Literal; lists of words, and text without braces."""
    text = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return f"{{{text}}}" if isinstance(value, (list, tuple)) or " " in text else text


def _settings(board: ZynqBoard, config: AcceleratorConfig, clock_hz: int) -> str:
    count, width = split(board, config)
    settings = {
        "name": board.design, "top": top_name(config, "axi"),
        "title": f"spectralcnn {__version__}, config {config.name}, digest {config.digest:08x}",
        "vendor": "spectralcnn", "library": "accelerator",
        "version": ".".join(__version__.split(".")[:2]),
        "part": board.part, "board_files": board.files,
        "masters": [f"m_axi_{port}" for port in range(count)] if count > 1 else ["m_axi"],
        "slave": "s_axi", "width": width,
        "port_width": min(width, board.widest), "addr_bits": board.addr_bits,
        "outstanding": _OUTSTANDING, "longest_burst": _LONGEST_BURST,
        "axi4": list(Axi4Signature(data_bits=width).members),
        "axi4lite": list(Axi4LiteSignature(addr_bits=AxiLite.ADDR_BITS).members),
        "registers": f"{board.registers:#010x}", "register_bits": AxiLite.ADDR_BITS,
        "clock_mhz": f"{clock_hz / 1e6:g}", "memory_clock_mhz":
        f"{(board.memory_clock_hz if width > board.widest else clock_hz) / 1e6:g}",
    }
    lines = [f"set {key} {_tcl(value)}" for key, value in settings.items()]
    return "# Written by `python -m rtl.build --board`; do not edit.\n" + "\n".join(lines) + "\n"


def make_plan(board: ZynqBoard, config: AcceleratorConfig, clock_hz: int) -> BuildPlan:
    """Files of a board's build.

    Parameters
    ----------
    board : ZynqBoard
        The board.
    config : AcceleratorConfig
        What to build into it; its memory port is cut into the board's.
    clock_hz : int
        Clock to ask of the processing system, which makes the nearest it can.
    """
    count, _ = split(board, config)
    config = dataclasses.replace(config, clock_hz=clock_hz)
    plan = BuildPlan(f"build_{board.design}")
    plan.add_file("settings.tcl", _settings(board, config, clock_hz))
    for name in ("package.tcl", "system.tcl"):
        plan.add_file(name, (_TCL / name).read_text())
    plan.add_file("processors.tcl", (_TCL / f"{board.processors}.tcl").read_text())
    plan.add_file(f"{plan.script}.sh", _SCRIPT.format(name=board.design))
    plan.add_file("config.json", config.to_json())
    plan.add_file(f"{top_name(config, 'axi')}.v", verilog_of(
        config, "axi", ports=count, stride=board.stride if count > 1 else 0,
        addr_bits=board.addr_bits,
    ))
    return plan


def build_board(board: ZynqBoard, folder: Path, *, config: AcceleratorConfig | None,
                clock_hz: int | None, plan_only: bool) -> dict[str, Any]:
    """Write a board's build and run it, or only write it; as `boards.build.build_board`."""
    config = config or board.accelerator()
    clock_hz = clock_hz or board.clock_hz
    plan = make_plan(board, config, clock_hz)
    products = tuple(board.design + suffix for suffix in (".bit", ".xsa", ".slack"))
    report: dict[str, Any] = {
        "board": board.id, "config": config.name, "digest": f"{config.digest:08x}",
        "clock_hz": clock_hz,
    }
    if plan_only:
        extract(plan, folder, products)
        return report | {"text": f"{folder / plan.script}.sh: run it with vivado on the PATH; "
                         "package.tcl alone makes the IP"}
    built = run_vivado(plan, folder, products)
    fmax_hz = read_figures(folder, board.design, clock_hz)
    bit, platform = (folder / name for name in products[:2])
    return report | {
        "bitstream": os.fspath(bit), "platform": os.fspath(platform), "built": built,
        "fmax_hz": fmax_hz,
        "text": f"{bit}, {platform}" + ("" if built else " (were there)")
                + f"\nclock {clock_hz / 1e6:g} MHz, timing closes at {fmax_hz / 1e6:.1f} MHz",
    }
