"""Stream transposer of 4 x 4 words."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Transposer"]


class Transposer(wiring.Component):
    """Exchange time and lane: word (t, lane) of the input is word (lane, t) of the output.

    Two delay-switch stages, for the upper and the lower bit of the exchanged indices, hold 12
    words where a ping-pong memory holds 32.  With ``hold`` = 2 every index t lasts two cycles,
    which are transposed separately.

    A block is ``4 * hold`` consecutive valid cycles.  Blocks may follow each other after any gap:
    a stage only switches in the second half of its block, when the previous one has left it.

    Parameters
    ----------
    shape : ShapeCastable
        Shape of a word.
    hold : int
        Cycles of an index t, a power of two.

    Members
    -------
    i : :py:`In(ArrayLayout(shape, 4))`
        Words.
    valid : :py:`In(1)`
        A block is passing.
    phase : :py:`In(2)`
        Index t.
    o : :py:`Out(ArrayLayout(shape, 4))`
        Words, ``latency`` = ``3 * hold`` cycles after the input of the same index; combinational
        behind a multiplexer.
    """

    def __init__(self, shape, *, hold: int = 1) -> None:
        if hold not in (1, 2, 4):
            raise ValueError(f"hold must be 1, 2 or 4, not {hold!r}")
        self.hold = hold
        self.latency = 3 * hold
        super().__init__({
            "i": In(data.ArrayLayout(shape, 4)), "valid": In(1), "phase": In(2),
            "o": Out(data.ArrayLayout(shape, 4)),
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

        words = [Value.cast(self.i[lane]) for lane in range(4)]
        far = self.valid & self.phase[1]
        near = shift(self.valid & self.phase[0], 2 * self.hold, "near", reset_less=False)
        words[0], words[2] = exchange(words[0], words[2], far, 2 * self.hold, "far02")
        words[1], words[3] = exchange(words[1], words[3], far, 2 * self.hold, "far13")
        words[0], words[1] = exchange(words[0], words[1], near, self.hold, "near01")
        words[2], words[3] = exchange(words[2], words[3], near, self.hold, "near23")
        m.d.comb += [Value.cast(self.o[lane]).eq(word) for lane, word in enumerate(words)]
        return m
