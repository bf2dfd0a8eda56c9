"""The rings of the kernel buffer: nothing is overwritten that is still needed, or read too early.

For all orders of writes, reads, replays and releases that the kernel buffer can produce.
"""

import pytest
from amaranth.hdl import Array, Assert, Assume, Cover, Module, Mux, Signal

from rtl.kernelbuffer import Ring
from tests.formal.helpers import assert_formal

pytestmark = pytest.mark.formal

DEPTH = 4


class Spec:
    """A ring whose users follow its rules but are free otherwise, and a ghost bit per row."""

    def __init__(self, ring=Ring, depth=DEPTH):
        self.m = m = Module()
        self.write, self.read, self.end = Signal(), Signal(), Signal()
        self.next_keep = Signal()
        self.inputs = [self.write, self.read, self.end, self.next_keep]
        m.submodules.ring = self.ring = ring = ring(depth=depth)

        # A pass ends with the last row: a kept block is read again, else the next one begins.
        self.keep = keep = Signal()
        fresh = Signal(init=1)          # nothing was read since
        ends = self.read & self.end
        with m.If(ends | (fresh & ~self.read)):
            m.d.sync += keep.eq(self.next_keep)
        with m.If(self.read):
            m.d.sync += fresh.eq(self.end)
        m.d.comb += [
            ring.write.eq(self.write), ring.read.eq(self.read), ring.keep.eq(keep),
            ring.end.eq(self.end),
            Assume(~self.write | ring.room), Assume(~self.read | ring.available),
        ]

        # Row by row: is its content still needed?
        self.held = held = Array(Signal(name=f"held{row}") for row in range(depth))
        with m.If(self.read & ~keep):
            m.d.sync += held[ring.r_addr].eq(0)
        with m.If(self.write):
            m.d.sync += held[ring.w_addr].eq(1)
        m.d.comb += [
            Assert(~(ring.room & held[ring.w_addr])),
            Assert(~(ring.available & ~held[ring.r_addr])),
        ]

        # What makes the proof inductive: the pointers enclose the rows that are held.
        oldest, ahead = Signal.like(ring._r_ptr), Signal.like(ring._r_ptr)
        used = Signal.like(ring._r_ptr)
        m.d.comb += [
            oldest.eq(Mux(keep, ring._marked, ring._r_ptr)),
            used.eq(ring._w_ptr - oldest), ahead.eq(ring._r_ptr - oldest),
            Assert(used == (ring._used + ring._more - ring._less)[:len(used)]),
            Assert(ring._used <= depth), Assert(~(ring._more & ring._less)),
            Assert(ring.room == (used != depth)), Assert(used <= depth), Assert(ahead <= used),
            Assert(~fresh | (ring._r_ptr == ring._marked)),
            Assert(ring.available == (ring._w_ptr != ring._r_ptr)),
            Assert(ring._r_next == (ring._r_ptr + 1)[:len(used)]),
        ]
        for row in range(depth):
            place = Signal(range(depth), name=f"place{row}")
            m.d.comb += [place.eq(row - oldest), Assert(held[row] == (place < used))]


def test_nothing_is_overwritten_or_read_too_early(tmp_path):
    spec = Spec(depth=8)
    assert_formal(spec.m, spec.inputs, tmp_path, mode="prove", depth=2)


def test_a_full_ring_is_replayed_and_refilled(tmp_path):
    spec = Spec()
    m, ring = spec.m, spec.ring
    was_full, replayed = Signal(), Signal()
    m.d.sync += [
        was_full.eq(was_full | ~ring.room),
        replayed.eq(replayed | (was_full & spec.read & ring.end & ring.keep)),
    ]
    m.d.comb += Cover(replayed & ~ring.room & (ring.w_addr == 1))
    assert_formal(m, spec.inputs, tmp_path, mode="cover", depth=20)


class EarlyRelease(Ring):
    """Gives rows back in every pass: what the proof must find."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.sync += [self._more.eq(self.write & ~self.read), self._less.eq(self.read & ~self.write)]
        return m


class EarlyRead(Ring):
    """Offers a row that is not yet written."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.write):
            m.d.sync += self.available.eq(1)
        with m.Else():
            m.d.sync += self.available.eq(self._w_ptr != self._r_ptr)
        return m


@pytest.mark.parametrize("ring", [EarlyRelease, EarlyRead])
def test_a_planted_fault_is_found(ring, tmp_path):
    spec = Spec(ring)
    with pytest.raises(AssertionError, match=r"^property fails \(exit 2\)"):
        assert_formal(spec.m, spec.inputs, tmp_path, mode="bmc", depth=12)
