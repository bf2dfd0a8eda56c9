"""Maps in and out: memory to feature memory before the layers, and back after them.

A map's linear image is row after row of the feature memory; a row is 16 bytes of every feature
bank, the even map row's 8 before those of the odd one (`model.layout`). It is a whole number of
beats, or the only bank's row is two beats.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from model.config import ROW_BITS, AcceleratorConfig
from rtl.feature import FeatureMemory
from rtl.queue import Level
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
#: Bits of a row of one bank.
ROW = 128


class InputDma(wiring.Component):
    """Copy rows from memory to the feature memory.

    Throughput: one beat per cycle, as long as the write ports are free. Every bank takes its part
    of a row when its port is free, up to `QUEUE` rows before the last one, both halves at once. (If
    a beat is half a row, it is written as it comes.)

    Parameters
    ----------
    config : AcceleratorConfig
        Uses ``port_bits`` and ``feature_banks``.

    Attributes
    ----------
    start : In(1)
        Begin; the addresses and the count are taken in this cycle.
    addr : In(32)
        Beat address of the first row.
    base, rows : In(ROW_BITS), In(ROW_BITS)
        First row in the feature memory, and how many; constant in a run.
    again : In(1)
        Pulse, only while ``done``: read as many rows more, into the same ones.
    asking : Out(1)
        Level: not all of the rows have been asked for.
    ar, r : Out(stream.Signature(ReadRequest)), In(stream.Signature(ReadData(port_bits)))
        Memory reads.
    write : Out(Event(FeatureWrite)).array(feature_banks)
        Write ports of the feature memory.
    hold : In(feature_banks)
        Another writes to the bank in this cycle: do not.
    row : Out(ROW_BITS + 1)
        Level: the rows below it (from ``base`` on) have been written.
    done : Out(1)
        Level: everything since ``start`` or ``again`` has been written and may be read.
    error : Out(1)
        Pulse: a beat came with a bus error.
    """

    #: Rows that wait for their banks: one LUT RAM each.
    QUEUE = 16

    def __init__(self, *, config: AcceleratorConfig) -> None:
        if not isinstance(config, AcceleratorConfig):
            raise TypeError(f"config must be an AcceleratorConfig, not {config!r}")
        self._banks, self._bits = config.feature_banks, config.port_bits
        super().__init__({
            "start": In(1), "addr": In(32), "base": In(ROW_BITS), "rows": In(ROW_BITS),
            "again": In(1), "asking": Out(1),
            "ar": Out(stream.Signature(ReadRequest)),
            "r": In(stream.Signature(ReadData(config.port_bits))),
            "write": Out(Event(FeatureWrite)).array(config.feature_banks),
            "hold": In(config.feature_banks),
            "row": Out(ROW_BITS + 1), "done": Out(1), "error": Out(1),
        })

    def elaborate(self, platform) -> Module:
        """Ask burst by burst; write every row as its beats come."""
        m = Module()
        beats_log2 = exact_log2(ROW * self._banks // self._bits)    # of a row
        ask_addr = Signal(32)
        ask_left, data_left = Signal(ROW_BITS + beats_log2), Signal(ROW_BITS + beats_log2)
        # Something is left to ask for, more than a burst, to come: found while it changes.
        asking, more, expecting = Signal(), Signal(), Signal()
        count = Signal(range(BURST + 1))
        beat = self.r.valid & self.r.ready & expecting
        m.d.comb += [
            count.eq(Mux(more, BURST, ask_left)),
            self.asking.eq(asking), self.ar.valid.eq(asking),
            self.ar.payload.addr.eq(ask_addr),
            self.ar.payload.len.eq(count - 1),
        ]
        with m.If(self.ar.valid & self.ar.ready):
            m.d.sync += [
                ask_addr.eq(ask_addr + count), ask_left.eq(ask_left - BURST),
                asking.eq(more), more.eq(ask_left > 2 * BURST),
            ]
        m.d.sync += self.error.eq(beat & self.r.payload.error)
        with m.If(beat):
            m.d.sync += [data_left.eq(data_left - 1), expecting.eq(data_left != 1)]

        for write in self.write:
            m.d.comb += [write.payload.offset.eq(0), write.payload.count.eq(8)]
        if self._banks == 1 and self._bits == ROW // 2:
            pending = self._half_rows(m, beat)
        else:
            pending = self._rows(m, beat, beats_log2)

        started, settled = Signal(), Signal(FeatureMemory.WRITE_LATENCY)
        m.d.sync += settled.eq(Cat(started & ~expecting & ~pending, settled))
        m.d.comb += self.done.eq(settled.all())
        with m.If(self.start | self.again):
            m.d.sync += [
                started.eq(1), settled.eq(0), ask_left.eq(self.rows << beats_log2),
                asking.eq(self.rows != 0), more.eq((self.rows << beats_log2) > BURST),
                data_left.eq(self.rows << beats_log2), expecting.eq(self.rows != 0),
                self.row.eq(self.base),
            ]
        with m.If(self.start):
            m.d.sync += ask_addr.eq(self.addr)
        return m

    def _half_rows(self, m: Module, beat):
        """One bank, a port of half a row: every beat is written as it is."""
        write, parity, full = self.write[0], Signal(), Signal()
        m.d.comb += [
            self.r.ready.eq(~self.hold),
            write.valid.eq(full & ~self.hold),
            write.payload.addr.eq(self.row), write.payload.parity.eq(parity),
        ]
        with m.If(~self.hold):
            m.d.sync += [full.eq(beat), write.payload.data.eq(self.r.payload.data)]
        with m.If(write.valid):
            m.d.sync += Cat(parity, self.row).eq(Cat(parity, self.row) + 1)
        with m.If(self.start):
            m.d.sync += [parity.eq(0), full.eq(0)]
        return full

    def _rows(self, m: Module, beat, beats_log2: int):
        """Assemble rows; a queue of them for each bank, all filled together."""
        line = Signal(ROW * self._banks, reset_less=True)
        position = Signal(beats_log2)
        full = Signal()                                     # a row goes to the queues
        pointer = range(2 * self.QUEUE)
        filled, written = Signal(pointer), Signal(pointer)  # rows since the start: in, out of all
        level, room = Signal(pointer), Signal()
        m.d.comb += [level.eq(filled - written), self.r.ready.eq(room)]
        m.d.sync += [
            # A row may be in ``line``, and two more be arriving: ``room`` is a cycle old.
            room.eq(level < self.QUEUE - 2),
            full.eq(beat & position.all() if beats_log2 else beat), filled.eq(filled + full),
        ]
        if beats_log2:
            with m.If(beat):
                m.d.sync += [
                    position.eq(position + 1),
                    line.word_select(position, self._bits).eq(self.r.payload.data),
                ]
        else:
            m.d.sync += line.eq(self.r.payload.data)
        ahead = Signal(self._banks)
        for bank, write in enumerate(self.write):
            m.submodules[f"queue{bank}"] = queue = Memory(shape=ROW, depth=self.QUEUE, init=[])
            enter, leave = queue.write_port(), queue.read_port(domain="comb")
            taken = Signal(pointer, name=f"taken{bank}")    # rows since the start
            waiting = Signal(name=f"waiting{bank}")         # ``taken`` and ``filled`` differ
            addr = Signal(ROW_BITS, name=f"addr{bank}")
            m.d.comb += [
                enter.en.eq(full), enter.addr.eq(filled),
                enter.data.eq(line.word_select(bank, ROW)),
                leave.addr.eq(taken), ahead[bank].eq(taken != written),
                write.valid.eq(waiting & ~self.hold[bank]),
                write.payload.addr.eq(addr), write.payload.pair.eq(1),
                Cat(write.payload.data, write.payload.below).eq(leave.data),
            ]
            with m.If(write.valid):
                m.d.sync += [
                    taken.eq(taken + 1), addr.eq(addr + 1),
                    waiting.eq((taken + 1)[:len(taken)] != filled),
                ]
            with m.If(full):
                m.d.sync += waiting.eq(1)
            with m.If(self.start | self.again):
                m.d.sync += addr.eq(self.base)
            with m.If(self.start):
                m.d.sync += [taken.eq(0), waiting.eq(0)]
        with m.If(ahead.all()):
            m.d.sync += [written.eq(written + 1), self.row.eq(self.row + 1)]
        with m.If(self.start):
            m.d.sync += [position.eq(0), full.eq(0), filled.eq(0), written.eq(0)]
        return full | (level != 0)


class OutputDma(wiring.Component):
    """Copy rows from the feature memory to memory, one beat per cycle.

    What it reads with and what it writes are registers.

    Parameters
    ----------
    config : AcceleratorConfig
        Uses ``port_bits`` and ``feature_banks``.

    Attributes
    ----------
    start : In(1)
        Begin; the addresses and the count are taken in this cycle.
    addr : In(32)
        Beat address of the first row.
    base, rows : In(ROW_BITS), In(ROW_BITS)
        First row in the feature memory, and how many.
    read : Out(FeatureReadSignature()).array(feature_banks)
        Read ports of the feature memory.
    reads : Out(1)
        Level: from the cycle after ``start`` until a reset the read ports are this unit's.
    w : Out(stream.Signature(WriteRequest(port_bits)))
        Memory writes.
    stop : In(1)
        Level: offer no write beyond the one that is offered already; only a reset resumes.
    done : Out(1)
        Level: every write since ``start`` has been accepted.
    """

    #: Rows that may be on their way: covers that way and back to the credit.
    QUEUE = 8

    def __init__(self, *, config: AcceleratorConfig) -> None:
        if not isinstance(config, AcceleratorConfig):
            raise TypeError(f"config must be an AcceleratorConfig, not {config!r}")
        self._banks, self._bits = config.feature_banks, config.port_bits
        super().__init__({
            "start": In(1), "addr": In(32), "base": In(ROW_BITS), "rows": In(ROW_BITS),
            "read": Out(FeatureReadSignature()).array(config.feature_banks), "reads": Out(1),
            "w": Out(stream.Signature(WriteRequest(config.port_bits))),
            "stop": In(1), "done": Out(1),
        })

    def elaborate(self, platform) -> Module:
        """Fetch rows while the queue has room for them, send each as its beats."""
        m = Module()
        beats_log2 = exact_log2(ROW * self._banks // self._bits)    # of a row
        m.submodules.queue = queue = fifo.SyncFIFO(width=ROW * self._banks, depth=self.QUEUE)
        row, fetch_left = Signal(ROW_BITS), Signal(ROW_BITS)
        send_left = Signal(ROW_BITS + beats_log2)
        m.submodules.credit = credit = Level(depth=self.QUEUE)     # rows on their way
        position, fetching, started = Signal(beats_log2), Signal(), Signal()
        fetch, s1_fetch, s1_row = Signal(), Signal(), Signal(ROW_BITS, reset_less=True)
        s1_sent = Signal()      # a row has left the queue
        arrived = Signal(FeatureMemory.LATENCY)
        w, free, offer = self.w, Signal(), Signal()
        m.d.comb += [
            fetch.eq(fetching & credit.room), credit.write.eq(fetch), credit.read.eq(s1_sent),
            queue.w_en.eq(arrived[-1]),
            queue.w_data.eq(Cat(Cat(read.even, read.odd) for read in self.read)),
            free.eq(~w.valid | w.ready), offer.eq(free & queue.r_rdy & ~self.stop),
            queue.r_en.eq(offer & position.all() if beats_log2 else offer),
            self.reads.eq(started),
        ]
        for read in self.read:
            m.d.comb += [
                read.en.eq(s1_fetch),
                read.even_addr.eq(s1_row), read.odd_addr.eq(s1_row), read.offset.eq(0),
            ]
        m.d.sync += [
            s1_fetch.eq(fetch), s1_row.eq(row), arrived.eq(Cat(s1_fetch, arrived)),
            s1_sent.eq(queue.r_en),
            self.done.eq(started & (send_left == 0)),
        ]
        with m.If(fetch):
            m.d.sync += [
                row.eq(row + 1), fetch_left.eq(fetch_left - 1), fetching.eq(fetch_left != 1),
            ]
        with m.If(free):
            m.d.sync += [
                w.valid.eq(offer),
                w.payload.data.eq(queue.r_data.word_select(position, self._bits)),
            ]
        with m.If(offer):
            m.d.sync += position.eq(position + 1)
        with m.If(w.valid & w.ready):
            m.d.sync += [w.payload.addr.eq(w.payload.addr + 1), send_left.eq(send_left - 1)]
        with m.If(self.start):
            m.d.sync += [
                started.eq(1), w.payload.addr.eq(self.addr), row.eq(self.base), position.eq(0),
                fetch_left.eq(self.rows), fetching.eq(self.rows != 0),
                send_left.eq(self.rows << beats_log2), self.done.eq(0),
            ]
        return m
