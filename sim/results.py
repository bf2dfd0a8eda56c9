"""Render docs/results.md from the measured JSON files in docs/results: ``python -m sim.results``.

Every table names the command that measured its file. A file that is not there leaves its rows out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from model.compile import compile_network
from model.config import PRESETS
from model.cost import estimate
from model.errors import Parser, UserError, command
from model.files import write_atomic
from model.network import QuantisedNetwork

__all__ = ["render", "main"]

ROOT = Path(__file__).resolve().parents[1]
#: Cycles NNgen 1.3.4 takes with 8-bit weights, 100 multipliers, 64-bit AXI (measured by simulation
#: of its Verilog with Icarus), and the bar this project set itself.
NNGEN = {"lenet": (151_066, 15_000), "lenet5": (32_434, 4_000)}


def _read(folder: Path, name: str) -> Any:
    path = folder / name
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"result file {path} cannot be read: {error}") from error


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _accuracy(folder: Path) -> str:
    rows = []
    for entry in _read(folder, "accuracy.json") or ():
        log = _read(folder, entry["file"].replace(".npz", ".json"))
        dense = log["result"]["dense_accuracy"] if log else None
        rows.append((
            entry["file"].removesuffix(".npz"),
            "" if dense is None else f"{dense:.2f}", f"{entry['accuracy']:.2f}",
            "" if dense is None else f"{entry['accuracy'] - dense:+.2f}",
            f"{entry['zeros_conv']:.1f}", f"{entry['zeros_linear']:.1f}",
        ))
    return (
        "## Accuracy\nAll 10 000 MNIST test digits. Dense: floating point, one checkpoint per "
        "network. Integer: the golden model, 8-bit weights and activations, equal to the RTL bit "
        "for bit. The last epoch is taken, never the best.\n\n"
        + _table(("network", "dense %", "integer %", "difference", "zero spectral words %",
                  "zero linear weights %"), rows)
        + "\n\nTraining: `python -m pruning.train NETWORK --data DIR --pattern PATTERN --alpha A`; "
        "recipe and every epoch in `docs/results/NETWORK-PATTERN-aA.json`. Evaluation: "
        "`python -m pruning.evaluate --data DIR --json docs/results/accuracy.json`.\n"
    )


def _layerwise(folder: Path) -> str:
    runs = [run for path in sorted(folder.glob("vgg16-*-a*-w*.json"))
            if (run := _read(folder, path.name))]
    if not runs:
        return ""
    totals, parts = [], []
    for run in runs:
        used, end = run["settings"], run["end_to_end"]
        title = (f"{used['network']}, {used['pattern']} α={used['alpha']}, "
                 f"{used['weight_bits']}-bit weights")
        totals.append((title, used["images"], used["held_out"], f"{100 * (1 - end['density']):.1f}",
                       f"{end['sqnr_db']:.2f}", f"{end['cosine']:.4f}"))
        if "from" in used:
            continue
        rows = [(entry["layer"], f"{100 * entry['kept_energy']:.0f}", *(
            f"{entry[key]:.1f}" for key in (
                "one_shot_db", "admm_db", "least_squares_db", "quantised_db", "quantised_fit_db",
                "dense_on_pruned_input_db", "network_db"))) for entry in run["layers"]]
        parts.append(f"### {title}\n" + _table(
            ("layer", "kept energy %", "one-shot", "ADMM", "least squares", "quantised",
             "quantised, calibration set", "unpruned layer", "network"), rows) + "\n")
    return (
        "## VGG16 without labels\nLayer by layer on calibration photographs, 8-bit activations; "
        "measured on other photographs, integer golden model against the dense network in floating "
        "point, after conv5_3's pool.\n\n"
        + _table(("network", "calibration photographs", "held-out photographs",
                  "zero spectral words %", "SQNR dB", "cosine"), totals)
        + "\n\nPer layer: SNR in dB of its output after the ReLU, on the inputs the pruned and "
        "quantised layers before it give, against the dense network's output. `unpruned layer`: "
        "dense weights on the same inputs. `network`: the golden model after the pool. One-shot "
        "keeps the largest words as they are.\n\n" + "\n".join(parts)
        + "\nCommand: `python -m pruning.layerwise vgg16 --weights hed --data DIR --pattern "
        "PATTERN --weight-bits 16 --json docs/results/vgg16-PATTERN-a4-w16.json`, then "
        "`--weight-bits 8 --from build/vgg16-PATTERN-a4-w16.npz`; settings in each file.\n"
    )


def _estimates(run: dict) -> dict[str, int]:
    kind, _, alpha = run["pattern"].partition(" ")
    path = ROOT / "model" / "zoo" / f"{run['network']}-{kind}-a{alpha}.npz"
    config = PRESETS.get(run["config"])
    if config is None or not path.exists():
        return {}
    program = compile_network(QuantisedNetwork.load(path), config)
    return {cost.name: cost.cycles for cost in estimate(program)}


def _cycles(folder: Path) -> str:
    parts = ["## Cycles per image, batch 1\nSimulated RTL, config `ecp5-85f`: 32 complex lanes, "
             "100 multipliers, one 64-bit memory port through which every weight is read for every "
             "image. A layer's interval ends with its last written value.\n"]
    rows = []
    for name in ("lenet", "lenet5"):
        for pattern in ("channel", "kernel"):
            run = _read(folder, f"run-{name}-{pattern}-a4.json")
            if run:
                best, bar = NNGEN[name]
                cycles = max(run["cycles"])
                rows.append((f"{name}, {pattern} α=4", cycles, bar, best, f"{best / cycles:.1f}×",
                             f"{len(run['images'])} digits, {run['words_compared']} words"
                             + (" equal" if run["bit_exact"] else " NOT EQUAL")))
    parts.append(_table(("network", "cycles", "target", "NNgen 1.3.4", "faster by",
                         "checked against the golden model"), rows))
    for name in ("lenet", "lenet5"):
        for pattern in ("channel", "kernel"):
            run = _read(folder, f"run-{name}-{pattern}-a4.json")
            if run:
                parts.append(_layer_table(run))
    parts.append("Commands: `python -m sim.run NETWORK --pattern PATTERN --index 0:100 --json "
                 "docs/results/run-NETWORK-PATTERN-a4.json`; the estimate is `model/cost.py`.\n")
    return "\n\n".join(parts)


def _layer_table(run: dict) -> str:
    expected = _estimates(run)
    rows = []
    for layer in run["layers"]:
        cost = expected.get(layer["name"])
        off = "" if cost is None else f"{100 * (cost - layer['cycles']) / layer['cycles']:+.1f} %"
        stalls = layer["stalls"]
        rows.append((
            layer["name"], layer["cycles"], cost or "", off, layer["mac_issue_cycles"],
            f"{100 * layer['mac_utilisation']:.1f} %", f"{100 * layer['lanes_filled']:.1f} %",
            stalls["tiles"], stalls["weights"], stalls["sums"], layer["bytes_read"],
        ))
    return f"### {run['network']}, {run['pattern'].replace(' ', ' α=')}\n" + _table(
        ("layer", "cycles", "estimate", "error", "MAC issue", "utilised", "lanes filled",
         "wait tiles", "wait weights", "wait sums", "bytes read"), rows)


def _resources(folder: Path) -> str:
    report = _read(folder, "ecp5-85f.json")
    if not report or "resources" not in report:
        return ""
    rows = [(name, entry["used"], entry["available"],
             f"{100 * entry['used'] / entry['available']:.0f} %")
            for name, entry in report["resources"].items()]
    return (f"## Resources of `{report['config']}`\nyosys `synth_ecp5`, before placement, on-chip "
            "program memory included.\n\n"
            + _table(("resource", "used", "LFE5U-85F", "share"), rows)
            + "\n\nCommand: `python -m rtl.build --json docs/results/ecp5-85f.json`.\n")


def _fft(folder: Path) -> str:
    blocks = _read(folder, "fft.json")
    if not blocks:
        return ""
    entries = blocks if isinstance(blocks, list) else [
        {"name": name} | figures for name, figures in blocks.items()
    ]
    keys = [key for key in entries[0] if key != "name"]
    rows = [[entry["name"], *(entry.get(key, "") for key in keys)] for entry in entries]
    return ("## FFT blocks on an ECP5-85F (speed grade 6)\nNo multipliers. maia-hdl's 8-point "
            "transform, one complex sample per cycle: 661 COMB, 3 MULT18X18D, 137 MHz; the column "
            "here takes 8 samples per cycle. One nextpnr seed each.\n\n"
            + _table(("block", *keys), rows)
            + "\n\nSQNR against `numpy.fft` and the round-trip bound are asserted in "
            "`tests/model/test_fft.py`. Command: `python -m rtl.measure fft --pnr --json "
            "docs/results/fft.json`.\n")


SECTIONS: tuple[Callable[[Path], str], ...] = (
    _accuracy, _layerwise, _cycles, _resources, _fft,
)


def render(folder: Path) -> str:
    """Text of the results page from the JSON files of ``folder``."""
    head = ("# Results\n\nWritten by `python -m sim.results` from the files in `docs/results/`, "
            "each written by a command named below. Cycles are exact.\n")
    return "\n".join([head, *(section(folder) for section in SECTIONS)])


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Write the page."""
    parser = Parser(prog="python -m sim.results", description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results", metavar="DIR")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results.md", metavar="FILE")
    args = parser.parse_args(argv)
    try:
        write_atomic(args.out, render(args.results))
    except OSError as error:
        raise UserError(f"cannot write {args.out}: {error.strerror}") from error
    print(f"results written to {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
