"""Maps in and out: memory to feature memory before the layers, and back after them.

Beat 2a of a map's linear image is row a of the even bank, beat 2a+1 row a of the odd bank.
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.feature import FeatureMemory
from rtl.signatures import (
    Event,
    FeatureReadSignature,
    FeatureWrite,
    ReadData,
    ReadRequest,
    WriteRequest,
)

__all__ = ["InputDma", "OutputDma"]

#: Beats of a read burst.
BURST = 16


class InputDma(wiring.Component):
    """Copy rows from memory to the feature memory, one beat per cycle.

    Attributes
    ----------
    start : In(1)
        Begin; the addresses and the count are taken in this cycle.
    addr : In(32)
        Beat address of the first row.
    base, rows : In(16), In(16)
        First row in the feature memory, and how many.
    ar, r : Out(stream.Signature(ReadRequest)), In(stream.Signature(ReadData(64)))
        Memory reads.
    write : Out(Event(FeatureWrite))
        Write port of the feature memory.
    done : Out(1)
        Level: everything since ``start`` has been written and may be read.
    error : Out(1)
        Pulse: a beat came with a bus error.
    """

    start: In(1)
    addr: In(32)
    base: In(16)
    rows: In(16)
    ar: Out(stream.Signature(ReadRequest))
    r: In(stream.Signature(ReadData(64)))
    write: Out(Event(FeatureWrite))
    done: Out(1)
    error: Out(1)

    def elaborate(self, platform) -> Module:
        """Ask burst by burst; write every beat as it comes."""
        m = Module()
        ask_addr, ask_left, data_left = Signal(32), Signal(17), Signal(17)
        row, parity = Signal(16), Signal()
        count = Signal(range(BURST + 1))
        m.d.comb += [
            count.eq(Mux(ask_left > BURST, BURST, ask_left)),
            self.ar.valid.eq(ask_left != 0),
            self.ar.payload.addr.eq(ask_addr),
            self.ar.payload.len.eq(count - 1),
            self.r.ready.eq(1),
        ]
        with m.If(self.ar.valid & self.ar.ready):
            m.d.sync += [ask_addr.eq(ask_addr + count), ask_left.eq(ask_left - count)]

        write = self.write.payload
        beat = self.r.valid & (data_left != 0)
        m.d.sync += [
            self.write.valid.eq(beat),
            write.addr.eq(row), write.parity.eq(parity),
            write.data.eq(self.r.payload.data),
            self.error.eq(beat & self.r.payload.error),
        ]
        m.d.comb += [write.offset.eq(0), write.count.eq(8), write.vector.eq(0)]
        with m.If(beat):
            m.d.sync += [data_left.eq(data_left - 1), Cat(parity, row).eq(Cat(parity, row) + 1)]

        started, settled = Signal(), Signal(FeatureMemory.WRITE_LATENCY)
        m.d.sync += settled.eq(Cat(started & (data_left == 0), settled))
        m.d.comb += self.done.eq(settled.all())
        with m.If(self.start):
            m.d.sync += [
                started.eq(1), settled.eq(0),
                ask_addr.eq(self.addr), ask_left.eq(self.rows << 1),
                data_left.eq(self.rows << 1), row.eq(self.base), parity.eq(0),
            ]
        return m


class OutputDma(wiring.Component):
    """Copy rows from the feature memory to memory, one beat per cycle.

    Attributes
    ----------
    start : In(1)
        Begin; the addresses and the count are taken in this cycle.
    addr : In(32)
        Beat address of the first row.
    base, rows : In(16), In(16)
        First row in the feature memory, and how many.
    read : Out(FeatureReadSignature())
        Read port of the feature memory.
    w : Out(stream.Signature(WriteRequest(64)))
        Memory writes.
    done : Out(1)
        Level: every write since ``start`` has been accepted.
    """

    start: In(1)
    addr: In(32)
    base: In(16)
    rows: In(16)
    read: Out(FeatureReadSignature())
    w: Out(stream.Signature(WriteRequest(64)))
    done: Out(1)

    #: Rows that may be on their way; a row leaves every second cycle.
    QUEUE = 4

    def elaborate(self, platform) -> Module:
        """Fetch rows while the queue has room for them, send each as two beats."""
        m = Module()
        m.submodules.queue = queue = fifo.SyncFIFO(width=128, depth=self.QUEUE)
        row, fetch_left, send_left = Signal(16), Signal(16), Signal(17)
        credits = Signal(range(self.QUEUE + 1), init=self.QUEUE)
        addr, half, started = Signal(32), Signal(), Signal()
        fetch = Signal()
        arrived = Signal(FeatureMemory.LATENCY)
        sent = self.w.valid & self.w.ready
        m.d.comb += [
            fetch.eq((fetch_left != 0) & (credits != 0)),
            self.read.en.eq(fetch),
            self.read.even_addr.eq(row), self.read.odd_addr.eq(row), self.read.offset.eq(0),
            queue.w_en.eq(arrived[-1]),
            queue.w_data.eq(Cat(self.read.even, self.read.odd)),
            self.w.valid.eq(queue.r_rdy),
            self.w.payload.addr.eq(addr),
            self.w.payload.data.eq(Mux(half, queue.r_data[64:], queue.r_data[:64])),
            queue.r_en.eq(sent & half),
            self.done.eq(started & (send_left == 0)),
        ]
        m.d.sync += [arrived.eq(Cat(fetch, arrived)), credits.eq(credits - fetch + (sent & half))]
        with m.If(fetch):
            m.d.sync += [row.eq(row + 1), fetch_left.eq(fetch_left - 1)]
        with m.If(sent):
            m.d.sync += [addr.eq(addr + 1), half.eq(~half), send_left.eq(send_left - 1)]
        with m.If(self.start):
            m.d.sync += [
                started.eq(1), addr.eq(self.addr), row.eq(self.base), half.eq(0),
                fetch_left.eq(self.rows), send_left.eq(self.rows << 1),
            ]
        return m
