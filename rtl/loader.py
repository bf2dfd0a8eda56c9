"""Loader: reads the input patches of each layer and sends them to the forward FFTs.

For every tile block, every group of 8 channels, each half of the lanes, every channel of the group,
every lane of the half: one tile as four row pairs in four consecutive cycles (pixels outside the
map, and tiles past the last one, are zero). A dot layer is one block of single row pairs, sixteen
vector values each; of a batch, image after image, each for a lane of its own. A block starts when
the ring of the tile buffer has room for all of it; a tile, when the Writer has finished its channel
or at least the rows it covers. The first half of the lanes comes first for all channels of a group
because its tiles lie higher in the map, where the rows are finished while the lower ones are still
being written.

With F > 1 feature banks a step of the walk is a tile of F channels, one of every bank: for every
tile block, every F channels, every lane. Bank e is `rtl.fetch.SKEW`·e cycles behind bank 0, so that
at any time the banks' columns go to different lanes. To keep this up from step to step, there are
at least F steps to F channels: those beyond the last lane are idle. A dot layer is left to
`rtl.flatten`, whose rows all go to the first FFT.

Throughput: a tile every 4 cycles (a dot row every cycle) while nothing is waited for, from channel
to channel and from block to block, and that of every bank; between layers `layer_gap` cycles pass,
because the address pipeline still uses the descriptor. (Tiles and bypass rows do not meet in the
FFT: a dot layer waits until the layer before is written.) Latency: `LATENCY` cycles from the grant
of a row to ``o[0]``. Nothing is multiplied: coordinates and addresses are counted, the row stride
is a shift.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from model.config import ROW_BITS, AcceleratorConfig
from rtl.arrival import Arrival
from rtl.fetch import COORDINATE, SKEW, Fetch
from rtl.flatten import Flatten
from rtl.ringspace import RingSpace
from rtl.signatures import (
    Descriptor,
    Event,
    FeatureReadSignature,
    LayerStats,
    Progress,
    RowPair,
)

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
        Uses ``tile_lanes``, ``tile_depth``, ``words``, ``feature_banks``.

    Attributes
    ----------
    start : In(1)
        Pulse at the beginning of a run: back to layer 0 and an empty ring, in whatever state.
    desc : In(stream.Signature(Descriptor))
        Layers in order; taken when the layer before is loaded.
    feature : Out(FeatureReadSignature()).array(feature_banks)
        Read ports of the feature memory, all outputs registered.
    o : Out(Event(RowPair(config))).array(feature_banks)
        Row pairs, to the forward FFTs. Channel c comes from bank c mod F.
    input_done, input_row, layers_done, progress : In
        What has been written, see `rtl.arrival.Arrival`.
    inputs, next_input : Out(6), Out(1)
        Inputs of the run wanted so far; pulse: another one is, and nobody reads the one before.
    freed : In(Event(range(tile_depth + 1)))
        Words of the ring given back.
    stats : Out(Event(LayerStats))
        At the layer's end: cycles waiting for input, cycles waiting for ring space, row pairs read
        (reads of bank 0 of the feature memory; those wholly outside the map are not read), 0.
    """

    #: Cycles from the decision to send a row pair to ``o[0]``.
    LATENCY = Fetch.LATENCY

    def __init__(self, *, config: AcceleratorConfig) -> None:
        if not isinstance(config, AcceleratorConfig):
            raise TypeError(f"config must be an AcceleratorConfig, not {config!r}")
        self._config = config
        super().__init__({
            "start": In(1),
            "desc": In(stream.Signature(Descriptor)),
            "feature": Out(FeatureReadSignature()).array(config.feature_banks),
            "o": Out(Event(RowPair(config))).array(config.feature_banks),
            "input_done": In(1),
            "input_row": In(ROW_BITS + 1),
            "layers_done": In(8),
            "progress": In(Progress).array(config.feature_banks),
            "inputs": Out(6), "next_input": Out(1),
            "freed": In(Event(range(config.tile_depth + 1))),
            "stats": Out(Event(LayerStats)),
        })

    @property
    def layer_gap(self) -> int:
        """Idle cycles, at least, between the row pairs of two layers."""
        return 11 if self._config.feature_banks == 1 else 13

    def elaborate(self, platform) -> Module:
        """Build the walk, the two waits and the address pipeline."""
        m = Module()
        lanes, banks = self._config.tile_lanes, self._config.feature_banks
        upper = (lanes + 1) // 2        # lanes of the first half
        steps = max(lanes, banks)       # of a channel, the idle ones too
        desc = Signal(Descriptor, reset_less=True)
        state = Signal(State)
        phase = Signal(2)       # row pair of the tile
        # Cycles until the last bank has read what the first one has.
        late = SKEW * (banks - 1)
        pause = Signal(range(late + 8))     # cycles of SETUP and of DRAIN
        layer = Signal(8)
        pooled = Signal()       # the layer before pools its map

        # --- the walk: block, group, half, channel (or dot row), lane, phase --------------------
        # With several banks: block, local channel, lane, phase, the channels being a group each.
        # Where the tile at hand lies (``end``: below its last row), and the first tile of the half
        # and of the block, which the channels and the groups come back to.
        place = data.StructLayout({
            "y": COORDINATE, "end": signed(13), "x": COORDINATE, "row_left": 10, "left": 16,
        })
        tile, half_start, block_start = Signal(place), Signal(place), Signal(place)
        tile_next, follow = Signal(place), Signal(place)
        block_left = Signal(16, reset_less=True)
        channel, channel_end = Signal(13, reset_less=True), Signal(13, reset_less=True)
        channel_next = Signal(13)
        channel_bits = exact_log2(banks)    # those that select the bank
        lane, lane_next = Signal(range(steps)), Signal(range(steps))
        idle = Signal()
        base, group_base = Signal(ROW_BITS, reset_less=True), Signal(ROW_BITS, reset_less=True)
        base_next = Signal(ROW_BITS)
        ring = Signal(range(self._config.tile_depth))
        # Where the walk is: found with the state that says it, because all of it waits for these.
        row_first, row_last = Signal(), Signal()
        lane_last, group_last, half_last = Signal(), Signal(), Signal()
        # A dot layer's images are its tiles, and are counted here as blocks.
        channel_last, block_last = Signal(), Signal()
        dot = desc.dot if banks == 1 else Const(0, 1)   # of this walk

        def place_flags(channel, lane):
            """Set the flags for the first row pair of the tile of a channel and lane."""
            ends = channel == channel_end
            if banks > 1:
                return [channel_last.eq(ends), lane_last.eq(lane == steps - 1), group_last.eq(1),
                        half_last.eq(1)]
            return [
                channel_last.eq(ends),
                lane_last.eq(dot | (lane == upper - 1) | (lane == lanes - 1)),
                group_last.eq(dot | ends | (channel[:3] == 7)),
                half_last.eq(dot | (lane == lanes - 1)),
            ]

        m.d.comb += [
            block_last.eq(block_left == 1),
            tile_next.left.eq(Mux(tile.left == 0, 0, tile.left - 1)),
        ]
        if banks == 1:
            # The next image of a dot layer begins at the addresses of the one before.
            group_words = Mux(
                desc.dot, Mux(channel_last & ~block_last, 1 - desc.groups, 1), self._config.words
            )
        else:
            m.d.comb += idle.eq(lane >= lanes)
            # Sixteen channels are two groups of eight, the last ones perhaps only one.
            group_words = Mux(
                channel_last & desc.groups[0], self._config.words, self._config.words * banks // 8
            )
        with m.If(idle):
            m.d.comb += tile_next.eq(tile)
        with m.Elif(tile.row_left == 1):
            m.d.comb += [
                tile_next.y.eq(tile.y + desc.step), tile_next.end.eq(tile.end + desc.step),
                tile_next.x.eq(-desc.pad_left),
                tile_next.row_left.eq(desc.tiles_x),
            ]
        with m.Else():
            m.d.comb += [
                tile_next.y.eq(tile.y), tile_next.end.eq(tile.end),
                tile_next.x.eq(tile.x + desc.step),
                tile_next.row_left.eq(tile.row_left - 1),
            ]
        # The tile after the one at hand.
        m.d.comb += [
            follow.eq(tile_next), channel_next.eq(channel), base_next.eq(base),
            lane_next.eq(lane + 1),
        ]
        with m.If(lane_last & group_last & half_last & channel_last):
            m.d.comb += [
                channel_next.eq(0), base_next.eq(Mux(dot, base + 1, desc.in_base)),
                lane_next.eq(Mux(dot, lane + 1, 0)),
            ]
        with m.Elif(lane_last & (~group_last | half_last)):
            m.d.comb += [
                channel_next.eq(channel + 1),
                base_next.eq(base + Mux(dot, 1, desc.in_plane)),
                lane_next.eq(Mux(dot, lane, Mux(group_last | (lane < upper), 0, upper))),
                follow.eq(Mux(group_last, block_start.as_value(), half_start.as_value())),
            ]
        with m.Elif(lane_last):
            m.d.comb += [
                channel_next.eq(Cat(Const(0, 3), channel[3:])), base_next.eq(group_base),
            ]

        # --- the waits, registered ----------------------------------------------------------------
        # The question is put for the next tile while one is sent, so that the answer is there
        # when it is reached.
        m.submodules.arrival = arrival = Arrival(config=self._config)
        asked_channel = Signal(13, reset_less=True)
        asked_end = Signal(signed(13), reset_less=True)     # below the tile's last row
        asked_base = Signal(ROW_BITS, reset_less=True)
        input_ok, fits = Signal(), Signal()
        m.d.comb += [
            arrival.desc.eq(desc), arrival.layer.eq(layer), arrival.channel.eq(asked_channel),
            arrival.end.eq(asked_end), arrival.base.eq(asked_base),
            arrival.input_done.eq(self.input_done), arrival.input_row.eq(self.input_row),
            arrival.layers_done.eq(self.layers_done),
            *(mine.eq(theirs) for mine, theirs in zip(
                arrival.progress, self.progress, strict=True)),
            input_ok.eq(arrival.ok),
        ]
        if self._config.map_pool:
            m.d.comb += arrival.pooled.eq(pooled)
        block_words = Signal(len(desc.groups) + 5, reset_less=True)
        m.submodules.space = space = RingSpace(
            depth=self._config.tile_depth, word_bits=len(block_words)
        )
        wiring.connect(m, wiring.flipped(self.freed), space.freed)
        m.d.comb += [space.start.eq(self.start), space.words.eq(block_words), fits.eq(space.fits)]

        block_first = Signal()
        begins, go, flatten = Signal(), Signal(), Signal()
        flattening = Const(0, 1)
        stats = Signal(data.ArrayLayout(32, 3))
        m.d.comb += [
            begins.eq(block_first & row_first),
            go.eq((state == State.RUN) & (~row_first | idle | (input_ok & (fits | ~begins)))
                  & (dot | ~desc.dot)),
            self.desc.ready.eq((state == State.IDLE) & ~self.start),
            self.stats.payload.layer.eq(layer),
        ]
        m.d.comb += [self.stats.payload.counts[i].eq(stats[i]) for i in range(3)]

        if banks > 1:
            m.submodules.flat = flat = Flatten(config=self._config)
            flattening = flat.busy
            m.d.comb += [
                flatten.eq((state == State.RUN) & desc.dot & input_ok & fits),
                flat.start.eq(flatten), flat.desc.eq(desc), flat.addr.eq(ring),
            ]
        with m.Switch(state):
            with m.Case(State.IDLE):
                m.d.sync += desc.eq(self.desc.payload)
                with m.If(self.desc.valid):
                    m.d.sync += state.eq(State.SETUP)
            with m.Case(State.SETUP):
                first = Signal(place)
                # The next input of a batch takes the place of the one before.
                following = desc.input & (self.inputs != 0)
                waits = following & (pause == late) & ~self.input_done
                m.d.comb += [
                    first.y.eq(-desc.pad), first.end.eq(8 - desc.pad), first.x.eq(-desc.pad_left),
                    first.row_left.eq(desc.tiles_x), first.left.eq(desc.tiles),
                ]
                m.d.sync += [
                    tile.eq(first), half_start.eq(first), block_start.eq(first),
                    block_left.eq(Mux(dot, desc.tiles, desc.tile_blocks)),
                    channel.eq(0),
                    channel_end.eq(
                        Mux(desc.dot, desc.groups, desc.channels) - 1 if banks == 1
                        else (desc.channels - 1) >> channel_bits
                    ),
                    lane.eq(0), base.eq(desc.in_base), group_base.eq(desc.in_base),
                    block_first.eq(1),
                    block_words.eq(Mux(desc.dot, desc.groups, desc.groups << 5)),
                    phase.eq(0), row_first.eq(1), row_last.eq(dot), stats.eq(0),
                    *place_flags(Const(0, 13), Const(0, len(lane))),
                    asked_channel.eq(0), asked_end.eq(first.end), asked_base.eq(desc.in_base),
                    pause.eq(pause + ~waits),
                ]
                # By then the flags speak of this layer.
                asking = Arrival.LATENCY if banks > 1 else Mux(desc.input, Arrival.LATENCY, 1)
                m.d.comb += self.next_input.eq(following & (pause == late) & self.input_done)
                with m.If(pause == asking + Mux(following, late, 0)):
                    m.d.sync += [
                        state.eq(State.RUN), pause.eq(0), self.inputs.eq(self.inputs + desc.input),
                    ]
            with m.Case(State.RUN):
                with m.If(~go & ~flatten):
                    m.d.sync += [
                        stats[0].eq(stats[0] + ~input_ok),
                        stats[1].eq(stats[1] + input_ok),
                    ]
            with m.Case(State.DRAIN):
                # The address pipeline still uses the descriptor.
                m.d.sync += pause.eq(pause + ~flattening)
                with m.If(pause == 7):
                    m.d.comb += self.stats.valid.eq(1)
                    m.d.sync += [
                        state.eq(State.IDLE), pause.eq(0), layer.eq(layer + 1),
                        pooled.eq(desc.pool_op != 0),
                    ]

        with m.If(go):
            m.d.sync += [
                phase.eq(Mux(row_last, 0, phase + 1)), block_first.eq(0),
                row_first.eq(dot | row_last), row_last.eq(dot | (phase == 2)),
            ]
            with m.If(row_first):
                m.d.sync += [
                    asked_channel.eq(channel_next), asked_end.eq(follow.end),
                    asked_base.eq(base_next),
                ]
            with m.If(row_last):
                m.d.sync += [
                    tile.eq(follow), channel.eq(channel_next), lane.eq(lane_next),
                    base.eq(base_next), *place_flags(channel_next, lane_next),
                ]
                with m.If(lane_last & group_last):
                    m.d.sync += half_start.eq(follow)
                    with m.If(half_last):
                        m.d.sync += [
                            group_base.eq(base_next),
                            ring.eq(ring + group_words),
                        ]
                        with m.If(channel_last):
                            m.d.sync += [
                                block_start.eq(follow), block_left.eq(block_left - 1),
                                block_first.eq(~dot),
                            ]
                            with m.If(block_last):
                                m.d.sync += state.eq(State.DRAIN)

        m.d.comb += space.take.eq(go & begins | flatten)
        with m.If(flatten):
            m.d.sync += [ring.eq(ring + desc.groups), state.eq(State.DRAIN)]
        with m.If(self.feature[0].en):
            m.d.sync += stats[2].eq(stats[2] + 1)
        with m.If(self.start):
            m.d.sync += [
                state.eq(State.IDLE), pause.eq(0), layer.eq(0), ring.eq(0), pooled.eq(0),
                self.inputs.eq(0),
            ]

        # --- the row pair on its way: address, read, masks ------------------------------------
        m.submodules.fetch = fetch = Fetch(config=self._config)
        m.d.comb += [
            fetch.go.eq(go & ~idle),
            fetch.desc.eq(desc),
            fetch.y.eq(tile.y + (phase << 1)),
            fetch.x.eq(tile.x),
            fetch.base.eq(base),
            fetch.present.eq(tile.left != 0),
            fetch.last_bank.eq(Mux(channel_last, (desc.channels - 1)[:channel_bits], banks - 1)),
            fetch.tag.lane.eq(lane),
            fetch.tag.channel_low.eq(Mux(dot, 0, channel[:3])),
            fetch.tag.addr.eq(ring),
            fetch.tag.bypass.eq(dot),
            fetch.tag.block_last.eq(channel_last & Mux(dot, block_last, lane == lanes - 1)),
        ]
        for bank in range(banks):
            if banks == 1:
                wiring.connect(m, wiring.flipped(self.feature[bank]), fetch.feature[bank])
            else:
                self._share(m, self.feature[bank], fetch.feature[bank], flat.read[bank])
            if banks == 1 or bank > 0:
                wiring.connect(m, wiring.flipped(self.o[bank]), fetch.o[bank])
        if banks > 1:
            first, rows = self.o[0], flat.o
            m.d.comb += [
                first.valid.eq(fetch.o[0].valid | rows.valid),
                first.payload.eq(Mux(
                    rows.valid, rows.payload.as_value(), fetch.o[0].payload.as_value()
                )),
            ]
        return m

    @staticmethod
    def _share(m: Module, port, fetch, flat) -> None:
        """Read port of a bank: of tiles, or of the rows of a dot layer, never at a time."""
        m.d.comb += port.en.eq(fetch.en | flat.en)
        for name in ("even_addr", "odd_addr", "offset"):
            m.d.comb += getattr(port, name).eq(
                Mux(flat.en, getattr(flat, name), getattr(fetch, name))
            )
        for name in ("even", "odd"):
            m.d.comb += [getattr(reader, name).eq(getattr(port, name)) for reader in (fetch, flat)]
