"""Sections of docs/results.md about `model.explore`: its models' errors, and what it chose."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from model.config import PRESETS, AcceleratorConfig
from model.resources import resources

__all__ = ["explored"]

Read = Callable[[Path, str], Any]
Table = Callable[[Sequence[str], Sequence[Sequence[object]]], str]
#: Files of `sim.run` that hold whole networks.
_RUNS = re.compile(r"run-.+-a\d+.*|rtl-.+|alexnet(-grouped)?|u200.*-vgg16-.+|z.+-alexnet-a\d+")
#: Cycles of a layer whose error is worth a per cent.
LONG = 3000
#: Rows of a front that are shown.
ROWS = 10


def explored(folder: Path, read: Read, table: Table) -> str:
    """Errors of the models, then each search that was run."""
    parts = [part for part in (
        _resource_errors(folder, read, table), _cycle_errors(folder, read, table),
        *(_front(path.stem, read(folder, path.name), table)
          for path in sorted(folder.glob("explore-*.json"))),
    ) if part]
    return "## Exploring configs\n" + "\n\n".join(parts) + "\n" if parts else ""


def _counted(folder: Path, read: Read) -> Iterator[tuple[AcceleratorConfig, str, dict[str, float]]]:
    """Configs counted as a whole, their family, and what yosys counted."""
    for path in sorted(folder.glob("*-resources.json")):
        report = read(folder, path.name)
        if not report["complete"] or report["config"] not in PRESETS:
            continue
        total = report["total"]
        family = report.get("family", "xcup")
        yield PRESETS[report["config"]], family, {
            "LUT": total["LUT"] + total["SRL"] + 8 * total["LUTRAM"], "FF": total["FF"],
            "DSP": total["DSP48E2" if family == "xcup" else "DSP48E1"],
            "BRAM36": total["BRAM36"] + total["BRAM18"] / 2,
            **({"URAM": total["URAM"]} if family == "xcup" else {}),
        }
    for path in sorted(folder.glob("ecp5-*.json")):
        report = read(folder, path.name)
        yield PRESETS[report["config"]], "ecp5", {
            "LUT": report["resources"]["LUT4"]["used"], "FF": report["resources"]["FF"]["used"],
            "DSP": report["resources"]["MULT18X18D"]["used"],
            "DP16KD": report["resources"]["DP16KD"]["used"],
        }


def _resource_errors(folder: Path, read: Read, table: Table) -> str:
    rows = []
    for config, family, counted in _counted(folder, read):
        said: dict[str, float] = dict(resources(config, family))
        if family != "ecp5":
            said["BRAM36"] += said["BRAM18"] / 2
        rows.append((
            f"`{config.name}`", f"{config.tile_lanes}×{config.kernel_lanes}",
            *(f"{said[what]} / {counted[what]} ({100 * (said[what] / counted[what] - 1):+.1f} %)"
              for what in ("LUT", "FF")),
            f"{said['DSP']} / {counted['DSP']}",
            ", ".join(f"{kind} {said[kind]:g} / {counted[kind]:g}" for kind in counted
                      if kind not in ("LUT", "FF", "DSP")),
        ))
    if not rows:
        return ""
    return ("### Resources: model / yosys\nSamples of the fit: small parts of small cores, for "
            "what a core has once the parts of `u200` (5 % of its tables), on the ECP5 three "
            "smaller cores (`docs/results/part-counts.json`). All else here is not in the fit.\n\n"
            + table(("config", "lanes", "LUT", "FF", "DSP", "RAM"), rows)
            + "\n\nCommands: `python -m rtl.calibrate`; the counts: `python -m rtl.xilinx`, "
            "`python -m rtl.build`.")


def _cycle_errors(folder: Path, read: Read, table: Table) -> str:
    """Whole networks that were simulated: the sum of the layers' estimates and the output."""
    rows: list[tuple[object, ...]] = []
    errors: list[tuple[float, float]] = []
    for path in sorted(folder.glob("*.json")):
        if not _RUNS.fullmatch(path.stem):
            continue
        run = read(folder, path.name)
        if any("estimated_cycles" not in layer for layer in run["layers"]):
            continue
        said = sum(layer["estimated_cycles"] for layer in run["layers"])
        if run["config"] in PRESETS and "write_bytes" in run:
            said += ceil(8 * run["write_bytes"][0] / PRESETS[run["config"]].port_bits)
        cycles = max(run["cycles"])
        error = 100 * (said / cycles - 1)
        worst = max((100 * (layer["estimated_cycles"] / layer["cycles"] - 1)
                     for layer in run["layers"] if layer["cycles"] >= LONG), key=abs, default=0.0)
        if run["network"].startswith("lenet"):
            errors.append((error, worst))
        else:
            rows.append((f"{run['network']}, {run['pattern'].split(',')[0]}", f"`{run['config']}`",
                         cycles, said, f"{error:+.2f} %", f"{worst:+.1f} %"))
    if errors:
        whole, layers = zip(*errors, strict=True)
        rows.append((f"LeNets of both kinds, {len(errors)} runs", "`ecp5-85f`", "", "",
                     f"{min(whole):+.2f} to {max(whole):+.2f} %",
                     f"{min(layers):+.1f} to {max(layers):+.1f} %"))
    if not rows:
        return ""
    return ("### Cycles: model and RTL simulation\nWhole networks, and the largest error of a "
            f"layer of {LONG} cycles or more. Of irregular patterns whose weights are not here "
            "steps and beats are the run's, spread evenly over the kernel blocks of a layer.\n\n"
            + table(("network", "config", "simulated", "estimated", "error", "of a layer"), rows)
            + "\n\nCommand: `python -m sim.recorded`.")


def _front(name: str, result: dict, table: Table) -> str:
    steps: list[dict] = []
    for point in result["front"]:
        if not steps or point["used"]["DSP"] < steps[-1]["used"]["DSP"]:
            steps.append(point)
    if len(steps) > ROWS:
        steps = [steps[round(index * (len(steps) - 1) / (ROWS - 1))] for index in range(ROWS)]
    board, chosen = result["board"], result["chosen"]
    rows = [_row(point, board) for point in steps]
    rows.append(tuple(f"**{cell}**" for cell in _row(chosen, board)))
    where = "in the DSPs" if result["dsp_accumulators"] else "in tables"
    return (
        f"### {result['network']} on {board['name']} ({board['device']}), "
        f"{board['clock_hz'] / 1e6:g} MHz\n"
        f"Estimated, batch 1, convolutions {result['pattern']}, fully connected layers "
        f"{result['linear']}, accumulators {where}: {result['configs']} "
        f"configs, {len(result['front'])} on the front of time, multipliers and RAM; here the "
        "fastest ones by multipliers, and in bold the choice.\n\n"
        + table(("ms", "images/s", "GOPS dense", "lanes", "F, R", "weights", "port",
                 "FC of bandwidth", "DSP", "LUT", *board["rams"]), rows)
        + f"\n\n![front](results/{name}.png)\n\nCommand: `{result['command']}`."
    )


def _row(point: dict, board: dict) -> tuple[str, ...]:
    config, used, share = point["config"], point["used"], point["linear_share"]
    return (f"{point['milliseconds']:.3f}", f"{point['images_per_second']:.1f}",
            f"{point['gops_dense']:.0f}", f"{config['tile_lanes']}×{config['kernel_lanes']}",
            f"{config['feature_banks']}, {config['inverse_rows']}", str(config["weight_bits"]),
            str(config["port_bits"]), "" if share is None else f"{100 * share:.0f} %",
            str(used["DSP"]), str(used["LUT"]),
            *(str(used.get(kind, 0)) for kind in board["rams"]))
