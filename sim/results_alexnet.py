"""Section of the results page about whole AlexNets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from model.alexnet import ALEXNETS
from model.config import PRESETS

__all__ = ["alexnet"]

Read = Callable[[Path, str], Any]
#: Files of whole AlexNets on the boards' configs: config, and one of how many words is kept in the
#: fully connected layers.
BOARD_RUNS = tuple(f"{board}-alexnet-a{kept}" for board in ("zcu104", "zc706") for kept in (32, 16))

Table = Callable[[Sequence[str], Sequence[Sequence[object]]], str]


def alexnet(folder: Path, read: Read, table: Table) -> str:
    """One part per network that was run."""
    parts = [_run(run, table) for name in ("alexnet", "alexnet-grouped")
             if (run := read(folder, f"{name}.json"))]
    boards = [(name, run) for name in BOARD_RUNS if (run := read(folder, f"{name}.json"))]
    if boards:
        parts.append(_boards(boards, table))
    return "## AlexNet, all layers\n" + "\n\n".join(parts) + "\n" if parts else ""


def dense_operations(network: str) -> int:
    """Two for each multiplication of the convolutions, done directly, without pruning."""
    shape = ALEXNETS[network]
    side, operations = shape.side, 0
    for conv in shape.convs:
        edge = (side + 2 * conv.padding - conv.kernel) // conv.stride + 1
        products = edge * edge * conv.out_channels * conv.in_channels // conv.groups
        operations += 2 * products * conv.kernel**2
        side = conv.out_side(side)
    return operations


def _boards(runs: Sequence[tuple[str, dict]], table: Table) -> str:
    """Whole AlexNets on the configs of the papers' boards: totals, then layers."""
    totals, layers = [], []
    for name, run in runs:
        config, clock, cycles = PRESETS[run["config"]], run["clock_hz"], max(run["cycles"])
        rate = run["memory"]["bytes_per_cycle"]
        of_conv = [layer for layer in run["layers"] if layer["name"].startswith("conv")]
        time = sum(layer["cycles"] for layer in of_conv) / clock
        lanes = config.tile_lanes * config.kernel_lanes
        products = sum(layer["mac_issue_cycles"] * layer["lanes_filled"] for layer in of_conv)
        totals.append((
            f"`{run['config']}`", f"1:{name.rpartition('-a')[2]}", run["multipliers"], cycles,
            f"{1000 * cycles / clock:.3f}", f"{clock / cycles:.0f}",
            f"{dense_operations(run['network']) / time / 1e9:.0f}",
            f"{6 * products * lanes / time / 1e9:.0f}", f"{run['read_bytes'][-1] / 1e6:.2f}",
            f"{rate * clock / 1e9:.1f}", run["words_compared"] if run["bit_exact"] else "NOT equal",
        ))
        for layer in run["layers"]:
            error = 100 * (layer["estimated_cycles"] / layer["cycles"] - 1)
            layers.append((
                f"`{run['config']}`", f"1:{name.rpartition('-a')[2]}", layer["name"],
                layer["cycles"], f"{error:+.1f} %", f"{100 * layer['mac_utilisation']:.1f} %",
                f"{100 * layer['lanes_filled']:.1f} %", f"{layer['bytes_read'] / 1e6:.3f}",
                f"{100 * layer['bytes_read'] / rate / layer['cycles']:.1f} %",
            ))
    return (
        "### alexnet on the configs of two boards\n"
        "Batch 1, convolutions `channel 1:4`, fully connected layers as given, random weights of 8 "
        "bits, simulated in RTL, memory latency 100 cycles. GOPS are of the convolutions with "
        "their pools: dense-equivalent, two operations for each multiplication of the convolutions "
        f"done directly ({dense_operations('alexnet') / 1e9:.3f} G in all); real, two for each "
        "of a lane's three multiplications where it has a weight. Electronics 2019 ran an AlexNet "
        "at 9.73 images/s on a ZCU104.\n\n"
        + table(("config", "fully connected", "multipliers", "cycles", "ms", "images/s",
                 "GOPS dense-equivalent", "GOPS real", "MB read", "memory GB/s", "words equal"),
                totals)
        + "\n\nOf the memory: bytes read in the layer's time against what the memory gives in it; "
        "above 100 % where the kernel buffer held beats that were read before.\n\n"
        + table(("config", "fully connected", "layer", "cycles", "estimate's error", "MAC issue",
                 "lanes filled", "MB read", "of the memory"), layers)
        + "\n\nCommand: `python -m sim.run alexnet --weights synthetic --config CONFIG "
        "--dense-alpha A --latency 100 --json docs/results/CONFIG-aA.json`, for the ZCU104 with "
        "`--bandwidth 0.75` (96 of the port's 128 bytes a cycle)."
    )


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
