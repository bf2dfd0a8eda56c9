"""Codes for the positions of a layer's non-zero words, by exact size.

A mask (N, C, F) is True where a word is kept. Each code turns it into bits and back; `best` takes
the one with the fewest bits for a layer.

* ``dense``: no positions, every word is stored.
* ``bitmap``: a bit per word.
* ``relative b``: the number of zero words before a kept one in b bits; the code of all ones skips
  ``2**b - 1`` words and keeps none (Deep Compression stores a zero value instead, Han et al., ICLR
  2016).
* ``rice b``: the same number as b low bits and a unary rest, in two separate streams (Rice 1979;
  the split is Elias and Fano's), so that a decoder finds all low bits at fixed places.
* ``grouped n:m``: the places of n words in every m channels of an output and frequency, in
  ``ceil(log2 m)`` bits each: what the array's selects say. It fits `model.patterns.ChannelPattern`;
  a group with fewer words also keeps zero words.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from model.patterns import ChannelPattern, Pattern

__all__ = ["Bitmap", "Code", "Dense", "FIXED", "Grouped", "Relative", "Rice", "best",
           "parse_code"]

Mask = NDArray[np.bool_]
Bits = NDArray[np.uint8]
#: Widest b that `best` tries; a gap of 65 536 words is no pruned layer's.
MOST_BITS = 16


def _gaps(mask: Mask) -> NDArray[np.int64]:
    """Zero words before each kept word, in storage order."""
    places = np.flatnonzero(mask)
    return np.diff(places, prepend=-1) - 1


def _to_bits(values: NDArray[np.int64], width: int) -> Bits:
    """Values of ``width`` bits each, lowest bit first."""
    return ((values[:, None] >> np.arange(width)) & 1).astype(np.uint8).reshape(-1)


def _from_bits(bits: Bits, width: int) -> NDArray[np.int64]:
    """Inverse of `_to_bits`."""
    if not width:
        raise ValueError("values of no bits cannot be counted")
    if len(bits) % width:
        raise ValueError(f"{len(bits)} bits are no whole number of {width}-bit codes")
    return (bits.reshape(-1, width).astype(np.int64) << np.arange(width)).sum(axis=1)


def _place(gaps: NDArray[np.int64], shape: tuple[int, ...]) -> Mask:
    """Mask with the kept words after these gaps."""
    mask = np.zeros(int(np.prod(shape)), dtype=np.bool_)
    places = np.cumsum(gaps + 1) - 1
    if len(places) and places[-1] >= len(mask):
        raise ValueError(f"a kept word at {places[-1]} lies beyond the layer's {len(mask)}")
    mask[places] = True
    return mask.reshape(shape)


@dataclass(frozen=True)
class Dense:
    """Every word is stored."""

    def __str__(self) -> str:
        return "dense"

    def cover(self, mask: Mask) -> Mask:
        """Words stored for a mask."""
        return np.ones_like(mask)

    def size(self, mask: Mask) -> int:
        """Bits of the positions."""
        return 0

    def encode(self, mask: Mask) -> Bits:
        """Bits of a mask that `cover` gave."""
        return np.zeros(0, dtype=np.uint8)

    def decode(self, bits: Bits, shape: tuple[int, ...]) -> Mask:
        """Inverse of `encode`; `ValueError` if the bits are no mask of this shape."""
        if len(bits):
            raise ValueError("a dense layer has no positions")
        return np.ones(shape, dtype=np.bool_)


@dataclass(frozen=True)
class Bitmap:
    """A bit per word; methods as of `Dense`."""

    def __str__(self) -> str:
        return "bitmap"

    def cover(self, mask: Mask) -> Mask:
        """Words stored for a mask."""
        return mask

    def size(self, mask: Mask) -> int:
        """Bits of the positions."""
        return mask.size

    def encode(self, mask: Mask) -> Bits:
        """Bits of a mask that `cover` gave."""
        return mask.reshape(-1).astype(np.uint8)

    def decode(self, bits: Bits, shape: tuple[int, ...]) -> Mask:
        """Inverse of `encode`; `ValueError` if the bits are no mask of this shape."""
        if len(bits) != np.prod(shape):
            raise ValueError(f"{len(bits)} bits for a layer of {np.prod(shape)} words")
        return bits.astype(np.bool_).reshape(shape)


@dataclass(frozen=True)
class Relative:
    """Gaps in ``bits`` bits with an escape; methods as of `Dense`."""

    bits: int

    def __str__(self) -> str:
        return f"relative {self.bits}"

    def cover(self, mask: Mask) -> Mask:
        """Words stored for a mask."""
        return mask

    @property
    def _escape(self) -> int:
        return (1 << self.bits) - 1

    def size(self, mask: Mask) -> int:
        """Bits of the positions."""
        gaps = _gaps(mask)
        return self.bits * int(len(gaps) + (gaps // self._escape).sum())

    def encode(self, mask: Mask) -> Bits:
        """Bits of a mask that `cover` gave."""
        gaps = _gaps(mask)
        skips = gaps // self._escape
        codes = np.full(len(gaps) + skips.sum(), self._escape, dtype=np.int64)
        codes[np.cumsum(skips + 1) - 1] = gaps % self._escape
        return _to_bits(codes, self.bits)

    def decode(self, bits: Bits, shape: tuple[int, ...]) -> Mask:
        """Inverse of `encode`; `ValueError` if the bits are no mask of this shape."""
        codes = _from_bits(bits, self.bits)
        if len(codes) and codes[-1] == self._escape:
            raise ValueError("the positions end with a skip")
        kept = codes != self._escape
        total = np.cumsum(codes)[kept]
        return _place(np.diff(total, prepend=0), shape)


@dataclass(frozen=True)
class Rice:
    """Gaps as ``bits`` low bits and a unary rest, the unary stream first; methods as of `Dense`."""

    bits: int

    def __str__(self) -> str:
        return f"rice {self.bits}"

    def cover(self, mask: Mask) -> Mask:
        """Words stored for a mask."""
        return mask

    def size(self, mask: Mask) -> int:
        """Bits of the positions."""
        gaps = _gaps(mask)
        return int((1 + self.bits) * len(gaps) + (gaps >> self.bits).sum())

    def encode(self, mask: Mask) -> Bits:
        """Bits of a mask that `cover` gave."""
        gaps = _gaps(mask)
        ends = np.cumsum((gaps >> self.bits) + 1)
        unary = np.zeros(ends[-1] if len(ends) else 0, dtype=np.uint8)
        unary[ends - 1] = 1
        return np.concatenate([unary, _to_bits(gaps & ((1 << self.bits) - 1), self.bits)])

    def decode(self, bits: Bits, shape: tuple[int, ...]) -> Mask:
        """Inverse of `encode`; `ValueError` if the bits are no mask of this shape.

        The streams part where as many ones have come as low parts fit behind.
        """
        ones = np.cumsum(bits, dtype=np.int64)
        behind = len(bits) - 1 - np.arange(len(bits))
        ends = np.flatnonzero((bits == 1) & (ones * self.bits == behind))
        if len(bits) and not len(ends):
            raise ValueError("the unary and the low parts of the positions do not match")
        cut = int(ends[0]) + 1 if len(bits) else 0
        places = np.flatnonzero(bits[:cut])
        high = np.diff(places, prepend=-1) - 1
        low = _from_bits(bits[cut:], self.bits) if self.bits else np.zeros_like(high)
        return _place((high << self.bits) + low, shape)


@dataclass(frozen=True)
class Grouped:
    """``n`` places in every ``m`` channels; methods as of `Dense`."""

    n: int
    m: int

    def __str__(self) -> str:
        return f"grouped {self.n}:{self.m}"

    @property
    def _width(self) -> int:
        return (self.m - 1).bit_length()

    def _groups(self, mask: Mask) -> tuple[Mask, int]:
        """Mask as (N, F, groups, m), filled up beyond the channels, and their number."""
        outputs, channels, words = mask.shape
        groups = ceil(channels / self.m)
        padded = np.zeros((outputs, words, groups * self.m), dtype=np.bool_)
        padded[..., :channels] = mask.transpose(0, 2, 1)
        return padded.reshape(outputs, words, groups, self.m), channels

    def fits(self, mask: Mask) -> bool:
        """Whether no group has more than n words."""
        return bool((self._groups(mask)[0].sum(axis=-1) <= self.n).all())

    def cover(self, mask: Mask) -> Mask:
        """Words stored for a mask: exactly n in every group, the first ones of those not kept."""
        grouped, channels = self._groups(mask)
        # Kept words first, then the others by place; words beyond the channels last.
        beyond = (np.arange(grouped.shape[2] * self.m) >= channels).reshape(-1, self.m)
        rank = np.where(grouped, 0, np.where(beyond, 2, 1)) * self.m + np.arange(self.m)
        chosen = np.argsort(rank, axis=-1, kind="stable")[..., :self.n]
        full = np.zeros_like(grouped)
        np.put_along_axis(full, chosen, True, axis=-1)
        full = full.reshape(*full.shape[:2], -1)[..., :channels]
        return full.transpose(0, 2, 1)

    def size(self, mask: Mask) -> int:
        """Bits of the positions."""
        outputs, channels, words = mask.shape
        return outputs * words * ceil(channels / self.m) * self.n * self._width

    def encode(self, mask: Mask) -> Bits:
        """Bits of a mask that `cover` gave; a slot that repeats the one before is empty."""
        grouped, _ = self._groups(mask)
        order = np.argsort(~grouped, axis=-1, kind="stable")[..., :self.n]
        count = grouped.sum(axis=-1, keepdims=True)
        last = np.take_along_axis(order, count - 1, axis=-1)
        return _to_bits(np.where(np.arange(self.n) < count, order, last).reshape(-1), self._width)

    def decode(self, bits: Bits, shape: tuple[int, ...]) -> Mask:
        """Inverse of `encode`; `ValueError` if the bits are no mask of this shape."""
        outputs, channels, words = shape
        groups = ceil(channels / self.m)
        if len(bits) != outputs * words * groups * self.n * self._width:
            raise ValueError(f"{len(bits)} bits of places do not belong to a layer of {shape}")
        if not self._width:
            return np.ones(shape, dtype=np.bool_)
        slots = _from_bits(bits, self._width).reshape(outputs, words, groups, self.n)
        if len(bits) and slots.max() >= self.m:
            raise ValueError(f"place {slots.max()} in a group of {self.m}")
        full = np.zeros((outputs, words, groups, self.m), dtype=np.bool_)
        np.put_along_axis(full, slots, True, axis=-1)
        flat = full.reshape(outputs, words, groups * self.m)
        if flat[..., channels:].any():
            raise ValueError(f"a kept word lies beyond the layer's {channels} channels")
        return flat[..., :channels].transpose(0, 2, 1)


Code = Dense | Bitmap | Relative | Rice | Grouped
#: A bitmap, and relative indices of every width: what hardware that takes fixed fields reads.
FIXED: tuple[Code, ...] = (Bitmap(), *(Relative(bits) for bits in range(1, MOST_BITS + 1)))


def best(mask: Mask, word_bits: int, pattern: Pattern | None = None) -> Code:
    """Code with which positions and stored words of ``word_bits`` take the fewest bits."""
    codes: list[Code] = [Dense(), *FIXED]
    codes += [Rice(bits) for bits in range(MOST_BITS + 1)]
    if isinstance(pattern, ChannelPattern):
        grouped = Grouped(pattern.n, pattern.m)
        codes += [grouped] if grouped.fits(mask) else []
    return min(codes, key=lambda code: code.size(mask) + word_bits * int(code.cover(mask).sum()))


def parse_code(text: str) -> Code:
    """Read what ``str`` of a code gives."""
    name, _, rest = text.partition(" ")
    try:
        if name in ("dense", "bitmap") and not rest:
            return Dense() if name == "dense" else Bitmap()
        if name == "relative" and 1 <= int(rest) <= MOST_BITS:
            return Relative(int(rest))
        if name == "rice" and 0 <= int(rest) <= MOST_BITS:
            return Rice(int(rest))
        if name == "grouped":
            n, m = map(int, rest.split(":"))
            if 1 <= n <= m:
                return Grouped(n, m)
    except ValueError:
        pass
    raise ValueError(f"unknown code of positions {text!r}")
