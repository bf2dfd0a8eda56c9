"""Render docs/results.md from the measured JSON files in docs/results: ``python -m sim.results``.

Every table names the command that measured its file. A file that is not there leaves its rows out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from model.compile import compile_network
from model.config import PRESETS
from model.cost import estimate
from model.errors import Parser, UserError, command
from model.files import check_target, read_json, write_output
from model.netfile import load_network
from model.storage import storage
from sim.bench.tables import sections
from sim.results_alexnet import alexnet
from sim.results_anchors import anchors
from sim.results_batch import batches
from sim.results_boards import boards
from sim.results_compress import compressed
from sim.results_explore import explored
from sim.results_pruning import pruned
from sim.results_scale import scale
from sim.results_training import training

__all__ = ["render", "main"]

ROOT = Path(__file__).resolve().parents[1]
#: Cycles NNgen 1.3.4 takes with 8-bit weights, 100 multipliers, 64-bit AXI (measured by simulation
#: of its Verilog with Icarus), and the bar this project set itself.
NNGEN = {"lenet": (151_066, 15_000), "lenet5": (32_434, 4_000)}


def _read(folder: Path, name: str) -> Any:
    return read_json(folder / name)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _accuracy(folder: Path) -> str:
    rows = []
    for entry in _read(folder, "accuracy.json") or ():
        log = _read(folder, entry["file"].replace(".npz", ".json"))
        dense = log["result"]["dense_accuracy"] if log else None
        sizes = storage(load_network(ROOT / "model" / "zoo" / entry["file"]))
        rows.append((
            entry["file"].removesuffix(".npz"),
            "" if dense is None else f"{dense:.2f}", f"{entry['accuracy']:.2f}",
            "" if dense is None else f"{entry['accuracy'] - dense:+.2f}",
            f"{entry['zeros_conv']:.1f}", f"{entry['zeros_linear']:.1f}",
            sizes["file"], f"{sizes['dense_float32'] / sizes['file']:.1f}×",
            _recipe(log["recipe"]) if log else "",
        ))
    return (
        "## Accuracy\nAll 10 000 MNIST test digits. Dense: floating point, the training that the "
        "network was pruned from (lenet was trained twice). Integer: the golden model, 8-bit "
        "weights and activations, equal to the RTL bit for bit. The last epoch is taken, never the "
        "best. Epochs: dense / ADMM / masked and quantised; rows with other epochs do not "
        "compare.\n\n"
        + _table(("network", "dense %", "integer %", "difference", "zero spectral words %",
                  "zero linear weights %", "bytes on disk", "dense float32", "epochs"), rows)
        + "\n\nTraining: `python -m pruning.train NETWORK --data DIR --config FILE`; recipe and "
        "every epoch are in FILE, `docs/results/NETWORK-PATTERN-aA.json`. Evaluation: "
        "`python -m pruning.evaluate --data DIR --json docs/results/accuracy.json`. Bytes of the "
        "`.spcn` file (docs/storage.md): `python -m model.storage FILE`.\n"
    )


def _recipe(recipe: dict) -> str:
    """Epochs of a run, and whether the dense network taught it."""
    epochs = "/".join(str(recipe[f"epochs_{stage}"]) for stage in ("dense", "admm", "retrain"))
    return epochs + (", distilled" if recipe["distill"] else "")


def _layerwise(folder: Path) -> str:
    runs = [run for path in sorted(folder.glob("vgg16-*-a*-w*.json"))
            if "settings" in (run := _read(folder, path.name))]
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
    program = compile_network(load_network(path), config)
    return {cost.name: cost.cycles for cost in estimate(program)}


def _runs(folder: Path) -> list[dict]:
    """Contents of the run files, ordered by network, pattern and compression."""
    names = (re.fullmatch(r"run-(.+)-([a-z]+)-a(\d+)\.json", path.name)
             for path in folder.glob("run-*.json"))
    keys = sorted((match[1], match[2], int(match[3]), match[0]) for match in names if match)
    return [_read(folder, name) for *_, name in keys]


def _title(run: dict) -> str:
    return f"{run['network']}, {run['pattern'].replace(' ', ' α=')}"


def _cycles(folder: Path) -> str:
    parts = ["## Cycles per image, batch 1\nSimulated RTL, config `ecp5-85f`: 32 complex lanes, "
             "100 multipliers, one 64-bit memory port through which every weight is read for every "
             "image. A layer's interval ends with its last written value.\n"]
    runs = _runs(folder)
    rows = []
    for run in runs:
        best, bar = NNGEN.get(run["network"], (0, ""))
        cycles = max(run["cycles"])
        rows.append((_title(run), cycles, bar, best or "", f"{best / cycles:.1f}×" if best else "",
                     f"{len(run['images'])} digits, {run['words_compared']} words"
                     + (" equal" if run["bit_exact"] else " NOT EQUAL")))
    parts.append(_table(("network", "cycles", "target", "NNgen 1.3.4", "faster by",
                         "checked against the golden model"), rows))
    parts += [_layer_table(run) for run in runs]
    parts.append("Commands: `python -m sim.run NETWORK --pattern PATTERN --alpha A --index 0:100 "
                 "--json docs/results/run-NETWORK-PATTERN-aA.json`; the estimate is "
                 "`model/cost.py`.\n")
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
    return f"### {_title(run)}\n" + _table(
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
    keys = list(dict.fromkeys(key for figures in blocks.values() for key in figures))
    rows = [[name, *(figures.get(key, "") for key in keys)] for name, figures in blocks.items()]
    return ("## FFT blocks on an ECP5-85F (speed grade 6)\nNo multipliers. A 2-D transform takes "
            "or gives 1, 2, 4 or 8 rows of a tile per cycle; the core uses 2 forward and 1 "
            "inverse. maia-hdl's 8-point transform takes one complex sample per cycle: 661 COMB, "
            "651 FF, 3 MULT18X18D, 137 MHz, so the 64 samples of a tile pass in 64 cycles, once "
            "for the rows and once for the columns; the column here takes 8 samples per cycle. "
            "COMB is LUT4 + 2 CCU2C (carry) + 4 LUTRAM (DPR16X4); BRAM is DP16KD. Fmax in MHz, "
            "one nextpnr seed each; empty where it was not run.\n\n"
            + _table(("block", *keys), rows)
            + "\n\nSQNR against `numpy.fft`: forward, uniform 8-bit pixels without their mean; "
            "inverse, uniform words of ±20000. It and the round-trip bound are asserted in "
            "`tests/model/test_fft.py`. Command: `python -m rtl.measure fft --pnr --json "
            "docs/results/fft.json`, with `--block NAME` for single rows of the table.\n")


def _schedule(folder: Path) -> str:
    parts = []
    for name in ("schedule", "schedule-core", "schedule-balanced", "schedule-unstructured",
                 "schedule-locality"):
        result = _read(folder, f"{name}.json")
        if not result:
            continue
        columns = list(dict.fromkeys(run["addresses"] for run in result["runs"]))
        rows: dict[str, list[str]] = {}
        for run in result["runs"]:
            rows.setdefault(run["label"], []).append(f"{100 * run['utilisation']:.1f}")
        energy = result["energy"].values()
        lost = f" Kept energy: {100 * min(energy):.1f} to {100 * max(energy):.1f} %." \
            if all(share is not None for share in energy) else ""
        blocks = "all kernel blocks" if not result["blocks"] else \
            f"{result['blocks']} kernel block(s) per layer"
        parts.append(f"### {result['weights']}, {result['pattern'].replace(' ', ' α=')}\n"
                     f"Busy lanes of {result['lanes']}, %, every layer weighted with its tiles at "
                     f"224×224; {blocks}.{lost}\n\n" + _table(
                         ("method", *(f"r = {r}" for r in columns)),
                         [(label, *cells) for label, cells in rows.items()]))
    if not parts:
        return ""
    return ("## Access schedules\nMethods and windows: docs/scheduling.md. \"Channel by channel\" "
            "is the order of FPGA 2020. Every schedule is checked before it is counted.\n\n"
            + "\n\n".join(parts) + "\n\nCommand: `python -m model.benchmark_schedule --data DIR "
            "--addresses 8,12 --json docs/results/schedule.json --plot docs/results/schedule.png`; "
            "with `--addresses 8 --methods opening` for what the core runs (frequency f from step "
            "8·f of a block on), with `--pattern` and `--methods` for the others.\n")


def _dataflow(folder: Path) -> str:
    parts = []
    for name in ("dataflow", "dataflow-9x64"):
        result = _read(folder, f"{name}.json")
        if not result:
            continue
        platform, flows = result["platform"], result["flows"]
        rows = []
        for index, layer in enumerate(flows["chosen"]["layers"]):
            rows.append((
                layer["name"],
                *(f"{flow['layers'][index]['bytes'] / 1e6:.3f}" for flow in flows.values()),
                layer["cycles"], layer["order"],
                f"{layer['tiles']} of {layer['tiles_total']}",
                f"{layer['kernels']} of {layer['kernels_total']}",
            ))
        rows.append(("total", *(f"{flow['bytes'] / 1e6:.3f}" for flow in flows.values()),
                     flows["chosen"]["cycles"], "", "", ""))
        saved = ", ".join(f"{100 * (flows['chosen']['bytes'] / flow['bytes'] - 1):+.1f} % against "
                          f"{label}" for label, flow in flows.items() if label != "chosen")
        parts.append(
            f"### {result['network']}, {platform['tile_lanes']} × {platform['kernel_lanes']} "
            f"lanes, {platform['tile_words']} tile words, {platform['kernel_bytes']} bytes of "
            f"kernels, {platform['feature_bytes']} of maps\n" + _table(
                ("layer", *(f"{label}, MB" for label in flows), "cycles", "order", "Ps", "Ns"),
                rows) + f"\n\nBytes: {saved}.")
    if not parts:
        return ""
    return ("## Dataflow\nComputed, not simulated: formulas and commands in docs/dataflow.md.\n\n"
            + "\n\n".join(parts) + "\n")


def _scale(folder: Path) -> str:
    return scale(folder, _read, _table)


def _pruned(folder: Path) -> str:
    return pruned(folder, _read, _table)


def _compressed(folder: Path) -> str:
    return compressed(folder, _read, _table)


def _alexnet(folder: Path) -> str:
    return alexnet(folder, _read, _table)


def _anchors(folder: Path) -> str:
    return anchors(folder, _read, _table)


def _batches(folder: Path) -> str:
    return batches(folder, _read, _table)


def _explored(folder: Path) -> str:
    return explored(folder, _read, _table)


def _bench(folder: Path) -> str:
    return sections(folder, _read, _table)


def _boards(folder: Path) -> str:
    return boards(folder, _read, _table)


def _training(folder: Path) -> str:
    return training(folder, _read, _table)


SECTIONS: tuple[Callable[[Path], str], ...] = (
    _accuracy, _pruned, _training, _compressed, _layerwise, _cycles, _scale, _alexnet, _batches,
    _anchors,
    _explored, _bench, _schedule, _dataflow, _resources, _boards, _fft,
)


def render(folder: Path) -> str:
    """Text of the results page from the JSON files of ``folder``."""
    head = ("# Results\n\nWritten by `python -m sim.results` from the files in `docs/results/`, "
            "each written by a command named below. Cycles are exact.\n")
    return "\n".join([head, *(_section(section, folder) for section in SECTIONS)])


def _section(section: Callable[[Path], str], folder: Path) -> str:
    """Text of a section; a file without what it needs is an error of the user's."""
    try:
        return section(folder)
    except UserError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder}: a result file of section {section.__name__.strip('_')!r} lacks something "
            f"or has a wrong value ({type(error).__name__}: {error}): make it again"
        ) from error


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Write the page."""
    parser = Parser(prog="python -m sim.results", description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results", metavar="DIR")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results.md", metavar="FILE")
    args = parser.parse_args(argv)
    check_target(args.out)
    if not args.results.is_dir():
        raise UserError(f"--results {args.results}: no such folder")
    write_output(args.out, render(args.results))
    print(f"results written to {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
