"""AXI rules of the read master and of the register slave, for free traffic.

Reader: requests and a memory that are free but for the rules of a stream and of AXI. The memory
numbers its beats in the order of the bursts, the other side must see these numbers in order.
Lite: a free master; registers that answer with the address they were asked for.
"""

import pytest
from amaranth.hdl import Assert, Assume, Cat, Const, Cover, Module, Mux, Signal

from rtl.axi.lite import AxiLite
from rtl.axi.reader import AxiReader
from rtl.csr import READ_LATENCY
from tests.formal.helpers import FROM_SCRATCH, assert_formal

pytestmark = pytest.mark.formal

OUTSTANDING, DEPTH, BURST = 2, 3, 2
DEEP, MAPPED = 10, "prep; memory_map"


def stable(m, valid, ready, payload, rule=Assert):
    """What is offered stays as it is until it is taken."""
    held, kept = Signal(), Signal.like(payload)
    m.d.sync += [held.eq(valid & ~ready), kept.eq(payload)]
    m.d.comb += rule(~held | (valid & (payload == kept)))


class ReaderSpec:
    """Reader, a client of requests of 1 to 4 beats, and a memory."""

    def __init__(self, reader=AxiReader):
        self.m = m = Module()
        m.submodules.dut = self.dut = dut = reader(
            addr_bits=32, len_bits=2, outstanding=OUTSTANDING, depth=DEPTH, max_burst=BURST
        )
        # Both sides of an edge of 4 KiB, and the lowest addresses.
        low, length = Signal(5), Signal(2)
        m.d.comb += [
            dut.ar.payload.addr.eq(Cat(low[:4], Mux(low[4], 0x1F, 0))),
            dut.ar.payload.len.eq(length),
        ]
        self.inputs = [dut.ar.valid, low, length, dut.r.ready, dut.axi.arready,
                       dut.axi.rvalid, dut.axi.rresp]
        stable(m, dut.ar.valid, dut.ar.ready, dut.ar.payload.as_value(), Assume)
        self._bursts()
        self._memory()
        self._client()

    def _bursts(self):
        """The bursts cover the requests, in order and without a hole, within the rules."""
        m, axi, ar = self.m, self.dut.axi, self.dut.ar
        stable(m, axi.arvalid, axi.arready,
               Cat(axi.araddr, axi.arlen, axi.arsize, axi.arburst, axi.arid, axi.arcache))
        with m.If(axi.arvalid):
            m.d.comb += [
                Assert(axi.araddr[:12] + ((axi.arlen + 1) << 3) <= 4096), Assert(axi.arlen < BURST),
                Assert((axi.arsize == 3) & (axi.arburst == 1) & (axi.araddr[:3] == 0)),
            ]
        # The request being covered, and two behind it.
        addrs = [Signal(10, name=f"addr{i}") for i in range(3)]
        lefts = [Signal(3, name=f"left{i}") for i in range(3)]
        addr, left = addrs[0], lefts[0]
        issued, after = axi.arvalid & axi.arready, Signal(3)
        m.d.comb += after.eq(left - Mux(issued, axi.arlen + 1, 0))
        with m.If(issued):
            m.d.comb += [Assert(axi.arlen < left), Assert(axi.araddr == addr << 3)]
            m.d.sync += addr.eq(addr + axi.arlen + 1)
        m.d.sync += left.eq(after)
        with m.If(after == 0):
            m.d.sync += [now.eq(behind) for row in (addrs, lefts)
                         for now, behind in zip(row, [*row[1:], Const(0)], strict=True)]
        behind = sum(count != 0 for count in lefts[1:])
        with m.If(ar.valid & ar.ready):
            with m.Switch((behind + (after != 0))[:2]):
                for place in range(3):
                    with m.Case(place):
                        m.d.sync += [addrs[place].eq(ar.payload.addr),
                                     lefts[place].eq(ar.payload.len + 1)]
                with m.Default():
                    m.d.comb += Assert(0)

    def _memory(self):
        """Answers the bursts in order, numbering the beats."""
        m, axi = self.m, self.dut.axi
        lengths = [Signal(range(BURST + 1), name=f"beats{i}") for i in range(OUTSTANDING)]
        count = Signal(range(OUTSTANDING + 2))
        self.sent = Signal(4)
        m.d.comb += [
            Assume(~axi.rvalid | (count != 0)), axi.rdata.eq(self.sent),
            axi.rlast.eq(lengths[0] == 1), Assert(axi.rready), Assert(count <= OUTSTANDING),
        ]
        taken, ends = axi.arvalid & axi.arready, axi.rvalid & axi.rlast
        with m.If(axi.rvalid):
            m.d.sync += [self.sent.eq(self.sent + 1), lengths[0].eq(lengths[0] - 1)]
        with m.If(ends):
            m.d.sync += [now.eq(behind) for now, behind in
                         zip(lengths, [*lengths[1:], Const(0)], strict=True)]
        m.d.sync += count.eq(count + taken - ends)
        with m.If(taken):
            with m.Switch((count - ends)[:2]):
                for place, length in enumerate(lengths):
                    with m.Case(place):
                        m.d.sync += length.eq(axi.arlen + 1)

    def _client(self):
        """Gets every beat once, in order, with its error and the ends of its requests."""
        m, dut, r = self.m, self.dut, self.dut.r
        self.got = got = Signal(4)
        asked = Signal(4)
        ends, errors = Signal(16), Signal(16)       # by number of the beat
        stable(m, r.valid, r.ready, r.payload.as_value())
        with m.If(r.valid):
            m.d.comb += [
                Assert(got != self.sent), Assert(r.payload.data == got),
                Assert(r.payload.last == ends.bit_select(got, 1)),
                Assert(r.payload.error == errors.bit_select(got, 1)),
            ]
            with m.If(r.ready):
                m.d.sync += got.eq(got + 1)
        with m.If(dut.axi.rvalid):
            m.d.sync += errors.bit_select(self.sent, 1).eq(dut.axi.rresp[1])
        with m.If(dut.ar.valid & dut.ar.ready):
            m.d.sync += [
                asked.eq(asked + dut.ar.payload.len + 1),
                ends.bit_select((asked + dut.ar.payload.len)[:4], 1).eq(1),
            ]
        m.d.comb += [Assert(dut.idle == (got == asked)),
                     Assert((self.sent - got)[:4] <= DEPTH)]


def test_reader_keeps_the_rules_and_every_beat(tmp_path):
    spec = ReaderSpec()
    assert_formal(spec.m, spec.inputs, tmp_path, mode="bmc", depth=DEEP, engine=FROM_SCRATCH,
                  passes=MAPPED)


def test_reader_gets_through_within_these_cycles(tmp_path):
    spec = ReaderSpec()
    spec.m.d.comb += Cover((spec.got == 5) & spec.dut.idle)
    assert_formal(spec.m, spec.inputs, tmp_path, mode="cover", depth=14, passes=MAPPED)


class Impatient(AxiReader):
    """Takes an address back that is not accepted at once."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.axi.arvalid & ~self.axi.arready):
            m.d.sync += self.axi.arvalid.eq(0)
        return m


class Greedy(AxiReader):
    """Asks for more than it has room for."""

    def elaborate(self, platform):
        self._depth += 2
        m = super().elaborate(platform)
        m.submodules.beats.depth -= 2
        return m


class Endless(AxiReader):
    """Takes the end of every burst for the end of its request."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += m.submodules.finals.w_data.eq(1)
        return m


class Crossing(AxiReader):
    """Cuts a request by its length only."""

    def elaborate(self, platform):
        self._burst = 1 << 10       # an edge that is not the bus's
        return super().elaborate(platform)


@pytest.mark.parametrize("reader", [Impatient, Greedy, Endless, Crossing])
def test_a_planted_fault_in_the_reader_is_found(reader, tmp_path):
    spec = ReaderSpec(reader)
    with pytest.raises(AssertionError, match=r"^property fails \(exit 2\)"):
        assert_formal(spec.m, spec.inputs, tmp_path, mode="bmc", depth=DEEP,
                      engine=FROM_SCRATCH, passes=MAPPED)


class LiteSpec:
    """Slave and a free master; the registers answer with their address, in time."""

    def __init__(self, lite=AxiLite):
        self.m = m = Module()
        m.submodules.dut = self.dut = dut = lite()
        axi = dut.axi
        self.inputs = [axi.awvalid, axi.awaddr, axi.wvalid, axi.wdata, axi.wstrb, axi.bready,
                       axi.arvalid, axi.araddr, axi.rready]
        for rule, valid, ready, payload in (
            (Assume, axi.awvalid, axi.awready, axi.awaddr),
            (Assume, axi.wvalid, axi.wready, Cat(axi.wdata, axi.wstrb)),
            (Assume, axi.arvalid, axi.arready, axi.araddr),
            (Assert, axi.bvalid, axi.bready, axi.bresp),
            (Assert, axi.rvalid, axi.rready, Cat(axi.rdata, axi.rresp)),
        ):
            stable(m, valid, ready, payload, rule)
        data = dut.csr_addr
        for age in range(READ_LATENCY):
            late = Signal(10, name=f"late{age}")
            m.d.sync += late.eq(data)
            data = late
        m.d.comb += dut.csr_r_data.eq(data)
        self._writes()
        self._reads()

    def _writes(self):
        """One answer per AW and W, after both; the register is written once, as asked."""
        m, dut, axi = self.m, self.dut, self.dut.axi
        aws, ws, bs = (Signal(4, name=name) for name in ("aws", "ws", "bs"))
        self.done, self.refused, blank = (
            Signal(4, name=name) for name in ("done", "refused", "blank"))
        addr, value, strobe = Signal(10), Signal(32), Signal(4)     # the youngest
        with m.If(axi.awvalid & axi.awready):
            m.d.sync += [aws.eq(aws + 1), addr.eq(axi.awaddr[2:])]
        with m.If(axi.wvalid & axi.wready):
            m.d.sync += [ws.eq(ws + 1), value.eq(axi.wdata), strobe.eq(axi.wstrb)]
            m.d.sync += blank.eq(blank + (axi.wstrb == 0))
        with m.If(axi.bvalid):
            m.d.comb += [Assert(bs != aws), Assert(bs != ws), Assert(~axi.bresp[0])]
            with m.If(axi.bready):
                m.d.sync += [bs.eq(bs + 1), self.refused.eq(self.refused + axi.bresp[1])]
        with m.If(dut.csr_w_en):
            made = (bs + axi.bvalid)[:4]
            m.d.sync += self.done.eq(self.done + 1)
            m.d.comb += [
                Assert((aws != made) & (ws != made)), Assert(dut.csr_addr == addr),
                Assert(dut.csr_w_data == value), Assert(strobe == 15),
            ]
        # Every answer is a write, a refusal, or of a write without a byte.
        with m.If((aws == bs) & (ws == bs)):
            m.d.comb += Assert((self.done + self.refused + blank)[:4] == bs)

    def _reads(self):
        """One answer per AR, with the data of its register."""
        m, axi = self.m, self.dut.axi
        asked, self.read = Signal(4), Signal(4)
        under_way = (asked - self.read)[:4]
        addresses = [Signal(10, name=f"address{i}") for i in range(2)]
        with m.If(axi.arvalid & axi.arready):
            m.d.sync += [asked.eq(asked + 1), addresses[0].eq(axi.araddr[2:]),
                         addresses[1].eq(addresses[0])]
            m.d.comb += Assert(under_way <= 1)
        with m.If(axi.rvalid):
            oldest = Mux(under_way == 2, addresses[1], addresses[0])
            m.d.comb += [Assert(under_way != 0), Assert(axi.rdata == oldest),
                         Assert(axi.rresp == 0)]
            with m.If(axi.rready):
                m.d.sync += self.read.eq(self.read + 1)


def test_lite_keeps_the_rules_and_makes_every_access_once(tmp_path):
    spec = LiteSpec()
    assert_formal(spec.m, spec.inputs, tmp_path, mode="bmc", depth=10, engine=FROM_SCRATCH)


def test_lite_gets_through_within_these_cycles(tmp_path):
    spec = LiteSpec()
    spec.m.d.comb += Cover((spec.done == 2) & (spec.refused == 1) & (spec.read == 2))
    assert_formal(spec.m, spec.inputs, tmp_path, mode="cover", depth=14)


class Careless(AxiLite):
    """Writes whatever the strobes say."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        offered = Signal()
        m.d.sync += offered.eq(self.axi.wvalid & self.axi.wready)
        m.d.comb += self.csr_w_en.eq(offered)
        return m


class Forgetful(AxiLite):
    """Drops an answer that is not taken at once."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.axi.rvalid):
            m.d.sync += self.axi.rvalid.eq(0)
        return m


@pytest.mark.parametrize("lite", [Careless, Forgetful])
def test_a_planted_fault_in_the_slave_is_found(lite, tmp_path):
    spec = LiteSpec(lite)
    with pytest.raises(AssertionError, match=r"^property fails \(exit 2\)"):
        assert_formal(spec.m, spec.inputs, tmp_path, mode="bmc", depth=10, engine=FROM_SCRATCH)
