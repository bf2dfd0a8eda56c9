"""Where maps lie in the on-chip feature memory (docs/architecture.md, "Feature memory").

A row of a bank is 16 activations: 8 of an even map row and 8 of an odd one (plane), or 16
consecutive values (vector). Of F banks, bank ``c % F`` holds channel c, as its local channel
``c // F``; of a vector, bank ``j % F`` holds the values 16·j to 16·j + 15, in row ``j // F``. All
banks have the same rows, and row addresses and counts are those of one bank.

The linear image of a region, which the DMA moves, is row after row; within a row the 16 bytes of
bank 0, then those of bank 1, and so on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from model.errors import UserError

__all__ = ["Region", "allocate", "pack_plane", "part", "place", "plane", "repeated",
           "unpack_plane", "vector"]

ROW_BYTES = 16


@dataclass(frozen=True)
class Region:
    """Rows of a map in each of ``banks`` banks.

    ``plane`` rows per local channel (0 for a vector), pitch ``8 << row_log2``.
    """

    rows: int
    plane: int
    row_log2: int
    base: int = 0
    banks: int = 1


def plane(shape: tuple[int, int, int], banks: int = 1) -> Region:
    """Region of a (C, H, W) map in plane layout; the row pitch is a power of two."""
    channels, height, width = shape
    row_log2 = max(0, (ceil(width / 8) - 1).bit_length())
    per_channel = ceil(height / 2) << row_log2
    return Region(ceil(channels / banks) * per_channel, per_channel, row_log2, banks=banks)


def vector(length: int, banks: int = 1) -> Region:
    """Region of a flat vector of ``length`` bytes, whose linear image is the vector."""
    return Region(ceil(length / (ROW_BYTES * banks)), 0, 0, banks=banks)


def repeated(region: Region, count: int) -> Region:
    """Region of as many maps of the same shape, one after the other."""
    return replace(region, rows=count * region.rows)


def part(region: Region, count: int, number: int) -> Region:
    """Region of one of the ``count`` maps of a `repeated` one."""
    rows = region.rows // count
    return replace(region, rows=rows, base=region.base + number * rows)


def allocate(regions: list[Region], names: list[str], depth: int) -> list[Region]:
    """Give each region a base: input at the bottom, outputs alternately at the top and bottom.

    Neighbouring regions (a layer's input and output) never overlap.
    """
    placed = []
    for index, region in enumerate(regions):
        base = 0 if index % 2 == 0 else depth - region.rows
        placed.append(replace(region, base=base))
        before = regions[index - 1].rows if index else 0
        if before + region.rows > depth:
            raise UserError(
                f"layer {names[max(0, index - 1)]}: its maps need {before + region.rows} rows of "
                f"feature memory, the config has {depth}: raise feature_depth"
            )
    return placed


def place(
    regions: list[Region], lives: list[tuple[int, int]], names: list[str], depth: int
) -> list[Region]:
    """Give each region a base, the lowest where it meets no other one of its time.

    ``lives``: first and last step in which a region is used, by rising first step.
    """
    placed: list[Region] = []
    for index, (region, (first, last)) in enumerate(zip(regions, lives, strict=True)):
        taken = sorted((other.base, other.base + other.rows)
                       for other, (begin, end) in zip(placed, lives, strict=False)
                       if begin <= last and first <= end)
        base = 0
        for low, high in taken:
            if base + region.rows <= low:
                break
            base = max(base, high)
        if base + region.rows > depth:
            raise UserError(
                f"layer {names[max(0, index - 1)]}: its maps and those kept for later need "
                f"{base + region.rows} rows of feature memory, the config has {depth}: raise "
                "feature_depth"
            )
        placed.append(replace(region, base=base))
    return placed


def pack_plane(image: NDArray[np.integer], region: Region) -> NDArray[np.uint64]:
    """Linear image of a (C, H, W) map in plane layout, as 64-bit words, two per row and bank.

    Channels beyond C, rows beyond H and columns beyond W are zero.
    """
    channels, height, width = image.shape
    local, pairs, blocks = ceil(channels / region.banks), ceil(height / 2), 1 << region.row_log2
    padded = np.zeros((local * region.banks, pairs * 2, blocks * 8), dtype=np.uint8)
    padded[:channels, :height, :width] = image.astype(np.int64) & 0xFF
    rows = padded.reshape(local, region.banks, pairs, 2, blocks, 8)
    linear = np.ascontiguousarray(rows.transpose(0, 2, 4, 1, 3, 5))
    return linear.reshape(-1, 8).view("<u8").reshape(-1)


def unpack_plane(
    words: NDArray[np.uint64], shape: tuple[int, int, int], region: Region
) -> NDArray[np.uint8]:
    """Inverse of `pack_plane`: bytes of the (C, H, W) map in a linear image."""
    channels, height, width = shape
    local, pairs, blocks = ceil(channels / region.banks), ceil(height / 2), 1 << region.row_log2
    raw = np.ascontiguousarray(words, dtype="<u8").view(np.uint8)
    raw = raw[:ROW_BYTES * region.banks * region.rows]
    rows = raw.reshape(local, pairs, blocks, region.banks, 2, 8)
    maps = rows.transpose(0, 3, 1, 4, 2, 5).reshape(-1, pairs * 2, blocks * 8)
    return maps[:channels, :height, :width]
