"""The slots of the sum buffer: no kernel is read before its block is written, or after another.

`BlockOrder` (slots handed out), `SumBuffer` (writes, announcement) and `SumReader` (reads, slots
given back) are real; array and drain are abstract, they take any time for a block. Instead of
data every half of a slot holds the number of the block it was written for. A dot layer of free
shape, so that a block is two writes of four kernels and one to eight reads; five blocks and more
use a slot again.
"""

import dataclasses
from types import SimpleNamespace

import pytest
from amaranth.hdl import Array, Assert, Assume, Module, Mux, Signal

from model.config import PRESETS
from rtl.blockorder import BlockOrder
from rtl.signatures import SUM_SLOTS
from rtl.sums import SumBuffer, SumReader
from tests.formal.helpers import FROM_SCRATCH, assert_formal

pytestmark = pytest.mark.formal

CONFIG = dataclasses.replace(PRESETS["tiny"], kernel_lanes=8)
HALVES = CONFIG.kernel_lanes // CONFIG.drained
#: Cycles from a sum at the buffer to its word in the RAM: log2 of the sums of a lane per cycle.
WRITE = CONFIG.drained.bit_length() - 1
DEEP = 18
FLAT = "prep -flatten; memory_map"


class Spec:
    """The three units in a ring."""

    def __init__(self, order=BlockOrder, buffer=SumBuffer, reader=SumReader):
        self.m = m = Module()
        m.submodules.order = self.order = order(SimpleNamespace(tile_depth=4))
        m.submodules.buffer = self.buffer = buffer(config=CONFIG)
        m.submodules.reader = self.reader = reader(config=CONFIG)
        self.kernels, self.tiles, self.resident, self.last = shape = [
            Signal(range(9), name=name) for name in ("kernels", "tiles", "resident", "last")
        ]
        self.inputs = []
        for signal in shape:
            held, started = Signal.like(signal), Signal()
            self.inputs.append(signal)
            m.d.sync += [held.eq(signal), started.eq(1)]
            m.d.comb += Assume(~started | (held == signal))
        m.d.comb += [
            Assume((self.kernels == 1) | (self.kernels == 2)),
            Assume((self.tiles >= 1) & (self.tiles <= 4)),
            Assume((self.resident >= 1) & (self.resident <= self.tiles)),
            Assume((self.last >= 1) & (self.last <= CONFIG.kernel_lanes)),
        ]
        self.begin = Signal(init=1)
        m.d.sync += self.begin.eq(0)
        self.stored = Array(Signal(4, name=f"stored{i}") for i in range(HALVES * SUM_SLOTS))
        self._fill()
        self._read()

    def _fill(self):
        """Blocks as they are handed out; their sums two cycles after they end at the earliest."""
        m, order, sums = self.m, self.order, self.buffer.i
        ends = Signal()
        self.inputs += [ends]
        desc = order.desc.payload
        m.d.comb += [
            order.desc.valid.eq(self.begin), desc.dot.eq(1), desc.groups.eq(1),
            desc.kernel_blocks.eq(self.kernels), desc.tile_blocks.eq(self.tiles),
            desc.resident.eq(self.resident), order.slot_free.eq(self.reader.slot_free),
        ]
        # All tiles are there from the beginning.
        loaded = Signal(range(9))
        m.d.comb += order.block_loaded.eq(~self.begin & (loaded != self.tiles))
        m.d.sync += loaded.eq(loaded + order.block_loaded)
        active, slot, number = Signal(), Signal(range(SUM_SLOTS)), Signal(4)
        half, busy = Signal(range(HALVES)), Signal()
        finishes = active & ends & (~busy | (half == HALVES - 1))
        m.d.comb += order.o.ready.eq(~active | finishes)
        with m.If(order.o.ready):
            m.d.sync += active.eq(order.o.valid)
            with m.If(order.o.valid):
                m.d.sync += [slot.eq(order.o.payload.slot), number.eq(number + 1)]
        # The drain sends the halves one after the other.
        s1_slot, s1_number = Signal(range(SUM_SLOTS)), Signal(4)
        with m.If(finishes):
            m.d.sync += [busy.eq(1), half.eq(0), s1_slot.eq(slot), s1_number.eq(number)]
        with m.Elif(busy):
            m.d.sync += [half.eq(half + 1), busy.eq(half != HALVES - 1)]
        m.d.comb += [
            sums.valid.eq(busy), sums.payload.slot.eq(s1_slot), sums.payload.quad.eq(half),
            sums.payload.block_last.eq(half == HALVES - 1),
        ]
        late = (busy, s1_slot, half, s1_number)
        for _ in range(WRITE):
            after = tuple(Signal.like(signal) for signal in late)
            m.d.sync += [new.eq(old) for new, old in zip(after, late, strict=True)]
            late = after
        valid, slot, half, number = late
        with m.If(valid):
            m.d.sync += self.stored[slot * HALVES + half].eq(number)

    def _read(self):
        """The reader in its layer; it waits before a block for as long as it likes."""
        m, reader = self.m, self.reader
        layer = reader.layer
        self.inputs += [reader.param_ready]
        m.d.comb += [
            reader.begin.eq(self.begin), layer.dot.eq(1), layer.out_step.eq(1),
            layer.kernel_blocks.eq(self.kernels), layer.tile_blocks.eq(self.tiles),
            layer.resident.eq(self.resident), layer.lanes_last.eq(self.last),
            reader.complete.valid.eq(self.buffer.complete.valid),
            reader.complete.payload.eq(self.buffer.complete.payload),
        ]
        # By the definition of the order: the block being read, and how many kernels it has.
        number, kernel = Signal(4, init=1), Signal(range(9))
        tile, group = Signal(range(9)), Signal(range(9))
        kernel_end = kernel == self.kernels - 1
        lanes = Mux(kernel_end, self.last, CONFIG.kernel_lanes)
        with m.If(reader.r_en):
            m.d.comb += Assert(
                self.stored[reader.r_slot * HALVES + (reader.r_kernel >= CONFIG.drained)] == number
            )
            with m.If(reader.r_kernel == lanes - 1):
                m.d.sync += [number.eq(number + 1), tile.eq(tile + 1)]
                with m.If((tile == group + self.resident - 1) | (tile == self.tiles - 1)):
                    m.d.sync += [tile.eq(group), kernel.eq(kernel + 1)]
                    with m.If(kernel_end):
                        m.d.sync += [kernel.eq(0), tile.eq(tile + 1), group.eq(tile + 1)]


def test_every_kernel_read_is_of_its_block(tmp_path):
    spec = Spec()
    assert_formal(spec.m, spec.inputs, tmp_path, depth=DEEP, engine=FROM_SCRATCH, passes=FLAT)


class Overbooked(BlockOrder):
    """Hands blocks out whether or not a slot is free."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        waiting = Signal()
        m.d.comb += waiting.eq(self.wait_sums)
        with m.If(waiting):
            m.d.comb += self.o.valid.eq(1)
        return m


class Early(SumBuffer):
    """Announces a block with its first write."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.complete.valid.eq(self.i.valid & (self.i.payload.quad == 0))
        return m


class Hasty(SumReader):
    """Gives the slot back when its block is complete, before it is read."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.sync += self.slot_free.eq(self.complete.valid)
        return m


@pytest.mark.parametrize("fault", [{"order": Overbooked}, {"buffer": Early}, {"reader": Hasty}])
def test_a_planted_fault_is_found(fault, tmp_path):
    """The first needs a slot that is used again, so the bound reaches that."""
    spec = Spec(**fault)
    with pytest.raises(AssertionError, match=r"^property fails \(exit 2\)"):
        assert_formal(spec.m, spec.inputs, tmp_path, depth=DEEP, engine=FROM_SCRATCH, passes=FLAT)
