"""The read arbiter: nothing is withdrawn, lost, duplicated or sent to the wrong client.

Two clients and a memory that are free but for the rules of a stream. Every request carries its
client and its number, every beat of the memory says which beat of which request it is.
"""

import pytest
from amaranth.hdl import Assert, Assume, C, Cat, Cover, Module, Signal
from amaranth.lib.wiring import connect, flipped

from rtl.memory import ReadArbiter
from tests.formal.helpers import FROM_SCRATCH, assert_formal

pytestmark = pytest.mark.formal

CLIENTS, OUTSTANDING = 2, 2


class Spec:
    """The arbiter, its users, and counters that know what every beat must be."""

    def __init__(self, arbiter=ReadArbiter):
        self.m = m = Module()
        m.submodules.dut = self.dut = dut = arbiter(clients=CLIENTS, outstanding=OUTSTANDING)
        self.inputs = [dut.flush, dut.mem_ar.ready, dut.mem_r.valid]
        # A flush goes on until nothing is under way, as `rtl.control` makes it.
        flushing = Signal()
        m.d.sync += flushing.eq(dut.flush & ~dut.idle)
        m.d.comb += [Assume(dut.flush | ~flushing), Assert(~dut.mem_r.valid | ~dut.idle)]
        self.finished = [self._client(index) for index in range(CLIENTS)]
        self._memory()
        ready, asking = Cat(ar.ready for ar in dut.ar), Cat(ar.valid for ar in dut.ar)
        m.d.comb += [
            Assert(~(ready & ~asking).any()), Assert(~ready.all()),
            Assert(~(dut.flush & ready.any())),
        ]

    def _client(self, index):
        """Asks for bursts of 1 or 2 beats; returns a flag: it has got a whole one of 2."""
        m, ar, r, flush = self.m, self.dut.ar[index], self.dut.r[index], self.dut.flush
        asked, got, second = Signal(2), Signal(2), Signal()
        held, held_two, two = Signal(), Signal(), Signal(name=f"two{index}")
        finished = Signal()
        self.inputs += [ar.valid, r.ready, two]
        m.d.comb += [
            ar.payload.addr.eq(Cat(two, asked, index)), ar.payload.len.eq(two),
            Assume(~held | (two == held_two)),
            # Only a reset, under a flush, takes a request back.
            Assume(~held | ar.valid | flush),
        ]
        m.d.sync += [held.eq(ar.valid & ~ar.ready), held_two.eq(two)]
        with m.If(ar.valid & ar.ready):
            m.d.sync += asked.eq(asked + 1)
        with m.If(r.valid):
            m.d.comb += [
                Assert(~flush), Assert(got != asked),
                Assert(r.payload.data[1:] == Cat(got, C(index, 1), second)),
                Assert(r.payload.last == (r.payload.data[0] == second)),
            ]
            with m.If(r.ready):
                m.d.sync += second.eq(~r.payload.last)
                with m.If(r.payload.last):
                    m.d.sync += [got.eq(got + 1), finished.eq(finished | second)]
        with m.If(flush):
            m.d.sync += [got.eq(asked), second.eq(0)]
        return finished

    def _memory(self):
        """Answers the accepted requests in order, each beat when it likes."""
        m, dut = self.m, self.dut
        first, behind = Signal(4), Signal(4)    # addresses of the bursts under way
        count, beat = Signal(2), Signal()
        accepted = dut.mem_r.valid & dut.mem_r.ready
        left = count - (accepted & dut.mem_r.payload.last)
        m.d.comb += [
            Assume(~dut.mem_r.valid | (count != 0)),
            dut.mem_r.payload.data.eq(Cat(first, beat)),
            dut.mem_r.payload.last.eq(beat == first[0]),
            # No more than there may be, and idle means none at all.
            Assert(count <= OUTSTANDING),
            Assert(~dut.idle | ((count == 0) & ~dut.mem_ar.valid)),
        ]
        with m.If(accepted):
            m.d.sync += beat.eq(~dut.mem_r.payload.last)
            with m.If(dut.mem_r.payload.last):
                m.d.sync += first.eq(behind)
        m.d.sync += count.eq(left)
        with m.If(dut.mem_ar.valid & dut.mem_ar.ready):
            m.d.sync += count.eq(left + 1)
            m.d.comb += Assert(dut.mem_ar.payload.len == dut.mem_ar.payload.addr[0])
            with m.If(left == 0):
                m.d.sync += first.eq(dut.mem_ar.payload.addr)
            with m.Else():
                m.d.sync += behind.eq(dut.mem_ar.payload.addr)
        # The port's side of the handshakes: stable requests, beats that somebody takes.
        waiting, kept = Signal(), Signal.like(dut.mem_ar.payload.as_value())
        m.d.sync += [
            waiting.eq(dut.mem_ar.valid & ~dut.mem_ar.ready), kept.eq(dut.mem_ar.payload)
        ]
        with m.If(waiting):
            m.d.comb += [Assert(dut.mem_ar.valid), Assert(dut.mem_ar.payload.as_value() == kept)]
        takers = [r.valid & r.ready for r in dut.r]
        m.d.comb += [
            Assert(~(takers[0] & takers[1])),
            Assert(accepted == (dut.mem_r.valid & (dut.flush | takers[0] | takers[1]))),
        ]


def test_every_beat_goes_to_who_asked(tmp_path):
    spec = Spec()
    assert_formal(spec.m, spec.inputs, tmp_path, mode="bmc", depth=12, engine=FROM_SCRATCH)


def test_both_clients_get_a_burst_within_these_cycles(tmp_path):
    spec = Spec()
    spec.m.d.comb += Cover(spec.finished[0] & spec.finished[1])
    assert_formal(spec.m, spec.inputs, tmp_path, mode="cover", depth=12)


class Impatient(ReadArbiter):
    """Takes a request back that is not accepted at once."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.mem_ar.valid & ~self.mem_ar.ready):
            m.d.sync += self.mem_ar.valid.eq(0)
        return m


class Hasty(ReadArbiter):
    """Forgets whose burst it is after the first beat."""

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = ReadArbiter(clients=CLIENTS, outstanding=self._outstanding)
        connect(m, inner.mem_ar, flipped(self.mem_ar))
        connect(m, flipped(self.mem_r), inner.mem_r)
        m.d.comb += [
            inner.mem_r.payload.last.eq(1), inner.flush.eq(self.flush), self.idle.eq(inner.idle),
        ]
        for index in range(CLIENTS):
            connect(m, flipped(self.ar[index]), inner.ar[index])
            connect(m, inner.r[index], flipped(self.r[index]))
            m.d.comb += self.r[index].payload.eq(self.mem_r.payload)
        return m


class Leaking(ReadArbiter):
    """Accepts requests during a flush."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        under_way, queue = m.submodules.under_way, m.submodules.queue
        with m.If(self.flush & self.ar[0].valid & under_way.room & ~self.mem_ar.valid):
            m.d.comb += [
                self.ar[0].ready.eq(1), under_way.write.eq(1), queue.i.valid.eq(1),
                queue.i.payload.eq(1),
            ]
            m.d.sync += self.mem_ar.valid.eq(1)
        return m


@pytest.mark.parametrize("arbiter", [Impatient, Hasty, Leaking])
def test_a_planted_fault_is_found(arbiter, tmp_path):
    spec = Spec(arbiter)
    with pytest.raises(AssertionError, match=r"^property fails \(exit 2\)"):
        assert_formal(spec.m, spec.inputs, tmp_path, mode="bmc", depth=12, engine=FROM_SCRATCH)
