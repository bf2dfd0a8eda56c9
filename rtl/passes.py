"""Order of the passes of the kernel stream: which kernel block comes next, and is it kept.

The blocks come in the issue unit's order (`rtl.blockorder`): a kernel block is passed once for
every tile block of a group of resident ones, and is there again for the next group.
"""

from __future__ import annotations

from amaranth.hdl import Assert, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from model.stream import ENTRY_BITS
from rtl.queue import Level, Queue
from rtl.signatures import Descriptor

__all__ = ["Pass", "Passes"]

#: Entries of a kernel block; whether there is but one.
_Count = data.StructLayout({"entries": ENTRY_BITS, "single": 1})

#: A kernel block to read once: its entries, the format of its selects, and whether it is read again
#: after that.
Pass = data.StructLayout({**_Count.members, "code": 3, "keep": 1})


class Passes(wiring.Component):
    """Walk over groups, kernel blocks and tile blocks of the layers.

    Runs ahead of who reads the entries by the passes that may wait, so that nobody waits for it if
    a pass has two entries or more. Latency 2 cycles from a count to its pass, throughput a
    pass every other cycle; three cycles between layers.

    Attributes
    ----------
    desc : In(stream.Signature(Descriptor))
        The layers.
    count : In(stream.Signature(ENTRY_BITS))
        Entries of the kernel blocks, as they come.
    o : Out(stream.Signature(Pass))
        The passes.
    """

    #: Kernel blocks whose entry count may wait.
    COUNTS = 32
    #: Passes that may wait, or have been taken so lately that their place is not known to be free.
    PASSES = 4

    def __init__(self) -> None:
        super().__init__({
            "desc": In(stream.Signature(Descriptor)), "count": In(stream.Signature(ENTRY_BITS)),
            "o": Out(stream.Signature(Pass)),
        })

    def elaborate(self, platform) -> Module:
        """Hand a pass on when there is room, then find the next: no decision waits for a queue."""
        m = Module()
        m.submodules.counts = counts = Queue(ENTRY_BITS, depth=self.COUNTS)
        m.submodules.queue = queue = Queue(Pass, depth=self.PASSES)
        # Places of the queue that are free, for sure: counted here, as who takes the passes is far
        # away.
        m.submodules.space = space = Level(depth=self.PASSES)
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        desc, now = self.desc.payload, queue.i.payload
        fresh = Signal(reset_less=True)                     # a kernel block begins
        held = Signal(_Count, reset_less=True)              # the one that is replayed
        code = Signal(3, reset_less=True)
        blocks = Signal(13, reset_less=True)
        blocks_each = Signal.like(blocks, reset_less=True)
        # Passes of the kernel block left: as many as the group has tile blocks. Tile blocks of a
        # full group, and those after this group.
        tiles, tiles_each = Signal(16, reset_less=True), Signal(16, reset_less=True)
        resident, rest = Signal(16, reset_less=True), Signal(16, reset_less=True)
        # Found while they change: whether ``tiles`` and ``blocks`` are 1, ``rest`` is 0, and
        # ``rest`` is for one more group.
        last_pass, last_block = Signal(reset_less=True), Signal(reset_less=True)
        last_group, last_but_one = Signal(reset_less=True), Signal(reset_less=True)

        # Whether a count is 1 is found a cycle after it came, late in a cycle, with a beat of the
        # memory port, and kept beside the queue. It may be asked for in that very cycle.
        m.submodules.singles = singles = Memory(shape=1, depth=self.COUNTS, init=[])
        w_single, r_single = singles.write_port(), singles.read_port(domain="comb")
        comes, w1_valid = Signal(), Signal()
        w1_count = Signal(ENTRY_BITS, reset_less=True)
        w1_first = Signal()     # it is the first of the queue
        single = Signal()
        m.d.sync += [
            w1_valid.eq(comes), w1_count.eq(self.count.payload),
            w_single.addr.eq(w_single.addr + w1_valid),
            r_single.addr.eq(r_single.addr + (counts.o.valid & counts.o.ready)),
        ]
        m.d.comb += [
            comes.eq(self.count.valid & counts.i.ready),
            w_single.en.eq(w1_valid), w_single.data.eq(w1_count == 1),
            w1_first.eq(w1_valid & (w_single.addr == r_single.addr)),
            single.eq(Mux(w1_first, w_single.data, r_single.data)),
            counts.i.valid.eq(self.count.valid), self.count.ready.eq(counts.i.ready),
            counts.i.payload.eq(self.count.payload),
            now.entries.eq(Mux(fresh, counts.o.payload, held.entries)),
            now.single.eq(Mux(fresh, single, held.single)),
            now.code.eq(code), now.keep.eq(~last_pass),
        ]
        # One register a state, as each is the enable of much.
        at_layer, at_pass, at_next = Signal(init=1), Signal(), Signal()
        hands_on, taken = Signal(), Signal()
        m.d.comb += [
            self.desc.ready.eq(at_layer),
            hands_on.eq(at_pass & space.room & (~fresh | counts.o.valid)),
            counts.o.ready.eq(at_pass & fresh & space.room),
            queue.i.valid.eq(hands_on), space.write.eq(hands_on), space.read.eq(taken),
        ]
        m.d.sync += taken.eq(self.o.valid & self.o.ready)
        if platform is None or platform == "formal":    # a board has no cell to assert
            m.d.sync += Assert(~(hands_on & ~queue.i.ready))
        group_end, layer_end = Signal(reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            group_end.eq(last_pass & last_block),
            layer_end.eq(last_pass & last_block & last_group),
        ]
        with m.If(at_layer):
            m.d.sync += [
                at_layer.eq(~self.desc.valid), at_pass.eq(self.desc.valid),
                fresh.eq(1), code.eq(desc.select_code),
                blocks.eq(desc.kernel_blocks), blocks_each.eq(desc.kernel_blocks),
                tiles.eq(desc.resident), tiles_each.eq(desc.resident),
                resident.eq(desc.resident), rest.eq(desc.tile_blocks - desc.resident),
                last_pass.eq(desc.resident == 1), last_block.eq(desc.kernel_blocks == 1),
                last_group.eq(desc.tile_blocks == desc.resident),
                last_but_one.eq(desc.tile_blocks <= (desc.resident << 1)),
            ]
        with m.If(at_pass):
            m.d.sync += [held.entries.eq(now.entries), held.single.eq(now.single)]
        with m.If(hands_on):
            m.d.sync += [at_pass.eq(0), at_next.eq(1)]
        with m.If(at_next):
            m.d.sync += [
                at_next.eq(0), at_pass.eq(~layer_end), at_layer.eq(layer_end), fresh.eq(last_pass),
            ]
            with m.If(group_end):
                size = Mux(last_but_one, rest, resident)
                m.d.sync += [
                    blocks.eq(blocks_each), last_block.eq(blocks_each == 1),
                    tiles.eq(size), tiles_each.eq(size), rest.eq(rest - resident),
                    last_pass.eq((rest == 1) | (resident == 1)),
                    last_group.eq(last_but_one), last_but_one.eq(rest <= (resident << 1)),
                ]
            with m.Elif(last_pass):
                m.d.sync += [
                    blocks.eq(blocks - 1), last_block.eq(blocks == 2),
                    tiles.eq(tiles_each), last_pass.eq(tiles_each == 1),
                ]
            with m.Else():
                m.d.sync += [tiles.eq(tiles - 1), last_pass.eq(tiles == 2)]
        return m
