"""Slices: two registers on a stream, so that no signal goes through in either direction."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["AlternatingSlice", "RegisterSlice"]


class RegisterSlice(wiring.Component):
    """Stream from ``i`` to ``o``; ``i.ready`` and all of ``o`` are registers.

    Latency: 1 cycle. Throughput: an item per cycle.

    Parameters
    ----------
    shape : ShapeCastable
        Of the payload.

    Attributes
    ----------
    i, o : In(stream.Signature(shape)), Out(stream.Signature(shape))
        Items in and out; at most two wait.
    """

    def __init__(self, shape) -> None:
        super().__init__({
            "i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape)),
        })

    def elaborate(self, platform) -> Module:
        """Keep the offered item in ``spare`` while the one in ``out`` stays."""
        m = Module()
        shape = self.i.payload.shape()
        out, spare = Signal(shape, reset_less=True), Signal(shape, reset_less=True)
        out_valid, ready = Signal(), Signal(init=1)
        leaves = ~out_valid | self.o.ready
        m.d.sync += ready.eq(leaves | (ready & ~self.i.valid))
        with m.If(ready):
            m.d.sync += spare.eq(self.i.payload)
        with m.If(leaves):
            m.d.sync += [
                out_valid.eq(~ready | self.i.valid), out.eq(Mux(ready, self.i.payload, spare)),
            ]
        m.d.comb += [
            self.i.ready.eq(ready), self.o.valid.eq(out_valid), self.o.payload.eq(out),
        ]
        return m


class AlternatingSlice(RegisterSlice):
    """As `RegisterSlice`, for a wide payload in front of a late ``o.ready``.

    No register of a payload waits for that: the two of them take turns, and a register chooses
    between them. In return ``o.payload`` comes out of a multiplexer.

    Latency: 1 cycle. Throughput: an item per cycle.

    Parameters
    ----------
    shape : ShapeCastable
        Of the payload.

    Attributes
    ----------
    i, o : In(stream.Signature(shape)), Out(stream.Signature(shape))
        Items in and out; at most two wait.
    """

    def elaborate(self, platform) -> Module:
        """Write the free place in every cycle in which there is one."""
        m = Module()
        shape = self.i.payload.shape()
        places = [Signal(shape, name=f"place{index}", reset_less=True) for index in range(2)]
        w_place, r_place = Signal(), Signal()
        some, room = Signal(), Signal(init=1)
        m.d.sync += [
            w_place.eq(w_place ^ (room & self.i.valid)),
            r_place.eq(r_place ^ (some & self.o.ready)),
            some.eq(self.i.valid | ~room | (some & ~self.o.ready)),
            room.eq(~some | self.o.ready | (room & ~self.i.valid)),
        ]
        for index, place in enumerate(places):
            with m.If(room & (w_place == index)):
                m.d.sync += place.eq(self.i.payload)
        m.d.comb += [
            self.i.ready.eq(room), self.o.valid.eq(some),
            self.o.payload.eq(Mux(r_place, places[1], places[0])),
        ]
        return m
