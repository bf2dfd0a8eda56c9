"""AXI4 write master behind the core's posted single-beat writes.

Writes to consecutive beat addresses become one INCR burst. A burst is closed when the next write
does not continue it, at a multiple of ``max_burst`` beats (hence never across 4 KiB), or when no
write was taken for `PATIENCE` cycles; only then is its length known and it goes to the bus. AW and
W run independently of each other.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.axi.reader import check_burst
from rtl.axi.signatures import BURST_INCR, CACHE_BUFFERABLE, Axi4WriteSignature, WriteBeat

__all__ = ["AxiWriter"]


class AxiWriter(wiring.Component):
    """Write master.

    Latency: a closed burst is on the bus 2 cycles later. Throughput: one beat per cycle of
    consecutive writes, one of scattered ones in two cycles, as long as ``outstanding`` bursts
    cover the way to the response. Byte addresses are taken modulo 2 to the ``addr_bits``.

    Parameters
    ----------
    data_bits, addr_bits, id_bits : int
        Of the AXI port; ``data_bits`` is also the width of the core's side.
    outstanding : int
        Bursts closed and not yet answered.
    max_burst : int
        Beats of a burst, a power of two; the data FIFO holds two of them.

    Attributes
    ----------
    w : In(stream.Signature(WriteBeat(data_bits)))
        Core's side, addressed in beats.
    axi : Out(Axi4WriteSignature(...))
        Bus side.
    busy : Out(1)
        A write that was taken is not yet answered.
    error : Out(1)
        Pulse, not later than the last cycle of ``busy``: a burst was answered with SLVERR or
        DECERR.
    moved : Out(1)
        The slave took an address or a beat, or answered.
    """

    #: Cycles without a write after which a burst is closed.
    PATIENCE = 8

    def __init__(self, *, data_bits: int = 64, addr_bits: int = 64, id_bits: int = 1,
                 outstanding: int = 8, max_burst: int = 16) -> None:
        axi = Axi4WriteSignature(data_bits=data_bits, addr_bits=addr_bits, id_bits=id_bits)
        self._burst = check_burst(data_bits, max_burst, outstanding)
        self._data_bits, self._outstanding = data_bits, outstanding
        super().__init__({
            "w": In(stream.Signature(WriteBeat(data_bits))),
            "axi": Out(axi),
            "busy": Out(1), "error": Out(1), "moved": Out(1),
        })

    def elaborate(self, platform) -> Module:
        """Gather into the data FIFO; closed bursts go to AW and W through a queue each."""
        m = Module()
        axi, burst, w = self.axi, self._burst, self.w
        beat_log2 = (self._data_bits // 8).bit_length() - 1
        closed = data.StructLayout({"addr": 32, "len": range(max(2, burst))})
        m.submodules.beats = beats = fifo.SyncFIFO(width=self._data_bits, depth=2 * burst)
        m.submodules.addresses = addresses = fifo.SyncFIFO(
            width=closed.size, depth=self._outstanding
        )
        m.submodules.lengths = lengths = fifo.SyncFIFO(
            width=closed["len"].width, depth=self._outstanding
        )

        first, following, count = Signal(32), Signal(32), Signal(range(burst + 1))
        waited = Signal(range(self.PATIENCE + 1))
        under_way = Signal(range(self._outstanding + 1))
        joins, taken, close, may_close, answered = (
            Signal(name=name) for name in ("joins", "taken", "close", "may_close", "answered")
        )
        edge = (following & (burst - 1)) == 0
        m.d.comb += [
            joins.eq((count == 0) | ((w.payload.addr == following) & ~edge)),
            may_close.eq((count != 0) & (under_way != self._outstanding)),
            w.ready.eq(beats.w_rdy & (joins | may_close)),
            taken.eq(w.valid & w.ready),
            close.eq(may_close & ((taken & ~joins) | edge | (waited == self.PATIENCE))),
            beats.w_en.eq(taken), beats.w_data.eq(w.payload.data),
        ]
        with m.If(close):
            m.d.sync += count.eq(0)
        with m.If(taken):
            m.d.sync += [following.eq(w.payload.addr + 1), count.eq(count + 1), waited.eq(0)]
            with m.If(close | (count == 0)):
                m.d.sync += [first.eq(w.payload.addr), count.eq(1)]
        with m.Elif(waited != self.PATIENCE):
            m.d.sync += waited.eq(waited + 1)
        m.d.comb += [
            lengths.w_en.eq(close), lengths.w_data.eq(count - 1),
            addresses.w_en.eq(close), addresses.w_data.eq(Cat(first, lengths.w_data)),
        ]

        head = closed(addresses.r_data)
        m.d.comb += [
            axi.awvalid.eq(addresses.r_rdy), addresses.r_en.eq(axi.awready),
            axi.awaddr.eq(Cat(Const(0, beat_log2), head.addr)), axi.awlen.eq(head.len),
            axi.awsize.eq(beat_log2), axi.awburst.eq(BURST_INCR),
            axi.awcache.eq(CACHE_BUFFERABLE),
        ]

        sent = Signal.like(lengths.r_data)
        m.d.comb += [
            axi.wvalid.eq(lengths.r_rdy), axi.wdata.eq(beats.r_data),
            axi.wstrb.eq(Const(-1, self._data_bits // 8)), axi.wlast.eq(sent == lengths.r_data),
            beats.r_en.eq(axi.wvalid & axi.wready), lengths.r_en.eq(beats.r_en & axi.wlast),
        ]
        with m.If(beats.r_en):
            m.d.sync += sent.eq(sent + 1)
            with m.If(axi.wlast):
                m.d.sync += sent.eq(0)

        m.d.comb += [
            axi.bready.eq(1), answered.eq(axi.bvalid),
            self.error.eq(answered & axi.bresp[1]),
            self.busy.eq((count != 0) | (under_way != 0)),
            self.moved.eq((axi.awvalid & axi.awready) | beats.r_en | axi.bvalid),
        ]
        m.d.sync += under_way.eq(under_way + close - answered)
        return m
