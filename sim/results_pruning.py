"""Sections of docs/results.md about what pruning does to accuracy and to the lanes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["pruned", "simulated"]

Reader = Callable[[Path, str], Any]
Tabler = Callable[[Sequence[str], Sequence[Sequence[object]]], str]


def pruned(folder: Path, read: Reader, table: Tabler) -> str:
    """Networks at their densest, patterns at equal density, finer weight scales."""
    parts = [part(folder, read, table) for part in (_densest, _equal, _scales)]
    return "\n".join(part for part in parts if part)


def _logs(folder: Path, read: Reader, ending: str) -> list[tuple[str, dict]]:
    """Find the logs of `pruning.train`, by name."""
    names = sorted(path.name for path in folder.glob(f"*-a*-{ending}*.json"))
    return [(name.removesuffix(".json"), log) for name in names
            if (log := read(folder, name)) and "recipe" in log]


def _densest(folder: Path, read: Reader, table: Tabler) -> str:
    rows = []
    for name, log in _logs(folder, read, "long"):
        result = log["result"]
        dense, integer = result["dense_accuracy"], result["integer_accuracy"]
        rows.append((
            name, "; ".join(f"{layer} {pattern.split()[0]} {100 * log['density'][layer]:.1f} %"
                            for layer, pattern in log["patterns"].items()),
            f"{result['zeros_conv_percent']:.1f}", f"{result['zeros_linear_percent']:.1f}",
            f"{dense:.2f}", f"{integer:.2f}", f"{integer - dense:+.2f}",
            simulated(read(folder, f"rtl-{name}.json")),
        ))
    if not rows:
        return ""
    return ("## Spectral words pruned without loss\nAll test images, the last epoch; every run "
            "that was made is listed. Integer: golden model, 8-bit weights and activations.\n\n"
            + table(("run", "pattern and words kept of each layer", "zero spectral words %",
                     "zero linear weights %", "dense %", "integer %", "difference", "RTL"), rows)
            + "\n\nCommands: `python -m pruning.train NETWORK --data DIR --config "
            "docs/results/RUN.json` (dense network: `--dense-only` first, then `--dense FILE`), "
            "`python -m sim.run --network RUN.npz --index 0:10 --json docs/results/rtl-RUN.json`.\n"
            )


def simulated(run: dict | None, layer: str = "") -> str:
    """Tell what a run in RTL came to; with a layer, how busy that one's lanes were."""
    if not run:
        return ""
    exact = f"{run['words_compared']} words {'equal' if run['bit_exact'] else 'NOT EQUAL'}"
    for item in run["layers"]:
        if item["name"] == layer:
            return (f"{item['mac_issue_cycles']} of {item['cycles']} cycles, "
                    f"{100 * item['lanes_filled']:.1f} % of the lanes; {exact}")
    return f"{max(run['cycles'])} cycles on `{run['config']}`, {exact}"


def _equal(folder: Path, read: Reader, table: Tabler) -> str:
    lanes = {item["file"].removesuffix(".npz"): item["configs"]
             for item in read(folder, "utilisation.json") or ()}
    configs = list(dict.fromkeys(
        item["config"] for found in lanes.values() for item in found
    ))
    logs = sorted((*_logs(folder, read, "equal"), *_logs(folder, read, "long")),
                  key=lambda item: item[1]["recipe"]["alpha"])
    rows = []
    for name, log in logs:
        recipe, result = log["recipe"], log["result"]
        layer = [key for key in log["density"] if key.startswith("conv")][-1]
        busy = {item["config"]: next(entry for entry in item["layers"] if entry["name"] == layer)
                for item in lanes.get(name, ())}
        rows.append((
            name, log["patterns"][layer].split()[0], recipe.get("method", "admm"),
            "/".join(str(recipe[f"epochs_{stage}"]) for stage in ("admm", "masked", "retrain")),
            f"{100 * (1 - log['density'][layer]):.1f}", f"{result['integer_accuracy']:.2f}",
            *(f"{100 * busy[config]['scheduler']:.1f} ({100 * busy[config]['core']:.1f})"
              if config in busy else "" for config in configs),
            simulated(read(folder, f"rtl-{name}.json"), layer),
        ))
    if not rows:
        return ""
    dense = ", ".join(f"{value:.2f} %" for value in dict.fromkeys(
        log["result"]["dense_accuracy"] for _, log in logs))
    return ("## Locality: busy lanes of trained networks\nThe last convolution of each network. "
            f"Dense networks {dense}; integer accuracy on all test images. Epochs: ADMM or lasso / "
            "masked / quantised. Busy lanes of those with an output, %, as the compiler's "
            "scheduler places the words the trained network has kept: lanes, banks and window of "
            "the config alone, and in brackets with the idle entries the core needs "
            "(`u200-window`: a block takes at least 256 steps, its read-out).\n\n"
            + table(("run", "pattern", "method", "epochs", "zero words %", "integer %",
                     *(f"`{config}`" for config in configs), "RTL: array steps, lanes filled"),
                    rows)
            + "\n\nCommands: `python -m pruning.train lenet --data DIR --dense FILE --config "
            "docs/results/RUN.json`; `python -m model.utilisation RUN.npz ... --json "
            "docs/results/utilisation.json`; RTL (config `ecp5-85f`; the lanes a block lacks count "
            "as not filled): `python -m sim.run --network RUN.npz --index 0:10 --json "
            "docs/results/rtl-RUN.json`.\n")


def _scales(folder: Path, read: Reader, table: Tabler) -> str:
    result = read(folder, "scales.json")
    if not result:
        return ""
    columns = list(dict.fromkeys(row["bits"] for row in result["rows"]))
    rows: dict[str, list[str]] = {}
    for row in result["rows"]:
        rows.setdefault(row["scale"], []).append(f"{row['accuracy']:.2f} ({row['snr_db']:.1f})")
    return ("## Finer weight scales\nThe convolution weights of a trained run "
            f"({result['recipe']['network']}, {result['recipe']['pattern']}, seed "
            f"{result['recipe']['seed']}) rounded anew with a scale per what the row says, without "
            "further training; the hardware has one per output. Accuracy % (SNR of the weights, "
            f"dB). Unrounded: {result['unrounded']:.2f} %.\n\n"
            + table(("scale per", *(f"{bits} bits" for bits in columns)),
                    [(name, *cells) for name, cells in rows.items()])
            + "\n\nCommand: `python -m pruning.scales RUN/checkpoint.pt --data DIR --json "
            "docs/results/scales.json`.\n")
