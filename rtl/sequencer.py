"""RUN: hand every unit the descriptors of the layers, in order.

A descriptor is read from the checker's store into one register and goes from there to each unit's
own register. A unit that is slow holds one descriptor, so that the others may be up to two layers
ahead of it. The fields that a unit does not use vanish in synthesis.

Latency: 12 cycles from ``start`` to the first descriptor, and as many between two.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from model.descriptor import BEATS
from rtl.signatures import Descriptor

__all__ = ["Sequencer"]


class Sequencer(wiring.Component):
    """Broadcaster of descriptors.

    Parameters
    ----------
    config : AcceleratorConfig
        Uses ``max_layers``.
    clients : int
        Number of units.

    Attributes
    ----------
    start : In(1)
        Begin a run.
    layers : In(range(max_layers + 1))
        Layers of the program.
    store_addr, store_data : Out(range(max_layers * BEATS)), In(64)
        Descriptor store; data one cycle after the address.
    desc : Out(stream.Signature(Descriptor)).array(clients)
        The layers, to each unit.
    """

    def __init__(self, *, config: AcceleratorConfig, clients: int) -> None:
        if not isinstance(config, AcceleratorConfig):
            raise TypeError(f"config must be an AcceleratorConfig, not {config!r}")
        if not isinstance(clients, int) or clients < 1:
            raise ValueError(f"clients must be a positive integer, not {clients!r}")
        self._config, self._clients = config, clients
        super().__init__({
            "start": In(1), "layers": In(range(config.max_layers + 1)),
            "store_addr": Out(range(config.max_layers * BEATS)), "store_data": In(64),
            "desc": Out(stream.Signature(Descriptor)).array(clients),
        })

    def elaborate(self, platform) -> Module:
        """Read eight beats, offer them until every unit has them, go on."""
        m = Module()
        words = Signal(64 * BEATS, reset_less=True)
        beat = Signal(range(BEATS + 1))
        layer = Signal.like(self.layers)
        pending = Signal(self._clients)
        s1_valid = Signal()
        m.d.comb += self.store_addr.eq((layer << 3) + beat)
        m.d.sync += s1_valid.eq(0)
        with m.If(s1_valid):
            m.d.sync += words.eq(Cat(words[64:], self.store_data))

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [layer.eq(0), beat.eq(0)]
                with m.If(self.start):
                    m.next = "READ"
            with m.State("READ"):
                with m.If(beat != BEATS):
                    m.d.sync += [beat.eq(beat + 1), s1_valid.eq(1)]
                with m.Elif(~s1_valid):
                    m.d.sync += [pending.eq(-1), layer.eq(layer + 1), beat.eq(0)]
                    m.next = "OFFER"
            with m.State("OFFER"):
                with m.If(pending == 0):
                    m.next = "READ"
                    with m.If(layer == self.layers):
                        m.next = "IDLE"

        for index, client in enumerate(self.desc):
            with m.If(client.ready):
                m.d.sync += client.valid.eq(0)
            with m.If(pending[index] & (~client.valid | client.ready)):
                m.d.sync += [
                    client.valid.eq(1), client.payload.eq(words[:Descriptor.size]),
                    pending[index].eq(0),
                ]
        return m
