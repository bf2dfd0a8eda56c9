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

from model.projection import largest, project_balanced, project_channel, project_groups

#: A compression that need not be whole.
_RATIO = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"


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


@dataclass(frozen=True)
class UnstructuredPattern:
    """Keep the N*C*F / alpha largest words of the layer.

    Parameters
    ----------
    alpha : float
        Compression of the layer, at least 1.
    """

    alpha: float

    def __post_init__(self) -> None:
        """Refuse a compression below one."""
        _require_ratio(self.alpha)

    @property
    def density(self) -> float:
        """Largest share of words kept."""
        return 1 / self.alpha

    def __str__(self) -> str:
        """Text that `parse` reads."""
        return f"unstructured {_number(self.alpha)}"


@dataclass(frozen=True)
class LocalityPattern:
    """Keep the groups with the most energy, each as a whole or not at all.

    Parameters
    ----------
    alpha : float
        Compression of the layer, at least 1.
    lanes, channels : int
        A group is so many consecutive outputs times so many consecutive channels at one
        frequency; the groups at the upper ends may be smaller.
    """

    alpha: float
    lanes: int = 8
    channels: int = 1

    def __post_init__(self) -> None:
        """Refuse a compression below one and empty groups."""
        _require_ratio(self.alpha)
        _require_count("lanes", self.lanes)
        _require_count("channels", self.channels)

    @property
    def density(self) -> float:
        """Largest share of words kept."""
        return 1 / self.alpha

    def groups(self, shape: tuple[int, int, int]) -> int:
        """Count the groups a layer of shape (N, C, F) may keep: full ones that hold its words."""
        n, c, _ = shape
        return _share(shape, self.alpha) // (min(n, self.lanes) * min(c, self.channels))

    def __str__(self) -> str:
        """Text that `parse` reads."""
        return f"locality {_number(self.alpha)} {self.lanes}x{self.channels}"


Pattern = (
    KernelPattern | ChannelPattern | BalancedPattern | UnstructuredPattern | LocalityPattern
)


def parse(text: str) -> Pattern:
    """Read a pattern from its text, as ``"kernel 4"``, ``"channel 1:4"``, ``"locality 4 8x1"``."""
    if not isinstance(text, str):
        raise TypeError(f"pattern must be text, not {text!r}")
    if found := re.fullmatch(r"\s*kernel\s+(\d+)\s*", text):
        return KernelPattern(int(found[1]))
    if found := re.fullmatch(r"\s*balanced\s+(\d+)\s*", text):
        return BalancedPattern(int(found[1]))
    if found := re.fullmatch(r"\s*channel\s+(\d+):(\d+)\s*", text):
        return ChannelPattern(int(found[1]), int(found[2]))
    if found := re.fullmatch(rf"\s*unstructured\s+({_RATIO})\s*", text):
        return UnstructuredPattern(float(found[1]))
    if found := re.fullmatch(rf"\s*locality\s+({_RATIO})(?:\s+(\d+)x(\d+))?\s*", text):
        size = (int(found[2]), int(found[3])) if found[2] else ()
        return LocalityPattern(float(found[1]), *size)
    raise ValueError(f"unknown pattern {text!r}: expected 'kernel ALPHA', 'balanced ALPHA', "
                     "'channel N:M', 'unstructured ALPHA' or 'locality ALPHA LANESxCHANNELS'")


def project(energy: NDArray, pattern: Pattern) -> NDArray[np.bool_]:
    """Choose the words to keep: the nearest point of the pattern in energy norm.

    Parameters
    ----------
    energy : ndarray, shape (N, C, F)
        Non-negative energy of every word.
    pattern : Pattern
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
    n, c, f = energy.shape
    if isinstance(pattern, KernelPattern):
        kept = largest(energy, f // pattern.alpha)
    elif isinstance(pattern, ChannelPattern):
        kept = project_channel(energy, pattern.n, pattern.m, budget((n, c, f), pattern))
    elif isinstance(pattern, BalancedPattern):
        kept = project_balanced(energy, c * f // pattern.alpha)
    elif isinstance(pattern, UnstructuredPattern):
        kept = largest(energy.reshape(-1), budget((n, c, f), pattern)).reshape(energy.shape)
    elif isinstance(pattern, LocalityPattern):
        kept = project_groups(energy, pattern.lanes, pattern.channels, pattern.groups((n, c, f)))
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
    if isinstance(pattern, UnstructuredPattern):
        return _share(shape, pattern.alpha)
    if isinstance(pattern, LocalityPattern):
        return pattern.groups(shape) * min(n, pattern.lanes) * min(c, pattern.channels)
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


def _require_count(name: str, value: object) -> None:
    """Raise unless `value` is a positive integer."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")


def _require_ratio(value: object) -> None:
    """Raise unless `value` is a finite number of at least one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"alpha must be a number, not {value!r}")
    if not 1 <= value < float("inf"):
        raise ValueError(f"alpha must be at least 1 and finite, not {value}")


def _share(shape: tuple[int, int, int], alpha: float) -> int:
    """Words of a layer over `alpha`, rounded down but for the rounding of `alpha` itself."""
    return int(shape[0] * shape[1] * shape[2] / alpha + 1e-6)


def _number(value: float) -> str:
    """Shortest text of a number."""
    return str(int(value)) if value == int(value) else repr(float(value))
