"""Pooling of finished maps: windows of any place, also across output tiles (`model.mappool`).

When the store stage has written a layer's map, this unit reads it from the feature memory and
writes the pooled one elsewhere, all feature banks at the same time, before the next layer begins.
The memory's ports are free then, so nothing else of the core knows of it, and no window is ever
spread over two units: why it is done so, and what it costs, is in docs/architecture.md.

A sum of two maps (`model.mapadd`) takes the place of the written one: windows of one pixel, read in
both maps, six at a time.

A read takes two map rows of eight columns. Maxima of up to 3×3 with a stride of up to 3 go down a
strip of eight columns, which holds 6, 3 or 2 windows side by side; with 3×3/2 each read, the first
of a strip apart, ends a row of windows. Everything else takes window by window, two rows of eight
columns a cycle. One multiplier per bank, for averages.

Nothing waits here: from a read to its write lie `MapPool.LATENCY` cycles.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from model.config import ROW_BITS, AcceleratorConfig
from model.descriptor import POOL_ADD, POOL_AVERAGE
from model.mapadd import MAP_SHIFT, SUM_SHIFT
from model.rates import STRIP
from rtl.feature import FeatureMemory
from rtl.fetch import COORDINATE
from rtl.fixed import round_shift, saturate
from rtl.requantise import delayed
from rtl.signatures import POSITION_BITS, Descriptor, Event, FeatureReadSignature, FeatureWrite

__all__ = ["MapPool"]

#: What never wins a maximum.
LOWEST = -256


class State(enum.Enum, shape=2):
    """What the unit does: wait for a map, prepare, walk over it, let it flow out."""

    IDLE = 0
    SETUP = 1
    RUN = 2
    DRAIN = 3


#: What goes with a read: which pixels count (``rows`` and ``columns`` inside map and window,
#: ``swap``: the upper row is an odd one), ``load``: a window begins, ``emit``: it ends; where its
#: result goes; ``other``: the pixels are those of the map that is added.
_Tag = data.StructLayout({
    "rows": 2, "columns": 8, "swap": 1, "load": 1, "emit": 1, "other": 1,
    "addr": ROW_BITS, "parity": 1, "offset": 3, "count": 4,
})


class MapPool(wiring.Component):
    """Pooling of finished maps, and additions to them.

    Parameters
    ----------
    config : AcceleratorConfig
        F feature banks, N' kernel lanes.

    Attributes
    ----------
    layer : In(Descriptor)
        Constant from ``start`` until ``done``.
    start : In(1)
        Level: the map may be read. To be taken back in the cycle after ``done``.
    busy : Out(1)
        The ports are in use.
    done : Out(1)
        Pulse: the pooled map is written; a read issued now sees it.
    read : Out(FeatureReadSignature()).array(F)
        Of the feature memory, outputs registered.
    write : Out(Event(FeatureWrite)).array(F)
        To the feature memory.
    """

    #: Cycles from a step to its read.
    READ_DELAY = 4
    #: Cycles from a step to its write.
    LATENCY = READ_DELAY + FeatureMemory.LATENCY + 9

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        banks = config.feature_banks
        super().__init__({
            "layer": In(Descriptor), "start": In(1), "busy": Out(1), "done": Out(1),
            "read": Out(FeatureReadSignature()).array(banks),
            "write": Out(Event(FeatureWrite)).array(banks),
        })

    def elaborate(self, platform) -> Module:
        """Build the walk, the addresses, and the reduction of each bank."""
        m = Module()
        config, layer = self._config, self.layer
        state, pause = Signal(State), Signal(range(self.LATENCY + FeatureMemory.WRITE_LATENCY + 1))

        # Constants of the layer.
        several, chain, wide, adds = Signal(), Signal(), Signal(), Signal()
        advance, windows = Signal(3), Signal(3)
        plane = Signal(ROW_BITS)
        channels = Signal(13)
        per_block = config.kernel_lanes // config.feature_banks
        m.d.sync += [
            several.eq((layer.pool_op != POOL_AVERAGE) & (layer.pool_size <= 3)
                       & (layer.pool_stride <= 3)),
            chain.eq(several & (layer.pool_size == 3) & (layer.pool_stride == 2)),
            adds.eq(layer.pool_op == POOL_ADD),
            wide.eq((layer.pool_size > 8) | adds),
            advance.eq(Mux(several, STRIP, layer.pool_stride)),
            windows.eq(Mux(~several, 1, Mux(
                layer.pool_stride == 1, STRIP, Mux(layer.pool_stride == 2, STRIP // 2, STRIP // 3)
            ))),
            plane.eq(Mux(adds, layer.out_plane, (
                ((layer.pool_height + 1) >> 1) << layer.pool_row_log2
            )[:ROW_BITS])),
            channels.eq(((layer.kernel_blocks - 1) << exact_log2(per_block))
                        + (layer.lanes_last >> exact_log2(config.feature_banks))),
        ]

        # s0: the walk: channel, strip, row of windows, eighth column, row pair.
        x, y = Signal(COORDINATE), Signal(COORDINATE)
        column, row = Signal(10), Signal(10)            # of the pooled map
        piece, below = Signal(), Signal(4)              # eighth column and row of the window
        prime = Signal()                                # a strip's first read, in a chain
        left = Signal(13)
        source, target, other = Signal(ROW_BITS), Signal(ROW_BITS), Signal(ROW_BITS)
        channel_at, strip_at, row_at = (
            Signal(POSITION_BITS, name=f"{name}_at") for name in ("channel", "strip", "row")
        )
        pair_last, piece_last, emit = Signal(), Signal(), Signal()
        running = state == State.RUN
        rows_left, columns_left = Signal(signed(12)), Signal(signed(12))
        m.d.comb += [
            pair_last.eq(chain | (below + 2 >= layer.pool_size)),
            piece_last.eq(~wide | piece),
            emit.eq(running & pair_last & piece_last & ~(chain & prime)),
            rows_left.eq(layer.pool_height - 1 - row),
            columns_left.eq(layer.pool_width - column),
            self.busy.eq(state != State.IDLE),
        ]
        following_channel = channel_at + layer.out_map
        with m.Switch(state):
            with m.Case(State.IDLE):
                m.d.sync += pause.eq(0)
                with m.If(self.start & ~self.done):
                    m.d.sync += state.eq(State.SETUP)
            with m.Case(State.SETUP):
                at = layer.pool_base << 4
                m.d.sync += [
                    x.eq(-layer.pool_pad), y.eq(-layer.pool_pad), column.eq(0), row.eq(0),
                    piece.eq(0), below.eq(0), prime.eq(1), left.eq(channels - 1),
                    source.eq(layer.out_base),
                    target.eq(Mux(adds, layer.out_base, layer.pool_base)),
                    other.eq(layer.pool_base),
                    channel_at.eq(at), strip_at.eq(at), row_at.eq(at),
                    state.eq(State.RUN),
                ]
            with m.Case(State.RUN):
                with m.If(~pair_last):
                    m.d.sync += below.eq(below + 2)
                with m.Elif(~piece_last):
                    m.d.sync += [below.eq(0), piece.eq(1)]
                with m.Else():
                    m.d.sync += [
                        below.eq(0), piece.eq(0), prime.eq(0), y.eq(y + layer.pool_stride),
                    ]
                with m.If(emit):
                    m.d.sync += [row.eq(row + 1), row_at.eq(row_at + layer.pool_width)]
                    with m.If(rows_left == 0):
                        m.d.sync += [
                            y.eq(-layer.pool_pad), row.eq(0), prime.eq(1),
                            x.eq(x + advance), column.eq(column + windows),
                            strip_at.eq(strip_at + windows), row_at.eq(strip_at + windows),
                        ]
                        with m.If(columns_left <= windows):
                            m.d.sync += [
                                x.eq(-layer.pool_pad), column.eq(0), left.eq(left - 1),
                                source.eq(source + layer.out_plane), target.eq(target + plane),
                                other.eq(other + layer.out_plane),
                                channel_at.eq(following_channel), strip_at.eq(following_channel),
                                row_at.eq(following_channel),
                            ]
                            with m.If(left == 0):
                                m.d.sync += state.eq(State.DRAIN)
            with m.Case(State.DRAIN):
                m.d.sync += pause.eq(pause + 1)
                with m.If(pause == self.LATENCY + FeatureMemory.WRITE_LATENCY):
                    m.d.sync += [state.eq(State.IDLE), self.done.eq(1)]
        with m.If(self.done):
            m.d.sync += self.done.eq(0)

        # s1: coordinates of the read; row of the target.
        s1_y, s1_x = Signal(COORDINATE, reset_less=True), Signal(COORDINATE, reset_less=True)
        s1_source = Signal(ROW_BITS, reset_less=True)
        s1_inside = Signal(data.StructLayout({"rows": 2, "columns": 8}), reset_less=True)
        s1_row = Signal(ROW_BITS, reset_less=True)
        s1_at = Signal(POSITION_BITS, reset_less=True)
        s1_tag = Signal(_Tag)
        m.d.sync += [
            s1_y.eq(y + below), s1_x.eq(Mux(adds, x, x + (piece << 3))),
            s1_source.eq(Mux(adds & piece, other, source)),
            s1_inside.rows.eq(Cat(running, running & (chain | (below + 1 < layer.pool_size)))),
            s1_inside.columns.eq(Cat(
                several | ((piece << 3) + index < layer.pool_size) for index in range(8)
            )),
            s1_row.eq(target + ((row >> 1) << layer.pool_row_log2)), s1_at.eq(row_at),
            s1_tag.load.eq((below == 0) & ~piece), s1_tag.emit.eq(emit),
            s1_tag.other.eq(adds & piece),
            s1_tag.parity.eq(row[0]), s1_tag.offset.eq(column[:3]), s1_tag.addr.eq(column >> 3),
            s1_tag.count.eq(Mux(columns_left < windows, columns_left, windows)),
        ]

        # s2: which pixels count; row and column of the memory; place of the result.
        s2_even, s2_odd = Signal(COORDINATE, reset_less=True), Signal(COORDINATE, reset_less=True)
        s2_column, s2_offset = Signal(ROW_BITS, reset_less=True), Signal(3, reset_less=True)
        s2_tag = Signal(_Tag)
        m.d.sync += [
            s2_even.eq((s1_y + 1) >> 1), s2_odd.eq(s1_y >> 1),
            s2_column.eq(s1_source + (s1_x >> 3)), s2_offset.eq(s1_x[:3]),
            s2_tag.eq(s1_tag),
            s2_tag.rows.eq(s1_inside.rows & Cat(
                (s1_y >= -index) & (s1_y < layer.out_height - index) for index in range(2)
            )),
            s2_tag.columns.eq(s1_inside.columns & Cat(
                (s1_x >= -index) & (s1_x < layer.out_width - index) for index in range(8)
            )),
            s2_tag.swap.eq(s1_y[0]), s2_tag.addr.eq(s1_row + s1_tag.addr),
        ]
        if config.feature_banks == 1:
            with m.If(layer.pool_vector):
                m.d.sync += [
                    s2_tag.addr.eq(s1_at >> 4), s2_tag.parity.eq(s1_at[3]),
                    s2_tag.offset.eq(s1_at[:3]),
                ]

        # s3 and s4: addresses.
        s3_even, s3_odd = Signal(ROW_BITS, reset_less=True), Signal(ROW_BITS, reset_less=True)
        s3_column, s3_offset = Signal(ROW_BITS, reset_less=True), Signal(3, reset_less=True)
        s3_tag, s4_tag = Signal(_Tag), Signal(_Tag)
        m.d.sync += [
            s3_even.eq(s2_even << layer.out_row_log2), s3_odd.eq(s2_odd << layer.out_row_log2),
            s3_column.eq(s2_column), s3_offset.eq(s2_offset), s3_tag.eq(s2_tag),
            s4_tag.eq(s3_tag),
        ]
        for read in self.read:
            m.d.sync += [
                read.en.eq(s3_tag.rows.any()), read.offset.eq(s3_offset),
                read.even_addr.eq(s3_even + s3_column),
                read.even_next.eq(s3_even + s3_column + 1),
                read.odd_addr.eq(s3_odd + s3_column), read.odd_next.eq(s3_odd + s3_column + 1),
            ]

        tag = s4_tag
        for stage in range(FeatureMemory.LATENCY):
            later = Signal(_Tag, name=f"read{stage}_tag")
            m.d.sync += later.eq(tag)
            tag = later
        for bank in range(config.feature_banks):
            self._reduce(m, bank, tag, chain, several, adds)
        return m

    def _reduce(self, m: Module, bank: int, tag, chain, several, adds) -> None:
        """From the pixels of a bank to its write, nine cycles later."""
        layer, read = self.layer, self.read[bank]
        average = layer.pool_op == POOL_AVERAGE
        sums = average | adds
        # Of a sum: the other map's sign, whether it passes a ReLU.
        other_signed, relu = layer.pool_multiplier[0], layer.pool_multiplier[1]

        def merged(a, b):
            return Mux(sums, a + b, Mux(a > b, a, b))

        def stage(width, count, name):
            return Signal(data.ArrayLayout(signed(width), count), name=f"bank{bank}_{name}",
                          reset_less=True)

        # a: the pixels that count; b: both rows; c: the window's columns so far.
        a_rows = [stage(15, 8, "a_upper"), stage(9, 8, "a_lower")]
        is_signed = Mux(tag.other, other_signed, layer.out_signed)
        shift = Mux(adds, Mux(tag.other, layer.pool_shift[:3], MAP_SHIFT), 0)
        for index, (first, second) in enumerate(((read.even, read.odd), (read.odd, read.even))):
            for column in range(8):
                pixel = Mux(tag.swap, second[column], first[column])
                value = Cat(pixel, pixel[7] & is_signed).as_signed()
                if index == 0:      # a sum takes upper rows only
                    value = value << shift
                m.d.sync += a_rows[index][column].eq(Mux(
                    tag.rows[index] & tag.columns[column], value, Mux(sums, 0, LOWEST)
                ))
        b_pair, b_upper, c_held, c_now = (
            stage(15, 8, "b_pair"), stage(9, 8, "b_upper"), stage(16, 8, "c_held"),
            stage(16, 8, "c_now"),
        )
        load = delayed(m, tag.load, 2, f"bank{bank}_load")
        for column in range(8):
            pair = b_pair[column]
            ending = Mux(chain, b_upper[column], pair)
            m.d.sync += [
                pair.eq(merged(a_rows[0][column], a_rows[1][column])),
                b_upper[column].eq(a_rows[0][column]),
                c_now[column].eq(Mux(
                    load & ~chain, pair, merged(c_held[column], ending)
                )),
                c_held[column].eq(Mux(load, pair, merged(c_held[column], pair))),
            ]
        # d: neighbours; e: three of them, or fours; f: the windows, or all eight.
        d_two, d_one = stage(16, 7, "d_two"), stage(16, 8, "d_one")
        e_near, e_four = stage(16, 6, "e_near"), stage(16, 2, "e_four")
        f_value = stage(17, STRIP, "f_value")
        m.d.sync += [
            d_one.eq(c_now),
            *(d_two[i].eq(merged(c_now[i], c_now[i + 1])) for i in range(7)),
            *(e_near[i].eq(Mux(layer.pool_size == 3, merged(d_two[i], d_one[i + 2]),
                               Mux(layer.pool_size == 2, d_two[i], d_one[i])))
              for i in range(6)),
            *(e_four[i].eq(merged(d_two[4 * i], d_two[4 * i + 2])) for i in range(2)),
        ]
        for index in range(STRIP):
            # Windows lie a stride apart.
            value = e_near[index]
            if 2 * index < STRIP:
                value = Mux(layer.pool_stride == 2, e_near[2 * index], value)
            if 3 * index < STRIP:
                value = Mux(layer.pool_stride == 3, e_near[3 * index], value)
            if index == 0:
                value = Mux(several, value, merged(e_four[0], e_four[1]))
            m.d.sync += f_value[index].eq(value)
        # g: product; h: shift, one bit more kept for the rounding; i: the bytes.
        g_product = Signal(signed(17 + 13), name=f"bank{bank}_product", reset_less=True)
        h_rounded = Signal(signed(17), name=f"bank{bank}_rounded", reset_less=True)
        # A maximum, or a sum: rounded in g, passing the ReLU and saturated in h.
        g_value, h_value = stage(15, STRIP, "g_value"), stage(9, STRIP, "h_value")
        multiplier = Cat(layer.pool_multiplier, 0).as_signed()
        m.d.sync += [
            g_product.eq(f_value[0] * multiplier),
            h_rounded.eq(((g_product >> (layer.pool_shift - 1)[:5]) + 1) >> 1),
            *(g_value[i].eq(Mux(adds, round_shift(f_value[i], SUM_SHIFT), f_value[i]))
              for i in range(STRIP)),
            *(h_value[i].eq(Mux(
                adds, Mux(relu, saturate(g_value[i], 8, False), saturate(g_value[i], 8)),
                g_value[i],
            )) for i in range(STRIP)),
        ]
        limited = Mux(layer.out_signed, saturate(h_rounded, 8), saturate(h_rounded, 8, False))
        write = self.write[bank]
        late = tag
        for step in range(8):
            after = Signal(_Tag, name=f"bank{bank}_late{step}_tag")
            m.d.sync += after.eq(late)
            late = after
        m.d.sync += [
            write.valid.eq(late.emit), write.payload.addr.eq(late.addr),
            write.payload.parity.eq(late.parity), write.payload.offset.eq(late.offset),
            write.payload.count.eq(late.count), write.payload.vector.eq(layer.pool_vector),
            *(write.payload.data[i].eq(h_value[i][:8]) for i in range(1, STRIP)),
            write.payload.data[0].eq(Mux(average, limited[:8], h_value[0][:8])),
        ]
