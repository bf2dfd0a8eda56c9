"""Half-plane words as independent frequency bins, for solvers that treat each frequency alone.

A word of two real bins (`model.halfplane`) multiplies elementwise, all others as complex numbers.
Here each of the K*K/2 - 2 complex words is one bin and each of the four reals is one with a
vanishing imaginary part, so that a layer is one complex matrix product per bin.

Arrays are (bins, channels, outputs) for weights and (bins, tiles, channels) for spectra.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from model import halfplane
from model.tiling import Tiling

__all__ = ["Bins"]


class Bins:
    """Transforms between pixels, words and bins of one tiling.

    Parameters
    ----------
    tiling : Tiling
        Tile size and crop.

    Attributes
    ----------
    count : int
        Number of bins, K*K/2 + 2.
    share : Tensor, (bins,)
        Share of a bin's squared magnitude in the energy of the tile: bins it stands for / K*K.
    real : Tensor of bool, (bins,)
        Whether the bin is real.
    """

    def __init__(self, tiling: Tiling) -> None:
        tile = tiling.tile
        self.tile = tile
        real_word = halfplane.is_real_word(tile)
        complex_words = np.flatnonzero(~real_word)
        reals = np.flatnonzero(real_word)
        #: Word of each bin, and for the real ones which part of it.
        self.word = torch.tensor(np.concatenate([complex_words, np.repeat(reals, 2)]))
        self.part = torch.tensor([0] * len(complex_words) + [0, 1] * len(reals))
        self.count = len(self.word)
        self.real = torch.arange(self.count) >= len(complex_words)
        self.share = torch.where(self.real, 1.0, 2.0) / tile**2
        pixels = np.eye(tile * tile).reshape(-1, tile, tile)
        words = torch.tensor(halfplane.pack(np.fft.fft2(pixels)), dtype=torch.complex64)
        self._forward = self._from_words(words.T)                   # (bins, K*K)
        # Inverse of a unit bin; a complex bin and its conjugate twin give 2 Re.
        self._inverse = self._forward.conj() * self.share[:, None]  # (bins, K*K)
        keep = np.arange(tiling.kernel - 1, tile)
        index = (keep[:, None] * tile + keep).reshape(-1)
        self._valid = self._inverse[:, torch.tensor(index)].contiguous()

    def _from_words(self, words: Tensor) -> Tensor:
        """Complex words (words, ...) to bins (bins, ...)."""
        chosen = words[self.word]
        part = self.part.view(-1, *[1] * (words.ndim - 1))
        real = self.real.view(part.shape)
        value = torch.where(part == 1, chosen.imag, chosen.real)
        return torch.where(real, torch.complex(value, torch.zeros_like(value)), chosen)

    def weights(self, words: Tensor) -> Tensor:
        """Complex words (N, C, words) of a layer as (bins, C, N)."""
        return self._from_words(words.permute(2, 1, 0)).contiguous()

    def words(self, weights: Tensor) -> Tensor:
        """Undo `weights`."""
        words = torch.zeros((self.tile**2 // 2, *weights.shape[1:]), dtype=weights.dtype)
        factor = torch.where(self.part == 1, 1j, 1.0).to(weights.dtype)
        words.index_add_(0, self.word, weights * factor[:, None, None])
        return words.permute(2, 1, 0).contiguous()

    def spread(self, mask: Tensor) -> Tensor:
        """Mask of words (N, C, words) as a mask of bins (bins, C, N)."""
        return mask.permute(2, 1, 0)[self.word].contiguous()

    def spectra(self, patches: Tensor) -> Tensor:
        """Patches (T, C, K, K) to spectra (bins, T, C)."""
        tiles, channels = patches.shape[:2]
        columns = patches.reshape(tiles * channels, -1).T.contiguous()
        parts = torch.complex(self._forward.real @ columns, self._forward.imag @ columns)
        return parts.view(self.count, tiles, channels)

    def valid(self, spectra: Tensor) -> Tensor:
        """Spectra (bins, T, N) to the pixels without wrap-around, (t*t, T, N)."""
        flat = spectra.reshape(self.count, -1)
        pixels = self._valid.real.T @ flat.real + -(self._valid.imag.T @ flat.imag)
        return pixels.view(-1, *spectra.shape[1:])
