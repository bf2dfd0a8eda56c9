"""Program image: what the core loads. Format: docs/program-image.md.

Header of `HEADER_WORDS` words, section DESC (descriptors), section KERN (kernel streams): 64-bit
words, little endian. A section begins at a beat of the memory port and is filled with zeros to a
whole number of them; offsets and lengths count beats. `rtl.checker` makes the checks of
`ProgramImage.parse` in the same order.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.config import AcceleratorConfig
from model.descriptor import BEATS, pack, unpack
from model.errors import UserError
from model.files import write_atomic

__all__ = ["HEADER_WORDS", "MAGIC", "VERSION", "ErrorCode", "ImageError", "ProgramImage",
           "build_image", "load_image", "save_image"]

#: Words of the header; the last one is the CRC of the others.
HEADER_WORDS = 16
MAGIC = int.from_bytes(b"SPECTRAL", "little")
VERSION = 3


class ErrorCode(enum.IntEnum):
    """Error field of the core's STATUS register; up to `LAYERS`, also those of `parse`."""

    NONE = 0
    MAGIC = 1
    VERSION = 2
    CONFIG = 3
    TRUNCATED = 4
    HEADER_CRC = 5
    DESCRIPTOR_CRC = 6
    KERNEL_CRC = 7
    BUS = 8
    NOT_LOADED = 9
    LAYERS = 10
    ABORTED = 11
    TIMEOUT = 12
    OWING = 13


class ImageError(UserError):
    """A program image that fails a check; ``code`` is the error the core would report."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        self.code = code
        super().__init__(f"program image: {text}")


def _words(values: Sequence[int], port_words: int = 1) -> NDArray[np.uint64]:
    """Words, filled with zeros to whole beats."""
    return np.array([*values, *[0] * (-len(values) % port_words)], dtype="<u8")


def _crc(words: NDArray[np.uint64]) -> int:
    return zlib.crc32(np.ascontiguousarray(words, dtype="<u8").tobytes())


def _pair(low: int, high: int, name: str) -> int:
    for value in (low, high):
        if not 0 <= value < 1 << 32:
            raise ValueError(f"header {name} = {value} does not fit 32 bits")
    return low | high << 32


def build_image(
    config: AcceleratorConfig, descriptors: Sequence[dict[str, int]],
    kernel_streams: Sequence[NDArray[np.uint64]], input_base: int, input_rows: int,
    output_base: int, output_rows: int, *, stream_of: Sequence[int] | None = None, batch: int = 1,
) -> NDArray[np.uint64]:
    """Assemble the image of a program.

    Parameters
    ----------
    config : AcceleratorConfig
        Config the program was compiled for.
    descriptors : list of dict
        One per layer; ``stream_offset`` (beats from the start of KERN) and ``stream_beats`` are
        filled in here.
    kernel_streams : list of uint64 array
        Kernel streams, whole beats.
    input_base, input_rows, output_base, output_rows : int
        Feature-memory rows of the input and of the output map.
    stream_of : list of int or None
        Number of each layer's stream; None: each has its own.
    batch : int
        Inputs of a run. The rows of the input are those of one, of the output those of all.

    Returns
    -------
    uint64 array
        The 64-bit words of the image, whole beats.
    """
    port_words = config.port_words
    if not 1 <= len(descriptors) <= config.max_layers:
        raise ValueError(f"a program has 1 to {config.max_layers} layers, not {len(descriptors)}")
    if stream_of is None:
        stream_of = range(len(kernel_streams))
    if len(descriptors) != len(stream_of) or set(stream_of) != set(range(len(kernel_streams))):
        raise ValueError(f"{len(descriptors)} descriptors, {len(kernel_streams)} kernel streams")
    rows = (("input", input_base, input_rows), ("output", output_base, output_rows))
    for name, base, count in rows:
        if base < 0 or count < 0 or base + count > config.feature_depth:
            raise ValueError(f"{name} rows {base}..{base + count - 1} lie outside the feature "
                             f"memory of {config.feature_depth} rows")
    offset, places = 0, []
    for stream in kernel_streams:
        if len(stream) % port_words:
            raise ValueError(f"a kernel stream of {len(stream)} words is not whole beats of "
                             f"{port_words} words")
        places.append((offset, len(stream) // port_words))
        offset += len(stream) // port_words
    for descriptor, number in zip(descriptors, stream_of, strict=True):
        descriptor["stream_offset"], descriptor["stream_beats"] = places[number]
    desc = _words([word for descriptor in descriptors for word in pack(descriptor)], port_words)
    kern = np.concatenate([np.asarray(stream, dtype="<u8") for stream in kernel_streams])
    desc_offset = ceil(HEADER_WORDS / port_words)
    desc_beats = len(desc) // port_words
    kern_offset = desc_offset + desc_beats
    header = [
        MAGIC,
        _pair(VERSION, config.digest, "version"),
        _pair(len(descriptors), kern_offset + offset, "beats"),
        _pair(desc_offset, desc_beats, "DESC"),
        _pair(_crc(desc), _crc(kern), "CRC"),
        _pair(kern_offset, offset, "KERN"),
        _pair(input_base, input_rows, "input"),
        _pair(output_base, output_rows, "output"),
        _pair(batch, 0, "batch"),
    ]
    header += [0] * (HEADER_WORDS - 1 - len(header))
    header.append(_crc(_words(header)))
    return np.concatenate([_words(header, port_words), desc, kern])


@dataclass(frozen=True)
class ProgramImage:
    """A parsed and checked image.

    Attributes
    ----------
    config_digest : int
        Digest of the config it was compiled for.
    descriptors : tuple of dict
        Fields of each layer.
    kernels : uint64 array
        Section KERN.
    port_words : int
        64-bit words of a beat.
    input_base, input_rows, output_base, output_rows : int
        Feature-memory rows of an input and of the outputs.
    batch : int
        Inputs of a run.
    """

    config_digest: int
    descriptors: tuple[dict[str, int], ...]
    kernels: NDArray[np.uint64]
    port_words: int
    input_base: int
    input_rows: int
    output_base: int
    output_rows: int
    batch: int

    def stream(self, layer: int) -> NDArray[np.uint64]:
        """Kernel stream of a layer."""
        start = self.descriptors[layer]["stream_offset"]
        stop = start + self.descriptors[layer]["stream_beats"]
        return self.kernels[self.port_words * start:self.port_words * stop]

    @classmethod
    def parse(cls, content: bytes, config: AcceleratorConfig | None = None) -> ProgramImage:
        """Check an image as the core does; `ImageError` names the section and what is wrong.

        Without ``config`` any config digest and any number of layers of a 64-bit port will do.
        """
        port_words = config.port_words if config else 1
        header_bytes = 8 * len(_words([0] * HEADER_WORDS, port_words))
        if len(content) < header_bytes:
            raise ImageError(ErrorCode.TRUNCATED, f"section HEADER needs {header_bytes} "
                             f"bytes, the file has {len(content)}")
        words = np.frombuffer(content[:len(content) // 8 * 8], dtype="<u8")
        header = [int(word) for word in words[:HEADER_WORDS]]
        (version, digest), (layers, total) = map(_split, header[1:3])
        desc_part, (desc_crc, kern_crc), kern_part = map(_split, header[3:6])
        if header[0] != MAGIC:
            raise ImageError(ErrorCode.MAGIC, "section HEADER does not begin with 'SPECTRAL'")
        if header[-1] != _crc(words[:HEADER_WORDS - 1]):
            raise ImageError(ErrorCode.HEADER_CRC, "section HEADER is corrupt (CRC-32)")
        if version != VERSION:
            raise ImageError(ErrorCode.VERSION, f"section HEADER has version {version}, this "
                             f"reader knows {VERSION}")
        if config is not None and digest != config.digest:
            raise ImageError(ErrorCode.CONFIG, f"section HEADER was compiled for config digest "
                             f"{digest:08x}, {config.name} has {config.digest:08x}")
        if layers == 0 or config is not None and layers > config.max_layers:
            limit = "1 or more" if config is None else f"1 to {config.max_layers}"
            raise ImageError(ErrorCode.LAYERS, f"section HEADER has {layers} layers instead of "
                             f"{limit}")
        if total > len(words) // port_words:
            raise ImageError(ErrorCode.TRUNCATED, f"section HEADER announces "
                             f"{8 * port_words * total} bytes, the file has {len(content)}")
        for name, (offset, count) in (("DESC", desc_part), ("KERN", kern_part)):
            if offset + count > total:
                raise ImageError(ErrorCode.TRUNCATED, f"section {name} (beats {offset} to "
                                 f"{offset + count - 1}) ends after the image ({total} beats)")
        needed = ceil(BEATS * layers / port_words)
        if desc_part[1] != needed:
            raise ImageError(ErrorCode.TRUNCATED, f"section DESC has {desc_part[1]} beats, "
                             f"{layers} layers take {needed}")
        desc, kern = (words[port_words * first:port_words * (first + count)]
                      for first, count in (desc_part, kern_part))
        if _crc(desc) != desc_crc:
            raise ImageError(ErrorCode.DESCRIPTOR_CRC, "section DESC is corrupt (CRC-32)")
        if _crc(kern) != kern_crc:
            raise ImageError(ErrorCode.KERNEL_CRC, "section KERN is corrupt (CRC-32)")
        return cls(
            digest,
            tuple(unpack([int(word) for word in part])
                  for part in desc[:BEATS * layers].reshape(layers, BEATS)),
            kern, port_words, *_split(header[6]), *_split(header[7]), _split(header[8])[0],
        )


def _split(word: int) -> tuple[int, int]:
    return word & 0xFFFF_FFFF, word >> 32


def save_image(path: Path | str, image: NDArray[np.uint64]) -> None:
    """Write the words of an image to a file, whole or not at all."""
    try:
        write_atomic(path, np.ascontiguousarray(image, dtype="<u8").tobytes())
    except OSError as error:
        raise UserError(f"cannot write program image {path}: {error.strerror}") from error


def load_image(path: Path | str, config: AcceleratorConfig | None = None) -> NDArray[np.uint64]:
    """Read and check an image file; `UserError` names the file and what is wrong with it."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read program image {path}: {error.strerror}") from error
    try:
        ProgramImage.parse(content, config)
    except ImageError as error:
        raise ImageError(error.code, f"{path}: {str(error).removeprefix('program image: ')}"
                         ) from error
    return np.frombuffer(content[:len(content) // 8 * 8], dtype="<u8")
