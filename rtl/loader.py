"""Loader: reads the input patches of each layer and sends them to the forward FFT.

For every tile block, every group of 8 channels, each half of the lanes, every channel of the group,
every lane of the half: one tile as four row pairs in four consecutive cycles (pixels outside the
map, and tiles past the last one, are zero). A dot layer is one block of single row pairs, sixteen
vector values each. A block starts when the ring of the tile buffer has room for all of it; a tile,
when the Writer has finished its channel or at least the rows it covers. The first half of the lanes
comes first for all channels of a group because its tiles lie higher in the map, where the rows are
finished while the lower ones are still being written.

Throughput: a tile every 4 cycles (a dot row every cycle) while nothing is waited for, from channel
to channel and from block to block; between layers `LAYER_GAP` cycles pass, because the address
pipeline still uses the descriptor. (Tiles and bypass rows do not meet in the FFT: a dot layer waits
until the layer before is written.) Latency: `LATENCY` cycles from the grant of a row to ``o``.
Nothing is multiplied: coordinates and addresses are counted, the row stride is a shift.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from rtl.fetch import COORDINATE, Fetch
from rtl.signatures import Descriptor, Event, FeatureReadSignature, LayerStats, RowPair

__all__ = ["Loader"]


class State(enum.Enum, shape=2):
    """What the Loader does: wait for a layer, prepare it, run through it, let it flow out."""

    IDLE = 0
    SETUP = 1
    RUN = 2
    DRAIN = 3


class Loader(wiring.Component):
    """Address generator, flow control and zero padding of the input patches.

    Parameters
    ----------
    config : AcceleratorConfig
        Uses ``tile_lanes``, ``tile_depth``, ``words``.

    Attributes
    ----------
    start : In(1)
        Pulse at the beginning of a run: back to layer 0 and an empty ring, in whatever state.
    desc : In(stream.Signature(Descriptor))
        Layers in order; taken when the layer before is loaded.
    feature : Out(FeatureReadSignature())
        Read port of the feature memory, all outputs registered.
    o : Out(Event(RowPair(config)))
        Row pairs, to the forward FFT.
    input_ready : In(1)
        Level: the input of layer 0 is in the feature memory.
    layers_done : In(8)
        Level: layers of this run completely written.
    channels_done : In(13)
        Level: complete channels of the layer being written; changes together with ``layers_done``.
    channels_open, rows_done : In(13), In(10)
        Level: of the channels below ``channels_open`` at least ``rows_done`` map rows are complete;
        change together with ``channels_done``.
    freed : In(Event(range(tile_depth + 1)))
        Words of the ring given back.
    stats : Out(Event(LayerStats))
        At the layer's end: cycles waiting for input, cycles waiting for ring space, row pairs read
        (reads of the feature memory; those wholly outside the map are not read), 0.
    """

    #: Cycles from the decision to send a row pair to ``o``.
    LATENCY = Fetch.LATENCY
    #: Idle cycles, at least, between the row pairs of two layers.
    LAYER_GAP = 11

    def __init__(self, *, config: AcceleratorConfig) -> None:
        if not isinstance(config, AcceleratorConfig):
            raise TypeError(f"config must be an AcceleratorConfig, not {config!r}")
        self._config = config
        super().__init__({
            "start": In(1),
            "desc": In(stream.Signature(Descriptor)),
            "feature": Out(FeatureReadSignature()),
            "o": Out(Event(RowPair(config))),
            "input_ready": In(1),
            "layers_done": In(8),
            "channels_done": In(13),
            "channels_open": In(13),
            "rows_done": In(10),
            "freed": In(Event(range(config.tile_depth + 1))),
            "stats": Out(Event(LayerStats)),
        })

    def elaborate(self, platform) -> Module:
        """Build the walk, the two waits and the address pipeline."""
        m = Module()
        lanes = self._config.tile_lanes
        upper = (lanes + 1) // 2        # lanes of the first half
        desc = Signal(Descriptor, reset_less=True)
        state = Signal(State)
        phase = Signal(2)       # row pair of the tile
        pause = Signal(3)       # cycles of SETUP and of DRAIN
        layer = Signal(8)

        # --- the walk: block, group, half, channel (or dot row), lane, phase --------------------
        # Where the tile at hand lies, and the first tile of the half and of the block, which the
        # channels and the groups come back to.
        place = data.StructLayout({
            "y": COORDINATE, "x": COORDINATE, "row_left": 10, "left": 16,
        })
        tile, half_start, block_start = Signal(place), Signal(place), Signal(place)
        tile_next, follow = Signal(place), Signal(place)
        block_left = Signal(16, reset_less=True)
        channel, channel_end = Signal(13, reset_less=True), Signal(13, reset_less=True)
        channel_next = Signal(13)
        lane, lane_next = Signal(range(lanes)), Signal(range(lanes))
        base, group_base = Signal(16, reset_less=True), Signal(16, reset_less=True)
        base_next = Signal(16)
        ring = Signal(range(self._config.tile_depth))
        row_last, lane_last, group_last, half_last = Signal(), Signal(), Signal(), Signal()
        channel_last, block_last = Signal(), Signal()
        m.d.comb += [
            row_last.eq(desc.dot | (phase == 3)),
            channel_last.eq(channel == channel_end),
            lane_last.eq(desc.dot | (lane == upper - 1) | (lane == lanes - 1)),
            group_last.eq(desc.dot | channel_last | (channel[:3] == 7)),
            half_last.eq(desc.dot | (lane == lanes - 1)),
            block_last.eq(block_left == 1),
            tile_next.left.eq(Mux(tile.left == 0, 0, tile.left - 1)),
        ]
        with m.If(tile.row_left == 1):
            m.d.comb += [
                tile_next.y.eq(tile.y + desc.step),
                tile_next.x.eq(-desc.pad),
                tile_next.row_left.eq(desc.tiles_x),
            ]
        with m.Else():
            m.d.comb += [
                tile_next.y.eq(tile.y),
                tile_next.x.eq(tile.x + desc.step),
                tile_next.row_left.eq(tile.row_left - 1),
            ]
        # The tile after the one at hand.
        m.d.comb += [
            follow.eq(tile_next), channel_next.eq(channel), base_next.eq(base),
            lane_next.eq(lane + 1),
        ]
        with m.If(lane_last & group_last & half_last & channel_last):
            m.d.comb += [channel_next.eq(0), base_next.eq(desc.in_base), lane_next.eq(0)]
        with m.Elif(lane_last & (~group_last | half_last)):
            m.d.comb += [
                channel_next.eq(channel + 1),
                base_next.eq(base + Mux(desc.dot, 1, desc.in_plane)),
                lane_next.eq(Mux(group_last | (lane < upper), 0, upper)),
                follow.eq(Mux(group_last, block_start.as_value(), half_start.as_value())),
            ]
        with m.Elif(lane_last):
            m.d.comb += [
                channel_next.eq(Cat(Const(0, 3), channel[3:])), base_next.eq(group_base),
            ]

        # --- the waits, registered ----------------------------------------------------------------
        # The question is put for the next tile while one is sent, so that the answer is there
        # when it is reached. All levels are seen in the same cycle: the rows fall back to 0 when
        # their channels are counted.
        asked_channel = Signal(13, reset_less=True)
        asked_end = Signal(signed(len(tile.y) + 1), reset_less=True)    # below the tile's last row
        input_ok, fits = Signal(), Signal()
        done_all, done_here = Signal(), Signal()
        done_count, done_open, done_rows = Signal(13), Signal(13), Signal(10)
        m.d.sync += [
            done_all.eq(Mux(layer == 0, self.input_ready, self.layers_done >= layer)),
            done_here.eq((layer != 0) & ~desc.dot & (self.layers_done + 1 == layer)),
            done_count.eq(self.channels_done),
            done_open.eq(self.channels_open),
            done_rows.eq(self.rows_done),
            input_ok.eq(done_all | (done_here & (
                (asked_channel < done_count)
                | ((asked_channel < done_open) & (asked_end <= done_rows))
            ))),
        ]
        free = Signal(range(self._config.tile_depth + 1), init=self._config.tile_depth)
        block_words = Signal(len(desc.groups) + 5, reset_less=True)
        returned = Mux(self.freed.valid, self.freed.payload, 0)
        m.d.sync += [free.eq(free + returned), fits.eq(free >= block_words)]

        row_first, block_first = Signal(), Signal()
        begins, go = Signal(), Signal()
        stats = Signal(data.ArrayLayout(32, 3))
        m.d.comb += [
            row_first.eq(desc.dot | (phase == 0)),
            begins.eq(block_first & row_first),
            go.eq((state == State.RUN) & (~row_first | (input_ok & (fits | ~begins)))),
            self.desc.ready.eq((state == State.IDLE) & ~self.start),
            self.stats.payload.layer.eq(layer),
        ]
        m.d.comb += [self.stats.payload.counts[i].eq(stats[i]) for i in range(3)]

        with m.Switch(state):
            with m.Case(State.IDLE):
                m.d.sync += desc.eq(self.desc.payload)
                with m.If(self.desc.valid):
                    m.d.sync += state.eq(State.SETUP)
            with m.Case(State.SETUP):
                first = Signal(place)
                m.d.comb += [
                    first.y.eq(-desc.pad), first.x.eq(-desc.pad),
                    first.row_left.eq(desc.tiles_x), first.left.eq(desc.tiles),
                ]
                m.d.sync += [
                    tile.eq(first), half_start.eq(first), block_start.eq(first),
                    block_left.eq(desc.tile_blocks),
                    channel.eq(0), channel_end.eq(Mux(desc.dot, desc.groups, desc.channels) - 1),
                    lane.eq(0), base.eq(desc.in_base), group_base.eq(desc.in_base),
                    block_first.eq(1),
                    block_words.eq(Mux(desc.dot, desc.groups, desc.groups << 5)),
                    phase.eq(0), stats.eq(0),
                    asked_channel.eq(0), asked_end.eq(first.y + 8),
                    # In the second cycle the flags speak of this layer.
                    pause.eq(1),
                ]
                with m.If(pause == 1):
                    m.d.sync += [state.eq(State.RUN), pause.eq(0)]
            with m.Case(State.RUN):
                with m.If(~go):
                    m.d.sync += [
                        stats[0].eq(stats[0] + ~input_ok),
                        stats[1].eq(stats[1] + input_ok),
                    ]
            with m.Case(State.DRAIN):
                # The address pipeline still uses the descriptor.
                m.d.sync += pause.eq(pause + 1)
                with m.If(pause == 7):
                    m.d.comb += self.stats.valid.eq(1)
                    m.d.sync += [state.eq(State.IDLE), layer.eq(layer + 1)]

        with m.If(go):
            m.d.sync += phase.eq(Mux(row_last, 0, phase + 1))
            m.d.sync += block_first.eq(0)
            with m.If(begins):
                m.d.sync += free.eq(free + returned - block_words)
            with m.If(row_first):
                m.d.sync += [asked_channel.eq(channel_next), asked_end.eq(follow.y + 8)]
            with m.If(row_last):
                m.d.sync += [
                    tile.eq(follow), channel.eq(channel_next), lane.eq(lane_next),
                    base.eq(base_next),
                ]
                with m.If(lane_last & group_last):
                    m.d.sync += half_start.eq(follow)
                    with m.If(half_last):
                        m.d.sync += [
                            group_base.eq(base_next),
                            ring.eq(ring + Mux(desc.dot, 1, self._config.words)),
                        ]
                        with m.If(channel_last):
                            m.d.sync += [
                                block_start.eq(follow), block_left.eq(block_left - 1),
                                block_first.eq(1),
                            ]
                            with m.If(block_last):
                                m.d.sync += state.eq(State.DRAIN)

        with m.If(self.feature.en):
            m.d.sync += stats[2].eq(stats[2] + 1)
        with m.If(self.start):
            m.d.sync += [
                state.eq(State.IDLE), pause.eq(0), layer.eq(0), ring.eq(0),
                free.eq(self._config.tile_depth),
            ]

        # --- the row pair on its way: address, read, masks ------------------------------------
        m.submodules.fetch = fetch = Fetch(config=self._config)
        m.d.comb += [
            fetch.go.eq(go),
            fetch.desc.eq(desc),
            fetch.y.eq(tile.y + (phase << 1)),
            fetch.x.eq(tile.x),
            fetch.base.eq(base),
            fetch.present.eq(tile.left != 0),
            fetch.tag.lane.eq(lane),
            fetch.tag.channel_low.eq(Mux(desc.dot, 0, channel[:3])),
            fetch.tag.addr.eq(ring),
            fetch.tag.bypass.eq(desc.dot),
            fetch.tag.block_last.eq(channel_last & lane_last & half_last),
        ]
        wiring.connect(m, wiring.flipped(self.feature), fetch.feature)
        wiring.connect(m, wiring.flipped(self.o), fetch.o)
        return m
