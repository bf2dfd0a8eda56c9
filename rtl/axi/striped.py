"""Several AXI ports as one wide one.

Data lie striped over the memories: port p holds narrow beats p, p+P, p+2P, ... of a wide stream at
consecutive addresses. A wide beat is the P narrow beats of one address.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.axi.reader import AxiReader, check_burst, check_reader
from rtl.axi.signatures import (
    Axi4ReadSignature,
    Axi4WriteSignature,
    ReadBeat,
    ReadBurst,
    WriteBeat,
)
from rtl.axi.writer import AxiWriter

__all__ = ["StripedReader", "StripedWriter"]


def _check_ports(ports: int) -> None:
    if not isinstance(ports, int) or ports < 1:
        raise ValueError(f"ports must be a positive integer, not {ports!r}")


def _to_all(m: Module, source, sinks) -> Signal:
    """Hand each item of a stream to every sink once; who has taken the present one already."""
    sent = Signal(len(sinks))
    accepted = Cat(sink.ready for sink in sinks) | sent
    m.d.comb += source.ready.eq(accepted.all())
    for index, sink in enumerate(sinks):
        m.d.comb += sink.valid.eq(source.valid & ~sent[index])
    with m.If(source.valid):
        m.d.sync += sent.eq(Mux(source.ready, 0, accepted))
    return sent


class StripedReader(wiring.Component):
    """Read master over ``ports`` AXI ports.

    Every port has its own `AxiReader` and runs ahead of the others as far as its FIFO reaches; a
    wide beat leaves when all have theirs. Latency and throughput: of the reader, in wide beats.

    Parameters
    ----------
    ports : int
        P.
    data_bits, addr_bits, id_bits, len_bits, outstanding, depth, max_burst
        Of each port, see `AxiReader`.

    Attributes
    ----------
    ar : In(stream.Signature(ReadBurst(len_bits)))
        Requests, in wide beats.
    r : Out(stream.Signature(ReadBeat(P * data_bits)))
        Port p gives bits p*data_bits and up; ``error`` if any port has one.
    base : In(32).array(P)
        Beat address added to those of port p (the memories need not hold the data at the same
        place); constant while a request is under way.
    axi : Out(Axi4ReadSignature(...)).array(P)
        Bus side.
    idle : Out(1)
        Nothing is under way.
    moved : Out(1)
        A slave took an address or brought a beat.
    """

    def __init__(self, *, ports: int, data_bits: int = 512, addr_bits: int = 64, id_bits: int = 1,
                 len_bits: int = 8, outstanding: int = 8, depth: int = 512,
                 max_burst: int | None = None) -> None:
        _check_ports(ports)
        bus = {"data_bits": data_bits, "addr_bits": addr_bits, "id_bits": id_bits}
        axi = Axi4ReadSignature(**bus)
        check_reader(data_bits, max_burst, outstanding, depth, len_bits)
        self._ports = ports
        self._options = bus | {"len_bits": len_bits, "outstanding": outstanding, "depth": depth,
                               "max_burst": max_burst}
        super().__init__({
            "ar": In(stream.Signature(ReadBurst(len_bits))),
            "r": Out(stream.Signature(ReadBeat(ports * data_bits))),
            "base": In(32).array(ports),
            "axi": Out(axi).array(ports),
            "idle": Out(1), "moved": Out(1),
        })

    def elaborate(self, platform) -> Module:
        """Hand each request to every reader once; join their beats."""
        m = Module()
        readers = [AxiReader(**self._options) for _ in range(self._ports)]
        sent = _to_all(m, self.ar, [reader.ar for reader in readers])
        all_there = Cat(reader.r.valid for reader in readers).all()
        for index, reader in enumerate(readers):
            m.submodules[f"port{index}"] = reader
            wiring.connect(m, reader.axi, wiring.flipped(self.axi[index]))
            m.d.comb += [
                reader.ar.payload.addr.eq(self.ar.payload.addr + self.base[index]),
                reader.ar.payload.len.eq(self.ar.payload.len),
                reader.r.ready.eq(all_there & self.r.ready),
            ]
        m.d.comb += [
            self.r.valid.eq(all_there),
            self.r.payload.data.eq(Cat(reader.r.payload.data for reader in readers)),
            self.r.payload.last.eq(readers[0].r.payload.last),
            self.r.payload.error.eq(Cat(reader.r.payload.error for reader in readers).any()),
            self.idle.eq(Cat(reader.idle for reader in readers).all() & (sent == 0)),
            self.moved.eq(Cat(reader.moved for reader in readers).any()),
        ]
        return m


class StripedWriter(wiring.Component):
    """Write master over ``ports`` AXI ports.

    Every port has its own `AxiWriter`, takes its part of a wide beat when it has room, and gathers
    and sends it by itself. Latency and throughput: of the writer, in wide beats.

    Parameters
    ----------
    ports : int
        P.
    data_bits, addr_bits, id_bits, outstanding, max_burst
        Of each port, see `AxiWriter`.

    Attributes
    ----------
    w : In(stream.Signature(WriteBeat(P * data_bits)))
        Writes, addressed in wide beats; bits p*data_bits and up go to port p.
    base : In(32).array(P)
        As of `StripedReader`.
    axi : Out(Axi4WriteSignature(...)).array(P)
        Bus side.
    busy : Out(1)
        A write that was taken is not yet answered by every port.
    error : Out(1)
        Pulse, not later than the last cycle of ``busy``: a port answered with an error.
    moved : Out(1)
        A slave took an address or a beat, or answered.
    """

    def __init__(self, *, ports: int, data_bits: int = 512, addr_bits: int = 64, id_bits: int = 1,
                 outstanding: int = 8, max_burst: int = 16) -> None:
        _check_ports(ports)
        bus = {"data_bits": data_bits, "addr_bits": addr_bits, "id_bits": id_bits}
        axi = Axi4WriteSignature(**bus)
        check_burst(data_bits, max_burst, outstanding)
        self._ports = ports
        self._options = bus | {"outstanding": outstanding, "max_burst": max_burst}
        super().__init__({
            "w": In(stream.Signature(WriteBeat(ports * data_bits))),
            "base": In(32).array(ports),
            "axi": Out(axi).array(ports),
            "busy": Out(1), "error": Out(1), "moved": Out(1),
        })

    def elaborate(self, platform) -> Module:
        """Hand each write to every writer once; merge what they say."""
        m = Module()
        writers = [AxiWriter(**self._options) for _ in range(self._ports)]
        _to_all(m, self.w, [writer.w for writer in writers])
        for index, writer in enumerate(writers):
            m.submodules[f"port{index}"] = writer
            wiring.connect(m, writer.axi, wiring.flipped(self.axi[index]))
            m.d.comb += [
                writer.w.payload.addr.eq(self.w.payload.addr + self.base[index]),
                writer.w.payload.data.eq(
                    self.w.payload.data.word_select(index, self._options["data_bits"])
                ),
            ]
        for name in ("busy", "error", "moved"):
            m.d.comb += getattr(self, name).eq(
                Cat(getattr(writer, name) for writer in writers).any()
            )
        return m
