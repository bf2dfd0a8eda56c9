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


def _schedule(folder: Path) -> str:
    parts = []
    for name in ("schedule", "schedule-balanced"):
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
            "with `--pattern 'balanced 4'` and `--methods` for the second table.\n")


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


SECTIONS: tuple[Callable[[Path], str], ...] = (
    _accuracy, _cycles, _schedule, _dataflow, _resources, _fft,
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
