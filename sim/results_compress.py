"""Section of docs/results.md about magnitude pruning by order and peak (`pruning.compress`)."""

from __future__ import annotations

from pathlib import Path

from sim.results_scale import Reader, Tabler

__all__ = ["compressed"]

#: Rows in this order; runs of other names follow.
ORDER = ("alexnet-tiny-reversed", "alexnet-tiny-reversed-histogram",
         "alexnet-tiny-reversed-accuracy", "alexnet-tiny-forward", "alexnet-tiny-dense")


def compressed(folder: Path, read: Reader, table: Tabler) -> str:
    """Accuracy and bytes of every run, densities by layer, other formats, the full network."""
    names = sorted((path.stem for path in folder.glob("alexnet-tiny-*.json")),
                   key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    runs = {name: read(folder, f"{name}.json") for name in names}
    if not runs:
        return ""
    data = next(iter(runs.values()))["data"]
    parts = [
        "## AlexNet by magnitude: order and peak\nHalf of AlexNet's channels and features, first "
        f"layer for 64×64; {data['name']}: {data['train']} to train on, {data['held_out']} of the "
        f"training images held out to choose densities by, all {data['test']} validation images to "
        "measure. Stored: the file read back, 8-bit weights (a scale per output) and activations. "
        "Parameters and bytes count biases; bytes against single precision. All begin with the "
        "same dense network; `dense` prunes nothing, trains on as long and is rounded too.",
        table(("run", "dense %", "stored %", "difference", "parameters", "fewer", "bytes",
               "smaller", "epochs after dense"), [_row(name, run) for name, run in runs.items()]),
        "### Weights kept, %", _densities(runs, table),
        "### Other formats\nBytes of positions and 8-bit values alone. Fixed: the smaller of a "
        "bitmap and relative indices in every layer. Narrow CSR: column indices and row pointers "
        "of as few whole bytes as they need. SciPy: its arrays.",
        _formats({name: run["storage"] for name, run in runs.items()
                  if run["recipe"]["order"] != "none"}, table),
    ]
    if full := read(folder, "alexnet-full.json"):
        parts += [
            "### The full AlexNet\nArithmetic at the densities of "
            f"`{full['from']}`, random masks (seed {full['seed']}); torchvision's AlexNet and the "
            "original in two groups.",
            table(("network", "parameters", "kept", "fewer", "bytes", "smaller"), [
                (entry["network"], entry["parameters"], entry["kept"],
                 f"{entry['parameters'] / entry['kept']:.1f}×", entry["file"],
                 f"{entry['dense_float32'] / entry['file']:.1f}×") for entry in full["networks"]]),
            _formats({entry["network"]: entry for entry in full["networks"]}, table),
        ]
    if (folder / "orders.png").exists():
        parts.append("![accuracy over density](results/orders.png)")
    parts.append("Commands: docs/pruning.md, \"AlexNet by magnitude\".\n")
    return "\n\n".join(parts)


def _row(name: str, run: dict) -> tuple:
    result = run["result"]
    return (
        name.removeprefix("alexnet-tiny-"), f"{result['dense_accuracy']:.2f}",
        f"{result['accuracy']:.2f}", f"{result['accuracy'] - result['dense_accuracy']:+.2f}",
        result["kept"], f"{result['fewer_parameters']:.1f}×", result["file"],
        f"{result['smaller_file']:.1f}×", f"{result['epochs_after_dense']:g}",
    )


def _densities(runs: dict[str, dict], table: Tabler) -> str:
    pruned = {name: run for name, run in runs.items() if run["recipe"]["order"] != "none"}
    layers = list(next(iter(runs.values()))["densities"])
    return table(("run", *layers), [
        (name.removeprefix("alexnet-tiny-"),
         *(f"{100 * run['densities'][layer]:.1f}" for layer in layers))
        for name, run in pruned.items()])


def _formats(reports: dict[str, dict], table: Tabler) -> str:
    rows = []
    for name, report in reports.items():
        ours = sum(row["position_bytes"] + row["value_bytes"] for row in report["layers"])
        rows.append((name.removeprefix("alexnet-tiny-"), ours, report["fixed"],
                     report["csr_narrow"], *report["scipy"].values()))
    kinds = next(iter(reports.values()))["scipy"] if reports else ()
    return table(("", "ours", "fixed", "narrow CSR", *(f"SciPy {kind}" for kind in kinds)), rows)
