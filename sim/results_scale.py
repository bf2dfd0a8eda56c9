"""Sections of docs/results.md about networks and configs at the papers' scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["scale"]

Reader = Callable[[Path, str], Any]
Tabler = Callable[[Sequence[str], Sequence[Sequence[object]]], str]
#: Block RAMs of an Alveo U200 (AMD DS962).
#: What the card has (AMD DS962, Alveo U200).
U200 = {"DSP48E2": 6840, "LUT": 1_182_240, "FF": 2_364_480, "BRAM36": 2160, "URAM": 960}
#: "Reuse Kernels or Activations?" (FPGA 2020): VGG16's convolutions, alpha = 4, on an Alveo U200.
FPGA20_MS, FPGA20_DSP, FPGA20_CLOCK = 9.0, 2860, 200_000_000


def scale(folder: Path, read: Reader, table: Tabler) -> str:
    """VGG16 on `u200`, and what `u200` takes."""
    parts = [_run(run, name, table)
             for name in ("u200-vgg16-channel", "u200-vgg16-synthetic", "u200-window-vgg16-kernel")
             if (run := read(folder, f"{name}.json"))]
    if report := read(folder, "u200-resources.json"):
        parts.append(_resources(report, table))
        if windowed := read(folder, "u200-window-resources.json"):
            parts.append(_window(windowed, report, table))
    if not parts:
        return ""
    return "## VGG16 at 224×224 on `u200`\n" + "\n\n".join(parts) + "\n"


def _run(run: dict, name: str, table: Tabler) -> str:
    cycles, clock = max(run["cycles"]), run["clock_hz"]
    milliseconds = 1000 * cycles / clock
    issue = elapsed = 0
    weights, options = name.rpartition("-")[-1], ""
    if run["config"] != "u200":
        options = f"--config {run['config']} "
    rows = []
    for index, layer in enumerate(run["layers"]):
        if index:
            issue, elapsed = issue + layer["mac_issue_cycles"], elapsed + layer["cycles"]
        error = 100 * (layer["estimated_cycles"] / layer["cycles"] - 1)
        stalls = layer["stalls"]
        rows.append((
            layer["name"], layer["cycles"], layer["estimated_cycles"], f"{error:+.1f} %",
            layer["mac_issue_cycles"], f"{100 * layer['mac_utilisation']:.1f} %",
            f"{100 * layer['lanes_filled']:.1f} %",
            f"{100 * layer['mac_utilisation'] * layer['lanes_filled']:.1f} %",
            stalls["tiles"], stalls["weights"],
            stalls["sums"], f"{layer['bytes_read'] / 1e6:.3f}",
        ))
    verdict = "equal to the golden model" if run["bit_exact"] else "NOT equal to the golden model"
    busy = f"{100 * issue / elapsed:.1f} %" if elapsed else "-"
    return (
        f"### {run['pattern']} on `{run['config']}`, input {', '.join(run['images'])}\n"
        f"All 13 convolutions and 5 pools, batch 1, simulated in RTL: **{cycles} cycles**, "
        f"{milliseconds:.2f} ms at {clock / 1e6:g} MHz with {run['multipliers']} multipliers "
        f"(FPGA 2020: {FPGA20_MS:g} ms at {FPGA20_CLOCK / 1e6:g} MHz with {FPGA20_DSP} DSPs: "
        f"{FPGA20_MS / milliseconds:.1f} times as long). {run['words_compared']} words {verdict}. "
        f"From the second layer on the array takes a step in {busy} of the cycles; the column "
        "beside has the lanes that have a product in a step (tiles, kernels and the access "
        "schedule leave some idle), the next one both together. "
        f"{run['read_bytes'][-1] / 1e6:.1f} MB are read, {run['write_bytes'][-1] / 1e6:.2f} MB "
        "written; maps stay on chip.\n\n"
        + table(("layer", "cycles", "estimate", "error", "MAC issue", "utilised", "lanes filled",
                 "busy lanes", "wait tiles", "wait weights", "wait sums", "MB read"), rows)
        + f"\n\nCommand: `python -m sim.run vgg16 {options}--network "
        f"build/vgg16-{weights}-a4-w16.npz --image FILE --latency 100 --json "
        f"docs/results/{name}.json` (`--weights synthetic` without trained weights). "
        "The port takes 256 bytes a cycle: 4 × 64 at U200."
    )


def _resources(report: dict, table: Tabler) -> str:
    kinds = list(report["total"])
    rows = [(name, row["count"], *(row[kind] for kind in kinds))
            for name, row in report["parts"].items()]
    rows.append(("total", "", *(report["total"][kind] for kind in kinds)))
    missing = "" if report["complete"] else " Parts are missing."
    total = report["total"] | {"BRAM36": report["total"]["BRAM36"] + report["total"]["BRAM18"] / 2}
    shares = ", ".join(f"{100 * total[kind] / card:.0f} % of its {card} {kind}"
                       for kind, card in U200.items())
    return (
        f"### Resources of `{report['config']}`\nyosys `synth_xilinx -family xcup`, each part by "
        f"itself times its count; not placed.{missing} Of the whole card: {shares}. yosys puts "
        "eight bytes of a feature column into a row of an UltraRAM; a tool that does not would "
        "take 16 · 16 · 5 = 1280 BRAM36 for the feature banks (18 432 rows in RAMs of 4096).\n\n"
        + table(("part", "count", *kinds), rows)
        + "\n\nCommand: `python -m rtl.xilinx --json docs/results/u200-resources.json`."
    )


def _window(report: dict, base: dict, table: Tabler) -> str:
    """Parts that a file of accumulators changes, beside those of `u200`."""
    kinds = list(report["total"])
    rows = []
    for name, row in report["parts"].items():
        for config, part in ((base["config"], base["parts"].get(name)), (report["config"], row)):
            if part:
                rows.append((name, config, part["count"], *(part[kind] for kind in kinds)))
    chosen = " ".join(f"--part '{name}'" for name in report["parts"])
    return (
        f"### Parts of `{report['config']}` that differ\nOne of each. LUTRAM counts cells of "
        "eight look-up tables. The products stay in the DSP48E2; with a file the sums are added "
        "in the fabric, where a vendor's tool may put the single accumulator of `u200` into "
        "the DSP48E2.\n\n" + table(("part", "config", "count", *kinds), rows)
        + f"\n\nCommand: `python -m rtl.xilinx --config {report['config']} {chosen} --json "
        f"docs/results/{report['config']}-resources.json`."
    )
