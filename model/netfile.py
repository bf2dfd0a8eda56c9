"""A quantised network in as few bytes as its zeros allow: the ``.spcn`` file.

Layout, little endian: ``SPCN``, version (u16), header length (u32), CRC-32 of all that follows
(u32), header (JSON: network, scales' types, and per layer the code of `model.maskcode` and the bits
of its positions), then per layer: positions, padded to a byte; the stored words, each component
``weight_bits`` wide; weight scales; biases. Scales and biases take 4 bytes where single precision
holds them exactly, else 8. Reading gives back the very network that was written.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import UserError
from model.maskcode import Code, best, parse_code
from model.network import Conv, Linear, Network, QuantisedLayer, QuantisedNetwork
from model.patterns import parse

__all__ = ["MAGIC", "LayerSize", "decode_network", "encode_network", "layer_sizes", "layer_words",
           "load_network"]

MAGIC = b"SPCN"
VERSION = 1
_HEAD = struct.Struct("<4sHII")


@dataclass(frozen=True)
class LayerSize:
    """Bytes of a layer: positions in the best code, stored words, scales and biases."""

    name: str
    code: str
    words: int
    stored: int
    position_bytes: int
    value_bytes: int
    parameter_bytes: int

    @property
    def total(self) -> int:
        """Bytes of the layer in the file, without its part of the header."""
        return self.position_bytes + self.value_bytes + self.parameter_bytes


def layer_words(layer: QuantisedLayer) -> NDArray[np.int64]:
    """Weights of a layer as words (N, C, F, parts).

    A convolution's words are complex. A fully connected layer's are single weights, or pairs of
    inputs if a pattern of pairs made its zeros.
    """
    if layer.weight.ndim == 4:
        return layer.weight
    pairs = np.pad(layer.weight, ((0, 0), (0, layer.weight.shape[1] % 2)))
    pairs = pairs.reshape(len(pairs), -1, 1, 2)
    kept = _kept(pairs).sum()
    # Pairs cost a position less, single weights a value less, for a pair with one zero.
    whole = 2 * kept - (layer.weight != 0).sum() <= kept // 8
    return pairs if whole else layer.weight[:, :, None, None]


def _kept(words: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mask of the words that are not zero."""
    return np.asarray(words.any(axis=-1))


def _code(layer: QuantisedLayer, weight_bits: int) -> tuple[NDArray[np.int64], Code]:
    words = layer_words(layer)
    mask = _kept(words)
    return words, best(mask, weight_bits * words.shape[-1], parse(layer.pattern))


def _floats(values: NDArray[np.float64]) -> bytes:
    """Single precision where that is exact; the header says which."""
    single = values.astype("<f4")
    exact = np.array_equal(single.astype(np.float64), values)
    return (single if exact else values.astype("<f8")).tobytes()


def _sections(layer: QuantisedLayer, weight_bits: int) -> tuple[dict, list[bytes]]:
    """Header entry and the four sections of a layer."""
    words, code = _code(layer, weight_bits)
    stored = code.cover(_kept(words))
    bits = code.encode(stored)
    dtype = "<i1" if weight_bits == 8 else "<i2"
    sections = [
        np.packbits(bits, bitorder="little").tobytes(), words[stored].astype(dtype).tobytes(),
        _floats(layer.weight_scale), _floats(layer.bias),
    ]
    entry = {
        "pattern": layer.pattern, "code": str(code), "bits": len(bits), "parts": words.shape[-1],
        "bytes": [len(section) for section in sections], "out_scale": layer.out_scale,
        "sum_shift": layer.sum_shift,
    }
    return entry, sections


def layer_sizes(network: QuantisedNetwork) -> list[LayerSize]:
    """Exact bytes of every layer."""
    sizes = []
    for layer, data in zip(network.network.layers, network.layers, strict=True):
        entry, sections = _sections(data, network.weight_bits)
        words = layer_words(data)
        lengths = [len(section) for section in sections]
        value = network.weight_bits // 8 * words.shape[-1]
        sizes.append(LayerSize(
            layer.name, entry["code"], int(np.prod(words.shape[:3])), lengths[1] // value,
            lengths[0], lengths[1], lengths[2] + lengths[3],
        ))
    return sizes


def encode_network(network: QuantisedNetwork) -> bytes:
    """Bytes of the file."""
    entries, body = [], []
    for layer in network.layers:
        entry, sections = _sections(layer, network.weight_bits)
        entries.append(entry)
        body += sections
    header = json.dumps({
        "network": network.network.to_dict(), "weight_bits": network.weight_bits,
        "in_scale": network.in_scale, "tile": network.tile, "in_signed": network.in_signed,
        "layers": entries,
    }, separators=(",", ":")).encode()
    content = header + b"".join(body)
    return _HEAD.pack(MAGIC, VERSION, len(header), zlib.crc32(content)) + content


def decode_network(content: bytes) -> QuantisedNetwork:
    """Inverse of `encode_network`; `ValueError` says what is wrong with the bytes."""
    if len(content) < _HEAD.size:
        raise ValueError(f"it ends after {len(content)} bytes, in the first {_HEAD.size}")
    magic, version, length, crc = _HEAD.unpack_from(content)
    if magic != MAGIC:
        raise ValueError("it does not begin with 'SPCN'")
    if version != VERSION:
        raise ValueError(f"version {version}, this one reads {VERSION}")
    rest = content[_HEAD.size:]
    if zlib.crc32(rest) != crc:
        raise ValueError("its CRC-32 does not match: it was cut or changed")
    header = json.loads(rest[:length].decode())
    network = Network.from_dict(header["network"])
    weight_bits, tile = header["weight_bits"], header["tile"]
    layers, at = [], length
    for layer, entry in zip(network.layers, header["layers"], strict=True):
        sections = []
        for size in entry["bytes"]:
            sections.append(rest[at:at + size])
            at += size
        layers.append(_layer(layer, entry, sections, weight_bits, tile))
    if at != len(rest):
        raise ValueError(f"it has {len(rest)} bytes after its head, its header says {at}")
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
    if isinstance(layer, Conv):
        outputs, channels, words = layer.out_channels, layer.channels, tile * tile // 2
    else:
        outputs, length = layer.out_features, layer.in_features
        channels, words = -(-length // entry["parts"]), 1
    raw = np.frombuffer(sections[0], dtype=np.uint8)
    if len(raw) != -(-entry["bits"] // 8):
        raise ValueError(f"positions of {len(raw)} bytes for {entry['bits']} bits")
    bits = np.unpackbits(raw, bitorder="little")[:entry["bits"]]
    mask = parse_code(entry["code"]).decode(bits, (outputs, channels, words))
    values = np.frombuffer(sections[1], dtype="<i1" if weight_bits == 8 else "<i2")
    weight = np.zeros((*mask.shape, entry["parts"]), dtype=np.int64)
    if len(values) != mask.sum() * entry["parts"]:
        raise ValueError(f"{len(values)} values for {mask.sum()} words")
    weight[mask] = values.reshape(-1, entry["parts"])
    if not isinstance(layer, Conv):
        weight = weight.reshape(outputs, -1)[:, :length]
    scale, bias = (
        np.frombuffer(section, dtype="<f4" if len(section) == 4 * outputs else "<f8")
        .astype(np.float64) for section in sections[2:]
    )
    return QuantisedLayer(weight, scale, bias, entry["out_scale"], entry["pattern"],
                          entry["sum_shift"])
