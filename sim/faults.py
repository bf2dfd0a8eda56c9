"""Planted faults: prove that the core's checks, or else the comparison, find them."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from model.errors import UserError
from model.image import HEADER_BEATS

__all__ = ["flip_bit", "sections"]


def sections(image: NDArray[np.uint64]) -> dict[str, slice]:
    """Beats of each section of an image."""
    header = [int(beat) for beat in image[:HEADER_BEATS]]
    parts = {"HEADER": slice(0, HEADER_BEATS)}
    for name, word in (("DESC", header[3]), ("KERN", header[5])):
        offset, count = word & 0xFFFF_FFFF, word >> 32
        parts[name] = slice(offset, offset + count)
    return parts


def flip_bit(image: NDArray[np.uint64], where: str, *, fix_crc: bool = False) -> tuple[
        NDArray[np.uint64], str]:
    """Copy of an image with one bit inverted, and a sentence that says which.

    Parameters
    ----------
    image : uint64 array
        A whole program image.
    where : str
        ``"1234"`` counts from the start of the image, ``"KERN:12"`` from that of a section.
    fix_crc : bool
        Make the CRCs right again, so that the fault passes the core's checks.
    """
    parts = sections(image)
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
    beat = bit // 64
    out = image.copy()
    out[beat] ^= np.uint64(1 << bit % 64)
    holder = next((name for name, part in parts.items() if part.start <= beat < part.stop), "gap")
    if fix_crc:
        crc = [zlib.crc32(out[parts[name]].tobytes()) for name in ("DESC", "KERN")]
        out[4] = crc[0] | crc[1] << 32
        out[HEADER_BEATS - 1] = zlib.crc32(out[:HEADER_BEATS - 1].tobytes())
    inside = beat - parts[holder].start if holder in parts else beat
    return out, (f"flipped bit {bit % 64} of beat {inside} of section {holder}"
                 + (", CRCs made right" if fix_crc else ""))
