"""Sections of docs/results.md that `sim.benchmark` measures or computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sim.bench.nngen import NNGEN, NNGEN_PORT

__all__ = ["sections"]

Reader = Callable[[Path, str], Any]
Tabler = Callable[[Sequence[str], Sequence[Sequence[object]]], str]


def sections(folder: Path, read: Reader, table: Tabler) -> str:
    """Every section whose file is there."""
    parts = [section(result, table) for name, section in SECTIONS
             if (result := read(folder, f"{name}.json"))]
    if runs := [read(folder, path.name) for path in sorted(folder.glob("sqnr-*.json"))]:
        parts.append(sqnr(runs, table))
    return "\n".join(parts)


def _kbit(bits: float) -> str:
    return f"{bits / 1000:.0f}"


def nngen(result: dict, table: Tabler) -> str:
    """Single layers beside NNgen."""
    rows = []
    for row in result["layers"]:
        name = row["name"]
        cycles, read, written, _ = NNGEN[name if name in NNGEN else f"{name.split('_')[0]}_x"]
        rows.append((
            name, f"{row['bytes_per_cycle']:g}", row["cycles"], cycles,
            f"{cycles / row['cycles']:.1f}×",
            f"{100 * row['mac_issue_cycles'] / row['cycles']:.0f} %",
            f"{row['read_bytes'] / 1e6:.2f} + {row['write_bytes'] / 1e6:.2f}",
            f"{read / 1e6:.1f} + {written / 1e6:.2f}", row["words_compared"],
        ))
    bits = result["ram_bits"]
    largest = ", ".join(f"{name} {_kbit(count)}" for name, count in list(bits.items())[:4])
    low, high = (choose(figures[3] for figures in NNGEN.values()) for choose in (min, max))
    return (
        f"## Single layers of VGG16 on `{result['config']}`, beside NNgen\n"
        f"{result['multipliers']} multipliers (NNgen: 144 + 4), 8-bit weights, {result['pattern']}"
        f", input {result['image']}. Each layer runs in RTL as a network of its own, every word "
        "equal to the golden model; cycles from start to idle, the map in and out included. Memory "
        f"as in front of NNgen: latency {result['latency']}, {result['gaps'][1]} of every "
        f"{result['gaps'][0]} cycles stalled; at the port's own width and at the "
        f"{NNGEN_PORT} bytes a cycle of NNgen's port.\n\n"
        + table(("layer", "bytes/cycle", "cycles", "NNgen 1.3.4", "faster by", "MAC issue",
                 "MB read + written", "NNgen", "words equal"), rows)
        + f"\n\nRAM: {_kbit(sum(bits.values()))} kbit ({largest}), NNgen's {low} to {high}: NNgen "
        "reads maps and kernels many times, here a layer's maps lie on chip and its kernels are "
        "read once for every group of tile blocks that the tile buffer holds. The multipliers "
        "here are wider (a product takes a 17 bit sum of words, NNgen's 8 × 8 bits).\n\n"
        "Command: `python -m sim.benchmark nngen --network build/vgg16-channel-a4-w8.npz --image "
        "FILE`.\n"
    )


def sqnr(runs: Sequence[dict], table: Tabler) -> str:
    """Signal to noise of every layer's map."""
    keys = ("layer_db", "integer_db", "pruned_db", "total_db")
    parts = []
    for run in runs:
        rows = [(entry["layer"], *(f"{entry[key]:.1f}" for key in keys)) for entry in run["layers"]]
        parts.append(f"### {run['network']}, weights of the pruned network: {run['pruned']}\n"
                     + table(("layer", "integer, layer alone", "integer, from the image",
                              "pruned to dense", "integer to dense"), rows) + "\n")
    return (
        "## Precision of VGG16, layer by layer\n"
        f"SQNR in dB of each layer's map after ReLU and pool on {runs[0]['held_out']} held-out "
        "photographs. Dense: floating point. Pruned: spectral weights in floating point. Integer: "
        "the golden model, equal to the RTL bit for bit, 8-bit activations. `layer alone`: the "
        "pruned layer sees the integer network's own input; its bound is the rounding of the "
        "output to 8 bits. Most of what is lost, pruning loses; the integers add little.\n\n"
        + "\n".join(parts)
        + "\nCommand: `python -m pruning.sqnr --network build/vgg16-PATTERN-a4-wB.npz --data DIR "
        "--json docs/results/sqnr-PATTERN-a4-wB.json`, for 8 bits with `--pruned "
        "build/vgg16-PATTERN-a4-w16.npz`.\n"
    )


SECTIONS: tuple[tuple[str, Callable[[dict, Tabler], str]], ...] = (("nngen", nngen),)
