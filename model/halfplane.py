"""Half-plane packing: a real K x K tile is exactly K*K/2 complex words.

A real tile has a Hermitian spectrum, ``X[-u, -v] = conj(X[u, v])``, so half of it is redundant.
Word ``f = K*v + u`` for ``v = 0 ... K/2-1`` and ``u = 0 ... K-1`` holds (u vertical, v horizontal)

=====================  ======================================================
v = 1 ... K/2-1        ``X[u, v]``
v = 0, u = 0           real part ``X[0, 0]``, imaginary part ``X[K/2, 0]``
v = 0, u = 1..K/2-1    ``X[u, 0]``
v = 0, u = K/2         real part ``X[0, K/2]``, imaginary part ``X[K/2, K/2]``
v = 0, u = K/2+1..K-1  ``X[u - K/2, K/2]``
=====================  ======================================================

The words ``f = 0`` and ``f = K/2`` are two real numbers each and multiply elementwise; all others
multiply as complex numbers.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray


def word_count(tile: int) -> int:
    """Complex words of a `tile` x `tile` real tile, K*K/2."""
    if isinstance(tile, bool) or not isinstance(tile, (int, np.integer)):
        raise TypeError(f"tile must be an integer, not {tile!r}")
    if tile < 2 or tile % 2:
        raise ValueError(f"tile must be even and at least 2, not {tile}")
    return tile * tile // 2


def tile_of(words: int) -> int:
    """Tile edge K whose spectrum has `words` half-plane words."""
    tile = isqrt(2 * words)
    if words < 2 or tile % 2 or tile * tile != 2 * words:
        raise ValueError(f"{words} is no K*K/2 of an even K")
    return tile


def is_real_word(tile: int) -> NDArray[np.bool_]:
    """Mask of the words that hold two real bins, shape (K*K/2,)."""
    mask = np.zeros(word_count(tile), dtype=bool)
    mask[[0, tile // 2]] = True
    return mask


def pack(spectrum: NDArray) -> NDArray[np.complexfloating[Any, Any]]:
    """Pack the 2-D DFT of a real tile into half-plane words.

    Parameters
    ----------
    spectrum : ndarray, shape (..., K, K)
        Hermitian spectrum.  The redundant half is not read.

    Returns
    -------
    ndarray, shape (..., K*K/2)
        Complex words in the order of the table above.
    """
    spectrum = np.asarray(spectrum)
    if spectrum.ndim < 2 or spectrum.shape[-1] != spectrum.shape[-2]:
        raise ValueError(f"expected (..., K, K), not shape {spectrum.shape}")
    tile = spectrum.shape[-1]
    half = tile // 2
    count = word_count(tile)
    dtype = np.result_type(spectrum.dtype, np.complex64)
    words = np.empty((*spectrum.shape[:-2], half, tile), dtype=dtype)
    words[..., 1:, :] = np.swapaxes(spectrum[..., :, 1:half], -1, -2)
    words[..., 0, 1:half] = spectrum[..., 1:half, 0]
    words[..., 0, half + 1 :] = spectrum[..., 1:half, half]
    words[..., 0, 0] = spectrum[..., 0, 0].real + 1j * spectrum[..., half, 0].real
    words[..., 0, half] = spectrum[..., 0, half].real + 1j * spectrum[..., half, half].real
    return words.reshape(*spectrum.shape[:-2], count)


def unpack(words: NDArray) -> NDArray[np.complexfloating[Any, Any]]:
    """Rebuild the full Hermitian spectrum; the inverse of `pack`.

    Parameters
    ----------
    words : ndarray, shape (..., K*K/2)
        Half-plane words.

    Returns
    -------
    ndarray, shape (..., K, K)
        Complex spectrum whose inverse DFT is real.
    """
    words = np.asarray(words)
    tile = tile_of(words.shape[-1])
    half = tile // 2
    grid = words.reshape(*words.shape[:-1], half, tile)
    dtype = np.result_type(words.dtype, np.complex64)
    spectrum = np.empty((*words.shape[:-1], tile, tile), dtype=dtype)
    spectrum[..., :, 1:half] = np.swapaxes(grid[..., 1:, :], -1, -2)
    for column, first in ((0, 0), (half, half)):
        spectrum[..., 0, column] = grid[..., 0, first].real
        spectrum[..., half, column] = grid[..., 0, first].imag
        spectrum[..., 1:half, column] = grid[..., 0, first + 1 : first + half]
        spectrum[..., half + 1 :, column] = spectrum[..., half - 1 : 0 : -1, column].conj()
    mirror = -np.arange(tile) % tile
    spectrum[..., :, half + 1 :] = spectrum[..., mirror, half - 1 : 0 : -1].conj()
    return spectrum


def from_spatial(kernel: NDArray, tile: int) -> NDArray[np.complexfloating[Any, Any]]:
    """Half-plane words of a spatial kernel.

    CNN layers correlate, circular convolution does not, so the kernel is flipped first.

    Parameters
    ----------
    kernel : ndarray, shape (..., k, k)
        Real kernel as a CNN layer holds it.
    tile : int
        Tile edge K >= k.

    Returns
    -------
    ndarray, shape (..., K*K/2)
        ``pack(fft2(flip(kernel) padded to K x K))``.
    """
    kernel = np.asarray(kernel)
    word_count(tile)
    if kernel.ndim < 2 or kernel.shape[-1] != kernel.shape[-2] or kernel.shape[-1] > tile:
        raise ValueError(f"expected (..., k, k) with k <= {tile}, not shape {kernel.shape}")
    flipped = kernel[..., ::-1, ::-1]
    return pack(np.fft.fft2(flipped, s=(tile, tile), axes=(-2, -1)))


def multiply(a: NDArray, b: NDArray) -> NDArray[np.complexfloating[Any, Any]]:
    """Multiply spectra in packed form, elementwise on the two words of real bins.

    Parameters
    ----------
    a, b : ndarray, shape (..., K*K/2)
        Half-plane words, broadcast against each other.

    Returns
    -------
    ndarray, shape (..., K*K/2)
        Words of the product spectrum (a circular convolution in space).
    """
    a, b = np.asarray(a), np.asarray(b)
    real = is_real_word(tile_of(a.shape[-1]))
    return np.where(real, a.real * b.real + 1j * (a.imag * b.imag), a * b)


def multiplicity(tile: int) -> NDArray[np.int64]:
    """How many DFT bins each part of a word stands for: 2 (conjugate pair) or 1, shape (K*K/2,)."""
    return np.where(is_real_word(tile), 1, 2)


def energy(words: NDArray) -> NDArray[np.floating[Any]]:
    """Energy of each word in the full spectrum, for ranking.

    A complex word counts ``2 |W|**2`` (it stands for a conjugate pair), a word of two real bins
    ``re**2 + im**2``; the sum over words is K*K times the energy of the tile (Parseval).

    Parameters
    ----------
    words : ndarray, shape (..., K*K/2)
        Half-plane words.

    Returns
    -------
    ndarray, shape (..., K*K/2)
        Non-negative energies.
    """
    words = np.asarray(words)
    squared = words.real**2 + words.imag**2
    return squared * multiplicity(tile_of(words.shape[-1]))
