"""Section of the results page about whole AlexNets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["alexnet"]

Read = Callable[[Path, str], Any]
Table = Callable[[Sequence[str], Sequence[Sequence[object]]], str]


def alexnet(folder: Path, read: Read, table: Table) -> str:
    """One part per network that was run."""
    parts = [_run(run, table) for name in ("alexnet", "alexnet-grouped")
             if (run := read(folder, f"{name}.json"))]
    return "## AlexNet, all layers\n" + "\n\n".join(parts) + "\n" if parts else ""


def _run(run: dict, table: Table) -> str:
    cycles, clock, name = max(run["cycles"]), run["clock_hz"], run["network"]
    rows = []
    for layer in run["layers"]:
        error = 100 * (layer["estimated_cycles"] / layer["cycles"] - 1)
        stalls = layer["stalls"]
        rows.append((
            layer["name"], layer["cycles"], layer["estimated_cycles"], f"{error:+.1f} %",
            layer["mac_issue_cycles"], f"{100 * layer['mac_utilisation']:.1f} %",
            stalls["tiles"], stalls["weights"], stalls["sums"],
            f"{layer['bytes_read'] / 1e6:.3f}",
        ))
    convolutions = sum(layer["cycles"] for layer in run["layers"] if layer["name"][:2] == "co")
    verdict = "equal to the golden model" if run["bit_exact"] else "NOT equal to the golden model"
    return (
        f"### {name} on `{run['config']}`, {run['pattern']}, random weights\n"
        f"Convolutions, pools and fully connected layers, batch 1, simulated in RTL: **{cycles} "
        f"cycles**, {1000 * cycles / clock:.2f} ms at {clock / 1e6:g} MHz with "
        f"{run['multipliers']} multipliers; {convolutions} of them in the convolutions and their "
        "pools. A fully connected layer uses one tile lane of three and waits for its weights. "
        f"{run['words_compared']} words {verdict}.\n\n"
        + table(("layer", "cycles", "estimate", "error", "MAC issue", "utilised", "wait tiles",
                 "wait weights", "wait sums", "MB read"), rows)
        + f"\n\nCommand: `python -m sim.run {name} --weights synthetic --latency 100 --json "
        f"docs/results/{name}.json`."
    )
