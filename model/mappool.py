"""Pooling of finished maps: windows of any place, also across output tiles; `rtl.mappool` mirrors.

A maximum takes the integers as they are, padding never wins. An average is the sum of a window,
padding being zero, times ``multiplier / 2**shift``, rounded and saturated as everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.fixed import round_shift, saturate
from model.operators import Pool

__all__ = ["MULTIPLIER_BITS", "average_scale", "pool_maps"]

#: Width of the multiplier of an average.
MULTIPLIER_BITS = 12


def average_scale(size: int) -> tuple[int, int]:
    """Multiplier and shift that divide by ``size**2``, within one part in 4000."""
    if not 1 <= size <= 15:
        raise ValueError(f"size must be 1 to 15, not {size!r}")
    shift = (size * size - 1).bit_length() + MULTIPLIER_BITS - 1
    multiplier = (2 * (1 << shift) + size * size) // (2 * size * size)
    return min(multiplier, (1 << MULTIPLIER_BITS) - 1), shift


def pool_maps(pool: Pool, maps: NDArray[np.int64], signed: bool) -> NDArray[np.int64]:
    """Pool maps (..., C, H, W) of 8-bit integers, signed or not."""
    shape = maps.shape[-3:]
    _, height, width = pool.out_shape(shape)
    size, stride, pad = pool.window(shape), pool.stride, pool.padding
    lowest = np.iinfo(np.int64).min if pool.kind == "max" else 0
    padded = np.pad(maps, [(0, 0)] * (maps.ndim - 2) + [(pad, pad)] * 2, constant_values=lowest)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(-2, -1))
    windows = windows[..., ::stride, ::stride, :, :][..., :height, :width, :, :]
    if pool.kind == "max":
        return windows.max(axis=(-2, -1))
    multiplier, shift = average_scale(size)
    return saturate(round_shift(windows.sum(axis=(-2, -1)) * multiplier, shift), 8, signed)
