"""Sparsity patterns and their exact projections.

A pattern says which half-plane words of a layer may be non-zero.  Its projection takes the energy
of every word, shape (N outputs, C input channels, F words), and returns the words to keep, so that
the energy thrown away is the least possible (the Z-step of ADMM).

* ``kernel alpha`` (SPEC2, FPGA'20): the F / alpha largest words of every (output, input) kernel.
* ``balanced alpha``: every output has the same number of words at a frequency, positions free; how
  many is chosen per frequency so that C*F / alpha words are kept and the most energy with them.
  Rows of equal length keep all kernel lanes busy with one frequency in flight (`model.access`).
* ``channel n:m``: for each output n and frequency f, at most n of every m consecutive input
  channels, and at most ``N*C*F * n/m`` words in the layer.  The second rule gives layers with few
  channels the same density; elsewhere it hardly binds.

A fully connected layer is a layer with F = 1 whose words are two adjacent inputs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class _Compression:
    """A pattern that keeps one word of ``alpha``; its name is the first word of its text."""

    alpha: int
    name: ClassVar[str]

    def __post_init__(self) -> None:
        """Refuse a compression below one."""
        _require_count("alpha", self.alpha)

    @property
    def density(self) -> float:
        """Largest share of words kept."""
        return 1 / self.alpha

    def __str__(self) -> str:
        """Text that `parse` reads."""
        return f"{self.name} {self.alpha}"


@dataclass(frozen=True)
class KernelPattern(_Compression):
    """Keep the F / alpha largest words of each kernel, positions free.

    Parameters
    ----------
    alpha : int
        Compression of every kernel.
    """

    name = "kernel"


@dataclass(frozen=True)
class BalancedPattern(_Compression):
    """Keep C*F / alpha words of each output, equally many for all outputs at each frequency.

    Parameters
    ----------
    alpha : int
        Compression of the layer.
    """

    name = "balanced"


@dataclass(frozen=True)
class ChannelPattern:
    """Keep n of every m consecutive input channels, for each output and frequency.

    Parameters
    ----------
    n, m : int
        At most n words in each group of m channels, and n/m of the layer.
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        """Refuse a group that keeps more than it has."""
        _require_count("n", self.n)
        _require_count("m", self.m)
        if self.n > self.m:
            raise ValueError(f"channel n:m needs n <= m, not {self.n}:{self.m}")

    @property
    def density(self) -> float:
        """Largest share of words kept."""
        return self.n / self.m

    def __str__(self) -> str:
        """Text that `parse` reads."""
        return f"channel {self.n}:{self.m}"


Pattern = KernelPattern | ChannelPattern | BalancedPattern


def parse(text: str) -> Pattern:
    """Read a pattern from its text: ``"kernel 4"``, ``"balanced 4"`` or ``"channel 1:4"``."""
    if not isinstance(text, str):
        raise TypeError(f"pattern must be text, not {text!r}")
    if found := re.fullmatch(r"\s*kernel\s+(\d+)\s*", text):
        return KernelPattern(int(found[1]))
    if found := re.fullmatch(r"\s*balanced\s+(\d+)\s*", text):
        return BalancedPattern(int(found[1]))
    if found := re.fullmatch(r"\s*channel\s+(\d+):(\d+)\s*", text):
        return ChannelPattern(int(found[1]), int(found[2]))
    raise ValueError(f"unknown pattern {text!r}: expected 'kernel ALPHA', 'balanced ALPHA' "
                     "or 'channel N:M'")


def project(energy: NDArray, pattern: Pattern) -> NDArray[np.bool_]:
    """Choose the words to keep: the nearest point of the pattern in energy norm.

    Parameters
    ----------
    energy : ndarray, shape (N, C, F)
        Non-negative energy of every word.
    pattern : KernelPattern, BalancedPattern or ChannelPattern
        The constraint.

    Returns
    -------
    ndarray of bool, shape (N, C, F)
        True where the word is kept.  Words without energy are never kept; of equal words the one
        with the lowest index wins.
    """
    energy = np.asarray(energy)
    if energy.ndim != 3:
        raise ValueError(f"expected energies (N, C, F), not shape {energy.shape}")
    if not np.all(energy >= 0):
        raise ValueError("energies must be numbers and not negative")
    if isinstance(pattern, KernelPattern):
        kept = _largest(energy, energy.shape[-1] // pattern.alpha)
    elif isinstance(pattern, ChannelPattern):
        kept = _project_channel(energy, pattern)
    elif isinstance(pattern, BalancedPattern):
        kept = _project_balanced(energy, pattern)
    else:
        raise TypeError(f"no projection for {pattern!r}")
    return kept & (energy > 0)


def budget(shape: tuple[int, int, int], pattern: Pattern) -> int:
    """Most words a layer of shape (N, C, F) may keep under `pattern`."""
    n, c, f = shape
    if isinstance(pattern, KernelPattern):
        return n * c * (f // pattern.alpha)
    if isinstance(pattern, BalancedPattern):
        return n * (c * f // pattern.alpha)
    return int(Fraction(pattern.n, pattern.m) * (n * c * f))


def linear_energy(weight: NDArray) -> NDArray:
    """Energy of the words of a fully connected layer: two adjacent inputs each.

    Parameters
    ----------
    weight : ndarray, shape (N, L)
        An odd L is completed with a zero.

    Returns
    -------
    ndarray, shape (N, ceil(L/2), 1)
        ``weight[:, 2i]**2 + weight[:, 2i+1]**2``.
    """
    weight = np.asarray(weight)
    if weight.ndim != 2:
        raise ValueError(f"expected weights (N, L), not shape {weight.shape}")
    rows, length = weight.shape
    squared = np.pad(weight**2, ((0, 0), (0, length % 2)))
    return squared.reshape(rows, -1, 2).sum(axis=-1)[..., None]


def linear_mask(words: NDArray, length: int) -> NDArray[np.bool_]:
    """Spread a word mask (N, ceil(L/2), 1) over the inputs of a fully connected layer, (N, L)."""
    return np.repeat(words[..., 0], 2, axis=1)[:, :length]


def _project_channel(energy: NDArray, pattern: ChannelPattern) -> NDArray[np.bool_]:
    """Top n of each group, then the largest winners of the layer up to its budget.

    The two rules form a truncated partition matroid, on which greedy choice is optimal.
    """
    outputs, channels, words = energy.shape
    groups = -(-channels // pattern.m)
    missing = groups * pattern.m - channels
    padded = energy
    if missing:
        padded = np.pad(energy, ((0, 0), (0, missing), (0, 0)), constant_values=-1)
    grouped = padded.reshape(outputs, groups, pattern.m, words)
    winners = _largest(grouped, pattern.n, axis=2)
    winners = winners.reshape(outputs, groups * pattern.m, words)[:, :channels]
    most = budget(energy.shape, pattern)
    if np.count_nonzero(winners) <= most:
        return winners
    ranked = np.where(winners, energy, -1).reshape(-1)
    return _largest(ranked, most).reshape(energy.shape) & winners


def _project_balanced(energy: NDArray, pattern: BalancedPattern) -> NDArray[np.bool_]:
    """Choose the row lengths with the most energy, then the largest words of each row.

    The energy of all outputs' k-th largest words at a frequency falls with k, so taking the largest
    of these gains is optimal.
    """
    outputs, channels, words = energy.shape
    rank = np.argsort(-energy, axis=1, kind="stable")
    gains = np.take_along_axis(energy, rank, axis=1).sum(axis=0)            # (C, F)
    chosen = _largest(gains.T.reshape(-1), channels * words // pattern.alpha)
    lengths = chosen.reshape(words, channels).sum(axis=1)
    kept = np.zeros(energy.shape, dtype=bool)
    np.put_along_axis(kept, rank, np.arange(channels)[None, :, None] < lengths, axis=1)
    return kept


def _largest(values: NDArray, count: int, axis: int = -1) -> NDArray[np.bool_]:
    """Mask of the `count` largest entries along an axis, ties to the lowest index."""
    length = values.shape[axis]
    if count >= length:
        return np.ones(values.shape, dtype=bool)
    if count == 0:
        return np.zeros(values.shape, dtype=bool)
    # Selection is much faster than sorting; only lines with equal values at the limit need order.
    if count == 1:
        limit = values.max(axis=axis, keepdims=True)
    else:
        parted = np.partition(values, length - count, axis=axis)
        limit = np.take(parted, [length - count], axis=axis)
    mask = values >= limit
    tied = np.count_nonzero(mask, axis=axis) > count
    if tied.any():
        rows = np.moveaxis(values, axis, -1)[tied]
        order = np.argsort(-rows, axis=-1, kind="stable")[..., :count]
        exact = np.zeros(rows.shape, dtype=bool)
        np.put_along_axis(exact, order, True, axis=-1)
        np.moveaxis(mask, axis, -1)[tied] = exact
    return mask


def _require_count(name: str, value: object) -> None:
    """Raise unless `value` is a positive integer."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
