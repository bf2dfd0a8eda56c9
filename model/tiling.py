"""Overlap-save tiling: the one definition of tile origin, padding and crop.

A pruned spectral kernel has no k x k support any more, so where the tiles lie is part of the
network's function.  Training, the golden model and the hardware all take it from here.

A layer reads K x K patches at stride ``t = K - k + 1`` (zero padded outside the image), convolves
each of them circularly, and keeps the t x t outputs that no wrap-around touched.  Nothing is added
across tiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def edges_of(padding: int | tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Zero rows and columns above, left, below and right, of one number or of all four."""
    return padding if isinstance(padding, tuple) else (padding, padding, padding, padding)


@dataclass(frozen=True)
class Tiling:
    """Where the input patches and output tiles of one convolution layer lie.

    Parameters
    ----------
    height, width : int
        Size of the input feature map.
    kernel : int
        Edge k of the (square) spatial kernel.
    padding : int or (top, left, bottom, right)
        Zero rows and columns the layer adds on every side, or on each.
    tile : int
        Edge K of the transform, even.

    Notes
    -----
    Tile (ty, tx) reads rows ``ty*t - top ... ty*t - top + K - 1`` and the columns likewise,
    and writes output rows ``ty*t ... ty*t + t - 1``, cropped to the output size.
    """

    height: int
    width: int
    kernel: int
    padding: int | tuple[int, int, int, int] = 0
    tile: int = 8

    def __post_init__(self) -> None:
        """Refuse a geometry that has no output."""
        edges = self.padding if isinstance(self.padding, tuple) else (self.padding,)
        sizes = [(name, getattr(self, name)) for name in ("height", "width", "kernel", "tile")]
        for name, value in [*sizes, *(("padding", edge) for edge in edges)]:
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise TypeError(f"{name} must be an integer, not {value!r}")
        if self.tile < 2 or self.tile % 2:
            raise ValueError(f"tile must be even and at least 2, not {self.tile}")
        if not 1 <= self.kernel <= self.tile:
            raise ValueError(f"kernel must be 1..{self.tile} (the tile), not {self.kernel}")
        if len(edges) not in (1, 4):
            raise ValueError(f"padding must be one number or four, not {self.padding}")
        if min(edges) < 0:
            raise ValueError(f"padding must not be negative, not {self.padding}")
        if self.out_height < 1 or self.out_width < 1:
            raise ValueError(
                f"a {self.kernel}x{self.kernel} kernel does not fit a {self.height}x{self.width} "
                f"map with padding {self.padding}"
            )

    @property
    def edges(self) -> tuple[int, int, int, int]:
        """Zero rows and columns above, left, below and right."""
        return edges_of(self.padding)

    @property
    def step(self) -> int:
        """Edge t of an output tile, and the stride of the input patches."""
        return self.tile - self.kernel + 1

    @property
    def out_height(self) -> int:
        """Rows of the output map."""
        return self.height + self.edges[0] + self.edges[2] - self.kernel + 1

    @property
    def out_width(self) -> int:
        """Columns of the output map."""
        return self.width + self.edges[1] + self.edges[3] - self.kernel + 1

    @property
    def tiles_y(self) -> int:
        """Tiles along the vertical axis."""
        return -(-self.out_height // self.step)

    @property
    def tiles_x(self) -> int:
        """Tiles along the horizontal axis."""
        return -(-self.out_width // self.step)

    @property
    def tiles(self) -> int:
        """Tiles of one channel, counted row by row."""
        return self.tiles_y * self.tiles_x

    @property
    def origins(self) -> NDArray[np.int64]:
        """Input row and column where each patch starts, shape (tiles, 2); may be negative."""
        rows = np.arange(self.tiles_y) * self.step - self.edges[0]
        cols = np.arange(self.tiles_x) * self.step - self.edges[1]
        grid = np.meshgrid(rows, cols, indexing="ij")
        return np.stack([axis.ravel() for axis in grid], axis=-1).astype(np.int64)

    @property
    def pads(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Zeros before and after each axis so that every patch lies inside: ((t, b), (l, r))."""
        covered_y = self.tiles_y * self.step + self.kernel - 1
        covered_x = self.tiles_x * self.step + self.kernel - 1
        return (
            (self.edges[0], covered_y - self.edges[0] - self.height),
            (self.edges[1], covered_x - self.edges[1] - self.width),
        )

    def extract(self, x: NDArray) -> NDArray:
        """Cut a feature map into overlapping patches.

        Parameters
        ----------
        x : ndarray, shape (..., height, width)
            Feature map of any dtype.

        Returns
        -------
        ndarray, shape (..., tiles, K, K)
            The patches in the order of `origins`, zero outside the image.
        """
        x = np.asarray(x)
        if x.shape[-2:] != (self.height, self.width):
            raise ValueError(f"expected a {self.height}x{self.width} map, not shape {x.shape}")
        padded = np.pad(x, [(0, 0)] * (x.ndim - 2) + list(self.pads))
        windows = np.lib.stride_tricks.sliding_window_view(
            padded, (self.tile, self.tile), axis=(-2, -1)
        )[..., :: self.step, :: self.step, :, :]
        return windows.reshape(*x.shape[:-2], self.tiles, self.tile, self.tile)

    def valid(self, tiles: NDArray) -> NDArray:
        """Keep the outputs without wrap-around: rows and columns k-1 ... K-1.

        Parameters
        ----------
        tiles : ndarray, shape (..., K, K)
            Circular convolutions.

        Returns
        -------
        ndarray, shape (..., t, t)
            A view of the input.
        """
        if tiles.shape[-2:] != (self.tile, self.tile):
            raise ValueError(f"expected {self.tile}x{self.tile} tiles, not shape {tiles.shape}")
        return tiles[..., self.kernel - 1 :, self.kernel - 1 :]

    def assemble(self, tiles: NDArray) -> NDArray:
        """Put output tiles side by side and crop them to the output map.

        Parameters
        ----------
        tiles : ndarray, shape (..., tiles, t, t)
            Valid outputs (see `valid`) in the order of `origins`.

        Returns
        -------
        ndarray, shape (..., out_height, out_width)
            The output map, same dtype.
        """
        tiles = np.asarray(tiles)
        t = self.step
        if tiles.shape[-3:] != (self.tiles, t, t):
            raise ValueError(f"expected (..., {self.tiles}, {t}, {t}), not shape {tiles.shape}")
        lead = tiles.shape[:-3]
        grid = tiles.reshape(*lead, self.tiles_y, self.tiles_x, t, t)
        full = np.swapaxes(grid, -3, -2).reshape(*lead, self.tiles_y * t, self.tiles_x * t)
        return full[..., : self.out_height, : self.out_width]
