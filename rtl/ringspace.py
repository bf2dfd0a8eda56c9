"""Room in the ring of the tile buffer: what the Loader may take for the next tile block."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.signatures import Event

__all__ = ["RingSpace"]


class RingSpace(wiring.Component):
    """Count the free words of the ring.

    ``fits`` is registered: it speaks of the words that were free the cycle before, and so is right
    from the second cycle after ``take`` on. A tile block takes longer than that to load.

    Parameters
    ----------
    depth : int
        Words of the ring.
    word_bits : int
        Width of ``words``.

    Attributes
    ----------
    words : In(word_bits)
        Words of a block; constant from the cycle before ``fits`` is looked at.
    take : In(1)
        The Loader begins with a block; only with ``fits``.
    freed : In(Event(range(depth + 1)))
        Words given back.
    fits : Out(1)
        There is room for a block.
    """

    def __init__(self, *, depth: int, word_bits: int) -> None:
        if not isinstance(depth, int) or depth < 1:
            raise ValueError(f"depth must be a positive integer, not {depth!r}")
        self._depth = depth
        super().__init__({
            "words": In(word_bits), "take": In(1),
            "freed": In(Event(range(depth + 1))), "fits": Out(1),
        })

    def elaborate(self, platform) -> Module:
        """Add what comes back, take away what is taken."""
        m = Module()
        free = Signal(range(self._depth + 1), init=self._depth)
        returned = Mux(self.freed.valid, self.freed.payload, 0)
        m.d.sync += [free.eq(free + returned), self.fits.eq(free >= self.words)]
        with m.If(self.take):
            m.d.sync += free.eq(free + returned - self.words)
        return m
