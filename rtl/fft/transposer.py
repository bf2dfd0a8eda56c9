"""Stream transposer of square blocks of words."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Transposer", "turn"]


def turn(rows: int) -> tuple[int, int]:
    """``size`` and ``hold`` of the transposers when ``rows`` rows of a tile pass in each cycle."""
    if not isinstance(rows, int) or isinstance(rows, bool):
        raise TypeError(f"rows must be an integer, not {rows!r}")
    if rows not in (1, 2, 4, 8):
        raise ValueError(f"rows must be 1, 2, 4 or 8, not {rows!r}")
    return (4, 2) if rows == 1 else (8 // rows, 1)


class Transposer(wiring.Component):
    """Exchange time and lane: word (t, lane) of the input is word (lane, t) of the output.

    A delay-switch stage for each bit of the exchanged indices: 4 x 4 words take two stages, which
    hold 12 words where a ping-pong memory holds 32; one word takes none.  With ``hold`` = 2 every
    index t lasts two cycles, which are transposed separately.

    A block is ``size * hold`` consecutive cycles.  Blocks may follow each other after any gap: a
    stage only switches in the second half of its block, when the previous one has left it.

    Parameters
    ----------
    shape : ShapeCastable
        Shape of a word.
    size : int
        Words of a row and of a column: 1, 2 or 4.
    hold : int
        Cycles of an index t, a power of two.

    Members
    -------
    i : :py:`In(ArrayLayout(shape, size))`
        Words.
    phase : :py:`In(range(size))`
        Index t; 0 while no block is passing. It reaches every word: best a register.
    o : :py:`Out(ArrayLayout(shape, size))`
        Words, ``latency`` = ``(size - 1) * hold`` cycles after the input of the same index;
        combinational behind a multiplexer.
    """

    @staticmethod
    def cycles(size: int, hold: int) -> int:
        """``latency`` of a transposer."""
        return (size - 1) * hold

    def __init__(self, shape, *, size: int = 4, hold: int = 1) -> None:
        if size not in (1, 2, 4):
            raise ValueError(f"size must be 1, 2 or 4, not {size!r}")
        if hold not in (1, 2, 4):
            raise ValueError(f"hold must be 1, 2 or 4, not {hold!r}")
        self.size, self.hold = size, hold
        self.latency = self.cycles(size, hold)
        super().__init__({
            "i": In(data.ArrayLayout(shape, size)), "phase": In(range(size)),
            "o": Out(data.ArrayLayout(shape, size)),
        })

    def elaborate(self, platform) -> Module:
        """Exchange the upper bits of time and lane, then the lower ones."""
        m = Module()

        def shift(value, cycles, name, reset_less=True):
            for n in range(cycles):
                stage = Signal(len(value), name=f"{name}_{n}", reset_less=reset_less)
                m.d.sync += stage.eq(value)
                value = stage
            return value

        def exchange(first, second, swap, cycles, name):
            second = shift(second, cycles, f"{name}_early")
            return (
                shift(Mux(swap, second, first), cycles, f"{name}_late"),
                Mux(swap, first, second),
            )

        words = [Value.cast(self.i[lane]) for lane in range(self.size)]
        bit, passed = self.size.bit_length() - 1, 0  # stages still to come, cycles taken so far
        while bit:
            bit -= 1
            apart, cycles = 1 << bit, self.hold << bit
            swap = shift(self.phase[bit], passed, f"swap{bit}", reset_less=False)
            for lane in range(self.size):
                if not lane & apart:
                    words[lane], words[lane + apart] = exchange(
                        words[lane], words[lane + apart], swap, cycles, f"bit{bit}_lane{lane}"
                    )
            passed += cycles
        m.d.comb += [Value.cast(self.o[lane]).eq(word) for lane, word in enumerate(words)]
        return m
