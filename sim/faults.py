"""Planted faults: prove that the core's checks, or else the comparison, find them."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from model.config import AcceleratorConfig
from model.errors import UserError
from model.image import HEADER_WORDS

__all__ = ["flip_bit", "sections"]


def sections(image: NDArray[np.uint64], config: AcceleratorConfig) -> dict[str, slice]:
    """64-bit words of each section of an image; of the header without what fills its last beat."""
    parts = {"HEADER": slice(0, HEADER_WORDS)}
    for name, word in (("DESC", int(image[3])), ("KERN", int(image[5]))):
        offset, count = word & 0xFFFF_FFFF, word >> 32
        parts[name] = slice(config.port_words * offset, config.port_words * (offset + count))
    return parts


def flip_bit(image: NDArray[np.uint64], config: AcceleratorConfig, where: str, *,
             fix_crc: bool = False) -> tuple[NDArray[np.uint64], str]:
    """Copy of an image with one bit inverted, and a sentence that says which.

    Parameters
    ----------
    image : uint64 array
        A whole program image.
    config : AcceleratorConfig
        What it was compiled for.
    where : str
        ``"1234"`` counts from the start of the image, ``"KERN:12"`` from that of a section.
    fix_crc : bool
        Make the CRCs right again, so that the fault passes the core's checks.
    """
    parts = sections(image, config)
    name, colon, digits = where.rpartition(":")
    section = name.upper()
    if (colon and section not in parts) or not digits.isdecimal():
        raise UserError(f"bit {where!r}: give a number, or a section ({', '.join(parts)}) and a "
                        "number as in KERN:12")
    first = parts[section].start if colon else 0
    stop = parts[section].stop if colon else len(image)
    bit = 64 * first + int(digits)
    if bit >= 64 * stop:
        raise UserError(f"bit {where} lies beyond the {64 * (stop - first)} bits of "
                        f"{section or 'the image'}")
    word = bit // 64
    out = image.copy()
    out[word] ^= np.uint64(1 << bit % 64)
    holder = next((name for name, part in parts.items() if part.start <= word < part.stop), "gap")
    if fix_crc:
        crc = [zlib.crc32(out[parts[name]].tobytes()) for name in ("DESC", "KERN")]
        out[4] = crc[0] | crc[1] << 32
        out[HEADER_WORDS - 1] = zlib.crc32(out[:HEADER_WORDS - 1].tobytes())
    inside = word - parts[holder].start if holder in parts else word
    return out, (f"flipped bit {bit % 64} of word {inside} of section {holder}"
                 + (", CRCs made right" if fix_crc else ""))
