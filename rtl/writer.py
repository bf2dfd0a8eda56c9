"""Writers: where the values go in the feature memory, and who is told that they are there.

No multiplication: a position is the sum of where the tile lies in its map (`rtl.walker`, walking
with the tile blocks) and where the current row of the kernel's map lies (`BankWriter`; the map's
start comes with the row).  Positions are in bytes of the memory's linear image: row of 16 bytes,
parity bank, byte.  In the plane layout the even and odd rows of a map have separate sums, because
a tile may start at an odd row.
"""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from model.config import AcceleratorConfig
from rtl.signatures import (
    POSITION_BITS,
    Descriptor,
    Event,
    FeatureWrite,
    LayerStats,
    Progress,
    SegmentRow,
    TileMarks,
)
from rtl.walker import TilePlace, TileWalker, writing_lanes

__all__ = ["BankWriter", "Writer"]


class BankWriter(wiring.Component):
    """One segment of one lane per cycle into a bank of the feature memory, lanes in rotation.

    If the inverse FFT gives two rows per cycle, and they are not pooled, they are written together,
    an even map row and the odd one below.  A lane without anything inside the map costs its cycle
    but writes nothing.  The first lane is written `LATENCY` cycles after ``i``, the last P'-1
    cycles later; then the next row may come.

    Parameters
    ----------
    config : AcceleratorConfig
        P' tile lanes, N' kernel lanes, F feature banks.

    Attributes
    ----------
    begin : In(1)
        A layer begins.
    layer : In(Descriptor)
        Constant from ``begin`` until ``close``.
    i : In(Event(SegmentRow(config)))
        A row of every lane, or a pair of them, every `rtl.walker.writing_lanes` cycles at most.
    rotate, advance : Out(1)
        See `TileWalker`.
    place, rows : In(TilePlace), In(10)
        The current lane's place, and the rows before the current tile block.
    write : Out(Event(FeatureWrite))
        ``vector`` as in the descriptor; never with ``count`` 0.
    progress : Out(Progress)
        The feature memory has taken everything counted: a read issued now sees it.
    layer_end : Out(1)
        This bank's part of the layer is written and may be read in the next cycle.
    close : In(1)
        Nothing of this layer is under way in any bank: ``progress`` becomes 0.
    """

    #: Cycles from a row to the first write.
    LATENCY = 2

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__({
            "begin": In(1),
            "layer": In(Descriptor),
            "i": In(Event(SegmentRow(config))),
            "rotate": Out(1),
            "advance": Out(1),
            "place": In(TilePlace),
            "rows": In(10),
            "write": Out(Event(FeatureWrite)),
            "progress": Out(Progress),
            "layer_end": Out(1),
            "close": In(1),
        })

    def elaborate(self, platform) -> Module:
        """Build the lane chain and the positions."""
        m = Module()
        layer, segments = self.layer, self.i.payload
        row_layout = segments.shape()
        pairs = self._config.inverse_rows > 1

        # Lanes leave a chain from its end, so that no multiplexer is needed.
        waiting = Signal(range(self._config.tile_lanes + 1))
        chains = [Signal(row_layout["bytes"].shape, name="chain", reset_less=True)]
        pair = Signal()
        if pairs:
            chains.append(Signal.like(chains[0], name="below"))
        marks = Signal(row_layout["marks"].shape)
        first_row = Signal()        # the next row is the first of a tile
        row_end = Signal()
        m.d.comb += row_end.eq(waiting == 1)
        with m.If(waiting != 0):
            m.d.sync += waiting.eq(waiting - 1)
            for chain in chains:
                m.d.sync += chain.eq(chain.as_value()[row_layout["bytes"].shape.elem_shape.size:])
        with m.If(self.i.valid):
            m.d.sync += [
                waiting.eq(writing_lanes(self._config, layer)),
                chains[0].eq(segments.bytes),
                marks.eq(segments.marks),
                first_row.eq(segments.marks.tile_last),
            ]
            if pairs:
                m.d.sync += [chains[1].eq(segments.below), pair.eq(segments.pair)]

        # Position of the current row in the maps, for tiles that start at an even or odd row.
        row_step = Signal(POSITION_BITS)
        m.d.sync += row_step.eq(
            Mux(
                layer.out_vector,
                layer.out_width << layer.out_wide,
                Const(16, POSITION_BITS) << layer.out_row_log2,
            )
        )
        even = Signal(POSITION_BITS)
        odd = Signal(POSITION_BITS)
        row = Signal(4)
        with m.If(row_end):
            m.d.sync += row.eq(row + 1 + pair)
            with m.If(layer.out_vector | row[0] | pair):
                m.d.sync += even.eq(even + row_step)
            with m.Else():
                m.d.sync += odd.eq(odd + row_step)
        with m.If(self.i.valid & first_row):
            base = segments.marks.base
            m.d.sync += [row.eq(0), even.eq(base), odd.eq(base)]
        with m.If(self.begin):
            m.d.sync += first_row.eq(1)

        m.d.comb += [
            self.rotate.eq(waiting != 0),
            self.advance.eq(row_end & marks.tile.advance),
        ]
        place = self.place
        inside = Signal()
        position = Signal(POSITION_BITS)
        write = self.write.payload
        m.d.comb += [
            inside.eq((place.bytes != 0) & (row < place.rows)),
            position.eq(Mux(place.odd, odd, even) + place.position),
        ]
        m.d.sync += [
            self.write.valid.eq((waiting != 0) & inside),
            write.addr.eq(position[4:]),
            write.parity.eq(position[3] ^ (row[0] & ~layer.out_vector)),
            write.offset.eq(position[:3]),
            write.count.eq(place.bytes),
            write.vector.eq(layer.out_vector),
            write.data.eq(chains[0][0].as_value()),
        ]
        if pairs:
            m.d.sync += [
                write.pair.eq(pair & (row + 1 < place.rows)),
                write.below.eq(chains[1][0].as_value()),
            ]
        self._publish(m, row_end, marks)
        return m

    def _publish(self, m: Module, row_end, marks) -> None:
        """Count what is written: the write is seen one cycle later, in the memory one more."""
        progress = self.progress
        block_channels = self._config.kernel_lanes // self._config.feature_banks
        s1_marks = Signal(TileMarks)
        s2_marks = Signal(TileMarks)
        m.d.comb += self.layer_end.eq(s2_marks.layer_last)
        m.d.sync += [
            s1_marks.eq(Mux(row_end, marks.tile.as_value(), 0)),
            s2_marks.eq(s1_marks),
        ]
        with m.If(s2_marks.commit):
            m.d.sync += progress.channels_done.eq(progress.channels_done + 1)
        with m.If(s2_marks.advance & s2_marks.final):
            m.d.sync += progress.rows_done.eq(self.rows)
            with m.If(s2_marks.commit):
                m.d.sync += progress.channels_open.eq(progress.channels_open + block_channels)
        with m.If(s2_marks.turn):
            m.d.sync += progress.rows_all.eq(self.rows)
        with m.If(self.begin):
            m.d.sync += progress.channels_open.eq(block_channels)
        with m.If(self.close):
            m.d.sync += progress.eq(0)


class Writer(wiring.Component):
    """The writers of all feature banks, and what is published for the layer as a whole.

    A dot layer is the first writer's alone.  Of several banks, its positions are those of the
    vector's linear image, a row of 16 bytes of every bank.

    Parameters
    ----------
    config : AcceleratorConfig
        F feature banks.

    Attributes
    ----------
    begin : In(1)
        A layer begins.
    layer : In(Descriptor)
        Constant from ``begin`` until ``layer_end``.
    i : In(Event(SegmentRow(config))).array(F)
        See `BankWriter`. Dot products come in the first.
    reserve, spare : In(F), Out(F)
        See `TileWalker`.
    write : Out(Event(FeatureWrite)).array(F)
        To the banks of the feature memory.
    run_cycle : In(32)
        Free-running counter of the run.
    layers_done : Out(8)
        Layers completely written. The feature memory has taken everything counted: a read issued
        now sees it.
    progress : Out(Progress).array(F)
        The same for the current layer, in channels of the bank. ``rows_all``: rows complete in all
        channels, as of the last group of tile blocks that all kernel blocks have passed. In the
        last group, ``channels_open``: end of the kernel block being written; ``rows_done``: rows
        complete in the maps of all its kernels, as of the last complete tile block. Both groups and
        kernel blocks begin with the ``rows_done`` of their first tile block (0 before the last
        group). All 0 with the step of ``layers_done``.
    layer_end : Out(1)
        The layer is completely written (with the step of ``layers_done``).
    finished : Out(1)
        The same for the last layer of a run.
    stats : Out(Event(LayerStats))
        With ``layer_end``: run cycle, segments written, 0, 0.
    written, pooled : Out(1), In(1), only with ``map_pool``
        Level: the map of a layer that is pooled is written; the pooled one is, and this ends the
        layer. No part of it counts as written before: ``progress`` stays 0.
    """

    #: Cycles from a row to the first write.
    LATENCY = BankWriter.LATENCY

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        banks = config.feature_banks
        super().__init__({
            "begin": In(1),
            "layer": In(Descriptor),
            "i": In(Event(SegmentRow(config))).array(banks),
            "reserve": In(banks),
            "spare": Out(banks),
            "write": Out(Event(FeatureWrite)).array(banks),
            "run_cycle": In(32),
            "layers_done": Out(8),
            "progress": Out(Progress).array(banks),
            "layer_end": Out(1),
            "finished": Out(1),
            "stats": Out(Event(LayerStats)),
            **({"written": Out(1), "pooled": In(1)} if config.map_pool else {}),
        })

    def elaborate(self, platform) -> Module:
        """Join the walker and the writers, and wait for the last of them."""
        m = Module()
        layer = self.layer
        banks = self._config.feature_banks
        m.submodules.walker = walker = TileWalker(config=self._config)
        m.d.comb += [
            walker.layer.eq(layer), walker.begin.eq(self.begin),
            walker.reserve.eq(self.reserve), self.spare.eq(walker.spare),
        ]

        ended, ending = Signal(banks), Signal(banks)
        end = Signal()
        others = ((1 << banks) - 2) & layer.dot.replicate(banks)
        written = (ended | ending | others).all()
        pools = layer.pool_op != 0 if self._config.map_pool else None
        if pools is None:
            m.d.comb += end.eq(written)
        else:
            m.d.comb += [
                self.written.eq(pools & ended.all()), end.eq(Mux(pools, self.pooled, written)),
            ]
        writes = self.write
        if banks > 1:
            writes = [
                Event(FeatureWrite).create(path=(f"own{bank}",)) for bank in range(banks)
            ]
            self._spread(m, writes)
        for bank in range(banks):
            m.submodules[f"bank{bank}"] = writer = BankWriter(config=self._config)
            m.d.comb += [
                writer.begin.eq(self.begin), writer.layer.eq(layer),
                writer.i.valid.eq(self.i[bank].valid), writer.i.payload.eq(self.i[bank].payload),
                walker.rotate[bank].eq(writer.rotate), walker.advance[bank].eq(writer.advance),
                writer.place.eq(walker.o[bank]), writer.rows.eq(walker.rows[bank]),
                writes[bank].valid.eq(writer.write.valid),
                writes[bank].payload.eq(writer.write.payload),
                self.progress[bank].eq(
                    writer.progress if pools is None
                    else Mux(pools, 0, writer.progress.as_value())
                ),
                ending[bank].eq(writer.layer_end), writer.close.eq(end),
            ]

        segments = Signal(32)
        m.d.sync += [
            ended.eq(Mux(end, 0, ended | ending)),
            segments.eq(segments + sum(
                write.valid + (write.valid & write.payload.pair) for write in self.write
            )),
            self.layer_end.eq(end),
            self.finished.eq(end & layer.last),
            self.stats.valid.eq(end),
        ]
        with m.If(end):
            m.d.sync += [
                self.layers_done.eq(self.layers_done + 1),
                self.stats.payload.layer.eq(self.layers_done),
                self.stats.payload.counts[0].eq(self.run_cycle),
                self.stats.payload.counts[1].eq(segments),
                segments.eq(0),
            ]
        return m

    def _spread(self, m: Module, writes) -> None:
        """Each bank's own segments, or of a dot layer the one or two bytes that are for it."""
        first = writes[0]
        bits = exact_log2(self._config.feature_banks)
        for bank, (own, port) in enumerate(zip(writes, self.write, strict=True)):
            m.d.comb += [port.valid.eq(own.valid), port.payload.eq(own.payload)]
            with m.If(self.layer.dot):
                m.d.comb += [
                    port.valid.eq(first.valid & (first.payload.addr[:bits] == bank)),
                    port.payload.addr.eq(first.payload.addr[bits:]), port.payload.pair.eq(0),
                    *(port.payload[name].eq(first.payload[name])
                      for name in ("parity", "offset", "count")),
                    *(port.payload.data[byte].eq(first.payload.data[byte]) for byte in range(2)),
                ]
