"""Bitstreams for the 7 series by Vivado, which the user installs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from boards.bitstream import Bitstream
from boards.mmcm import Mmcm
from boards.table import Board
from model.errors import UserError
from model.files import write_atomic

__all__ = ["build_bitstream", "extract", "overrides", "read_figures", "run_vivado"]

#: Ends the build before the bitstream is written if the timing does not close.
_JUDGE = """\
set setup [get_property SLACK [get_timing_paths -setup -max_paths 1]]
set hold [get_property SLACK [get_timing_paths -hold -max_paths 1]]
set file [open {design}.slack w]
puts $file "$setup $hold"
close $file
if {{$setup < 0 || $hold < 0}} {{
    error "timing does not close: slack of setup $setup ns, of hold $hold ns"
}}"""


def overrides(board: Board) -> dict[str, Any]:
    """Arguments of Amaranth's ``platform.build``."""
    return {"script_before_bitstream": _JUDGE.format(design=board.design),
            "vivado_opts": ["-notrace", "-nojournal"]}


def _tool() -> str | None:
    return shutil.which(os.environ.get("VIVADO", "vivado"))


def extract(plan: Any, folder: Path, products: tuple[str, ...]) -> None:
    """Write a plan's files; products of another plan are removed, so that none is taken for ours.

    Parameters
    ----------
    plan : BuildPlan
        Of Amaranth, or alike.
    folder : Path
        Where to.
    products : tuple of str
        Names of what a build leaves there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record, digest = folder / "build.json", plan.digest().hex()
    try:
        known = json.loads(record.read_text()).get("plan")
    except (OSError, ValueError):
        known = None
    if known != digest:
        for stale in products:
            (folder / stale).unlink(missing_ok=True)
    plan.extract(folder)
    write_atomic(record, json.dumps({"plan": digest}) + "\n")


def run_vivado(plan: Any, folder: Path, products: tuple[str, ...]) -> bool:
    """Run a plan's script in ``folder``, unless its products are there; whether it ran.

    Raises
    ------
    UserError
        Vivado is not on the PATH (the files are written all the same), or it fails.
    """
    extract(plan, folder, products)
    tool = _tool()
    if tool is None:
        raise UserError(
            f"Vivado is not on the PATH: {folder} has the files of the build, and no bitstream; "
            f"run sh {plan.script}.sh there with vivado on the PATH, or repeat this command"
        )
    if all((folder / name).exists() for name in products):
        return False
    for stale in products:
        (folder / stale).unlink(missing_ok=True)
    with (folder / "build.log").open("w") as log:
        done = subprocess.run(["sh", f"{plan.script}.sh"], cwd=folder, stdout=log,
                              stderr=subprocess.STDOUT, env=os.environ | {"VIVADO": tool})
    if done.returncode or not (folder / products[0]).exists():
        lines = (folder / "build.log").read_text(errors="replace").splitlines()
        told = next((line for line in lines if "ERROR" in line or "timing does not" in line),
                    lines[-1] if lines else "")
        raise UserError(f"the build failed, see {folder / 'build.log'}: {told.strip()}")
    return True


def read_figures(folder: Path, design: str, clock_hz: int) -> float:
    """Fastest clock the timing analysis allows, of the slack a script wrote."""
    setup = float((folder / f"{design}.slack").read_text().split()[0])
    return 1 / (1 / clock_hz - 1e-9 * setup)


def build_bitstream(board: Board, plan: Any, mmcm: Mmcm, folder: Path) -> Bitstream:
    """Run a build plan in ``folder``, or find its result there; raises as `run_vivado`."""
    bit = folder / f"{board.design}.bit"
    built = run_vivado(plan, folder, (bit.name, f"{board.design}.slack"))
    return Bitstream(bit, bit.stat().st_size, mmcm.output_hz,
                     read_figures(folder, board.design, mmcm.output_hz), built)
