"""Where maps lie in the on-chip feature memory (docs/architecture.md, "Feature memory").

A row of the memory is 16 activations: 8 of an even map row and 8 of an odd one (plane), or 16
consecutive values (vector).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from model.errors import UserError

__all__ = ["Region", "plane", "vector", "allocate", "pack_plane"]

ROW_BYTES = 16


@dataclass(frozen=True)
class Region:
    """Rows of a map: ``plane`` rows per channel (0 for a vector), pitch ``8 << row_log2``."""

    rows: int
    plane: int
    row_log2: int
    base: int = 0


def plane(shape: tuple[int, int, int]) -> Region:
    """Region of a (C, H, W) map in plane layout; the row pitch is a power of two."""
    channels, height, width = shape
    row_log2 = max(0, (ceil(width / 8) - 1).bit_length())
    per_channel = ceil(height / 2) << row_log2
    return Region(channels * per_channel, per_channel, row_log2)


def vector(length: int) -> Region:
    """Region of a flat vector of ``length`` bytes."""
    return Region(ceil(length / ROW_BYTES), 0, 0)


def allocate(regions: list[Region], names: list[str], depth: int) -> list[Region]:
    """Give each region a base: input at the bottom, outputs alternately at the top and bottom.

    Neighbouring regions (a layer's input and output) never overlap.
    """
    placed = []
    for index, region in enumerate(regions):
        base = 0 if index % 2 == 0 else depth - region.rows
        placed.append(Region(region.rows, region.plane, region.row_log2, base))
        before = regions[index - 1].rows if index else 0
        if before + region.rows > depth:
            raise UserError(
                f"layer {names[max(0, index - 1)]}: its maps need {before + region.rows} rows of "
                f"feature memory, the config has {depth}: raise feature_depth"
            )
    return placed


def pack_plane(image: NDArray[np.integer], region: Region) -> NDArray[np.uint64]:
    """Bytes of a (C, H, W) map in plane layout as 64-bit beats, two per row of the memory."""
    channels, height, width = image.shape
    pairs, blocks = ceil(height / 2), 1 << region.row_log2
    padded = np.zeros((channels, pairs * 2, blocks * 8), dtype=np.uint8)
    padded[:, :height, :width] = image.astype(np.int64) & 0xFF
    rows = padded.reshape(channels, pairs, 2, blocks, 8)
    return np.ascontiguousarray(np.swapaxes(rows, 2, 3)).reshape(-1, 8).view("<u8").reshape(-1)
