"""Grouped convolution: kernel blocks that see only the channels of their part.

Two ways. *Parts*: the issue unit begins each kernel block at the first channel of its part, so
neither weights nor cycles are spent on the others; this needs parts of whole rows of r channels and
of whole kernel blocks, and the implicit walk. *Block diagonal*: an ordinary layer whose kernels are
zero outside their part. Scattered kernels lose nothing by it, they name the channels they use; the
implicit walk passes the zeros, which costs as many times the steps as there are parts.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from model.config import AcceleratorConfig
from model.entries import addressing
from model.lower import LoweredLayer
from model.network import Conv
from model.patterns import ChannelPattern, parse

__all__ = ["block_diagonal", "divide"]

#: An entry for every channel.
DENSE = "channel 1:1"


def divide(
    layer: LoweredLayer, config: AcceleratorConfig
) -> tuple[LoweredLayer, dict[str, int]]:
    """Layer as it is compiled and the descriptor fields of its parts (0: no parts)."""
    whole, conv = {"part_blocks": 0, "part_groups": 0}, layer.layer
    if not isinstance(conv, Conv) or conv.groups == 1:
        return layer, whole
    count, channels = len(layer.weight) // conv.groups, layer.weight.shape[1]
    fits = channels % config.banks == 0 and count % config.kernel_lanes == 0
    if fits and not addressing(layer, config).scatter:
        return layer, {"part_blocks": count // config.kernel_lanes,
                       "part_groups": channels // config.banks}
    pattern = parse(layer.pattern)
    if isinstance(pattern, ChannelPattern) and channels % pattern.m:
        # Groups of m channels would reach over the border of two parts.
        layer = dataclasses.replace(layer, pattern=DENSE)
    return dataclasses.replace(
        layer, weight=block_diagonal(layer.weight, conv.groups),
        layer=dataclasses.replace(conv, groups=1),
    ), whole


def block_diagonal(weight: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    """Words (N, C/groups, F, 2) of a grouped layer as those (N, C, F, 2) of an ordinary one."""
    outputs, channels, words, _ = weight.shape
    if not any(weight.strides):         # a shape only, see `model.outline`
        return np.broadcast_to(weight[:1, :1, :1, :1], (outputs, groups * channels, words, 2))
    full = np.zeros((groups, outputs // groups, groups, channels, words, 2), dtype=weight.dtype)
    part = np.arange(groups)
    full[part, :, part] = weight.reshape(groups, outputs // groups, channels, words, 2)
    return full.reshape(outputs, groups * channels, words, 2)
