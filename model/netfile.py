"""A quantised network in as few bytes as its zeros allow: the ``.spcn`` file.

`model.sections` has the layout; the magic is ``SPCN``. The header holds the network, scales' types,
and per layer the code of `model.maskcode` and the bits of its positions. Scales and biases take 4
bytes where single precision holds them exactly, else 8. Reading gives back the very network that
was written.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import UserError
from model.network import Conv, Linear, Network, QuantisedLayer, QuantisedNetwork
from model.patterns import parse
from model.sections import LayerSize, decode_layer, encode_layer, kept_words, pack, unpack

__all__ = ["MAGIC", "decode_network", "encode_network", "layer_sizes", "layer_words",
           "load_network"]

MAGIC = b"SPCN"
VERSION = 1


def layer_words(layer: QuantisedLayer) -> NDArray[np.int64]:
    """Weights of a layer as words (N, C, F, parts).

    A convolution's words are complex. A fully connected layer's are single weights, or pairs of
    inputs if a pattern of pairs made its zeros.
    """
    if layer.weight.ndim == 4:
        return layer.weight
    pairs = np.pad(layer.weight, ((0, 0), (0, layer.weight.shape[1] % 2)))
    pairs = pairs.reshape(len(pairs), -1, 1, 2)
    kept = kept_words(pairs).sum()
    # Pairs cost a position less, single weights a value less, for a pair with one zero.
    whole = 2 * kept - (layer.weight != 0).sum() <= kept // 8
    return pairs if whole else layer.weight[:, :, None, None]


def _sections(layer: QuantisedLayer, weight_bits: int) -> tuple[dict, list[bytes]]:
    """Header entry and the four sections of a layer."""
    entry, sections = encode_layer(layer_words(layer), layer.weight_scale, layer.bias, weight_bits,
                                   parse(layer.pattern))
    return {"pattern": layer.pattern} | entry | {
        "out_scale": layer.out_scale, "sum_shift": layer.sum_shift}, sections


def layer_sizes(network: QuantisedNetwork) -> list[LayerSize]:
    """Exact bytes of every layer."""
    return [
        LayerSize.of(layer.name, layer_words(data), _sections(data, network.weight_bits)[0],
                     network.weight_bits)
        for layer, data in zip(network.network.layers, network.layers, strict=True)
    ]


def encode_network(network: QuantisedNetwork) -> bytes:
    """Bytes of the file."""
    entries, body = [], []
    for layer in network.layers:
        entry, sections = _sections(layer, network.weight_bits)
        entries.append(entry)
        body += sections
    return pack(MAGIC, VERSION, {
        "network": network.network.to_dict(), "weight_bits": network.weight_bits,
        "in_scale": network.in_scale, "tile": network.tile, "in_signed": network.in_signed,
        "layers": entries,
    }, body)


def decode_network(content: bytes) -> QuantisedNetwork:
    """Inverse of `encode_network`; `ValueError` says what is wrong with the bytes."""
    header, sections = unpack(MAGIC, VERSION, content)
    network = Network.from_dict(header["network"])
    weight_bits, tile = header["weight_bits"], header["tile"]
    layers = [_layer(*item, weight_bits, tile)
              for item in zip(network.layers, header["layers"], sections, strict=True)]
    network.shapes()
    return QuantisedNetwork(network, tuple(layers), weight_bits, header["in_scale"], tile,
                            header["in_signed"])


def load_network(path: str | Path) -> QuantisedNetwork:
    """Read an ``.npz`` or ``.spcn`` network; anything wrong with the file is a `UserError`."""
    path = Path(path)
    if path.suffix != ".spcn":
        return QuantisedNetwork.load(path)
    try:
        return decode_network(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"network file {path} does not exist") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"network file {path} cannot be used: {reason}") from error


def _layer(
    layer: Conv | Linear, entry: dict, sections: list[bytes], weight_bits: int, tile: int
) -> QuantisedLayer:
    """Layer from its header entry and sections."""
    parse(entry["pattern"])
    shift = entry["sum_shift"]
    if not (shift is None or type(shift) is int):
        raise ValueError(f"layer {layer.name}: sum_shift is {shift!r}, no integer")
    if isinstance(layer, Conv):
        shape = layer.out_channels, layer.channels, tile * tile // 2
    else:
        shape = layer.out_features, -(-layer.in_features // entry["parts"]), 1
    weight, scale, bias = decode_layer(entry, sections, shape, weight_bits)
    if not isinstance(layer, Conv):
        weight = weight.reshape(layer.out_features, -1)[:, :layer.in_features]
    return QuantisedLayer(weight, scale, bias, entry["out_scale"], entry["pattern"], shift)
