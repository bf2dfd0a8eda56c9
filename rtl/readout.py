"""Order in which the places of an accumulator file leave for the drain, behind the steps.

A lane with a file sums every frequency of a block in its own place (`AcceleratorConfig.window`).
After the last step of a block its places are read out in order, one each time the drain is free,
while the next block goes on in those that are already read.
"""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from rtl.signatures import SUM_SLOTS, Event, SumsTag

__all__ = ["ReadOut", "BlockTag"]

#: What the sums of a block have in common.
BlockTag = data.StructLayout({"dot": 1, "sum_shift": 6, "slot": range(SUM_SLOTS)})


class ReadOut(wiring.Component):
    """Reads the places of a block one after the other, one of a dot layer.

    Parameters
    ----------
    config : AcceleratorConfig
        Places and the pace of the drain.

    Attributes
    ----------
    ready : Out(1)
        A block may end in this cycle: the one before is read out, and the drain is free in the
        next cycle.
    i : In(Event(BlockTag))
        This cycle's step is the last of a block; only while ``ready``.
    through : Out(range(window))
        Highest place that a step of this cycle may use.
    o : Out(Event(SumsTag))
        The place to read out, before the step of this cycle. The first comes in the cycle after
        ``i``, the others ``drain_interval`` cycles apart.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__({
            "ready": Out(1), "i": In(Event(BlockTag)),
            "through": Out(range(config.window)), "o": Out(Event(SumsTag)),
        })

    def elaborate(self, platform) -> Module:
        """Count places; ``more`` are to come, the drain is busy while ``timer`` runs."""
        m = Module()
        final, interval = self._config.window - 1, self._config.drain_interval
        valid, more = Signal(), Signal()
        place = Signal(range(self._config.window), reset_less=True)
        tag = Signal(BlockTag, reset_less=True)
        timer = Signal(range(max(2, interval)))
        m.d.comb += [
            self.ready.eq(~more & (timer == 0)),
            self.through.eq(Mux(more, place, final)),
            self.o.valid.eq(valid),
            self.o.payload.frequency.eq(place),
            self.o.payload.real.eq(tag.dot | (place[:2] == 0) & (place < 8)),
            self.o.payload.block_last.eq(~more),
            *(self.o.payload[name].eq(tag[name]) for name in tag.shape().members),
        ]
        m.d.sync += valid.eq(0)
        with m.If(self.i.valid):
            m.d.sync += [
                tag.eq(self.i.payload), valid.eq(1), place.eq(0), timer.eq(interval - 1),
                more.eq(~self.i.payload.dot),
            ]
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Elif(more):
            m.d.sync += [
                valid.eq(1), place.eq(place + 1), timer.eq(interval - 1),
                more.eq(place != final - 1),
            ]
        return m
