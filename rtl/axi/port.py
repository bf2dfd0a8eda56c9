"""The core's memory port as an AXI4 master."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.axi.reader import AxiReader
from rtl.axi.signatures import Axi4Signature
from rtl.axi.writer import AxiWriter
from rtl.signatures import MemorySignature

__all__ = ["AxiPort"]


class AxiPort(wiring.Component):
    """Read master and write master behind a memory port.

    Latency and throughput: see `AxiReader` and `AxiWriter`.

    Parameters
    ----------
    data_bits, addr_bits, id_bits : int
        Of the AXI port; ``data_bits`` is also the width of the memory port.
    outstanding : int
        Bursts under way at once, in each direction.

    Attributes
    ----------
    mem : In(MemorySignature(data_bits))
        Core's side.
    axi : Out(Axi4Signature(...))
        Bus side.
    """

    def __init__(self, *, data_bits: int, addr_bits: int = 64, id_bits: int = 1,
                 outstanding: int = 8) -> None:
        bus = {"data_bits": data_bits, "addr_bits": addr_bits, "id_bits": id_bits}
        self._options = bus | {"outstanding": outstanding}
        super().__init__({
            "mem": In(MemorySignature(data_bits)), "axi": Out(Axi4Signature(**bus)),
        })

    def elaborate(self, platform) -> Module:
        """Split the port into its halves."""
        m = Module()
        mem = self.mem
        m.submodules.reader = reader = AxiReader(**self._options)
        m.submodules.writer = writer = AxiWriter(**self._options)
        connect(m, flipped(mem.ar), reader.ar)
        connect(m, reader.r, flipped(mem.r))
        connect(m, flipped(mem.w), writer.w)
        m.d.comb += [
            mem.w_busy.eq(writer.busy), mem.w_error.eq(writer.error),
            mem.alive.eq(reader.moved | writer.moved),
        ]
        for half in (reader.axi, writer.axi):
            for name, member in half.signature.members.items():
                inner, outer = getattr(half, name), getattr(self.axi, name)
                m.d.comb += outer.eq(inner) if member.flow is Out else inner.eq(outer)
        return m
