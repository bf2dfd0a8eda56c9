"""Patch walk: which row pair the Loader sends next, where it lies, and where its tile goes.

With one feature bank: for every tile block, every group of 8 channels, each half of the lanes,
every channel of the group, every lane of the half, a tile of four row pairs; a dot layer is single
row pairs, image after image. With several: for every tile block, every F channels (a group of
their own), every lane; lanes beyond the last one are idle.

Nothing is multiplied: coordinates and addresses are counted. A tile takes four cycles, so what the
next one is hangs on registers alone; that a row pair goes (``go``) is known late, and only lets
them change.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from model.config import ROW_BITS, AcceleratorConfig
from rtl.fetch import COORDINATE
from rtl.signatures import Descriptor

__all__ = ["PatchWalk"]

#: Where a tile lies (``end``: below its last row; ``row_last``: the last one of its row;
#: ``present``: not past the last one of all).
_Place = data.StructLayout({
    "y": COORDINATE, "end": signed(13), "x": COORDINATE, "row_left": 10, "row_last": 1,
    "left": 16, "present": 1,
})

#: The tile that follows: of the other half, the next channel of the half, the next group, the next
#: block; of neither: the next lane. ``onward``: the next channel, of whatever group; ``stays``: the
#: same channel; ``rewind``: of the first lane, not in a dot layer. Registers, because all of the
#: walk hangs on them. From the first load on, of ``next_block``, ``onward``, ``other_half`` and
#: ``stays`` exactly one is set.
_Follows = data.StructLayout({
    "other_half": 1, "next_channel": 1, "next_group": 1, "next_block": 1, "onward": 1,
    "stays": 1, "rewind": 1,
})


class PatchWalk(wiring.Component):
    """Counters of the walk, and flags that are found while they change.

    Latency: 1 cycle from ``go`` to the next row pair, which may go at once. Outputs hang on
    registers alone, not on ``go``.

    Parameters
    ----------
    config : AcceleratorConfig
        Uses ``tile_lanes``, ``tile_depth``, ``words``, ``feature_banks``.

    Attributes
    ----------
    desc : In(Descriptor)
        The layer, from the first cycle of ``load`` until the last row pair.
    load : In(1)
        Level of two cycles or more before the first row pair: go to the beginning of the layer.
    go : In(1)
        The row pair is sent: go to the next.
    skip : In(1)
        The layer is sent by `rtl.flatten`: step over its words.
    asks, block_first : Out(1), Out(1)
        The row pair is a tile's first (of a lane that is not idle), or a dot layer's first, and
        must be waited for; it is the first of a block, and so must the block's room.
    ask_channel, ask_end, ask_base : Out(13), Out(signed(13)), Out(ROW_BITS)
        Local channel, row below and base address of the tile whose arrival is asked for next: the
        one at hand in its first cycle, then the one that follows.
    y, x, present, idle : Out(COORDINATE), Out(COORDINATE), Out(1), Out(1)
        First pixel of the row pair; its tile is none past the last one; the lane is none.
    base, channel, channel_last : Out(ROW_BITS), Out(13), Out(1)
        Base address of the channel, the channel, whether it is the last one.
    lane, addr, block_last : Out(range(steps)), Out(range(tile_depth)), Out(1)
        Tile lane; first word of the ring; the tile is the last one of its block.
    last : Out(1)
        The row pair is the layer's last one.
    """

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        #: Lanes of a channel, the idle ones too.
        self.steps = max(config.tile_lanes, config.feature_banks)
        super().__init__({
            "desc": In(Descriptor), "load": In(1), "go": In(1), "skip": In(1),
            "asks": Out(1), "block_first": Out(1),
            "ask_channel": Out(13), "ask_end": Out(signed(13)), "ask_base": Out(ROW_BITS),
            "y": Out(COORDINATE), "x": Out(COORDINATE), "present": Out(1), "idle": Out(1),
            "base": Out(ROW_BITS), "channel": Out(13), "channel_last": Out(1),
            "lane": Out(range(self.steps)), "addr": Out(range(config.tile_depth)),
            "block_last": Out(1), "last": Out(1),
        })

    def elaborate(self, platform) -> Module:
        """Build the steps of a tile, then what hangs on them: channels, places, addresses."""
        m = Module()
        desc, load, go = self.desc, self.load, self.go
        dot = desc.dot if self._config.feature_banks == 1 else Const(0, 1)
        phase, follows = Signal(2), Signal(_Follows)        # ``phase``: row pair of the tile
        # What ends with the row pair; ``block_last``: of the layer. A dot layer's images are
        # counted here as blocks.
        row_last, half_end, pass_end, block_end = Signal(), Signal(), Signal(), Signal()
        block_last = Signal()
        single, ends, lane_next = self._channels(m, dot, follows, row_last)
        fourth = phase == 2     # is the next row pair
        with m.If(load):
            m.d.sync += [
                phase.eq(0), self.asks.eq(1), self.block_first.eq(1),
                row_last.eq(dot), half_end.eq(dot), pass_end.eq(dot), block_end.eq(dot & single),
            ]
        with m.Elif(go):
            new_group = follows.next_group | follows.next_block
            m.d.sync += [
                phase.eq(Mux(row_last, 0, phase + 1)),
                # The images of a dot layer wait only once.
                self.asks.eq(row_last & ~dot & (lane_next < self._config.tile_lanes)),
                self.block_first.eq(block_end & ~dot),
                row_last.eq(dot | fourth),
                half_end.eq(dot | (fourth & (follows.other_half | new_group))),
                pass_end.eq(dot | (fourth & new_group)),
                block_end.eq(Mux(dot, ends, fourth & follows.next_block)),
            ]

        place = self._places(m, follows, row_last, half_end, block_end, phase)
        self._addresses(m, dot, follows, row_last, pass_end, block_last)
        with m.If(load | go):
            m.d.sync += self.ask_end.eq(place.end)

        block_left = Signal(16, reset_less=True)
        blocks = Mux(dot, desc.tiles, desc.tile_blocks)
        with m.If(load | (go & block_end)):
            m.d.sync += [
                block_left.eq(Mux(load, blocks, block_left - 1)),
                block_last.eq(Mux(load, blocks == 1, block_left == 2)),
            ]
        lane_last = self.lane == self._config.tile_lanes - 1
        m.d.comb += [
            self.last.eq(block_end & block_last),
            self.block_last.eq(self.channel_last & Mux(dot, block_last, lane_last)),
        ]
        return m

    def _channels(self, m: Module, dot, follows, row_last) -> tuple[Signal, Signal, Signal]:
        """Count channels and lanes, and choose what follows the tile that follows.

        Return whether there is one channel in all, whether the one of the tile that follows is the
        last, and that tile's lane.
        """
        desc, load, go = self.desc, self.load, self.go
        lanes, banks = self._config.tile_lanes, self._config.feature_banks
        upper = (lanes + 1) // 2        # lanes of the first half
        channel, lane, channel_last = self.channel, self.lane, self.channel_last
        m.d.comb += self.idle.eq(lane >= lanes)

        channel_end = Signal(13, reset_less=True)
        channel_near = Signal(13, reset_less=True)        # two before the last one
        group_begin = Cat(Const(0, 3), channel[3:])
        only, two = Signal(), Signal()      # channels in all
        group_short, short_before = Signal(), Signal()      # channels of this group
        before = Signal()       # this channel is the last but one
        channel_next, lane_next = Signal(13), Signal(range(self.steps))
        # That channel is the last one, of its group, the last but one; so is this one of its group.
        ends, group_ends, before_next, group_last = Signal(), Signal(), Signal(), Signal()
        m.d.sync += [
            only.eq(channel_end == 0), two.eq(channel_end == 1),
            group_short.eq(group_begin == channel_end),
            short_before.eq(Cat(Const(1, 1), group_begin[1:]) == channel_end),
        ]
        # One is chosen without an order: by an order the walk's own loop would be the longest path.
        for target, of_block, of_next, of_half, same in (
            (channel_next, Const(0, 13), channel + 1, group_begin, channel),
            (ends, only, before, group_short, channel_last),
            (group_ends, only, before | (channel[:3] == 6), group_short, group_last),
            (before_next, two, channel == channel_near, short_before, before),
        ):
            m.d.comb += target.eq(
                Mux(follows.next_block, of_block, 0) | Mux(follows.onward, of_next, 0)
                | Mux(follows.other_half, of_half, 0) | Mux(follows.stays, same, 0)
            )
        # With the lane, whether it is the last one of its half, and in the last half.
        lane_last, half_last = Signal(), Signal()

        def goes_to(value):
            last = value == self.steps - 1
            return [
                lane_next.eq(value),
                lane_last.eq(last | (value == upper - 1) if banks == 1 else last),
                half_last.eq(value == lanes - 1 if banks == 1 else 1),
            ]

        m.d.comb += goes_to(lane + 1)
        with m.If(follows.next_channel):
            m.d.comb += goes_to(Mux(lane < upper, 0, upper))
        with m.Elif(follows.rewind):
            m.d.comb += goes_to(0)
        with m.Elif(follows.next_group):
            m.d.comb += lane_next.eq(lane)

        def choose(ends, group_ends, lane_last, half_last):
            # A dot layer's rows are channels of a group each, its images blocks.
            last = lane_last & group_ends & half_last
            return [
                follows.other_half.eq(~dot & lane_last & group_ends & ~half_last),
                follows.next_channel.eq(~dot & lane_last & ~group_ends),
                follows.next_group.eq((dot | last) & ~ends),
                follows.next_block.eq((dot | last) & ends),
                follows.onward.eq(Mux(dot, ~ends, lane_last & ~(group_ends & (ends | ~half_last)))),
                follows.stays.eq(~dot & ~lane_last),
                follows.rewind.eq(~dot & last),
                channel_last.eq(ends), group_last.eq(group_ends),
            ]

        end = (Mux(desc.dot, desc.groups, desc.channels) - 1 if banks == 1
               else (desc.channels - 1) >> exact_log2(banks))
        single = channel_end == 0
        with m.If(load):
            m.d.sync += [
                channel_end.eq(end), channel_near.eq(channel_end - 2),
                channel.eq(0), lane.eq(0), before.eq(channel_end == 1),
                *choose(single, single | (banks > 1),
                        Const(self.steps == 1 or (banks == 1 and upper == 1), 1),
                        Const(lanes == 1 or banks > 1, 1)),
            ]
        with m.Elif(go & row_last):
            m.d.sync += [
                channel.eq(channel_next), lane.eq(lane_next), before.eq(before_next),
                *choose(ends, group_ends if banks == 1 else 1, lane_last, half_last),
            ]
        with m.If(load | go):
            m.d.sync += self.ask_channel.eq(Mux(load, 0, channel_next))
        return single, ends, lane_next

    def _places(self, m: Module, follows, row_last, half_end, block_end, phase):
        """Where the tiles lie; return the place of the tile that follows, while loading the first.

        A channel goes back to the first tile of the half, a group to that of the block.
        """
        desc, load, go = self.desc, self.load, self.go
        tile, half_start, block_start = Signal(_Place), Signal(_Place), Signal(_Place)
        first, after, place = Signal(_Place), Signal(_Place), Signal(_Place)
        m.d.comb += [
            first.y.eq(-desc.pad), first.end.eq(8 - desc.pad), first.x.eq(-desc.pad_left),
            first.row_left.eq(desc.tiles_x), first.row_last.eq(desc.tiles_x == 1),
            first.left.eq(desc.tiles), first.present.eq(desc.tiles != 0),

            after.y.eq(tile.y + Mux(tile.row_last, desc.step, 0)),
            after.end.eq(tile.end + Mux(tile.row_last, desc.step, 0)),
            after.x.eq(Mux(tile.row_last, -desc.pad_left, tile.x + desc.step)),
            after.row_left.eq(Mux(tile.row_last, desc.tiles_x, tile.row_left - 1)),
            after.row_last.eq(Mux(tile.row_last, desc.tiles_x == 1, tile.row_left == 2)),
            after.left.eq(tile.left - tile.present),
            after.present.eq(tile.present & (tile.left != 1)),
        ]
        with m.If(self.idle):
            m.d.comb += after.eq(tile)
        m.d.comb += place.eq(after)
        with m.If(load):
            m.d.comb += place.eq(first)
        with m.Elif(follows.next_channel):
            m.d.comb += place.eq(half_start)
        with m.Elif(follows.next_group):
            m.d.comb += place.eq(block_start)
        for target, ends in ((tile, row_last), (half_start, half_end), (block_start, block_end)):
            with m.If(load | (go & ends)):
                m.d.sync += target.eq(place)
        m.d.comb += [
            self.y.eq(tile.y + (phase << 1)), self.x.eq(tile.x), self.present.eq(tile.present),
        ]
        return place

    def _addresses(self, m: Module, dot, follows, row_last, pass_end, block_last) -> None:
        """Count base addresses in the feature memory, and words of the ring."""
        config, desc, load, go = self._config, self.desc, self.load, self.go
        banks = config.feature_banks
        base, group_base = self.base, Signal(ROW_BITS, reset_less=True)
        step = Signal(ROW_BITS, reset_less=True)        # from channel to channel
        base_next = Signal(ROW_BITS)
        m.d.comb += base_next.eq(base)
        with m.If(load | (follows.next_block & follows.rewind)):
            m.d.comb += base_next.eq(desc.in_base)
        with m.Elif(follows.other_half):
            m.d.comb += base_next.eq(group_base)
        with m.Elif(follows.onward | follows.next_block):
            m.d.comb += base_next.eq(base + step)
        with m.If(load):
            m.d.sync += step.eq(Mux(dot, 1, desc.in_plane))
        with m.If(load | go):
            m.d.sync += self.ask_base.eq(base_next)
        with m.If(load | (go & row_last)):
            m.d.sync += base.eq(base_next)
        with m.If(load | (go & pass_end)):
            m.d.sync += group_base.eq(base_next)

        if banks == 1:
            # The next image of a dot layer begins at the addresses of the one before.
            words = Mux(
                dot, Mux(self.channel_last & ~block_last, 1 - desc.groups, 1), config.words
            )
        else:
            # Sixteen channels are two groups of eight, the last ones perhaps only one.
            words = Mux(
                self.channel_last & desc.groups[0], config.words, config.words * banks // 8
            )
        with m.If(go & pass_end):
            m.d.sync += self.addr.eq(self.addr + words)
        with m.If(self.skip):
            m.d.sync += self.addr.eq(self.addr + desc.groups)
