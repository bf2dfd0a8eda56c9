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

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from model.config import ROW_BITS, AcceleratorConfig
from rtl.arrival import Arrival
from rtl.fetch import SKEW, Fetch
from rtl.flatten import Flatten
from rtl.patchwalk import PatchWalk
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
        config, banks = self._config, self._config.feature_banks
        desc = Signal(Descriptor, reset_less=True)
        state = Signal(State)
        # Cycles until the last bank has read what the first one has.
        late = SKEW * (banks - 1)
        pause = Signal(range(late + 8))     # cycles of SETUP and of DRAIN
        layer = Signal(8)
        pooled = Signal()       # the layer before pools its map
        begun = Signal()        # ``inputs`` is not 0
        dot = desc.dot if banks == 1 else Const(0, 1)   # of the walk; else `rtl.flatten` reads
        m.submodules.walk = walk = PatchWalk(config=config)

        # --- the waits, registered ----------------------------------------------------------------
        # The question is put for the next tile while one is sent, so that the answer is there
        # when it is reached.
        m.submodules.arrival = arrival = Arrival(config=self._config)
        input_ok, fits = Signal(), Signal()
        m.d.comb += [
            arrival.desc.eq(desc), arrival.layer.eq(layer), arrival.channel.eq(walk.ask_channel),
            arrival.end.eq(walk.ask_end), arrival.base.eq(walk.ask_base),
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
        m.d.comb += [space.words.eq(block_words), fits.eq(space.fits)]

        # ``loading``: in `State.SETUP`; ``walking``: of `State.RUN` what is not left to Flatten.
        loading, walking, go, flatten = Signal(), Signal(), Signal(), Signal()
        flattening = Const(0, 1)
        stats = Signal(data.ArrayLayout(32, 3))
        m.d.comb += [
            go.eq(walking & (~walk.asks | (input_ok & (fits | ~walk.block_first)))),
            walk.desc.eq(desc), walk.load.eq(loading),
            walk.go.eq(go), walk.skip.eq(flatten),
            self.desc.ready.eq(state == State.IDLE),
            self.stats.payload.layer.eq(layer),
        ]
        m.d.comb += [self.stats.payload.counts[i].eq(stats[i]) for i in range(3)]

        if banks > 1:
            m.submodules.flat = flat = Flatten(config=self._config)
            flattening = flat.busy
            m.d.comb += [
                flatten.eq((state == State.RUN) & desc.dot & input_ok & fits),
                flat.start.eq(flatten), flat.desc.eq(desc), flat.addr.eq(walk.addr),
            ]
        m.d.sync += self.next_input.eq(0)
        with m.Switch(state):
            with m.Case(State.IDLE):
                m.d.sync += desc.eq(self.desc.payload)
                with m.If(self.desc.valid):
                    m.d.sync += [state.eq(State.SETUP), loading.eq(1)]
            with m.Case(State.SETUP):
                # The next input of a batch takes the place of the one before.
                following = desc.input & begun
                waits = following & (pause == late) & ~self.input_done
                m.d.sync += [
                    block_words.eq(Mux(desc.dot, desc.groups, desc.groups << 5)), stats.eq(0),
                    pause.eq(pause + ~waits),
                ]
                # By then the flags speak of this layer.
                asking = Arrival.LATENCY if banks > 1 else Mux(desc.input, Arrival.LATENCY, 1)
                m.d.sync += self.next_input.eq(following & (pause == late) & self.input_done)
                with m.If(pause == asking + Mux(following, late + 1, 0)):
                    m.d.sync += [
                        state.eq(State.RUN), loading.eq(0), pause.eq(0),
                        walking.eq(dot | ~desc.dot), self.inputs.eq(self.inputs + desc.input),
                        begun.eq(begun | desc.input),
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

        with m.If(flatten):
            m.d.sync += state.eq(State.DRAIN)
        with m.If(go & walk.last):
            m.d.sync += [state.eq(State.DRAIN), walking.eq(0)]
        m.d.comb += space.take.eq(go & walk.block_first | flatten)
        with m.If(self.feature[0].en):
            m.d.sync += stats[2].eq(stats[2] + 1)

        # --- the row pair on its way: address, read, masks ------------------------------------
        m.submodules.fetch = fetch = Fetch(config=self._config)
        m.d.comb += [
            fetch.go.eq(go & ~walk.idle), fetch.desc.eq(desc),
            fetch.y.eq(walk.y), fetch.x.eq(walk.x), fetch.base.eq(walk.base),
            fetch.present.eq(walk.present),
            fetch.last_bank.eq(
                Mux(walk.channel_last, (desc.channels - 1)[:exact_log2(banks)], banks - 1)
            ),
            fetch.tag.lane.eq(walk.lane),
            fetch.tag.channel_low.eq(Mux(dot, 0, walk.channel[:3])),
            fetch.tag.addr.eq(walk.addr),
            fetch.tag.bypass.eq(dot),
            fetch.tag.block_last.eq(walk.block_last),
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
        for name in FeatureReadSignature.PLACE:
            m.d.comb += getattr(port, name).eq(
                Mux(flat.en, getattr(flat, name), getattr(fetch, name))
            )
        for name in ("even", "odd"):
            m.d.comb += [getattr(reader, name).eq(getattr(port, name)) for reader in (fetch, flat)]
