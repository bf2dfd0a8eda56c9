"""Section of the results page about batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["batches"]

Read = Callable[[Path, str], Any]
Table = Callable[[Sequence[str], Sequence[Sequence[object]]], str]
#: Run of several images at a time, run of single ones, and the command of the first.
RUNS = (
    ("batch-lenet", "run-lenet-channel-a4", "lenet --index 0:4 --batch 4"),
    ("batch-alexnet", "alexnet", "alexnet --weights synthetic --latency 100 --batch 3"),
)


def batches(folder: Path, read: Read, table: Table) -> str:
    """Cycles and bytes of an image in a batch, beside those of an image alone."""
    rows, commands = [], []
    for name, alone, command in RUNS:
        run, single = read(folder, f"{name}.json"), read(folder, f"{alone}.json")
        if not run or not single:
            continue
        batch, cycles, clock = run["batch"], max(run["cycles"]), run["clock_hz"]
        estimated = sum(layer["estimated_cycles"] for layer in run["layers"])
        dense = [layer for layer in run["layers"] if "," not in layer["name"]]
        rows.append((
            run["network"], f"`{run['config']}`", run["pattern"], batch, cycles,
            round(cycles / batch), max(single["cycles"]), f"{clock * batch / cycles:.0f}",
            f"{clock / 1e6:g}",
            f"{sum(layer['cycles'] for layer in dense) / batch:.0f}",
            f"{max(run['read_bytes']) / batch / 1e6:.3f}", f"{max(single['read_bytes']) / 1e6:.3f}",
            f"{100 * (estimated / cycles - 1):+.1f} %",
            run["words_compared"] if run["bit_exact"] else "NOT equal",
        ))
        commands.append(f"`python -m sim.run {command} --json docs/results/{name}.json`")
    if not rows:
        return ""
    return (
        "## Batches\nSeveral images in a run, simulated in RTL: the convolutions image after "
        "image, the fully connected layers for all images at once, one in each tile lane.\n\n"
        + table(("network", "config", "pattern", "batch", "cycles of a batch", "cycles of an image",
                 "cycles alone", "images/s", "clock MHz", "fully connected cycles of an image",
                 "MB read for an image", "MB alone", "estimate's error", "words equal"), rows)
        + "\n\nCommands: " + "; ".join(commands) + ".\n"
    )
