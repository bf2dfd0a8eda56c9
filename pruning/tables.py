"""Tables of the spectral layers: transforms as matrices, and which kernel pixel joins what."""

from __future__ import annotations

from functools import lru_cache
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model import halfplane
from model.network import Conv
from model.tiling import Tiling

__all__ = ["circulant", "joins", "split", "tiling_of", "transforms", "windows"]


def split(words: np.ndarray) -> Tensor:
    """Complex words as (..., 2) real and imaginary parts."""
    return torch.tensor(np.stack([words.real, words.imag], axis=-1))


def transforms(tile: int) -> tuple[Tensor, Tensor]:
    """Matrices of the DFT of a tile into words and back, in double precision.

    Returns
    -------
    analysis, synthesis : Tensor, shape (K*K, K*K)
        From pixels to the real and imaginary parts of the words, and from these to pixels; both
        multiply a row from the right.
    """
    pixels = np.eye(tile * tile).reshape(-1, tile, tile)
    forward = split(halfplane.pack(np.fft.fft2(pixels))).flatten(1)
    units = np.eye(tile * tile).reshape(-1, tile * tile // 2, 2)
    inverse = np.fft.ifft2(halfplane.unpack(units[..., 0] + 1j * units[..., 1])).real
    return forward, torch.tensor(inverse.reshape(len(units), -1))


@lru_cache(maxsize=256)
def tiling_of(layer: Conv, height: int, width: int, tile: int) -> Tiling:
    """Tiling of a map, made once per size."""
    return layer.tiling((layer.in_channels, height, width), tile)


def windows(maps: Tensor, plan: Tiling) -> Tensor:
    """Patches (B, C, tiles_y, tiles_x, K, K) of maps (B, C, height, width), padded as planned."""
    (top, bottom), (left, right) = plan.pads
    padded = functional.pad(maps, (left, right, top, bottom))
    return padded.unfold(2, plan.tile, plan.step).unfold(3, plan.tile, plan.step)


def _distances(rows: np.ndarray, columns: np.ndarray, inputs: tuple, tile: int) -> np.ndarray:
    """Kernel pixel that joins each output to each input pixel of the tile, flat."""
    down = (rows[:, None] - inputs[0]) % tile
    right = (columns[:, None] - inputs[1]) % tile
    return (down[:, None, :, None] * tile + right[None, :, None, :]).reshape(-1)


@lru_cache(maxsize=64)
def circulant(kernel: int, tile: int, device: str) -> Tensor:
    """Kernel pixel that joins each valid output to each patch pixel, flat (t*t*K*K,)."""
    outputs, inputs = np.arange(kernel - 1, tile), np.arange(tile)
    index = _distances(outputs, outputs, (inputs, inputs), tile)
    # Kept for training, which may not save tensors of inference mode.
    with torch.inference_mode(False):
        return cast(Tensor, torch.tensor(index, device=device))


@lru_cache(maxsize=64)
def joins(plan: Tiling, device: str) -> tuple[Tensor, Tensor]:
    """Kernel pixels between the pixels and the outputs of a one-tile map, and which joins what."""
    rows = np.arange(plan.out_height) + plan.kernel - 1
    columns = np.arange(plan.out_width) + plan.kernel - 1
    inputs = np.arange(plan.height) + plan.edges[0], np.arange(plan.width) + plan.edges[1]
    used, index = np.unique(_distances(rows, columns, inputs, plan.tile), return_inverse=True)
    with torch.inference_mode(False):
        return torch.tensor(used, device=device), torch.tensor(index.reshape(-1), device=device)
