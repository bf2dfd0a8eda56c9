"""After the inverse FFT: round, pool, bias, ReLU, requantise, one value per lane and cycle.

With several feature banks `rtl.postrows` takes this place.

All tile lanes are in lock-step, so `PostArray` steers the datapaths (`Post`) of all lanes with one
set of pointers.  A row of a tile waits in a queue; from there the lanes take one value per cycle.
The max pool comes before bias, ReLU and requantisation: these are monotone, so the order does
not matter, and three quarters of the values need no multiplication.
"""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from rtl.fft.pipeline import DelayLine
from rtl.queue import Level
from rtl.requantise import Requantiser, RowPool, TileRow, TileRows, delayed
from rtl.signatures import Descriptor, Event, RowMarks, SegmentRow
from rtl.sums import SEGMENT_ROWS
from rtl.walker import writing_lanes

__all__ = ["Post", "PostArray", "PostSteering"]

#: Steering of all lanes. ``w_*``: store the row that came in `Post.STORE_DELAY` cycles before;
#: ``r_*``: the value to take; ``bias``, ``multiplier``, ``collect``/``position``: for the value
#: taken 1, 3, and `Post.COLLECT_DELAY` cycles before.
PostSteering = data.StructLayout({
    "w_en": 1, "w_addr": range(SEGMENT_ROWS), "r_addr": range(SEGMENT_ROWS), "r_column": 3,
    "bias": signed(18), "multiplier": 14, "collect": 1, "position": 3,
})


class Post(wiring.Component):
    """Datapath of one tile lane; one 18x15 multiplier.

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
    STORE_DELAY = RowPool.LATENCY
    #: Cycles from ``r_column`` to the requantised value.
    COLLECT_DELAY = 1 + Requantiser.LATENCY

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._width = config.sum_bits
        super().__init__({
            "row": In(TileRow),
            "layer": In(Descriptor),
            "steering": In(PostSteering),
            "o": Out(8 * 8),
        })

    def elaborate(self, platform) -> Module:
        """Build the row pipeline, the queue, the value pipeline and the bytes."""
        m = Module()
        layer, steering = self.layer, self.steering
        m.submodules.pool = pool = RowPool(self._width)
        m.submodules.queue = queue = Memory(shape=pool.o.shape(), depth=SEGMENT_ROWS, init=[])
        m.submodules.requantiser = requantiser = Requantiser(self._width)
        write, read = queue.write_port(), queue.read_port(domain="comb")
        value = Signal(signed(self._width), reset_less=True)
        m.d.sync += value.eq(read.data[steering.r_column])
        m.d.comb += [
            pool.row.eq(self.row), pool.pool.eq(layer.pool),
            write.en.eq(steering.w_en), write.addr.eq(steering.w_addr), write.data.eq(pool.o),
            read.addr.eq(steering.r_addr),
            requantiser.value.eq(value), requantiser.layer.eq(layer),
            requantiser.bias.eq(steering.bias), requantiser.multiplier.eq(steering.multiplier),
        ]
        result = requantiser.o
        position = steering.position
        for byte in range(8):
            here = Mux(layer.out_wide, position == byte // 2, position == byte)
            bits = Mux(layer.out_wide, result[8:], result[:8]) if byte % 2 else result[:8]
            with m.If(steering.collect & here):
                m.d.sync += self.o.word_select(byte, 8).eq(bits)
        return m


class PostArray(wiring.Component):
    """Post of all tile lanes and their common control.

    A row leaves the queue in ``max(out_step, lanes)`` cycles (lanes: `rtl.walker.writing_lanes`):
    the writer needs one cycle per lane, so it never has to wait and never has to be waited for.
    `SumReader` keeps the queue from overflowing.

    Parameters
    ----------
    config : AcceleratorConfig
        P' tile lanes.

    Attributes
    ----------
    i : In(Event(TileRows(config)))
        Rows of the tiles of all lanes; those of a tile in consecutive cycles.
    layer : In(Descriptor)
        Constant while rows are under way.
    credit : Out(1)
        A row has left the queue.
    spare : In(1)
        The writer knows where the next tiles go; the last row of a block waits for it.
    reserve : Out(1)
        That row has started.
    o : Out(Event(SegmentRow(config))).array(1)
        A segment of every lane.
    """

    #: Cycles from a row to its first bytes if nothing is queued, for rows of one value.
    LATENCY = Post.STORE_DELAY + 1 + Post.COLLECT_DELAY + 1

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__({
            "i": In(Event(TileRows(config))),
            "layer": In(Descriptor),
            "credit": Out(1),
            "spare": In(1),
            "reserve": Out(1),
            "o": Out(Event(SegmentRow(config))).array(1),
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
        # The beats before the last ones, of what takes more than one.
        value_before, beat_before = Signal(4), Signal(4)
        one_beat, one_value = Signal(), Signal()
        lanes_last = Signal(4)
        m.d.sync += [
            rows_end.eq(layer.crop + layer.step),
            value_last.eq(layer.out_step - 1),
            lanes_last.eq(writing_lanes(self._config, layer) - 1),
            beat_last.eq(Mux(value_last > lanes_last, value_last, lanes_last)),
            value_before.eq(value_last - 1), beat_before.eq(beat_last - 1),
            one_beat.eq(beat_last == 0),
            one_value.eq(value_last == 0),
        ]

        # The control part of a row is stored at once, its values STORE_DELAY cycles later.
        head_shape = data.StructLayout({"bias": signed(18), "multiplier": 14, "marks": RowMarks})
        m.submodules.queue = queue = Memory(shape=head_shape, depth=SEGMENT_ROWS, init=[])
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
            write.data.marks.base.eq(tag.base),
        ]
        m.d.comb += [
            write.addr.eq(tag_addr),
            steering.w_en.eq(delayed(m, write.en, Post.STORE_DELAY, "store")),
            steering.w_addr.eq(w_addr),
            steering.r_addr.eq(r_addr),
            steering.r_column.eq(r_column),
        ]
        with m.If(write.en):
            m.d.sync += tag_addr.eq(tag_addr + 1)
        with m.If(steering.w_en):
            m.d.sync += w_addr.eq(w_addr + 1)

        # The control part of the row to be taken waits in a register. It was stored so much before
        # the values that it is there when they are.
        head = Signal(head_shape, reset_less=True)
        head_full, fetch = Signal(), Signal()
        next_addr = Signal(range(SEGMENT_ROWS))     # of the row after it
        row_end = Signal()
        m.d.comb += [
            read.addr.eq(next_addr),
            fetch.eq((row_end | ~head_full) & (next_addr != tag_addr)),
        ]
        m.d.sync += head_full.eq(fetch | (head_full & ~row_end))
        with m.If(fetch):
            m.d.sync += next_addr.eq(next_addr + 1)
        with m.If(row_end | ~head_full):
            m.d.sync += head.eq(read.data)

        # Taking a row: `beat` counts its cycles, the first values_last+1 of them take a value.
        m.submodules.level = level = Level(depth=SEGMENT_ROWS)
        beat = Signal(4)
        begun = Signal()            # ... nor `beat`
        at_last, at_value, values_left = Signal(), Signal(), Signal()
        taking = Signal()
        advance = head.marks.tile.advance
        going_on = taking & ~row_end
        m.d.comb += [
            taking.eq(begun | (level.some & (self.spare | ~advance))),
            row_end.eq(taking & at_last),
            self.reserve.eq(taking & ~begun & advance),
            self.credit.eq(row_end),
            level.write.eq(steering.w_en), level.read.eq(row_end),
        ]
        m.d.sync += [
            begun.eq(going_on),
            beat.eq(Mux(going_on, beat + 1, 0)),
            at_last.eq(Mux(going_on, beat == beat_before, one_beat)),
            at_value.eq(Mux(going_on, beat == value_before, one_value)),
            values_left.eq(~going_on | (beat < value_last)),
            r_column.eq(Mux(going_on, r_column + 1 + layer.pool, layer.crop)),
        ]
        with m.If(row_end):
            m.d.sync += r_addr.eq(r_addr + 1)

        m.submodules.marks = marks = DelayLine(RowMarks, cycles=Post.COLLECT_DELAY + 1)
        output = self.o[0]
        m.d.comb += [
            steering.bias.eq(delayed(m, head.bias, 1, "bias")),
            steering.multiplier.eq(
                delayed(m, head.multiplier, 1 + Requantiser.MULTIPLIER_DELAY, "multiplier")
            ),
            steering.position.eq(delayed(m, beat[:3], Post.COLLECT_DELAY, "position")),
            steering.collect.eq(
                delayed(m, taking & values_left, Post.COLLECT_DELAY, "collect")
            ),
            marks.i.eq(head.marks),
            output.payload.marks.eq(marks.o),
            output.valid.eq(
                delayed(m, taking & at_value, Post.COLLECT_DELAY + 1, "last")
            ),
        ]
        for lane in range(self._config.tile_lanes):
            m.submodules[f"lane{lane}"] = post = Post(config=self._config)
            m.d.comb += [
                post.row.eq(row.rows[lane]),
                post.layer.eq(layer),
                post.steering.eq(steering),
                output.payload.bytes[lane].eq(post.o),
            ]
        return m
