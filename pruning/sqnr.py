"""Where a pruned network loses precision: SQNR of every layer on held-out photographs.

``python -m pruning.sqnr --network build/vgg16-channel-a4-w8.npz --data DIR``

Three networks see the same photographs: dense (floating point), pruned (floating point, spectral
weights) and integer (the golden model, equal to the RTL). Maps are compared after ReLU and pool.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model import golden, photographs
from model.errors import Parser, UserError, command
from model.files import check_target
from model.lower import lower_layer
from model.netfile import load_network
from model.network import Conv, QuantisedLayer, QuantisedNetwork
from pruning.calibration import calibration_images
from pruning.layersettings import Settings
from pruning.report import write_json
from pruning.threads import use_threads

if TYPE_CHECKING:
    from torch import Tensor

    from pruning.vgg import Weights

__all__ = ["main", "measure"]

COLUMNS = (
    ("integer, layer alone", "layer_db"), ("integer, from the image", "integer_db"),
    ("pruned to dense", "pruned_db"), ("integer to dense", "total_db"),
)


def measure(network: QuantisedNetwork, pruned: QuantisedNetwork, weights: Weights,
            images: NDArray[np.floating]) -> list[dict[str, float | str]]:
    """SQNR in dB per layer.

    Parameters
    ----------
    network : QuantisedNetwork
        The integer network.
    pruned : QuantisedNetwork
        Weights of the floating point network on the same support, taken at their real values: the
        16-bit network that an 8-bit one was made from, or `network` itself.
    weights : dict of str to (kernel, bias)
        Dense weights by layer.
    images : float array, (B, 3, H, W)
        Mean-subtracted photographs.

    Returns
    -------
    list of dict
        ``layer``; ``layer_db``: the integer layer against the pruned one on the integer network's
        own input; ``integer_db``: integer against pruned network, from the image on; ``pruned_db``:
        pruned against dense network; ``total_db``: integer against dense network.
    """
    import torch

    from pruning.samples import decibels

    maps = photographs.quantise(images)
    dense = floating = torch.tensor(images, dtype=torch.float32)
    scale = network.in_scale
    report: list[dict[str, float | str]] = []
    for index, (layer, data) in enumerate(zip(network.network.layers, pruned.layers, strict=True)):
        if not isinstance(layer, Conv):
            raise UserError(f"layer {layer.name}: only convolutions are compared")
        alone = _pruned_layer(layer, data, torch.tensor(maps * scale, dtype=torch.float32))
        floating = _pruned_layer(layer, data, floating)
        dense = _dense_layer(layer, weights, dense)
        maps = golden.layer_maps(lower_layer(network, index), maps, network.tile)
        scale = network.layers[index].out_scale
        integer = torch.tensor(maps * scale, dtype=torch.float32)
        report.append({"layer": layer.name} | {key: round(decibels(signal, noisy), 2) for
                       key, signal, noisy in (
            ("layer_db", alone, integer), ("integer_db", floating, integer),
            ("pruned_db", dense, floating), ("total_db", dense, integer),
        )})
    return report


def _pruned_layer(layer: Conv, data: QuantisedLayer, maps: Tensor) -> Tensor:
    """Compute maps (B, N, H', W') of a spectral layer in floating point."""
    import torch

    from pruning.bins import Bins
    from pruning.layersettings import TILE
    from pruning.rounding import real_words
    from pruning.samples import convolve

    shape = maps.shape[1], maps.shape[2], maps.shape[3]
    tiling = layer.tiling(shape, TILE)
    bins = Bins(tiling)
    words = bins.weights(torch.tensor(real_words(data)).to(torch.complex64))
    return convolve(layer, tiling, bins, maps, words, torch.tensor(data.bias).float())


def _dense_layer(layer: Conv, weights: Weights, maps: Tensor) -> Tensor:
    """Compute maps (B, N, H', W') of the dense layer."""
    import torch
    from torch.nn import functional

    kernel, bias = (torch.tensor(array) for array in weights[layer.name])
    value = functional.conv2d(maps, kernel, bias, padding=layer.edges[:2])
    value = functional.relu(value) if layer.relu else value
    return functional.max_pool2d(value, layer.pool) if layer.pool > 1 else value


def _parser() -> argparse.ArgumentParser:
    """Options of the command."""
    parser = Parser(prog="python -m pruning.sqnr", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, required=True, metavar="FILE.npz",
                        help="what pruning.layerwise wrote")
    parser.add_argument("--pruned", type=Path, metavar="FILE.npz",
                        help="weights of the floating point network: the 16-bit network that an "
                        "8-bit one was made from (default: those of --network)")
    parser.add_argument("--weights", default="hed", metavar="hed|synthetic|FILE.npz",
                        help="dense weights, as for pruning.layerwise (default hed)")
    parser.add_argument("--data", metavar="DIR", help="folder of the photographs (default "
                        "SPECTRAL_DATA; synthetic weights do without)")
    parser.add_argument("--cache", type=Path, default=Path("build"), metavar="DIR",
                        help="where the dense weights are or go (default %(default)s)")
    default = Settings()
    for name, text in (("images", "photographs that pruning calibrated on, to leave out"),
                       ("held_out", "other photographs to measure on"),
                       ("seed", "seed of the choice")):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int,
                            default=getattr(default, name), help=f"{text} (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the file."""
    args = _parser().parse_args(argv)
    check_target(args.json)
    if args.images < 0 or args.held_out < 1:
        raise UserError(f"--images {args.images} --held-out {args.held_out}: give at least 0 and 1")
    network = load_network(args.network)
    pruned = load_network(args.pruned) if args.pruned else network
    if pruned.network != network.network:
        raise UserError(f"{args.pruned} is another network than {args.network}")
    use_threads(args.threads)
    import torch

    from pruning.vgg import load

    images = calibration_images(args.data, args.images, args.held_out, network.network.input_shape,
                                args.seed, made_up=args.weights == "synthetic")[args.images:]
    with torch.no_grad():
        report = measure(network, pruned, load(args.weights, network.network, args.cache), images)
    print(f"{'layer':10}" + "".join(f"{head:>26}" for head, _ in COLUMNS))
    for entry in report:
        print(f"{entry['layer']:10}" + "".join(f"{entry[key]:26.1f}" for _, key in COLUMNS))
    if args.json:
        write_json(args.json, {
            "network": args.network.stem, "pruned": (args.pruned or args.network).stem,
            "weights": Path(args.weights).name, "weight_bits": network.weight_bits,
            "held_out": args.held_out, "images": args.images, "seed": args.seed, "layers": report,
        })
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
