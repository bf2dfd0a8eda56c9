"""Random pruned networks: real shapes, patterns and value ranges without trained weights.

Spectral words are drawn directly on the pattern ``channel 1:alpha``, with He's gain (He et al.,
ICCV 2015: the energy of activations stays the same from layer to layer), so a network of any depth
uses the range of its integers. Cycles depend on shapes and patterns only; accuracy means nothing.
"""

from __future__ import annotations

import argparse

import numpy as np

from model.errors import UserError
from model.network import NETWORKS, Conv, Linear, Network, QuantisedLayer, QuantisedNetwork
from model.photographs import IN_SCALE

__all__ = ["add_synthetic", "draw", "synthetic_network"]

#: Activations are 8 bits: the scale that puts four standard deviations of a photograph into them.
OUT_SCALE = 1.0
#: What a select of eight bits can name.
MOST_ALPHA = 256


def synthetic_network(
    network: Network, *, weight_bits: int = 16, alpha: int = 4, seed: int = 0,
    dense_alpha: int | None = None,
) -> QuantisedNetwork:
    """Draw a pruned, quantised network for mean-subtracted photographs.

    Parameters
    ----------
    network : Network
        Convolutions and fully connected layers.
    weight_bits : int
        8 or 16.
    alpha : int
        One of ``alpha`` input channels is kept for each output and frequency.
    seed : int
        Of the random numbers.
    dense_alpha : int, optional
        The same of a fully connected layer's words (pairs of inputs); by default ``alpha``.

    Raises
    ------
    UserError
        A number is not possible.
    """
    dense_alpha = alpha if dense_alpha is None else dense_alpha
    for number in (alpha, dense_alpha):
        if not 1 <= number <= MOST_ALPHA:
            raise UserError(f"synthetic weights: alpha must be 1 to {MOST_ALPHA}, not {number}")
    if seed < 0:
        raise UserError(f"synthetic weights: the seed must not be negative, not {seed}")
    rng = np.random.default_rng(seed)
    limit = (1 << (weight_bits - 1)) - 1
    layers = []
    for layer in network.layers:
        part = alpha if isinstance(layer, Conv) else dense_alpha
        if isinstance(layer, Conv):
            outputs, channels, count = layer.out_channels, layer.channels, 32
        else:       # a word is two inputs
            outputs, channels, count = layer.out_features, -(-layer.in_features // 2), 1
        groups = -(-channels // part)
        words = np.zeros((outputs, groups, part, count, 2))
        kept = rng.integers(0, part, (outputs, groups, 1, count, 1))
        # A word of a dense He-initialised kernel has the energy 2/C, half of it in each component;
        # of L = 2C inputs each has 2/L.
        values = rng.normal(0, np.sqrt(part / channels), (outputs, groups, 1, count, 2))
        np.put_along_axis(words, kept, values, axis=2)
        words = words.reshape(outputs, groups * part, count, 2)[:, :channels]
        if isinstance(layer, Linear):
            words = words.reshape(outputs, -1)[:, :layer.in_features]
        scale = np.abs(words).reshape(outputs, -1).max(axis=1) / limit
        scale[scale == 0] = 1       # a large alpha may leave a kernel of few channels empty
        ones = (1,) * (words.ndim - 1)
        layers.append(QuantisedLayer(
            weight=np.round(words / scale.reshape(-1, *ones)).astype(np.int64),
            weight_scale=scale, bias=rng.normal(0, 1, outputs), out_scale=OUT_SCALE,
            pattern=f"channel 1:{part}",
        ))
    # Photographs without their mean are signed, digits are not.
    return QuantisedNetwork(network, tuple(layers), weight_bits, IN_SCALE,
                            in_signed=network.input_shape[0] > 1)


def add_synthetic(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a command that draws a network, for `draw`."""
    parser.add_argument("--alpha", type=int, default=4, help="compression (default: 4)")
    parser.add_argument("--dense-alpha", type=int, metavar="ALPHA",
                        help="of the fully connected layers of synthetic weights (default: ALPHA)")
    parser.add_argument("--seed", type=int, default=1,
                        help="of synthetic weights, inputs and stalls (default: 1)")


def draw(args: argparse.Namespace, name: str, weight_bits: int) -> QuantisedNetwork:
    """Draw the network ``name`` as the arguments of `add_synthetic` say."""
    if name not in NETWORKS:
        raise UserError(f"unknown network {name!r}: known are {', '.join(NETWORKS)}")
    return synthetic_network(NETWORKS[name], weight_bits=weight_bits, alpha=args.alpha,
                             seed=args.seed, dense_alpha=args.dense_alpha)
