"""After the inverse FFT, with several feature banks: R rows of every lane per cycle.

Every lane requantises whole rows at once, so that nothing waits here: kernel after kernel, the
rows go to the queues of the feature banks in turn, and each bank's writer takes them from there at
its own pace.  The inverse FFT delivers the 8 rows of a kernel in 8/R cycles; a writer has 8·F/R
cycles for what is left of them.
"""

from __future__ import annotations

from itertools import product

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from model.config import AcceleratorConfig
from rtl.fft.pipeline import DelayLine
from rtl.requantise import Requantiser, RowPool, TileRows, delayed
from rtl.signatures import Descriptor, Event, RowMarks, SegmentRow
from rtl.sums import SEGMENT_ROWS
from rtl.walker import writing_lanes

__all__ = ["RowPost", "RowPostArray", "RowQueue"]


class RowPost(wiring.Component):
    """Datapath of one tile lane; R·V 18x15 multipliers.

    A dot product comes in the last column (of two rows: of the second one) with ``crop`` 7; a wide
    one leaves in two bytes.

    Parameters
    ----------
    config : AcceleratorConfig
        V values per row (``post_values``), R rows per cycle, width of a sum.

    Attributes
    ----------
    row : In(8·R x signed(24))
        R rows of a tile per cycle, one behind the other.
    layer : In(Descriptor)
        Constant while rows are under way.
    bias, multiplier : In(signed(18)), In(14)
        For the row of `BIAS_DELAY` and `MULTIPLIER_DELAY` cycles before.
    o : Out(R x V x 8)
        Bytes of the rows of `LATENCY` cycles before; with R = 2, a pooled row is the first.
    """

    #: Cycles from ``row`` to its ``bias``.
    BIAS_DELAY = RowPool.LATENCY + 1
    #: Cycles from ``row`` to its ``multiplier``.
    MULTIPLIER_DELAY = BIAS_DELAY + Requantiser.MULTIPLIER_DELAY
    #: Cycles from ``row`` to ``o``.
    LATENCY = BIAS_DELAY + Requantiser.LATENCY

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._width = config.sum_bits
        self._values = config.post_values
        self._rows = rows = config.inverse_rows
        super().__init__({
            "row": In(data.ArrayLayout(signed(24), 8 * rows)),
            "layer": In(Descriptor),
            "bias": In(signed(18)),
            "multiplier": In(14),
            "o": Out(data.ArrayLayout(data.ArrayLayout(8, self._values), rows)),
        })

    def elaborate(self, platform) -> Module:
        """Pool, take the columns from ``crop`` on (every other one if pooled), requantise."""
        m = Module()
        layer = self.layer
        m.submodules.pool = pool = RowPool(self._width, self._rows)
        m.d.comb += [pool.row.eq(self.row), pool.pool.eq(layer.pool)]
        for row, index in product(range(self._rows), range(self._values)):
            number = row * self._values + index
            m.submodules[f"value{number}"] = requantiser = Requantiser(self._width)
            value = Signal(signed(self._width), name=f"value{number}", reset_less=True)
            with m.Switch(layer.crop[:3]):
                for crop in range(8 - index):
                    with m.Case(crop):
                        column = pool.o[8 * row + crop + index]
                        if crop == 7:       # of two rows an odd crop is a dot product's
                            column = pool.o[-1]
                        if crop + 2 * index < 8 and row == 0:
                            column = Mux(layer.pool, pool.o[crop + 2 * index], column)
                        m.d.sync += value.eq(column)
            m.d.comb += [
                requantiser.value.eq(value), requantiser.layer.eq(layer),
                requantiser.bias.eq(self.bias), requantiser.multiplier.eq(self.multiplier),
                self.o[row][index].eq(requantiser.o[:8]),
            ]
            if number == 0:
                wide = requantiser.o[8:]
            elif number == 1:
                m.d.comb += self.o[0][1].eq(Mux(layer.out_wide, wide, requantiser.o[:8]))
        return m


class RowQueue(wiring.Component):
    """Rows, or pairs of them, on their way to the writer of a feature bank, in LUT RAM.

    Parameters
    ----------
    config : AcceleratorConfig
        P' tile lanes, V values of a row, R rows per cycle.

    Attributes
    ----------
    i : In(Event(SegmentRow(config)))
        One per cycle; `SumReader` keeps the queue from overflowing.
    dot : In(1)
        The rows are dot products.
    lanes : In(range(1, P' + 1))
        Lanes of a row: P', of dot products the images.
    o : Out(Event(SegmentRow(config)))
        Every ``lanes`` cycles at most; rows that are no dot products every second one at most.
    spare, reserve : In(1), Out(1)
        The last row of a tile block waits for ``spare`` and answers with ``reserve``.
    credit : Out(1)
        An entry has left the queue.
    """

    #: Cycles from ``i`` to ``o`` if the queue is empty.
    LATENCY = 2

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__({
            "i": In(Event(SegmentRow(config))),
            "dot": In(1), "lanes": In(range(1, config.tile_lanes + 1)),
            "o": Out(Event(SegmentRow(config))),
            "spare": In(1),
            "reserve": Out(1),
            "credit": Out(1),
        })

    def elaborate(self, platform) -> Module:
        """Build the queue; whether a row may leave is found while the one before is written."""
        m = Module()
        lanes = self._config.tile_lanes
        # A dot layer is one tile block, which is never left: no dot product has ``advance``.
        m.submodules.queue = queue = Memory(
            shape=SegmentRow(self._config), depth=SEGMENT_ROWS, init=[]
        )
        write, read = queue.write_port(), queue.read_port(domain="comb")
        level = Signal(range(SEGMENT_ROWS + 1))
        pause = Signal(range(lanes))        # cycles until the writer can take a row
        may_leave = Signal()
        take = Signal()
        advance = read.data.marks.tile.advance
        m.d.comb += [
            write.en.eq(self.i.valid), write.data.eq(self.i.payload),
            take.eq(may_leave & (pause == 0)),
            self.o.valid.eq(take), self.o.payload.eq(read.data),
            self.credit.eq(take), self.reserve.eq(take & advance),
        ]
        m.d.sync += [
            write.addr.eq(write.addr + self.i.valid),
            read.addr.eq(read.addr + take),
            level.eq(level + self.i.valid - take),
            may_leave.eq(Mux(
                self.dot, level > take, ~take & (level != 0) & (self.spare | ~advance)
            )),
            pause.eq(Mux(take, self.lanes - 1, pause - (pause != 0))),
        ]
        return m


class RowPostArray(wiring.Component):
    """Row posts of all tile lanes, and the queues of all feature banks.

    Parameters
    ----------
    config : AcceleratorConfig
        P' tile lanes, F feature banks, V values of a row, R rows per cycle.

    Attributes
    ----------
    i : In(Event(TileRows(config)))
        Rows of the tiles of all lanes; those of a tile in consecutive cycles. The tiles of a layer,
        a multiple of F, belong to the banks in turn; dot products to the first.
    layer : In(Descriptor)
        Constant while rows are under way; ``out_step`` is V at most. With R = 2, ``crop`` and
        ``step`` are even but of a dot layer, so that the two rows of a cycle share their fate.
    credit, spare, reserve : Out(F), In(F), Out(F)
        See `RowQueue`.
    o : Out(Event(SegmentRow(config))).array(F)
        Rows for the writer of each bank.
    """

    #: Cycles from a row to the same row for the writer, if nothing is queued.
    LATENCY = RowPost.LATENCY + RowQueue.LATENCY

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        banks = config.feature_banks
        super().__init__({
            "i": In(Event(TileRows(config))),
            "layer": In(Descriptor),
            "credit": Out(banks),
            "spare": In(banks),
            "reserve": Out(banks),
            "o": Out(Event(SegmentRow(config))).array(banks),
        })

    def elaborate(self, platform) -> Module:
        """Build the lanes, what goes along with their rows, and the queues."""
        m = Module()
        layer = self.layer
        banks, rows = self._config.feature_banks, self._config.inverse_rows
        row, tag = self.i.payload, self.i.payload.tag

        rows_end = Signal(4)
        valid, tile_last = Signal(), Signal()
        m.d.sync += rows_end.eq(layer.crop + layer.step)
        m.d.comb += [
            tile_last.eq(row.index + rows == rows_end),
            valid.eq(
                self.i.valid & (row.index + rows > layer.crop) & (row.index < rows_end)
                & (~layer.pool | row.index[0] | (rows > 1))
            ),
        ]
        m.submodules.bias = bias = DelayLine(signed(18), cycles=RowPost.BIAS_DELAY)
        m.submodules.multiplier = multiplier = DelayLine(14, cycles=RowPost.MULTIPLIER_DELAY)
        m.submodules.marks = marks = DelayLine(RowMarks, cycles=RowPost.LATENCY)
        m.d.comb += [
            bias.i.eq(tag.bias), multiplier.i.eq(tag.multiplier),
            marks.i.tile_last.eq(tile_last), marks.i.base.eq(tag.base),
            marks.i.tile.eq(Mux(tile_last, tag.marks.as_value(), 0)),
        ]

        done = Signal(SegmentRow(self._config))
        m.d.comb += done.marks.eq(marks.o)
        if rows > 1:
            m.d.comb += done.pair.eq(~layer.pool & ~layer.dot)
        results = [done.bytes] if rows == 1 else [done.bytes, done.below]
        for lane in range(self._config.tile_lanes):
            m.submodules[f"lane{lane}"] = post = RowPost(config=self._config)
            m.d.comb += [
                post.row.eq(row.rows[lane]), post.layer.eq(layer),
                post.bias.eq(bias.o), post.multiplier.eq(multiplier.o),
                *(result[lane].eq(found) for result, found in zip(
                    results, post.o, strict=True)),
            ]

        done_valid = delayed(m, valid, RowPost.LATENCY, "valid")
        bank = Signal(exact_log2(banks))
        with m.If(done_valid & done.marks.tile_last & ~layer.dot):
            m.d.sync += bank.eq(bank + 1)
        for index in range(banks):
            m.submodules[f"queue{index}"] = queue = RowQueue(config=self._config)
            m.d.comb += [
                queue.i.valid.eq(done_valid & (bank == index)), queue.i.payload.eq(done),
                queue.dot.eq(layer.dot), queue.lanes.eq(writing_lanes(self._config, layer)),
                queue.spare.eq(self.spare[index]),
                self.reserve[index].eq(queue.reserve), self.credit[index].eq(queue.credit),
                self.o[index].valid.eq(queue.o.valid),
                self.o[index].payload.eq(queue.o.payload),
            ]
        return m
