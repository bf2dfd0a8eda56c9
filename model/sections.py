"""Sections of the compact files: positions, values, scales, and the head with its CRC-32.

`model.netfile` and `model.spatialfile` share the layout, little endian: a magic of 4 bytes, version
(u16), header length (u32), CRC-32 of all that follows (u32), JSON header, then per layer positions
(bits from the low end of each byte, padded to one), stored words, weight scales, biases.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.maskcode import best, parse_code
from model.patterns import Pattern

__all__ = ["LayerSize", "decode_layer", "encode_layer", "kept_words", "pack", "unpack"]

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

    @classmethod
    def of(cls, name: str, words: NDArray[np.int64], entry: dict, weight_bits: int) -> LayerSize:
        """Sizes from what `encode_layer` entered into the header."""
        lengths = entry["bytes"]
        value = weight_bits // 8 * words.shape[-1]
        return cls(name, entry["code"], int(np.prod(words.shape[:3])), lengths[1] // value,
                   lengths[0], lengths[1], lengths[2] + lengths[3])

    @property
    def total(self) -> int:
        """Bytes of the layer in the file, without its part of the header."""
        return self.position_bytes + self.value_bytes + self.parameter_bytes


def kept_words(words: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mask (N, C, F) of the words (N, C, F, parts) that are not zero."""
    return np.asarray(words.any(axis=-1))


def encode_layer(
    words: NDArray[np.int64], scale: NDArray[np.float64], bias: NDArray[np.float64],
    weight_bits: int, pattern: Pattern | None = None,
) -> tuple[dict, list[bytes]]:
    """Entry of the header and the four sections of a layer.

    Parameters
    ----------
    words : ndarray of int64, shape (N, C, F, parts)
        Integers of ``weight_bits`` bits.
    scale, bias : ndarray of float64, shape (N,)
        Stored in single precision where that is exact, else in double.
    weight_bits : int
        8 or 16.
    pattern : Pattern, optional
        What the zeros obey, which may allow a code that no other mask fits.
    """
    mask = kept_words(words)
    code = best(mask, weight_bits * words.shape[-1], pattern)
    stored = code.cover(mask)
    bits = code.encode(stored)
    sections = [
        np.packbits(bits, bitorder="little").tobytes(),
        words[stored].astype("<i1" if weight_bits == 8 else "<i2").tobytes(),
        _floats(scale), _floats(bias),
    ]
    return {"code": str(code), "bits": len(bits), "parts": words.shape[-1],
            "bytes": [len(section) for section in sections]}, sections


def decode_layer(
    entry: dict, sections: Sequence[bytes], shape: tuple[int, int, int], weight_bits: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Words, scales and biases; `ValueError` if the sections do not fit the ``shape`` (N, C, F)."""
    raw = np.frombuffer(sections[0], dtype=np.uint8)
    if len(raw) != -(-entry["bits"] // 8):
        raise ValueError(f"positions of {len(raw)} bytes for {entry['bits']} bits")
    bits = np.unpackbits(raw, bitorder="little")[:entry["bits"]]
    mask = parse_code(entry["code"]).decode(bits, shape)
    values = np.frombuffer(sections[1], dtype="<i1" if weight_bits == 8 else "<i2")
    words = np.zeros((*mask.shape, entry["parts"]), dtype=np.int64)
    if len(values) != mask.sum() * entry["parts"]:
        raise ValueError(f"{len(values)} values for {mask.sum()} words")
    words[mask] = values.reshape(-1, entry["parts"])
    scale, bias = (
        np.frombuffer(section, dtype="<f4" if len(section) == 4 * shape[0] else "<f8")
        .astype(np.float64) for section in sections[2:]
    )
    return words, scale, bias


def pack(magic: bytes, version: int, header: dict, body: Sequence[bytes]) -> bytes:
    """Bytes of a file."""
    text = json.dumps(header, separators=(",", ":")).encode()
    content = text + b"".join(body)
    return _HEAD.pack(magic, version, len(text), zlib.crc32(content)) + content


def unpack(magic: bytes, version: int, content: bytes) -> tuple[dict, list[list[bytes]]]:
    """Header and the sections of every layer; `ValueError` says what is wrong with the bytes."""
    if len(content) < _HEAD.size:
        raise ValueError(f"it ends after {len(content)} bytes, in the first {_HEAD.size}")
    found, number, length, crc = _HEAD.unpack_from(content)
    if found != magic:
        raise ValueError(f"it does not begin with {magic.decode()!r}")
    if number != version:
        raise ValueError(f"version {number}, this one reads {version}")
    rest = content[_HEAD.size:]
    if zlib.crc32(rest) != crc:
        raise ValueError("its CRC-32 does not match: it was cut or changed")
    header = json.loads(rest[:length].decode())
    layers, at = [], length
    for entry in header["layers"]:
        if entry["parts"] not in (1, 2):
            raise ValueError(f"a word has 1 or 2 parts, not {entry['parts']!r}")
        sections = []
        for size in entry["bytes"]:
            sections.append(rest[at:at + size])
            at += size
        layers.append(sections)
    if at != len(rest):
        raise ValueError(f"it has {len(rest)} bytes after its head, its header says {at}")
    return header, layers


def _floats(values: NDArray[np.float64]) -> bytes:
    """Single precision where that is exact; the length says which."""
    single = values.astype("<f4")
    exact = np.array_equal(single.astype(np.float64), values)
    return (single if exact else values.astype("<f8")).tobytes()
