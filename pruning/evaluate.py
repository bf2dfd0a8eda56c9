"""Integer accuracy of quantised networks on all test images: ``python -m pruning.evaluate``.

MNIST for networks that read one channel, CIFAR-10 for those that read 3×32×32.  Runs the golden
model, so it is the accuracy of the RTL, bit for bit.  Needs no torch.
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
from model.errors import Parser, UserError, command
from model.files import check_target, write_output
from model.lower import lower
from model.netfile import load_network
from model.network import Conv, QuantisedNetwork
from pruning.cifar import SHAPE, load_cifar
from pruning.data import data_directory, load_digits

__all__ = ["accuracy", "layer_density", "load_tests", "sparsity", "main"]

ZOO = Path(__file__).resolve().parents[1] / "model" / "zoo"
BATCH = 500

#: Images (B, C, H, W) as the network reads them, labels (B,), name of the data set.
Tests = tuple[NDArray[np.uint8], NDArray[np.uint8], str]


def load_tests(directory: Path, shape: tuple[int, int, int]) -> Tests:
    """Test images of the data set for input maps of ``shape``; digits are zero-padded evenly."""
    if shape == SHAPE:
        images = load_cifar(directory, "test")
        return images.images, images.labels, images.kind
    if shape[0] != 1 or min(shape[1:]) < 28:
        raise UserError(f"no test images for an input of shape {shape}: MNIST needs (1, 28, 28) or "
                        f"more, CIFAR-10 {SHAPE}")
    digits = load_digits(directory, "t10k")
    before = [(size - 28) // 2 for size in shape[1:]]
    pads = [(margin, size - 28 - margin) for margin, size in zip(before, shape[1:], strict=True)]
    return np.pad(digits.images, ((0, 0), *pads))[:, None], digits.labels, "MNIST"


def accuracy(
    network: QuantisedNetwork, images: NDArray[np.integer], labels: NDArray[np.integer]
) -> float:
    """Percentage of images (B, C, H, W) the integer network classifies correctly."""
    lowered = lower(network)
    right = 0
    starts = range(0, len(images), BATCH)
    for start in track(starts, network.network.name, console=Console(stderr=True), transient=True):
        # Large batches: every one casts all weights anew. The golden model cuts them to fit memory.
        scores = golden.scores(lowered, images[start:start + BATCH].astype(np.int64), BATCH)
        right += int((scores.argmax(axis=1) == labels[start:start + BATCH]).sum())
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


def layer_density(network: QuantisedNetwork) -> dict[str, float]:
    """Share of non-zero words (convolutions) or weights (fully connected) of every layer."""
    result = {}
    for layer, data in zip(network.network.layers, network.layers, strict=True):
        kept = data.weight.any(axis=-1) if isinstance(layer, Conv) else data.weight != 0
        result[layer.name] = float(kept.mean())
    return result


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate the given networks, or all that are shipped."""
    parser = Parser(prog="python -m pruning.evaluate", description=__doc__)
    parser.add_argument("networks", nargs="*", type=Path, metavar="FILE.npz",
                        help="networks (default: all shipped ones)")
    parser.add_argument("--data", metavar="DIR", help="folder of the MNIST and CIFAR-10 files")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    args = parser.parse_args(argv)
    check_target(args.json)
    directory = data_directory(args.data)
    files = args.networks or sorted(ZOO.glob("lenet*.npz"))
    loaded: dict[tuple[int, int, int], Tests] = {}
    results = []
    for path in files:
        network = load_network(path)
        shape = network.network.input_shape
        if shape not in loaded:
            loaded[shape] = load_tests(directory, shape)
        images, labels, kind = loaded[shape]
        zeros = sparsity(network)
        entry = {
            "file": path.name, "network": network.network.name, "data": kind,
            "patterns": [data.pattern for data in network.layers],
            "weight_bits": network.weight_bits, "images": len(labels),
            "accuracy": accuracy(network, images, labels),
            "zeros_conv": zeros["conv"], "zeros_linear": zeros["linear"],
            "density": layer_density(network),
        }
        results.append(entry)
        print(f"{path.name}: {entry['accuracy']:.2f} % of {len(labels)} images of {kind}, "
              f"{zeros['conv']:.1f} % of the spectral words and {zeros['linear']:.1f} % of the "
              "linear weights are zero")
    if args.json:
        write_output(args.json, json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
