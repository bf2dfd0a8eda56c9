"""Strided convolution on phases: stride s on C channels is stride 1 on s·s·C of them.

Phase (i, j) of a channel holds its pixels of rows i, i + s, i + 2s … and columns j, j + s, …; the
kernel is cut the same way, so each phase has ``ceil(k/s)`` taps and every product of the strided
convolution appears once (the padding of the kernel to whole phases is zero). Channel c's phases
are the channels ``c·s² + i·s + j``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Polyphase", "fold_kernel"]


@dataclass(frozen=True)
class Polyphase:
    """How a map is cut into phases.

    Parameters
    ----------
    shape : (C, H, W)
        Of the map.
    stride : int
        s.
    before : (top, left)
        Zero rows above and columns left of the map, cut along with it.
    size : (rows, columns)
        Of each phase: what the convolution reads. Pixels beyond are left out, missing ones zero.
    """

    shape: tuple[int, int, int]
    stride: int
    before: tuple[int, int]
    size: tuple[int, int]

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """Shape (s·s·C, rows, columns) of the phases."""
        return self.shape[0] * self.stride**2, *self.size

    def fold(self, maps: NDArray) -> NDArray:
        """Cut maps (..., C, H, W) into phases (..., s·s·C, rows, columns)."""
        if maps.shape[-3:] != self.shape:
            raise ValueError(f"expected maps of {self.shape}, not {maps.shape}")
        (channels, height, width), s, (top, left) = self.shape, self.stride, self.before
        lead, (rows, columns) = maps.shape[:-3], self.size
        full = np.zeros((*lead, channels, max(rows * s, top + height), max(columns * s,
                                                                           left + width)),
                        dtype=maps.dtype)
        full[..., top:top + height, left:left + width] = maps
        cut = full[..., :rows * s, :columns * s].reshape(*lead, channels, rows, s, columns, s)
        return np.moveaxis(cut, (-3, -1), (-4, -3)).reshape(*lead, *self.out_shape)


def fold_kernel(weight: NDArray, stride: int) -> NDArray:
    """Cut kernels (N, C, k, k) into those of the phases, (N, s·s·C, ceil(k/s), ceil(k/s))."""
    count, channels, size, _ = weight.shape
    taps = -(-size // stride)
    missing = taps * stride - size
    padded = np.pad(weight, ((0, 0), (0, 0), (0, missing), (0, missing)))
    cut = padded.reshape(count, channels, taps, stride, taps, stride)
    return np.moveaxis(cut, (3, 5), (2, 3)).reshape(count, channels * stride**2, taps, taps)
