"""Integer accuracy of quantised networks on all MNIST test digits: ``python -m pruning.evaluate``.

Runs the golden model, so it is the accuracy of the RTL, bit for bit. Needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from model import golden
from model.errors import Parser, command
from model.files import check_target, write_output
from model.lower import lower
from model.netfile import load_network
from model.network import Conv, QuantisedNetwork
from pruning.data import Digits, data_directory, load_digits

__all__ = ["accuracy", "sparsity", "main"]

ZOO = Path(__file__).resolve().parents[1] / "model" / "zoo"
BATCH = 500


def as_inputs(digits: Digits, shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """Digits (B, 28, 28) as input maps (B, 1, H, W), zero-padded evenly."""
    margin = [(size - 28) // 2 for size in shape[1:]]
    padding = ((0, 0), (margin[0], margin[0]), (margin[1], margin[1]))
    return np.pad(digits.images, padding).astype(np.int64)[:, None]


def accuracy(network: QuantisedNetwork, digits: Digits) -> float:
    """Percentage of digits the integer network classifies correctly."""
    lowered = lower(network)
    images = as_inputs(digits, network.network.input_shape)
    right = 0
    starts = range(0, len(images), BATCH)
    for start in track(starts, network.network.name, console=Console(stderr=True), transient=True):
        scores = golden.scores(lowered, images[start:start + BATCH])
        right += int((scores.argmax(axis=1) == digits.labels[start:start + BATCH]).sum())
    return 100 * right / len(images)


def sparsity(network: QuantisedNetwork) -> dict[str, float]:
    """Percentage of zero words (convolutions) and zero weights (fully connected layers)."""
    zeros, total = {"conv": 0, "linear": 0}, {"conv": 0, "linear": 0}
    for layer, data in zip(network.network.layers, network.layers, strict=True):
        kind = "conv" if isinstance(layer, Conv) else "linear"
        kept = data.weight.any(axis=-1) if kind == "conv" else data.weight != 0
        zeros[kind] += int((~kept).sum())
        total[kind] += kept.size
    return {kind: 100 * zeros[kind] / max(1, total[kind]) for kind in zeros}


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate the given networks, or all that are shipped."""
    parser = Parser(prog="python -m pruning.evaluate", description=__doc__)
    parser.add_argument("networks", nargs="*", type=Path, metavar="FILE.npz",
                        help="networks (default: all shipped ones)")
    parser.add_argument("--data", metavar="DIR", help="folder of the MNIST files")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    args = parser.parse_args(argv)
    check_target(args.json)
    digits = load_digits(data_directory(args.data), "t10k")
    files = args.networks or sorted(ZOO.glob("lenet*.npz"))
    results = []
    for path in files:
        network = load_network(path)
        zeros = sparsity(network)
        results.append({
            "file": path.name, "network": network.network.name,
            "patterns": [data.pattern for data in network.layers],
            "weight_bits": network.weight_bits, "digits": len(digits.labels),
            "accuracy": accuracy(network, digits),
            "zeros_conv": zeros["conv"], "zeros_linear": zeros["linear"],
        })
        entry = results[-1]
        print(f"{entry['file']}: {entry['accuracy']:.2f} % of {entry['digits']} digits, "
              f"{zeros['conv']:.1f} % of the spectral words and {zeros['linear']:.1f} % of the "
              "linear weights are zero")
    if args.json:
        write_output(args.json, json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
