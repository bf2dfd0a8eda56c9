"""CRC-32 of zlib over words of any width.

The CRC register is linear over GF(2) in its last value and the data: next = A·crc + B·data. Both
matrices come from zlib itself, applied to unit vectors. B·data, at a width of 2048 an exclusive or
of about a thousand bits for each bit of the CRC, has a pipeline register of its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Crc32"]

_ONES = 0xFFFF_FFFF


def _step(state: int, content: bytes) -> int:
    """CRC register after ``content``; zlib shows it inverted."""
    return zlib.crc32(content, state ^ _ONES) ^ _ONES


def _rows(columns: Iterable[int]) -> list[int]:
    """Transpose a matrix of 32 rows: of each row a mask of the columns it takes."""
    rows = [0] * 32
    for index, column in enumerate(columns):
        for row in range(32):
            rows[row] |= (column >> row & 1) << index
    return rows


class Crc32(wiring.Component):
    """CRC-32 as zlib's, ``width`` bits a cycle.

    Latency: `LATENCY` cycles from a word to the CRC that covers it. Throughput: a word per cycle.

    Parameters
    ----------
    width : int
        Bits of a word, a positive multiple of 8; the first byte is the lowest.

    Attributes
    ----------
    start : In(1)
        Begin anew; no word may come in the same cycle or have come in the one before.
    valid, data : In(1), In(width)
        The next word.
    crc : Out(32)
        CRC of the words since ``start``.
    """

    LATENCY = 2

    def __init__(self, *, width: int) -> None:
        if not isinstance(width, int) or width < 8 or width % 8:
            raise ValueError(f"width must be a positive multiple of 8, not {width!r}")
        self._width = width
        super().__init__({
            "start": In(1), "valid": In(1), "data": In(width), "crc": Out(32),
        })

    def elaborate(self, platform) -> Module:
        """Parities of the data, then the register."""
        m = Module()
        size = self._width // 8
        of_state = _rows(_step(1 << bit, bytes(size)) for bit in range(32))
        of_data = _rows(
            _step(0, (1 << bit).to_bytes(size, "little")) for bit in range(self._width)
        )
        s1_valid, s1_data = Signal(), Signal(32, reset_less=True)
        state = Signal(32, init=_ONES)
        m.d.sync += [
            s1_valid.eq(self.valid),
            s1_data.eq(Cat((self.data & Const(row, self._width)).xor() for row in of_data)),
        ]
        with m.If(self.start):
            m.d.sync += state.eq(_ONES)
        with m.Elif(s1_valid):
            m.d.sync += state.eq(s1_data ^ Cat((state & Const(row, 32)).xor() for row in of_state))
        m.d.comb += self.crc.eq(~state)
        return m
