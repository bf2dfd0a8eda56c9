"""Loader: reads the input patches of each layer and sends them to the forward FFT.

For every tile block, every channel, every lane: one tile as four row pairs in four consecutive
cycles (pixels outside the map, and tiles past the last one, are zero). A dot layer is one block of
single row pairs, sixteen vector values each. A block starts when the ring of the tile buffer has
room for all of it; a channel, when the Writer has finished it.

Throughput: a tile every 4 cycles (a dot row every cycle) while nothing is waited for, from channel
to channel and from block to block; between layers at least `LAYER_GAP` cycles pass, so that tiles
and bypass rows do not meet in the FFT. Latency: `LATENCY` cycles from the grant of a row to ``o``.
Nothing is multiplied: coordinates and addresses are counted, the row stride is a shift.
"""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
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
            "freed": In(Event(range(config.tile_depth + 1))),
            "stats": Out(Event(LayerStats)),
        })

    def elaborate(self, platform) -> Module:
        """Build the walk, the two waits and the address pipeline."""
        m = Module()
        lanes = self._config.tile_lanes
        desc = Signal(Descriptor, reset_less=True)
        state = Signal(State)
        phase = Signal(2)       # row pair of the tile
        pause = Signal(3)       # cycles of SETUP and of DRAIN
        layer = Signal(8)

        # --- the walk: block, channel (or dot row), lane, phase ---------------------------------
        # Where the tile at hand lies, and the first tile of the block, which every channel
        # comes back to.
        place = data.StructLayout({
            "y": COORDINATE, "x": COORDINATE, "row_left": 10, "left": 16,
        })
        tile, block_start, tile_next = Signal(place), Signal(place), Signal(place)
        block_left = Signal(16, reset_less=True)
        channel, channel_end = Signal(13, reset_less=True), Signal(13, reset_less=True)
        lane = Signal(range(lanes))
        base = Signal(16, reset_less=True)
        ring = Signal(range(self._config.tile_depth))
        row_last, tile_last_lane = Signal(), Signal()
        channel_last, block_last = Signal(), Signal()
        m.d.comb += [
            row_last.eq(desc.dot | (phase == 3)),
            tile_last_lane.eq(desc.dot | (lane == lanes - 1)),
            channel_last.eq(channel == channel_end),
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

        # --- the waits, registered ----------------------------------------------------------------
        input_ok, input_next, fits = Signal(), Signal(), Signal()
        done_all, done_here, done_count = Signal(), Signal(), Signal(13)
        m.d.sync += [
            done_all.eq(Mux(layer == 0, self.input_ready, self.layers_done >= layer)),
            done_here.eq((layer != 0) & ~desc.dot & (self.layers_done + 1 == layer)),
            done_count.eq(self.channels_done),
            # The channel after this one, so that its answer is there when it is reached.
            input_next.eq(done_all | (done_here & (done_count > channel + 1))),
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
                    tile.eq(first), block_start.eq(first), block_left.eq(desc.tile_blocks),
                    channel.eq(0), channel_end.eq(Mux(desc.dot, desc.groups, desc.channels) - 1),
                    lane.eq(0), base.eq(desc.in_base), block_first.eq(1),
                    block_words.eq(Mux(desc.dot, desc.groups, desc.groups << 5)),
                    phase.eq(0), stats.eq(0),
                    # In the second cycle the flags speak of this layer.
                    input_ok.eq(done_all | (done_here & (done_count > 0))),
                    pause.eq(1),
                ]
                with m.If(pause == 1):
                    m.d.sync += [state.eq(State.RUN), pause.eq(0)]
            with m.Case(State.RUN):
                # What was ready once stays so: the flag only rises while a channel waits.
                with m.If(done_all | (done_here & (done_count > channel))):
                    m.d.sync += input_ok.eq(1)
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
            with m.If(row_last):
                m.d.sync += [tile.eq(tile_next), lane.eq(lane + 1)]
                with m.If(tile_last_lane):
                    m.d.sync += [
                        lane.eq(0), channel.eq(channel + 1), tile.eq(block_start),
                        base.eq(base + Mux(desc.dot, 1, desc.in_plane)),
                        input_ok.eq(desc.dot | input_next),
                    ]
                    with m.If(desc.dot):
                        m.d.sync += ring.eq(ring + 1)
                    with m.Elif(channel_last | (channel[:3] == 7)):
                        m.d.sync += ring.eq(ring + self._config.words)
                    with m.If(channel_last):
                        m.d.sync += [
                            channel.eq(0), base.eq(desc.in_base), tile.eq(tile_next),
                            block_start.eq(tile_next), block_left.eq(block_left - 1),
                            # The first block has waited for every channel.
                            input_ok.eq(1), block_first.eq(1),
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
            fetch.tag.block_last.eq(channel_last & tile_last_lane),
        ]
        wiring.connect(m, wiring.flipped(self.feature), fetch.feature)
        wiring.connect(m, wiring.flipped(self.o), fetch.o)
        return m
