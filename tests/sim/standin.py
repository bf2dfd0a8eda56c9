"""A small component with the core's ports, so that the backends are tested without the core.

LOAD checks the first word and counts the beats; RUN copies the beats of the input + 1 to the output
and shows each of them at every probe. Bit 0 of IRQ_ENABLE hangs a run (for the watchdog).
"""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.signatures import Column, Event, FeatureWrite, MemorySignature, SumWrite

MAGIC = int.from_bytes(b"SPECTRAL", "little")


class StandIn(wiring.Component):
    def __init__(self, config):
        self.config = config
        super().__init__({
            "csr_addr": In(10), "csr_w_en": In(1), "csr_w_data": In(32), "csr_r_data": Out(32),
            "mem": Out(MemorySignature(config.port_bits)), "irq": Out(1),
            "probe_tile": Out(Event(Column(config))).array(config.feature_banks),
            "probe_sum": Out(Event(SumWrite(config))),
            "probe_write": Out(Event(FeatureWrite)).array(config.feature_banks),
        })

    def elaborate(self, platform):
        m = Module()
        regs = {index: Signal(32, name=f"reg{index}") for index in (5, 6, 7, 8, 9)}
        busy, done, loaded, error = Signal(), Signal(), Signal(), Signal(4)
        counters = {index: Signal(32, name=f"count{index}") for index in (10, 11, 12)}
        running, total = Signal(), Signal(16)
        words = self.config.port_words
        asked, got, put = Signal(32), Signal(32), Signal(32)
        status = Cat(busy, done, loaded)
        with m.Switch(self.csr_addr):
            for index, reg in (regs | counters).items():
                with m.Case(index):
                    m.d.sync += self.csr_r_data.eq(reg)
            with m.Case(4):
                m.d.sync += self.csr_r_data.eq(status | error << 8)
            with m.Case(0):
                m.d.sync += self.csr_r_data.eq(0x53504543)
            with m.Case(13):
                m.d.sync += self.csr_r_data.eq(1)
            with m.Default():
                m.d.sync += self.csr_r_data.eq(self.csr_addr)
        with m.If(self.csr_w_en):
            with m.Switch(self.csr_addr):
                for index, reg in regs.items():
                    with m.Case(index):
                        m.d.sync += reg.eq(self.csr_w_data)
                with m.Case(3):
                    with m.If(self.csr_w_data[2]):
                        m.d.sync += done.eq(0)
                    with m.If(self.csr_w_data[:2].any() & ~busy):
                        m.d.sync += [
                            busy.eq(1), running.eq(self.csr_w_data[1]), error.eq(0),
                            asked.eq(0), got.eq(0), put.eq(0),
                        ]
                        m.d.sync += [counter.eq(0) for counter in counters.values()]
        length, source = Signal(32), Signal(32)
        m.d.comb += [length.eq(regs[7]), source.eq(regs[6])]
        with m.If(running):
            m.d.comb += [length.eq(total * self.config.map_row_beats), source.eq(regs[8])]
        r, w, ar = self.mem.r, self.mem.w, self.mem.ar
        m.d.comb += [
            ar.valid.eq(busy & (asked < length)), ar.payload.addr.eq(source + asked),
            r.ready.eq(busy & (~running | w.ready)),
            w.valid.eq(busy & running & r.valid), w.payload.addr.eq(regs[9] + put),
            w.payload.data.eq(r.payload.data + 1),
        ]
        with m.If(ar.valid & ar.ready):
            m.d.sync += asked.eq(asked + 1)
        with m.If(w.valid & w.ready):
            m.d.sync += [put.eq(put + 1), counters[12].eq(counters[12] + 1)]
            m.d.comb += [
                self.probe_sum.valid.eq(1),
                *(probe.valid.eq(1) for probe in (*self.probe_tile, *self.probe_write)),
                self.probe_tile[0].payload.words[7].re.eq(r.payload.data[:16]),
                self.probe_tile[0].payload.tag.channel_low.eq(put),
                self.probe_sum.payload.sums[1][3].im.eq(r.payload.data[:18]),
                self.probe_write[0].payload.data[7].eq(r.payload.data[:8]),
                self.probe_write[0].payload.addr.eq(put),
            ]
        with m.If(busy):
            m.d.sync += counters[10].eq(counters[10] + 1)
        with m.If(r.valid & r.ready):
            m.d.sync += [got.eq(got + 1), counters[11].eq(counters[11] + 1)]
            with m.If(~running & (got == 0) & (r.payload.data[:64] != MAGIC)):
                m.d.sync += error.eq(1)
            with m.If(~running & (got == 6 // words)):
                m.d.sync += total.eq(r.payload.data.word_select(6 % words, 64)[32:])
            with m.If(r.payload.error):
                m.d.sync += error.eq(8)
        with m.If(busy & (got == length) & ~(running & regs[5][0])):
            m.d.sync += [busy.eq(0), done.eq(1)]
            with m.If(~running):
                m.d.sync += loaded.eq(error == 0)
        return m
