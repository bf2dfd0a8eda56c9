"""Writer: where the values go in the feature memory, and who is told that they are there.

No multiplication: a position is the sum of where the tile lies in its map (`TileWalker`, one entry
per lane, walking with the tile blocks) and where the current row of the current kernel's map lies
(`Writer`, walking with the kernels and rows).  Positions are in bytes of the memory's linear image:
row of 16 bytes, parity bank, byte.  In the plane layout the even and odd rows of a map have
separate sums, because a tile may start at an odd row.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from rtl.signatures import Descriptor, Event, FeatureWrite, LayerStats, RowMarks, TileMarks

__all__ = ["PROGRESS", "TileWalker", "TilePlace", "Writer"]

POSITION_BITS = 20

#: What `Writer` tells of its progress: its ports, handed on by `rtl.store.StoreStage`.
PROGRESS = {
    "layers_done": Out(8), "channels_done": Out(13), "channels_open": Out(13),
    "rows_done": Out(10), "finished": Out(1), "stats": Out(Event(LayerStats)),
}

#: Where a tile goes: position of its first value, and how many rows of how many bytes of it lie
#: inside the map; ``odd``: it starts at an odd row of a plane.
TilePlace = data.StructLayout({"position": POSITION_BITS, "odd": 1, "bytes": 4, "rows": 4})


class TileWalker(wiring.Component):
    """Places of the tiles of a block, one per lane, and of the next block in reserve.

    One tile per cycle; a set is ready P' + 2 cycles after it was begun.

    Parameters
    ----------
    config : AcceleratorConfig
        P' tile lanes.

    Attributes
    ----------
    layer : In(Descriptor)
        Constant from ``begin`` on.
    begin : In(1)
        Start at tile 0; the first places are there 2·P' + 4 cycles later at most.
    rotate : In(1)
        To the next lane.
    advance : In(1)
        To the next tile block (instead of ``rotate`` for the last lane); after the last block
        follows the first.
    reserve : In(1)
        Announces an ``advance``, only while ``spare``.
    spare : Out(1)
        The next block's places are there and nobody has reserved them.
    rows : Out(10)
        Map rows that lie wholly in the blocks before the current one.
    o : Out(TilePlace)
        Place of the current lane's tile.
    """

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._lanes = config.tile_lanes
        super().__init__({
            "layer": In(Descriptor),
            "begin": In(1),
            "rotate": In(1),
            "advance": In(1),
            "reserve": In(1),
            "spare": Out(1),
            "rows": Out(10),
            "o": Out(TilePlace),
        })

    def elaborate(self, platform) -> Module:
        """Build the walk over the tiles and the two sets of places."""
        m = Module()
        layer = self.layer
        places = data.ArrayLayout(TilePlace, self._lanes)
        current = Signal(places, reset_less=True)
        coming = Signal(places, reset_less=True)
        first = Signal()            # the set under way becomes the current one at once
        m.d.comb += self.o.eq(current[0])

        # s0: walk over the tiles.
        s0_valid = Signal()
        lane = Signal(range(self._lanes))
        lane_last = lane == self._lanes - 1
        block = Signal(16)
        number = Signal(17)
        tile_x = Signal(10)
        x = Signal(11)
        y = Signal(11)
        y_position = Signal(POSITION_BITS)
        coming_rows = Signal(10)
        with m.If(s0_valid):
            m.d.sync += [lane.eq(lane + 1), number.eq(number + 1)]
            with m.If(lane == 0):
                m.d.sync += coming_rows.eq(y)
            with m.If(tile_x + 1 == layer.tiles_x):
                m.d.sync += [
                    tile_x.eq(0),
                    x.eq(0),
                    y.eq(y + layer.out_step),
                    y_position.eq(y_position + layer.out_tile_row),
                ]
            with m.Else():
                m.d.sync += [tile_x.eq(tile_x + 1), x.eq(x + layer.out_step)]
            with m.If(lane_last):
                m.d.sync += [s0_valid.eq(0), lane.eq(0), block.eq(block + 1)]

        # s1: distances to the map's end, offset of the map row.
        s1_valid = Signal()
        s1_last = Signal()
        s1_inside = Signal(reset_less=True)
        s1_x = Signal(11, reset_less=True)
        s1_odd = Signal(reset_less=True)
        s1_row = Signal(POSITION_BITS, reset_less=True)
        s1_columns = Signal(signed(12), reset_less=True)
        s1_rows = Signal(signed(12), reset_less=True)
        plane_row = Signal(16)
        m.d.comb += plane_row.eq(y[1:] << layer.out_row_log2)
        m.d.sync += [
            s1_valid.eq(s0_valid),
            s1_last.eq(s0_valid & lane_last),
            s1_inside.eq(number < layer.tiles),
            s1_x.eq(x),
            s1_odd.eq(y[0] & ~layer.out_vector),
            s1_row.eq(Mux(layer.out_vector, y_position, plane_row)),
            s1_columns.eq(layer.out_width - x),
            s1_rows.eq(layer.out_height - y),
        ]

        # s2: position and clipped size.
        def clipped(left):
            outside = ~s1_inside | left[-1]
            return Mux(outside, 0, Mux(left > layer.out_step, layer.out_step, left[:4]))[:4]

        place = Signal(TilePlace)
        columns = clipped(s1_columns)
        with m.If(layer.out_vector):
            m.d.comb += place.position.eq(
                (s1_row + s1_x) << layer.out_wide
            )
        with m.Else():
            m.d.comb += place.position.eq(
                Cat(s1_x[:3], s1_odd, (s1_row[:16] + s1_x[3:])[:16])
            )
        m.d.comb += [
            place.odd.eq(s1_odd),
            place.bytes.eq(columns << layer.out_wide),
            place.rows.eq(clipped(s1_rows)),
        ]
        filled = Signal()
        with m.If(s1_valid):
            m.d.sync += coming.eq(Cat(coming.as_value()[len(place.as_value()):], place))
        m.d.sync += filled.eq(s1_last)

        take = Signal()
        m.d.comb += take.eq(self.advance | (filled & first))
        with m.If(self.rotate):
            m.d.sync += current.eq(current.as_value().rotate_right(len(place.as_value())))
        with m.If(take):
            m.d.sync += [
                current.eq(coming), self.rows.eq(coming_rows), first.eq(0), s0_valid.eq(1),
            ]
            with m.If(block == layer.tile_blocks):
                m.d.sync += [
                    block.eq(0), number.eq(0), tile_x.eq(0), x.eq(0), y.eq(0), y_position.eq(0),
                ]
        with m.If(filled & ~first):
            m.d.sync += self.spare.eq(1)
        with m.If(self.reserve):
            m.d.sync += self.spare.eq(0)

        with m.If(self.begin):
            m.d.sync += [
                s0_valid.eq(1), s1_valid.eq(0), s1_last.eq(0), filled.eq(0), first.eq(1),
                self.spare.eq(0), lane.eq(0), block.eq(0), number.eq(0), tile_x.eq(0), x.eq(0),
                y.eq(0), y_position.eq(0),
            ]
        return m


class Writer(wiring.Component):
    """One segment of one lane per cycle into the feature memory, lanes in rotation.

    A lane without anything inside the map costs its cycle but writes nothing.  The first lane is
    written `LATENCY` cycles after ``i``, the last P'-1 cycles later; then the next row may come.

    Parameters
    ----------
    config : AcceleratorConfig
        P' tile lanes, N' kernel lanes.

    Attributes
    ----------
    start : In(1)
        A run begins: nothing is complete.
    begin : In(1)
        A layer begins.
    layer : In(Descriptor)
        Constant from ``begin`` until ``layer_end``.
    i : In(Event({marks, bytes}))
        From `rtl.post.PostArray`, every ``lanes`` cycles at most (1 for dot products).
    reserve, spare : In(1), Out(1)
        See `TileWalker`.
    write : Out(Event(FeatureWrite))
        ``vector`` as in the descriptor; never with ``count`` 0.
    run_cycle : In(32)
        Free-running counter of the run.
    layers_done, channels_done : Out(8), Out(13)
        Layers completely written, and channels of the current layer completely written.  The
        feature memory has taken everything counted: a read issued now sees it.
    channels_open, rows_done : Out(13), Out(10)
        End of the kernel block being written, and the rows complete in the maps of all its
        kernels, as of the last complete tile block; 0 again when the kernel block is complete
        (always 0 if ``restream``).
    layer_end : Out(1)
        The layer is completely written (with the step of ``layers_done``).
    finished : Out(1)
        The same for the last layer of a run.
    stats : Out(Event(LayerStats))
        With ``layer_end``: run cycle, segments written, 0, 0.
    """

    #: Cycles from a row to the first write.
    LATENCY = 2

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        lanes = config.tile_lanes
        self._bytes = data.ArrayLayout(data.ArrayLayout(8, 8), lanes)
        super().__init__({
            "start": In(1),
            "begin": In(1),
            "layer": In(Descriptor),
            "i": In(Event(data.StructLayout({"marks": RowMarks, "bytes": self._bytes}))),
            "reserve": In(1),
            "spare": Out(1),
            "write": Out(Event(FeatureWrite)),
            "run_cycle": In(32),
            "layer_end": Out(1),
            **PROGRESS,
        })

    def elaborate(self, platform) -> Module:
        """Build the lane chain, the positions and what is published."""
        m = Module()
        layer = self.layer
        m.submodules.walker = walker = TileWalker(config=self._config)
        m.d.comb += [
            walker.layer.eq(layer), walker.begin.eq(self.begin),
            walker.reserve.eq(self.reserve), self.spare.eq(walker.spare),
        ]

        # Lanes leave a chain from its end, so that no multiplexer is needed.
        waiting = Signal(range(self._config.tile_lanes + 1))
        chain = Signal(self._bytes, reset_less=True)
        marks = Signal(RowMarks)
        row_end = Signal()
        m.d.comb += row_end.eq(waiting == 1)
        with m.If(waiting != 0):
            m.d.sync += [waiting.eq(waiting - 1), chain.eq(chain.as_value()[64:])]
        with m.If(self.i.valid):
            m.d.sync += [
                waiting.eq(Mux(layer.dot, 1, self._config.tile_lanes)),
                chain.eq(self.i.payload.bytes),
                marks.eq(self.i.payload.marks),
            ]

        # Position of the current row in the maps, for tiles that start at an even or odd row.
        base = Signal(POSITION_BITS)
        kernel_step = Signal(POSITION_BITS)
        row_step = Signal(POSITION_BITS)
        m.d.comb += base.eq(layer.out_base << 4)
        m.d.sync += [
            kernel_step.eq(
                Mux(layer.out_vector, layer.out_map << layer.out_wide, layer.out_plane << 4)
            ),
            row_step.eq(
                Mux(
                    layer.out_vector,
                    layer.out_width << layer.out_wide,
                    Const(16, POSITION_BITS) << layer.out_row_log2,
                )
            ),
        ]
        remembered = Signal(POSITION_BITS)      # first kernel of the block
        kernel = Signal(POSITION_BITS)
        even = Signal(POSITION_BITS)
        odd = Signal(POSITION_BITS)
        row = Signal(4)
        next_kernel = Signal(POSITION_BITS)
        m.d.comb += next_kernel.eq(kernel + kernel_step)
        with m.If(row_end):
            m.d.sync += row.eq(row + 1)
            with m.If(layer.out_vector | row[0]):
                m.d.sync += even.eq(even + row_step)
            with m.Else():
                m.d.sync += odd.eq(odd + row_step)
            with m.If(marks.tile_last):
                origin = Mux(marks.tile.rewind, remembered, next_kernel)
                m.d.sync += [row.eq(0), kernel.eq(origin), even.eq(origin), odd.eq(origin)]
                with m.If(marks.tile.commit):
                    m.d.sync += remembered.eq(next_kernel)
        with m.If(self.begin):
            m.d.sync += [
                remembered.eq(base), kernel.eq(base), even.eq(base), odd.eq(base), row.eq(0),
            ]

        m.d.comb += [
            walker.rotate.eq((waiting != 0) & ~layer.dot),
            walker.advance.eq(row_end & marks.tile.advance),
        ]
        place = walker.o
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
            write.data.eq(chain[0]),
        ]

        # The write is seen one cycle from here, and in the memory one more later.
        s1_marks = Signal(TileMarks)
        s2_marks = Signal(TileMarks)
        s2_end = Signal()
        m.d.comb += s2_end.eq(s2_marks.layer_last)
        m.d.sync += [
            s1_marks.eq(Mux(row_end, marks.tile.as_value(), 0)),
            s2_marks.eq(s1_marks),
        ]
        segments = Signal(32)
        m.d.sync += [
            segments.eq(segments + self.write.valid),
            self.layer_end.eq(s2_end),
            self.finished.eq(s2_end & layer.last),
            self.stats.valid.eq(s2_end),
        ]
        with m.If(s2_marks.commit):
            m.d.sync += self.channels_done.eq(self.channels_done + 1)
        with m.If(s2_marks.advance & ~layer.restream):
            m.d.sync += self.rows_done.eq(walker.rows)
            with m.If(s2_marks.commit):
                m.d.sync += self.channels_open.eq(self.channels_open + self._config.kernel_lanes)
        with m.If(self.begin):
            m.d.sync += self.channels_open.eq(self._config.kernel_lanes)
        with m.If(s2_end):
            m.d.sync += [
                self.layers_done.eq(self.layers_done + 1),
                self.channels_done.eq(0), self.channels_open.eq(0), self.rows_done.eq(0),
                self.stats.payload.layer.eq(self.layers_done),
                self.stats.payload.counts[0].eq(self.run_cycle),
                self.stats.payload.counts[1].eq(segments),
                segments.eq(0),
            ]
        with m.If(self.start):
            m.d.sync += [
                self.layers_done.eq(0), self.channels_done.eq(0), self.channels_open.eq(0),
                self.rows_done.eq(0), segments.eq(0),
            ]
        return m
