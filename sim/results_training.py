"""Sections of the results page about training: CIFAR-10 accuracy and the speed of a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from sim.results_pruning import simulated

__all__ = ["training"]

Read = Callable[[Path, str], Any]
Table = Callable[[Sequence[str], Sequence[Sequence[object]]], str]


def training(folder: Path, read: Read, table: Table) -> str:
    """Both sections; empty where nothing was measured."""
    return "\n".join(part for part in (
        _cifar(folder, read, table), _speed(folder, read, table)) if part)


def _cifar(folder: Path, read: Read, table: Table) -> str:
    """Accuracy of the networks pruned on CIFAR-10, one row per network, pattern and compression."""
    runs: dict[tuple, list[dict]] = {}
    for path in sorted(folder.glob("vgg16-cifar*-a*.json")):
        log = read(folder, path.name)
        recipe = log["recipe"]
        key = (recipe["network"], recipe["pattern"], recipe["alpha"], recipe["weight_bits"],
               recipe.get("method", "admm"), recipe.get("tag", ""))
        log["rtl"] = simulated(read(folder, f"run-{path.name}"))
        runs.setdefault(key, []).append(log)
    if not runs:
        return ""
    rows = []
    for (network, pattern, alpha, bits, method, tag), logs in sorted(runs.items()):
        losses = [log["result"]["integer_accuracy"] - log["result"]["dense_accuracy"]
                  for log in logs]
        result = logs[0]["result"]
        spread = f" ± {stdev(losses):.2f}" if len(losses) > 1 else ""
        rows.append((
            network, f"{pattern} {tag}".strip(), alpha, bits, method, len(logs),
            f"{mean(log['result']['dense_accuracy'] for log in logs):.2f}",
            f"{mean(log['result']['integer_accuracy'] for log in logs):.2f}",
            f"{mean(losses):+.2f}{spread}", f"{result['zeros_conv_percent']:.1f}",
            "/".join(_epochs(logs[0]["epochs"], stage)
                     for stage in ("dense", "admm", "masked", "retrain")),
            logs[0]["rtl"],
        ))
    name = logs[0]["data"]["name"]
    return (
        f"## Accuracy on {name}\nAll 10 000 test images. Dense: the same network in floating "
        "point, trained on the same files. Integer: the golden model with 8-bit activations, all "
        "13 convolutions spectral, batch norm folded. Epochs: dense / ADMM / masked / quantised "
        "(8+5: after 8 the run was resumed for 5 more, the rate rose again); the last epoch is "
        "taken, never the best. No images are held out: which runs to make, each layer's α and "
        "how long to go on were decided with the test accuracy of earlier ones in sight. Varied: "
        "each layer has its own α, which the log tells, and the zero words are counted over all "
        "layers. Seeds are of everything after the dense training.\n\n"
        + table(("network", "pattern", "α", "bits", "method", "seeds", "dense %", "integer %",
                 "difference", "zero spectral words %", "epochs", "RTL"), rows)
        + "\n\nEach run: `python -m pruning.train NETWORK --data DIR --config LOG.json` with its "
        "log in `docs/results/`, the dense network made once (`--dense-only`, then `--dense "
        "FILE`); a resumed one with its first number of epochs, then with `--resume "
        "--epochs-masked` and the sum. RTL: cycles per image of `python -m sim.run --network "
        "FILE.npz --config ecp5-85f --images FILE ... --json docs/results/run-LOG.json`, test "
        "images.\n"
    )


def _epochs(history: Sequence[dict], stage: str) -> str:
    """Epochs of a stage; those of a resumed one apart, which a rate that rises again tells."""
    rates = [epoch.get("rate", 0.0) for epoch in history if epoch["stage"] == stage]
    starts = [index for index in range(1, len(rates)) if rates[index] > rates[index - 1]]
    return "+".join(str(stop - start) for start, stop in
                    zip([0, *starts], [*starts, len(rates)], strict=True))


def _speed(folder: Path, read: Read, table: Table) -> str:
    """How long a training step of the spectral layers takes, in ratios."""
    rows = []
    for path in sorted(folder.glob("training-speed-*.json")):
        run = read(folder, path.name)
        peaks = [max(layer[form].get("peak_mib", 0) for layer in run["layers"])
                 for form in ("spectral", "conv2d", "fft")]
        rows.append((
            run["network"], run["precision"], f"{run['device']}, {run['threads']} thread",
            f"{run['ratio']['conv2d']:.2f}×", f"{run['ratio']['fft']:.2f}×",
            " / ".join(f"{peak:.0f}" for peak in peaks), f"{run['admm']['overhead_percent']:.1f} %",
        ))
    if not rows:
        return ""
    return (
        "## Speed of training\nTime of all convolutions forward and backward, batch 128, against "
        "`torch.nn.Conv2d` and a convolution by `torch.fft`; most memory of one layer's step "
        "(spectral / Conv2d / torch.fft); what ADMM adds to an epoch.\n\n"
        + table(("network", "precision", "device", "time / Conv2d", "time / torch.fft",
                 "peak MiB", "ADMM"), rows)
        + "\n\n`python -m pruning.benchmark NETWORK --precision P "
        "--json docs/results/training-speed-P.json`\n"
    )
