"""After the inverse FFT: round, pool, bias, ReLU, requantise.

All tile lanes are in lock-step, so `PostArray` steers the datapaths (`Post`) of all lanes with one
set of pointers.  A row of a tile waits in a queue; from there the lanes take one value per cycle.
The max pool comes before bias, ReLU and requantisation: these are monotone, so the order does
not matter, and three quarters of the values need no multiplication.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from model.config import POST_SHIFT, AcceleratorConfig
from rtl.fixed import round_shift, saturate
from rtl.signatures import Descriptor, Event, RowMarks, StoreTag
from rtl.sums import SEGMENT_ROWS

__all__ = ["Post", "PostArray", "PostSteering", "TileRow"]

#: One row of a tile as it leaves the inverse FFT.
TileRow = data.ArrayLayout(signed(24), 8)

#: Steering of all lanes. ``w_*``: store the row that came in `Post.STORE_DELAY` cycles before;
#: ``r_*``: the value to take; ``bias``, ``multiplier``, ``collect``/``position``: for the value
#: taken 1, 3, and `Post.COLLECT_DELAY` cycles before.
PostSteering = data.StructLayout({
    "w_en": 1, "w_addr": range(SEGMENT_ROWS), "r_addr": range(SEGMENT_ROWS), "r_column": 3,
    "bias": signed(18), "multiplier": 14, "collect": 1, "position": 3,
})


class Post(wiring.Component):
    """Datapath of one tile lane; one 18x15 multiplier.

    One register after each adder, comparison, product and level of the shifter.

    Parameters
    ----------
    config : AcceleratorConfig
        Width of a sum.

    Attributes
    ----------
    row : In(8 x signed(24))
        Row of a tile, one per cycle.
    layer : In(Descriptor)
        Constant while rows are under way.
    steering : In(PostSteering)
        See there.
    o : Out(64)
        Bytes of a segment from byte 0 on; complete one cycle after the last ``collect`` and
        until the next.
    """

    #: Cycles from ``row`` to the queue's write port.
    STORE_DELAY = 4
    #: Cycles from ``r_column`` to the requantised value.
    COLLECT_DELAY = 8

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._width = config.sum_bits
        super().__init__({
            "row": In(TileRow),
            "layer": In(Descriptor),
            "steering": In(PostSteering),
            "o": Out(8 * 8),
        })

    def elaborate(self, platform) -> Module:
        """Build the row pipeline, the queue and the value pipeline."""
        m = Module()
        self._rows(m)
        self._values(m)
        return m

    def _rows(self, m: Module) -> None:
        """Round, saturate and pool; a pooled value takes the place of its even column."""
        values = data.ArrayLayout(signed(self._width), 8)
        s0_row = Signal(data.ArrayLayout(signed(25 - POST_SHIFT), 8), reset_less=True)
        s1_row = Signal(values, reset_less=True)
        s2_row = Signal(values, reset_less=True)
        s2_above = Signal(data.ArrayLayout(signed(self._width), 4), reset_less=True)
        s3_row = Signal(values, reset_less=True)
        for column in range(8):
            m.d.sync += [
                s0_row[column].eq(round_shift(self.row[column], POST_SHIFT)),
                s1_row[column].eq(saturate(s0_row[column], self._width)),
                s2_row[column].eq(s1_row[column]),
                s3_row[column].eq(s2_row[column]),
            ]
        for pair in range(4):
            left, right = s1_row[2 * pair], s1_row[2 * pair + 1]
            m.d.sync += s2_above[pair].eq(s2_row[2 * pair])
            with m.If(self.layer.pool & (right > left)):
                m.d.sync += s2_row[2 * pair].eq(right)
            with m.If(self.layer.pool & (s2_above[pair] > s2_row[2 * pair])):
                m.d.sync += s3_row[2 * pair].eq(s2_above[pair])

        m.submodules.queue = queue = Memory(shape=values, depth=SEGMENT_ROWS, init=[])
        write, read = queue.write_port(), queue.read_port(domain="comb")
        self._value = Signal(signed(self._width), name="s4_value", reset_less=True)
        m.d.comb += [
            write.en.eq(self.steering.w_en),
            write.addr.eq(self.steering.w_addr),
            write.data.eq(s3_row),
            read.addr.eq(self.steering.r_addr),
        ]
        m.d.sync += self._value.eq(read.data[self.steering.r_column])

    def _values(self, m: Module) -> None:
        """Bias, ReLU, multiply, shift, saturate, collect bytes."""
        layer = self.layer
        width = self._width
        s5_sum = Signal(signed(width + 1), reset_less=True)
        s6_value = Signal(signed(width), reset_less=True)
        s7_product = Signal(signed(width + 15), reset_less=True)
        # One bit more below the point, kept for the rounding.
        s8_coarse = Signal(signed(width + 16), reset_less=True)
        s9_fine = Signal(signed(width + 16), reset_less=True)
        s10_round = Signal(signed(width + 16), reset_less=True)
        s11_value = Signal(signed(16), reset_less=True)
        limited = saturate(s5_sum, width)
        m.d.sync += [
            s5_sum.eq(self._value + self.steering.bias),
            s6_value.eq(Mux(layer.relu & s5_sum[-1], 0, limited)),
            s7_product.eq(s6_value * Cat(self.steering.multiplier, Const(0, 1)).as_signed()),
            s8_coarse.eq(
                Cat(Const(0, 1), s7_product).as_signed()
                >> Cat(Const(0, 3), layer.requant_shift[3:])
            ),
            s9_fine.eq(s8_coarse >> layer.requant_shift[:3]),
            s10_round.eq((s9_fine + 1) >> 1),
            s11_value.eq(
                Mux(
                    layer.out_wide,
                    saturate(s10_round, 16),
                    Mux(layer.out_signed, saturate(s10_round, 8), saturate(s10_round, 8, False)),
                )
            ),
        ]
        position = self.steering.position
        for byte in range(8):
            here = Mux(layer.out_wide, position == byte // 2, position == byte)
            value = s11_value[:8]
            if byte % 2:
                value = Mux(layer.out_wide, s11_value[8:], value)
            with m.If(self.steering.collect & here):
                m.d.sync += self.o.word_select(byte, 8).eq(value)


def _delayed(m: Module, value, cycles: int, name: str):
    """``value``, ``cycles`` cycles later."""
    for stage in range(cycles):
        later = Signal.like(value, name=f"{name}_{stage}")
        m.d.sync += later.eq(value)
        value = later
    return value


class PostArray(wiring.Component):
    """Post of all tile lanes and their common control.

    A row leaves the queue in ``max(out_step, lanes)`` cycles (lanes: 1 for dot products): the
    writer needs one cycle per lane, so it never has to wait and never has to be waited for.
    `SumReader` keeps the queue from overflowing.

    Parameters
    ----------
    config : AcceleratorConfig
        P' tile lanes.

    Attributes
    ----------
    i : In(Event({rows, index, tag}))
        Row ``index`` of the tiles of all lanes; the rows of a tile in consecutive cycles.
    layer : In(Descriptor)
        Constant while rows are under way.
    credit : Out(1)
        A row has left the queue.
    spare : In(1)
        The writer knows where the next tiles go; the last row of a block waits for it.
    reserve : Out(1)
        That row has started.
    o : Out(Event({marks, bytes}))
        A segment of every lane.
    """

    #: Cycles from a row to its first bytes if nothing is queued, for rows of one value.
    LATENCY = Post.STORE_DELAY + 1 + Post.COLLECT_DELAY + 1

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        lanes = config.tile_lanes
        super().__init__({
            "i": In(Event(data.StructLayout({
                "rows": data.ArrayLayout(TileRow, lanes), "index": 3, "tag": StoreTag,
            }))),
            "layer": In(Descriptor),
            "credit": Out(1),
            "spare": In(1),
            "reserve": Out(1),
            "o": Out(Event(data.StructLayout({
                "marks": RowMarks, "bytes": data.ArrayLayout(data.ArrayLayout(8, 8), lanes),
            }))),
        })

    def elaborate(self, platform) -> Module:
        """Build the queue control, the steering pipeline and the lanes."""
        m = Module()
        layer = self.layer
        steering = Signal(PostSteering)
        tag_addr = Signal(range(SEGMENT_ROWS))
        w_addr = Signal(range(SEGMENT_ROWS))
        r_addr = Signal(range(SEGMENT_ROWS))
        r_column = Signal(3)

        # Constants of the layer.
        rows_end = Signal(4)
        value_last = Signal(4)
        beat_last = Signal(4)
        lanes = Mux(layer.dot, 1, self._config.tile_lanes)
        m.d.sync += [
            rows_end.eq(layer.crop + layer.step),
            value_last.eq(layer.out_step - 1),
            beat_last.eq(Mux(layer.out_step > lanes, layer.out_step, lanes) - 1),
        ]

        # The control part of a row is stored at once, its values STORE_DELAY cycles later.
        head = data.StructLayout({"bias": signed(18), "multiplier": 14, "marks": RowMarks})
        m.submodules.queue = queue = Memory(shape=head, depth=SEGMENT_ROWS, init=[])
        write, read = queue.write_port(), queue.read_port(domain="comb")
        row, tag = self.i.payload, self.i.payload.tag
        tile_last = row.index + 1 == rows_end
        m.d.comb += [
            write.en.eq(
                self.i.valid & (row.index >= layer.crop) & (row.index < rows_end)
                & (~layer.pool | row.index[0])
            ),
            write.data.bias.eq(tag.bias),
            write.data.multiplier.eq(tag.multiplier),
            write.data.marks.tile_last.eq(tile_last),
            write.data.marks.tile.eq(Mux(tile_last, tag.marks.as_value(), 0)),
        ]
        m.d.comb += [
            write.addr.eq(tag_addr),
            steering.w_en.eq(_delayed(m, write.en, Post.STORE_DELAY, "store")),
            steering.w_addr.eq(w_addr),
            steering.r_addr.eq(r_addr),
            steering.r_column.eq(r_column),
        ]
        m.d.sync += [
            tag_addr.eq(tag_addr + write.en),
            w_addr.eq(w_addr + steering.w_en),
        ]

        # Taking a row: `beat` counts its cycles, the first values_last+1 of them take a value.
        level = Signal(range(SEGMENT_ROWS + 1))
        beat = Signal(4)
        taking = Signal()
        row_end = Signal()
        advance = read.data.marks.tile.advance
        m.d.comb += [
            read.addr.eq(r_addr),
            taking.eq((beat != 0) | ((level != 0) & (self.spare | ~advance))),
            row_end.eq(taking & (beat == beat_last)),
            self.reserve.eq(taking & (beat == 0) & advance),
            self.credit.eq(row_end),
        ]
        m.d.sync += [
            level.eq(level + steering.w_en - row_end),
            r_addr.eq(r_addr + row_end),
            beat.eq(Mux(row_end, 0, beat + taking)),
            r_column.eq(Mux(taking & ~row_end, r_column + 1 + layer.pool, layer.crop)),
        ]

        m.d.comb += [
            steering.bias.eq(_delayed(m, read.data.bias, 1, "bias")),
            steering.multiplier.eq(_delayed(m, read.data.multiplier, 3, "multiplier")),
            steering.position.eq(_delayed(m, beat[:3], Post.COLLECT_DELAY, "position")),
            steering.collect.eq(
                _delayed(m, taking & (beat <= value_last), Post.COLLECT_DELAY, "collect")
            ),
            self.o.valid.eq(
                _delayed(m, taking & (beat == value_last), Post.COLLECT_DELAY + 1, "last")
            ),
            self.o.payload.marks.eq(
                _delayed(m, read.data.marks, Post.COLLECT_DELAY + 1, "marks")
            ),
        ]
        for lane in range(self._config.tile_lanes):
            m.submodules[f"lane{lane}"] = post = Post(config=self._config)
            m.d.comb += [
                post.row.eq(row.rows[lane]),
                post.layer.eq(layer),
                post.steering.eq(steering),
                self.o.payload.bytes[lane].eq(post.o),
            ]
        return m
