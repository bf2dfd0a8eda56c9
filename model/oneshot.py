"""Project dense weights onto a pattern without training: ``python -m model.oneshot``.

Replaces the convolutions of a quantised network by dense weights from ``--data`` of which only the
pattern's words are kept, and keeps the network's biases and scales. Made to run patterns through
the core and to count cycles before a network has been pruned for them; its outputs mean nothing.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model import halfplane
from model.benchmark_schedule import WEIGHTS
from model.errors import Parser, UserError, command
from model.files import check_target
from model.network import Conv, QuantisedLayer, QuantisedNetwork
from model.patterns import Pattern, parse, project

__all__ = ["project_layer", "main"]


def project_layer(
    layer: QuantisedLayer, dense: NDArray, pattern: Pattern, *, weight_bits: int, tile: int
) -> QuantisedLayer:
    """Return the layer with the kept words of ``dense`` (N, C, k, k) as weights.

    The largest component of a kernel becomes the largest weight; every kernel has its own scale.
    """
    words = halfplane.from_spatial(dense.astype(np.float32), tile)
    kept = project(halfplane.energy(words).astype(np.float32), pattern)
    raw = np.stack([words.real, words.imag], axis=-1) * kept[..., None]
    if raw.shape != layer.weight.shape:
        raise UserError(f"dense weights have shape {dense.shape}, too many or too few for a layer "
                        f"of {len(layer.weight)} kernels and {layer.weight.shape[1]} channels")
    scale = np.abs(raw).reshape(len(raw), -1).max(axis=1) / ((1 << weight_bits - 1) - 1)
    scale = np.where(scale > 0, scale, 1.0)
    return dataclasses.replace(
        layer, weight=np.rint(raw / scale[:, None, None, None]).astype(np.int64),
        weight_scale=scale, pattern=str(pattern),
    )


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Project the convolutions of a network file."""
    parser = Parser(prog="python -m model.oneshot", description=__doc__)
    parser.add_argument("--network", type=Path, required=True, metavar="FILE.npz",
                        help="biases and scales")
    parser.add_argument("--data", type=Path, default=os.environ.get("SPECTRAL_DATA"),
                        metavar="DIR", help=f"folder that holds {WEIGHTS}")
    parser.add_argument("--pattern", default="kernel 4", help="default: kernel 4")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    args = parser.parse_args(argv)
    if args.data is None:
        raise UserError(f"give --data DIR (or SPECTRAL_DATA) with {WEIGHTS}")
    try:
        pattern = parse(args.pattern)
    except ValueError as error:
        raise UserError(str(error)) from error
    check_target(args.out)
    network = QuantisedNetwork.load(args.network)
    path = Path(args.data) / WEIGHTS
    layers = []
    try:
        with np.load(path, allow_pickle=False) as data:
            for layer, content in zip(network.network.layers, network.layers, strict=True):
                layers.append(project_layer(
                    content, data[f"{layer.name}.w"], pattern,
                    weight_bits=network.weight_bits, tile=network.tile,
                ) if isinstance(layer, Conv) else content)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"weights {path} cannot be used: {error}") from error
    dataclasses.replace(network, layers=tuple(layers)).save(args.out)
    print(f"{args.out}: {pattern}, {network.weight_bits}-bit weights, not trained")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
