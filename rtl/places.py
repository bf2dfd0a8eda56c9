"""Which places of the accumulator files have nothing yet, for all tile lanes at once.

A file is never cleared: the first product after a place was read out replaces what it held. Tile
lanes do the same at the same time, so one bit per kernel lane and place is enough.
"""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from rtl.signatures import Event, SumsTag

__all__ = ["Places"]


class Places(wiring.Component):
    """Bits of the empty places.

    Parameters
    ----------
    config : AcceleratorConfig
        Kernel lanes and ``window`` places of each.

    Attributes
    ----------
    valid : In(1)
        A step.
    place : In(ArrayLayout(range(window), kernel_lanes))
        Place to which each kernel lane adds in this step (an idle lane adds zero).
    read_out : In(Event(SumsTag))
        Place ``frequency`` is read out, before the step of this cycle.
    first, empty : Out(kernel_lanes)
        ``LATENCY`` cycles later: the lane's place was empty before the step; no step used the
        place read out since it was last read out.
    """

    LATENCY = 1

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__({
            "valid": In(1),
            "place": In(data.ArrayLayout(range(config.window), config.kernel_lanes)),
            "read_out": In(Event(SumsTag)),
            "first": Out(config.kernel_lanes), "empty": Out(config.kernel_lanes),
        })

    def elaborate(self, platform) -> Module:
        """All are empty after reset."""
        m = Module()
        size = self._config.window
        leaving = Signal(size)
        m.d.comb += leaving.eq(self.read_out.valid << self.read_out.payload.frequency)
        for lane in range(self._config.kernel_lanes):
            held = Signal(size, init=(1 << size) - 1, name=f"empty{lane}")
            now = Signal(size, name=f"now{lane}")
            place = self.place[lane]
            m.d.comb += now.eq(held | leaving)
            m.d.sync += [
                held.eq(now & ~(self.valid << place)[:size]),
                self.first[lane].eq(self.valid & now.bit_select(place, 1)),
                self.empty[lane].eq(held.bit_select(self.read_out.payload.frequency, 1)),
            ]
        return m
