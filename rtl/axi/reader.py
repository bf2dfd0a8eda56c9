"""AXI4 read master behind the core's read port.

Requests are cut where a burst would cross a multiple of ``max_burst`` beats, hence never cross
4 KiB. All bursts have one id, so that the data come back in order. A burst is asked for when the
data FIFO has room for all of it: ``rready`` is always high, and a consumer that waits never holds
up the interconnect or another master's data.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.axi.signatures import (
    BURST_INCR,
    CACHE_BUFFERABLE,
    Axi4ReadSignature,
    BoundaryBeats,
    ReadBeat,
    ReadBurst,
)

__all__ = ["AxiReader", "check_burst", "check_reader"]


def check_burst(data_bits: int, max_burst: int | None, outstanding: int) -> int:
    """Beats of the longest burst: ``max_burst``, checked, or the most AXI allows."""
    most = BoundaryBeats(data_bits)
    burst = most if max_burst is None else max_burst
    if not isinstance(burst, int) or not 1 <= burst <= most or burst & (burst - 1):
        raise ValueError(f"max_burst must be a power of two of at most {most} at {data_bits} bits, "
                         f"not {burst!r}")
    if not isinstance(outstanding, int) or outstanding < 1:
        raise ValueError(f"outstanding must be a positive integer, not {outstanding!r}")
    return burst


def check_reader(data_bits: int, max_burst: int | None, outstanding: int, depth: int,
                 len_bits: int) -> int:
    """Check the arguments of `AxiReader`; as `check_burst`."""
    burst = check_burst(data_bits, max_burst, outstanding)
    if not isinstance(depth, int) or depth < burst:
        raise ValueError(f"depth must be at least max_burst, {burst}, not {depth!r}")
    if not isinstance(len_bits, int) or not 1 <= len_bits <= 32:
        raise ValueError(f"len_bits must be 1 to 32, not {len_bits!r}")
    return burst


class AxiReader(wiring.Component):
    """Read master.

    Latency: a request is on the bus `LATENCY` cycles after it was taken; a beat leaves
    `DATA_LATENCY` cycles after it came. Throughput: a burst and a beat per cycle, as long as
    ``outstanding`` bursts and ``depth`` beats cover the memory's latency plus `ROUND_TRIP` cycles.
    Byte addresses are taken modulo 2 to the ``addr_bits``.

    A flush needs nothing here: who asked takes (and drops) the data of all requests; `idle` tells
    the end.

    Parameters
    ----------
    data_bits, addr_bits, id_bits : int
        Of the AXI port; ``data_bits`` is also the width of the core's side.
    len_bits : int
        Width of a request's length.
    outstanding : int
        Bursts under way at once.
    depth : int
        Beats of the data FIFO, at least ``max_burst``.
    max_burst : int or None
        Beats of a burst, a power of two; None: as many as fit 4 KiB, up to 256.

    Attributes
    ----------
    ar, r : In(stream.Signature(ReadBurst(len_bits))), Out(stream.Signature(ReadBeat(data_bits)))
        Core's side, addressed in beats; ``last`` ends a request, ``error`` is SLVERR or DECERR.
    axi : Out(Axi4ReadSignature(...))
        Bus side.
    idle : Out(1)
        No request, burst or beat is under way.
    moved : Out(1)
        The slave took an address or brought a beat.
    """

    LATENCY = 3
    DATA_LATENCY = 2
    #: Cycles that a place in the FIFO stays reserved beyond the memory's latency.
    ROUND_TRIP = 5

    def __init__(self, *, data_bits: int = 64, addr_bits: int = 64, id_bits: int = 1,
                 len_bits: int = 8, outstanding: int = 8, depth: int = 512,
                 max_burst: int | None = None) -> None:
        axi = Axi4ReadSignature(data_bits=data_bits, addr_bits=addr_bits, id_bits=id_bits)
        self._burst = check_reader(data_bits, max_burst, outstanding, depth, len_bits)
        self._data_bits, self._len_bits = data_bits, len_bits
        self._outstanding, self._depth = outstanding, depth
        super().__init__({
            "ar": In(stream.Signature(ReadBurst(len_bits))),
            "r": Out(stream.Signature(ReadBeat(data_bits))),
            "axi": Out(axi),
            "idle": Out(1), "moved": Out(1),
        })

    def elaborate(self, platform) -> Module:
        """Splitter, address register, FIFO of burst ends, FIFO of data."""
        m = Module()
        axi, burst = self.axi, self._burst
        beat_log2 = (self._data_bits // 8).bit_length() - 1
        # One bit per burst: does it end its request?
        m.submodules.finals = finals = fifo.SyncFIFO(width=1, depth=self._outstanding)
        m.submodules.beats = beats = fifo.SyncFIFOBuffered(
            width=ReadBeat(self._data_bits).size, depth=self._depth
        )

        # s0: the rest of the request, and its next burst.
        addr, left = Signal(32), Signal(self._len_bits + 1)
        to_edge = Signal(range(burst + 1))
        cut, issue, final = Signal(), Signal(), Signal()
        # s1: the burst waits for room.
        s1_valid, s1_final = Signal(), Signal()
        s1_addr, s1_size = Signal(32, reset_less=True), Signal(range(burst + 1), reset_less=True)
        room = Signal(range(self._depth + 1), init=self._depth)
        edge_log2 = burst.bit_length() - 1
        m.d.comb += [
            to_edge.eq(burst - (addr & (burst - 1))),
            final.eq(left <= to_edge),
            cut.eq((left != 0) & (~s1_valid | issue)),
            issue.eq(s1_valid & (room >= s1_size) & finals.w_rdy
                     & (~axi.arvalid | axi.arready)),
            finals.w_en.eq(issue), finals.w_data.eq(s1_final),
            self.ar.ready.eq((left == 0) | (cut & final)),
        ]
        with m.If(axi.arready):
            m.d.sync += axi.arvalid.eq(0)
        with m.If(issue):
            m.d.sync += [
                axi.arvalid.eq(1), axi.araddr.eq(Cat(Const(0, beat_log2), s1_addr)),
                axi.arlen.eq(s1_size - 1), s1_valid.eq(0),
            ]
        with m.If(cut):
            m.d.sync += [
                s1_valid.eq(1), s1_addr.eq(addr), s1_size.eq(Mux(final, left, to_edge)),
                s1_final.eq(final),
                # After an edge, unless that was all: no long sum behind the comparison.
                addr.eq(Cat(Const(0, edge_log2), addr[edge_log2:] + 1)),
                left.eq(Mux(final, 0, left - to_edge)),
            ]
        with m.If(self.ar.valid & self.ar.ready):
            m.d.sync += [addr.eq(self.ar.payload.addr), left.eq(self.ar.payload.len + 1)]

        taken = Signal()
        m.d.comb += [
            axi.arsize.eq(beat_log2), axi.arburst.eq(BURST_INCR), axi.arcache.eq(CACHE_BUFFERABLE),
            axi.rready.eq(1),
            beats.w_en.eq(axi.rvalid),
            beats.w_data.eq(Cat(axi.rdata, axi.rlast & finals.r_data, axi.rresp[1])),
            finals.r_en.eq(axi.rvalid & axi.rlast),
            self.r.valid.eq(beats.r_rdy), self.r.payload.eq(beats.r_data),
            beats.r_en.eq(self.r.ready), taken.eq(self.r.valid & self.r.ready),
            self.idle.eq((left == 0) & ~s1_valid & (room == self._depth)),
            self.moved.eq((axi.arvalid & axi.arready) | axi.rvalid),
        ]
        m.d.sync += room.eq(room - Mux(issue, s1_size, 0) + taken)
        return m
