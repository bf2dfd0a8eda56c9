"""Order of the blocks (kernel block, tile block) of a layer, and when each may begin.

The next block is offered while the one before is still being issued, as soon as its tiles are
loaded and a slot of the sum buffer is free. It is found, and its slot taken, before it is asked
for, and waits in a register, where the long way of the issue unit's decision ends. The tile blocks
come in groups of ``resident``, which lie one after the other in the ring; the last group takes what
is left. For each group all kernel blocks, for each of these the group's tile blocks. A tile block
gives its words back after its last kernel block, so the groups of a layer with one kernel block
need not fit the ring.

In a grouped convolution the kernel blocks come part by part, ``part_blocks`` of them for every
``part_groups`` rows of channels.
"""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from model.descriptor import FIELDS
from rtl.queue import Level
from rtl.signatures import SUM_SLOTS, Descriptor

__all__ = ["Layer", "Block", "BlockOrder", "next_group"]

_USED = (
    "dot", "scatter", "groups", "kernel_blocks", "tile_blocks", "resident", "sub_log2",
    "hold", "sum_shift", "part_blocks", "part_groups", "spread",
)
#: The fields of a descriptor that matter here.
Layer = data.StructLayout({name: unsigned(bits) for name, bits in FIELDS if name in _USED})


def Block(config: AcceleratorConfig) -> data.StructLayout:  # noqa: N802
    """Ring base and sum buffer slot of a block; its words, given back at its end if ``frees``.

    In a grouped convolution the base is that of the first channel of the block's part.
    """
    return data.StructLayout({
        "base": range(config.tile_depth), "slot": range(SUM_SLOTS), "layer_last": 1,
        "frees": 1, "words": range(config.tile_depth + 1),
    })


def next_group(rest, resident):
    """Size of the next group of the ``rest`` tile blocks that no group has had, and their rest."""
    last = rest < resident
    return Mux(last, rest, resident), Mux(last, 0, rest - resident)


class BlockOrder(wiring.Component):
    """Blocks of the layers in order, each when it may begin.

    Parameters
    ----------
    config : AcceleratorConfig
        Depth of the tile ring.

    Attributes
    ----------
    desc : In(stream.Signature(Descriptor))
        Layers; taken when the one before is ``done``.
    done : In(1)
        The last step of the layer is issued.
    block_loaded, slot_free : In(1)
        One more tile block is in the ring; one more slot of the sum buffer is free.
    layer : Out(Layer)
        The layer being issued, until ``done``; then whatever ``desc`` offers.
    rows : Out(10)
        Rows of r channels that a kernel block walks: ``groups``, or those of a part.
    o : Out(stream.Signature(Block(config)))
        The next block; one every two cycles if nothing is waited for.
    wait_tiles, wait_sums : Out(1)
        No block is offered: what the next one waits for.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__({
            "desc": In(stream.Signature(Descriptor)), "done": In(1),
            "block_loaded": In(1), "slot_free": In(1), "layer": Out(Layer), "rows": Out(10),
            "o": Out(stream.Signature(Block(config))),
            "wait_tiles": Out(1), "wait_sums": Out(1),
        })

    def elaborate(self, platform) -> Module:
        """Loops: groups of tile blocks, kernel blocks, tile blocks of the group.

        A block is offered in one cycle at least, and the next one found in the cycle after it is
        taken (``steps``). What decides about it is found while its state changes, sums and the size
        of the next group in the cycle of the offer.
        """
        m = Module()
        layer, block = self.layer, Signal(Block(self._config))
        held, held_valid = Signal(Block(self._config), reset_less=True), Signal()
        untiled = Signal()      # ``block`` would be the first to use tiles that are not there
        found = Signal()        # it may begin
        busy, pending = Signal(), Signal()      # a layer is on; ``block`` is one to hand out
        take, steps = Signal(), Signal()
        kernels_left = Signal.like(layer.kernel_blocks)     # kernel blocks after this one
        tiles_left = Signal.like(layer.tile_blocks)     # tile blocks of the group after this one
        first_use = Signal()                            # by the first kernel block
        size, rest = Signal.like(layer.tile_blocks), Signal.like(layer.tile_blocks)
        # Tile blocks in the ring that nobody used yet; slots in use.
        m.submodules.loaded = loaded = Level(depth=self._config.tile_depth)
        m.submodules.slots = slots = Level(depth=SUM_SLOTS)
        slot = Signal(range(SUM_SLOTS))
        base = Signal(block.base.shape())
        group_base, ring_end = Signal.like(base), Signal.like(base)
        words = Signal(block.words.shape())
        # Kernel blocks of the part that come after this one (without parts: none is the last).
        part_left = Signal.like(layer.part_blocks)
        # Whether ``kernels_left``, ``tiles_left`` and ``rest`` are 0 and ``part_left`` is 1.
        kernel_end, tile_end, group_end, part_end = Signal(), Signal(), Signal(), Signal()
        # Of the offer, for ``steps``. Where the next tile block lies, the group again for the next
        # kernel block, and the next group: ``base`` may be that of a later part, ``ring_end`` is
        # not. A group of one, the next group and its rest; what every group begins with.
        after, again, following = Signal.like(base), Signal.like(base), Signal.like(base)
        size_single, next_size, next_rest = Signal(), Signal.like(size), Signal.like(rest)
        next_single, next_last = Signal(), Signal()
        single_kernel, single_part = Signal(), Signal()
        group_size, group_rest = next_group(rest, layer.resident)
        m.d.sync += [
            after.eq(base + words),
            again.eq(group_base + Mux(part_end, layer.part_groups << 5, 0)),
            following.eq(Mux(first_use, base + words, ring_end)),
            size_single.eq(size == 1),
            next_size.eq(group_size), next_rest.eq(group_rest),
            next_single.eq((rest == 1) | (layer.resident == 1)),
            next_last.eq(rest <= layer.resident),
            single_kernel.eq(layer.kernel_blocks == 1), single_part.eq(layer.part_blocks == 1),
        ]
        m.d.comb += [
            untiled.eq(first_use & ~loaded.some),
            self.wait_tiles.eq(pending & ~held_valid & untiled),
            self.wait_sums.eq(pending & ~held_valid & ~untiled & ~slots.room),
            found.eq(pending & ~untiled & slots.room),
            take.eq(found & ~held_valid),
            self.o.valid.eq(found | held_valid),
            self.o.payload.eq(Mux(held_valid, held.as_value(), block.as_value())),
            block.base.eq(base),
            block.slot.eq(slot),
            block.layer_last.eq(kernel_end & tile_end & group_end),
            block.frees.eq(kernel_end),
            block.words.eq(words),
            loaded.write.eq(self.block_loaded), loaded.read.eq(steps & first_use),
            slots.write.eq(steps), slots.read.eq(self.slot_free),
        ]

        m.d.sync += held_valid.eq(self.o.valid & ~self.o.ready)
        with m.If(~held_valid):
            m.d.sync += held.eq(block)
        m.d.sync += steps.eq(take)
        with m.If(take):
            m.d.sync += pending.eq(0)
        with m.If(steps):
            m.d.sync += [slot.eq(slot + 1), pending.eq(~block.layer_last)]
            with m.If(first_use):
                m.d.sync += ring_end.eq(after)
            with m.If(~tile_end):
                m.d.sync += [
                    tiles_left.eq(tiles_left - 1), tile_end.eq(tiles_left == 1), base.eq(after),
                ]
            with m.Elif(~kernel_end):
                m.d.sync += [
                    tiles_left.eq(size - 1), tile_end.eq(size_single),
                    kernels_left.eq(kernels_left - 1), kernel_end.eq(kernels_left == 1),
                    first_use.eq(0), base.eq(again), group_base.eq(again),
                    part_left.eq(part_left - 1), part_end.eq(part_left == 2),
                ]
                with m.If(part_end):
                    m.d.sync += [part_left.eq(layer.part_blocks), part_end.eq(single_part)]
            with m.Else():
                m.d.sync += [
                    tiles_left.eq(next_size - 1), tile_end.eq(next_single),
                    kernels_left.eq(layer.kernel_blocks - 1), kernel_end.eq(single_kernel),
                    first_use.eq(1),
                    size.eq(next_size), rest.eq(next_rest), group_end.eq(next_last),
                    base.eq(following), group_base.eq(following),
                    part_left.eq(layer.part_blocks), part_end.eq(single_part),
                ]

        # Taken over in every cycle until it is valid: so many registers wait for a register only,
        # those of the layer for another one than the loops.
        ready = Signal(init=1)          # not busy
        m.d.comb += self.desc.ready.eq(ready)
        desc = self.desc.payload
        with m.If(ready):
            m.d.sync += [
                *(layer[name].eq(desc[name]) for name in _USED), ready.eq(~self.desc.valid),
                words.eq(Mux(desc.dot, desc.groups, desc.groups << 5)),
                self.rows.eq(Mux(desc.part_blocks == 0, desc.groups, desc.part_groups)),
            ]
        with m.If(~busy):
            m.d.sync += [
                busy.eq(self.desc.valid), pending.eq(self.desc.valid),
                kernels_left.eq(desc.kernel_blocks - 1), kernel_end.eq(desc.kernel_blocks == 1),
                tiles_left.eq(desc.resident - 1), tile_end.eq(desc.resident == 1),
                first_use.eq(1), size.eq(desc.resident),
                rest.eq(desc.tile_blocks - desc.resident),
                group_end.eq(desc.tile_blocks <= desc.resident),
                base.eq(ring_end), group_base.eq(ring_end),
                part_left.eq(desc.part_blocks), part_end.eq(desc.part_blocks == 1),
            ]
        with m.If(self.done):
            m.d.sync += [busy.eq(0), ready.eq(1)]
        return m
