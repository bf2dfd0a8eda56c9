"""Networks without weights: what the compiler decides from shapes and patterns alone.

A pattern ``channel n:m`` fixes how many entries and steps every kernel takes, whatever the weights
are. So descriptors, steps, entries and beats of a network, all that `model.cost` needs, follow in
milliseconds, without drawing, packing or scheduling a weight. The compiler does it itself
(`model.compile.compile_outline`), with layers whose weights have a shape and no values.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from model.compile import Outline, compile_outline
from model.config import ROW_BITS, AcceleratorConfig
from model.errors import UserError
from model.lower import WORD_PEAK, Addition, LoweredLayer, LoweredNetwork
from model.maps import place_maps
from model.network import Conv, Linear, Network
from model.patterns import ChannelPattern, parse

__all__ = ["Outline", "acc_bits", "compile_outline", "dense_operations", "feature_rows", "outline",
           "part"]

#: Half-plane words of a tile.
WORDS = 32


def part(network: Network, first: int, stop: int) -> Network:
    """Layers ``first`` to ``stop - 1`` as a network of their own."""
    if not 0 <= first < stop <= len(network.layers):
        raise UserError(f"layers {first}:{stop} do not lie within 0:{len(network.layers)}")
    if any(added is not None and added < first
           for added in (network.added(index) for index in range(first, stop))):
        raise UserError(f"layers {first}:{stop} do not hold a layer that one of them adds")
    if (first, stop) == (0, len(network.layers)):
        return network
    return Network(f"{network.name}[{first}:{stop}]", network.shapes()[first],
                   network.layers[first:stop])


def outline(
    network: Network, pattern: str, weight_bits: int, linear: str | None = None
) -> LoweredNetwork:
    """Lower a network without weights.

    Parameters
    ----------
    network : Network
        Its shapes.
    pattern : str
        Pattern of the layers, ``channel n:m``.
    weight_bits : int
        8 or 16.
    linear : str or None
        Pattern of the fully connected layers, if it is another.

    Raises
    ------
    UserError
        A pattern is none, or one whose steps depend on the weights.
    """
    for text in filter(None, (pattern, linear)):
        try:
            parsed = parse(text)
        except ValueError as error:
            raise UserError(str(error)) from error
        if not isinstance(parsed, ChannelPattern):
            raise UserError(f"pattern {text}: the steps of an irregular pattern depend on the "
                            "weights, only channel n:m can be estimated without them")
    shapes = network.shapes()
    layers = tuple(
        _layer(network, index, shapes[index],
               linear or pattern if isinstance(layer, Linear) else pattern)
        for index, layer in enumerate(network.layers)
    )
    return LoweredNetwork(network.name, 8, weight_bits, layers)


def dense_operations(network: Network) -> int:
    """Multiplications and additions of the dense network, of its spatial form."""
    total = 0
    for layer, shape in zip(network.layers, network.shapes(), strict=False):
        if isinstance(layer, Conv):
            outputs, height, width = layer.map_shape(shape)
            pixels = height * width * layer.pool**2
            total += outputs * pixels * layer.in_channels // layer.groups * layer.kernel**2
        else:
            total += layer.in_features * layer.out_features
    return 2 * total


def _shape_only(*shape: int) -> NDArray[np.int64]:
    """Zeros that take no memory."""
    return np.broadcast_to(np.int64(0), shape)


def _layer(
    network: Network, index: int, source: tuple[int, int, int], pattern: str
) -> LoweredLayer:
    layer = network.layers[index]
    map_shape, out_shape = layer.map_shape(source), layer.out_shape(source)
    wide = index == len(network.layers) - 1 and isinstance(layer, Linear)
    in_signed = bool(index) and not network.layers[index - 1].relu
    added = network.added(index)
    addition = None if added is None else Addition(added, 3, not network.layers[added].relu)
    in_shape, phases = source, None
    if isinstance(layer, Conv):
        outputs = layer.out_channels
        weight = _shape_only(outputs, layer.channels, WORDS, 2)
        phases = layer.polyphase(source)
        layer, in_shape = layer.unfolded(source)
    else:
        outputs = layer.out_features
        weight = _shape_only(outputs, layer.in_features)
    nothing = _shape_only(outputs)
    return LoweredLayer(
        layer, in_shape, map_shape, out_shape, weight, pattern, in_signed,
        not layer.relu or wide, wide, 0, 0, nothing, nothing, phases, addition,
    )


def acc_bits(network: LoweredNetwork) -> int:
    """Count the accumulator bits that suffice whatever the weights are (26 at least)."""
    largest = 2 * ((1 << (network.weight_bits - 1)) - 1)    # |w| <= limit, so |re| + |im| <= twice
    peak = 0
    for layer in network.layers:
        pattern = parse(layer.pattern)
        share = pattern.n if isinstance(pattern, ChannelPattern) else 1
        group = pattern.m if isinstance(pattern, ChannelPattern) else 1
        channels = prod(layer.weight.shape[1:]) // (1 if layer.dot else 2 * WORDS)
        words = -(-channels // 2) if layer.dot else channels
        kept = words // group * share + min(share, words % group)
        # A dot product sums two products of two bytes, see `model.lower.worst_accumulator`.
        peak = max(peak, kept * largest * (2 * 255 if layer.dot else WORD_PEAK))
    return max(26, peak.bit_length() + 1)


def feature_rows(network: LoweredNetwork, config: AcceleratorConfig) -> int:
    """Count the least ``feature_depth``, a multiple of 64, that holds the maps of a network.

    Raises
    ------
    UserError
        None does, or the core cannot run a layer.
    """
    def fits(depth: int) -> bool:
        try:
            place_maps(network, replace(config, feature_depth=depth))
        except UserError:
            return False
        return True

    low, high = 1, (1 << ROW_BITS) // config.feature_banks // 64    # in multiples of 64
    if not fits(64 * high):
        place_maps(network, replace(config, feature_depth=64 * high))
    while low < high:
        middle = (low + high) // 2
        if fits(64 * middle):
            high = middle
        else:
            low = middle + 1
    return 64 * high
