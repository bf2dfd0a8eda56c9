"""Any network's quantised weights, not transformed, in as few bytes as their zeros allow.

The layout is that of `model.sections`, the magic ``SPCS``; a word is a single weight, in the order
of the weight's axes. What the layers are (strides, pools) is the business of whoever knows the
network by its name. Reading gives back the very integers, scales and biases that were written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import UserError
from model.sections import LayerSize, decode_layer, encode_layer, pack, unpack

__all__ = ["SpatialLayer", "SpatialNetwork", "decode_spatial", "encode_spatial", "load_spatial",
           "spatial_words"]

MAGIC = b"SPCS"
VERSION = 1
WEIGHT_BITS = 8


@dataclass(frozen=True)
class SpatialLayer:
    """Integers and scales of one layer.

    Attributes
    ----------
    name : str
        Of the layer.
    weight : int array, (N, ...)
        Integers in -127 ... 127 in the shape of the layer's weight.
    weight_scale : float array, (N,)
        Real value of weight integer 1, per output.
    bias : float array, (N,)
        Real bias.
    out_scale : float or None
        Real value of output integer 1, 0 ... 255; None: the output is not rounded.
    """

    name: str
    weight: NDArray[np.int64]
    weight_scale: NDArray[np.float64]
    bias: NDArray[np.float64]
    out_scale: float | None


@dataclass(frozen=True)
class SpatialNetwork:
    """Layers of a network known by its name; inputs are 8-bit pixels times ``in_scale``."""

    name: str
    in_scale: float
    layers: tuple[SpatialLayer, ...]


def spatial_words(layer: SpatialLayer) -> NDArray[np.int64]:
    """Weights as words (N, C, F, 1): input channels, and what a kernel has of each."""
    shape = layer.weight.shape
    return layer.weight.reshape(*shape[:2], int(np.prod(shape[2:])), 1)


def _encode(layer: SpatialLayer) -> tuple[dict, list[bytes]]:
    """Header entry and sections of a layer."""
    entry, sections = encode_layer(spatial_words(layer), layer.weight_scale, layer.bias,
                                   WEIGHT_BITS)
    return {"name": layer.name, "shape": list(layer.weight.shape)} | entry | {
        "out_scale": layer.out_scale}, sections


def encode_spatial(network: SpatialNetwork) -> tuple[bytes, list[LayerSize]]:
    """Bytes of the file, and which layer takes how many of them."""
    parts = [_encode(layer) for layer in network.layers]
    header = {"network": network.name, "in_scale": network.in_scale,
              "layers": [entry for entry, _ in parts]}
    content = pack(MAGIC, VERSION, header, [part for _, body in parts for part in body])
    return content, [LayerSize.of(layer.name, spatial_words(layer), entry, WEIGHT_BITS)
                     for layer, (entry, _) in zip(network.layers, parts, strict=True)]


def decode_spatial(content: bytes) -> SpatialNetwork:
    """Inverse of `encode_spatial`; `ValueError` says what is wrong with the bytes."""
    header, sections = unpack(MAGIC, VERSION, content)
    layers = []
    for entry, body in zip(header["layers"], sections, strict=True):
        shape = tuple(entry["shape"])
        words, scale, bias = decode_layer(
            entry, body, (shape[0], shape[1], int(np.prod(shape[2:]))), WEIGHT_BITS)
        layers.append(SpatialLayer(entry["name"], words.reshape(shape), scale, bias,
                                   entry["out_scale"]))
    return SpatialNetwork(header["network"], header["in_scale"], tuple(layers))


def load_spatial(path: Path) -> SpatialNetwork:
    """Read a file; anything wrong with it is a `UserError`."""
    try:
        return decode_spatial(path.read_bytes())
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"weights {path} cannot be used: {reason}") from error
