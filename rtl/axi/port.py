"""The core's memory port as one AXI4 master, or as several."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.axi.signatures import BOUNDARY_BYTES, DATA_BITS, Axi4Signature
from rtl.axi.striped import StripedReader, StripedWriter
from rtl.signatures import MemorySignature

__all__ = ["AxiPort", "split"]

#: Bits of the widest AXI port.
WIDEST = 512


def split(port_bits: int, ports: int | None, stride: int, addr_bits: int) -> tuple[int, int]:
    """Ports, and beats from one's memory to the next one's, of the arguments of `AxiPort`."""
    count = max(1, port_bits // WIDEST) if ports is None else ports
    if not isinstance(count, int) or count < 1 or port_bits % count \
            or port_bits // count not in DATA_BITS:
        raise ValueError(f"ports must divide {port_bits} bits into 64, 128, 256 or 512, not "
                         f"{ports!r}")
    beat = port_bits // count // 8
    reach = min(1 << addr_bits, beat << 32)     # beat addresses have 32 bits
    if not isinstance(stride, int) or stride < 0 or stride % BOUNDARY_BYTES \
            or (count - 1) * stride >= reach:
        raise ValueError(f"stride must be a multiple of {BOUNDARY_BYTES} bytes, and {count} "
                         f"memories must begin within {reach:#x} bytes, not {stride!r}")
    return count, stride // beat


class AxiPort(wiring.Component):
    """Read and write masters behind a memory port.

    Narrow beat p of every beat goes to port p, so that all ports have the same addresses: beat b
    lies at byte ``b * port_bits / ports / 8`` of each, plus ``p * stride``. Latency and throughput:
    see `AxiReader` and `AxiWriter`.

    Parameters
    ----------
    port_bits : int
        Of the memory port.
    ports : int or None
        AXI ports; None: one up to 512 bits, else one for 512 bits each.
    stride : int
        Bytes from where a port's memory begins in the address map to where that of the next one
        does, a multiple of 4096; 0: every port sees its memory from 0 on.
    addr_bits, id_bits : int
        Of each AXI port.
    outstanding : int
        Bursts under way at once, in each direction and on each port.

    Attributes
    ----------
    mem : In(MemorySignature(port_bits))
        Core's side.
    axi : Out(Axi4Signature(...)).array(ports)
        Bus side.
    """

    def __init__(self, *, port_bits: int, ports: int | None = None, stride: int = 0,
                 addr_bits: int = 64, id_bits: int = 1, outstanding: int = 8) -> None:
        count, self._step = split(port_bits, ports, stride, addr_bits)
        bus = {"data_bits": port_bits // count, "addr_bits": addr_bits, "id_bits": id_bits}
        self._options = bus | {"ports": count, "outstanding": outstanding}
        super().__init__({
            "mem": In(MemorySignature(port_bits)),
            "axi": Out(Axi4Signature(**bus)).array(count),
        })

    def elaborate(self, platform) -> Module:
        """Split the port into its halves, and these into the ports."""
        m = Module()
        mem = self.mem
        m.submodules.reader = reader = StripedReader(**self._options)
        m.submodules.writer = writer = StripedWriter(**self._options)
        connect(m, flipped(mem.ar), reader.ar)
        connect(m, reader.r, flipped(mem.r))
        connect(m, flipped(mem.w), writer.w)
        m.d.comb += [
            mem.w_busy.eq(writer.busy), mem.w_error.eq(writer.error),
            mem.alive.eq(reader.moved | writer.moved),
        ]
        for index, axi in enumerate(self.axi):
            for half in (reader, writer):
                m.d.comb += half.base[index].eq(index * self._step)
                for name, member in half.axi[index].signature.members.items():
                    inner, outer = getattr(half.axi[index], name), getattr(axi, name)
                    m.d.comb += outer.eq(inner) if member.flow is Out else inner.eq(outer)
        return m
