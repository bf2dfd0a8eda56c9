"""Sections of docs/results.md that `sim.benchmark` measures or computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sim.bench.layers import CHANNEL_BYTES
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
        lost = max(entry["pruned_db"] - entry["total_db"] for entry in run["layers"])
        parts.append(f"### {run['network']}, weights of the pruned network: {run['pruned']}\n"
                     + table(("layer", "integer, layer alone", "integer, from the image",
                              "pruned to dense", "integer to dense"), rows)
                     + f"\n\nOn top of pruning the integers cost up to {lost:.1f} dB.\n")
    return (
        "## Precision of VGG16, layer by layer\n"
        f"SQNR in dB of each layer's map after ReLU and pool on {runs[0]['held_out']} held-out "
        "photographs. Dense: floating point. Pruned: spectral weights in floating point. Integer: "
        "the golden model, equal to the RTL bit for bit, 8-bit activations. `layer alone`: the "
        "pruned layer sees the integer network's own input; its bound is the rounding of the "
        "output to 8 bits.\n\n"
        + "\n".join(parts)
        + "\nCommand: `python -m pruning.sqnr --network build/vgg16-PATTERN-a4-wB.npz --data DIR "
        "--json docs/results/sqnr-PATTERN-a4-wB.json`, for 8 bits with `--pruned "
        "build/vgg16-PATTERN-a4-w16.npz`.\n"
    )


def roofline(result: dict, table: Tabler) -> str:
    """Products per cycle and per byte of each layer."""
    rows = [(row["name"], f"{row['products'] / 1e6:.2f}", f"{row['products_per_cycle']:.0f}",
             f"{row['intensity']:.1f}", row["bound"], row["bound_96"]) for row in result["layers"]]
    lanes, port = result["lanes"], result["port_bytes"]
    return (
        f"## Roofline of `{result['config']}`\n"
        f"{lanes} complex products a cycle at most; the roofs meet at {lanes / port:.1f} products "
        f"per byte with {port} bytes a cycle and at {lanes / CHANNEL_BYTES:.1f} with "
        f"{CHANNEL_BYTES} (one DDR4 channel of 19.2 GB/s at 200 MHz). The columns name the roof "
        "above a point, not what held it down: conv1_1 waits for its input and its inverse "
        "transforms; kernels read while layers before compute lift a point above the sloping roof; "
        "lanes without a tile keep points below the flat one.\n\n"
        + table(("layer", "products, million", "products per cycle", "products per byte",
                 f"roof at {port}", f"roof at {CHANNEL_BYTES}"), rows)
        + "\n\n![roofline](results/roofline.png)\n![cycles and utilisation](results/cycles.png)\n\n"
        "Command: `python -m sim.benchmark layers`, of the run above.\n"
    )


def flows(result: dict, table: Tabler) -> str:
    """External bytes per flow."""
    rows, head = [], ["layer"]
    columns: list[list[int]] = []
    for group in result["groups"]:
        for name, sizes in group["flows"].items():
            head.append(f"{group['key']}: {name}")
            columns.append(sizes)
    head.append(f"{result['config']} in RTL")
    columns.append(result["measured"])
    for index, name in enumerate(result["names"]):
        rows.append((name, *(f"{column[index] / 1e6:.2f}" for column in columns)))
    rows.append(("total", *(f"{sum(column) / 1e6:.1f}" for column in columns)))
    saved = [(group["title"], group["better"], f"{sum(group['flows'][group['better']]) / 1e6:.1f}",
              f"{100 * group['saved_by_choice']:.1f} %", f"{100 * group['saved_by_run']:.1f} %")
             for group in result["groups"]]
    memories = ", ".join(f"{name} {count / 1e6:.2f}" for name, count in
                         result["memories"].items())
    return (
        f"## External bytes per flow\nVGG16, batch 1, α = 4, MB. `{result['config']}` has "
        f"{sum(result['memories'].values()) / 1e6:.1f} MB on chip ({memories}); what it moves is "
        "counted in RTL, the rest is computed (docs/dataflow.md, \"Against fixed flows\").\n\n"
        + table(("model and buffers", "better fixed flow", "its MB", "choice per layer saves",
                 f"{result['config']} saves"), saved)
        + "\n\n" + table([*head], rows) + "\n\n"
        + "; ".join(f"{group['key']}: {group['title']}" for group in result["groups"])
        + ".\n\n![bytes per flow](results/flows.png)\n\nCommand: `python -m sim.benchmark flows`.\n"
    )


def scaling(result: dict, table: Tabler) -> str:
    """Whole VGG16 against lanes and bandwidth."""
    clock = result["clock_hz"]
    simulated = {(p["lanes"], p["bytes_per_cycle"]): p for p in result["simulated"]}
    rows = []
    for key in sorted({(p["lanes"], p["bytes_per_cycle"])
                       for p in result["estimated"] if p["bytes_per_cycle"] in (256, CHANNEL_BYTES)}
                      | set(simulated)):
        estimate = next((p["cycles"] for p in result["estimated"]
                         if (p["lanes"], p["bytes_per_cycle"]) == key), None)
        point = simulated.get(key)
        if point is not None and estimate is None:
            estimate = point["estimated_cycles"]
        cycles = point["cycles"] if point else estimate or 0
        rows.append((
            key[0], f"{key[1]:g}", estimate, point["cycles"] if point else "",
            f"{100 * (point['estimated_cycles'] / point['cycles'] - 1):+.1f} %" if point else "",
            f"{1000 * cycles / clock:.2f}",
            f"{point['bytes_read'] / 1e6:.1f}" if point else "",
            point["words_compared"] if point else "",
        ))
    told = " Estimated; no point has been simulated yet." if not simulated else (
        " Simulated: the whole network in RTL at latency "
        f"{result['simulated'][0]['latency']}, every word equal to the golden model.")
    return (
        "## VGG16 against lanes and bandwidth\n"
        f"`{result['config']}` with other numbers of tile lanes and the same tile buffer in all, "
        f"and behind slower memories; {result['pattern']}; ms at {clock / 1e6:g} MHz.{told} Where "
        "the curves bend: docs/dataflow.md, \"Lanes and bandwidth\".\n\n"
        + table(("lanes", "bytes/cycle", "estimate", "simulated", "error", "ms", "MB read",
                 "words equal"), rows)
        + "\n\n![lanes](results/scaling-lanes.png)\n![bandwidth](results/scaling-bandwidth.png)\n\n"
        "Commands: `python -m sim.benchmark scaling --network FILE`; a point in RTL: `--simulate "
        "--tile-lanes P --bandwidth BYTES --image FILE`.\n"
    )


def tiles(result: dict, table: Tabler) -> str:
    """K = 8 beside K = 16."""
    small, large = result["fft"]
    rows = []
    for layer in result["layers"]:
        pair = layer[small], layer[large]
        rows.append((layer["name"], *(
            " / ".join(style.format(item[key] * scale) for item in pair)
            for key, style, scale in (
                ("tiles", "{}", 1), ("lanes_filled", "{:.0f} %", 100),
                ("words_per_pixel", "{:.2f}", 1), ("products", "{:.1f}", 1e-6),
                ("kernel_bytes", "{:.2f}", 1e-6), ("cycles", "{}", 1), ("cycles_96", "{}", 1),
                ("fft_additions", "{:.0f}", 1e-6)))))
    totals = {key: [sum(layer[size][key] for layer in result["layers"]) for size in (small, large)]
              for key in ("products", "kernel_bytes", "cycles", "cycles_96", "fft_additions")}
    best = {key: sum(min(layer[small][key], layer[large][key]) for layer in result["layers"])
            for key in ("cycles", "cycles_96")}
    rows.append((
        "total", "", "", "", " / ".join(f"{value / 1e6:.1f}" for value in totals["products"]),
        " / ".join(f"{value / 1e6:.1f}" for value in totals["kernel_bytes"]),
        " / ".join(map(str, totals["cycles"])), " / ".join(map(str, totals["cycles_96"])),
        " / ".join(f"{value / 1e6:.0f}" for value in totals["fft_additions"])))
    costs = "; ".join(f"K = {size}: {work['additions']} additions and {work['constants']} constant "
                      "multiplications" for size, work in result["fft"].items())
    gains = " and ".join(
        f"{100 * (1 - best[key] / totals[key][0]):.1f} % fewer cycles at {width} bytes a cycle"
        for key, width in (("cycles", result["port_bytes"]), ("cycles_96", CHANNEL_BYTES)))
    return (
        f"## Tiles of K = {small} and K = {large}\n"
        f"Computed for {result['tile_lanes']} × {result['kernel_lanes']} lanes, α = "
        f"{result['alpha']}, kernels read once; each cell K = {small} / K = {large}. Cycles: the "
        "slower of array and port. A 2-D transform of a real tile, half plane, radix 2: "
        f"{costs}. The better size in each layer gives {gains}; which layers: docs/dataflow.md, "
        "\"Larger tiles\".\n\n"
        + table(("layer", "tiles", "lanes filled", "words per pixel", "products, million",
                 "kernels, MB", f"cycles at {result['port_bytes']}", f"cycles at {CHANNEL_BYTES}",
                 "FFT additions, million"), rows)
        + "\n\n![K = 8 and K = 16](results/tiles.png)\n\n"
        "Command: `python -m sim.benchmark tiles`.\n"
    )


SECTIONS: tuple[tuple[str, Callable[[dict, Tabler], str]], ...] = (
    ("roofline", roofline), ("scaling", scaling), ("flows", flows), ("tiles", tiles),
    ("nngen", nngen),
)
