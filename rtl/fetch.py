"""Row pair of a tile: from its map coordinates to its pixels, zero outside the map.

A pipeline without waiting: `LATENCY` cycles, one row pair per cycle. Addresses need no multiplier,
because the row stride is a power of two.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from rtl.signatures import Descriptor, Event, FeatureReadSignature, RowPair, TileTag

__all__ = ["COORDINATE", "Fetch"]

#: Map coordinate of a pixel, negative in the padding.
COORDINATE = signed(12)


class Fetch(wiring.Component):
    """Pipeline of a row pair, from its coordinates to its pixels.

    Parameters
    ----------
    config : AcceleratorConfig
        Uses ``tile_lanes`` and ``tile_depth`` (widths of the tag).

    Attributes
    ----------
    go : In(1)
        A row pair starts, with the values below.
    desc : In(Descriptor)
        Of the layer; held for `LATENCY` cycles more. Uses ``dot``, ``in_signed``, ``in_row_log2``,
        ``in_height``, ``in_width``.
    y, x : In(COORDINATE)
        Upper left pixel of the pair (not used by a dot layer).
    base : In(16)
        Row of the memory where the channel begins; the row to read in a dot layer.
    present : In(1)
        The tile exists; else the pair is zero.
    tag : In(TileTag(config))
        Goes with the pair.
    feature : Out(FeatureReadSignature())
        Read port of the feature memory; not enabled for pairs that lie outside the map.
    o : Out(Event(RowPair(config)))
        The pair, zero outside the map.
    """

    #: Cycles from ``go`` to ``o``.
    LATENCY = 7

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._tag = TileTag(config)
        super().__init__({
            "go": In(1), "desc": In(Descriptor), "y": In(COORDINATE), "x": In(COORDINATE),
            "base": In(16), "present": In(1), "tag": In(self._tag),
            "feature": Out(FeatureReadSignature()),
            "o": Out(Event(RowPair(config))),
        })

    def elaborate(self, platform) -> Module:
        """Build the stages: s1 coordinates, s2 and s3 rows and masks, s4 address, s7 pixels."""
        m = Module()
        desc, feature = self.desc, self.feature

        s1_y, s1_x = Signal(COORDINATE, reset_less=True), Signal(COORDINATE, reset_less=True)
        s1_base, s1_present = Signal(16, reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            s1_y.eq(self.y), s1_x.eq(self.x), s1_base.eq(self.base), s1_present.eq(self.present),
        ]

        # The first row of the pair lies in the bank of its parity, the other one in the other
        # bank: of an odd and an even row, the even one is the second and one row of its bank on.
        s2_y, s2_x = Signal(COORDINATE, reset_less=True), Signal(COORDINATE, reset_less=True)
        s2_even, s2_odd = Signal(COORDINATE, reset_less=True), Signal(COORDINATE, reset_less=True)
        s2_below = Signal(signed(13), reset_less=True)
        s2_right = Signal(signed(13), reset_less=True)
        s2_column, s2_present = Signal(16, reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            s2_y.eq(s1_y), s2_x.eq(s1_x), s2_present.eq(s1_present),
            s2_even.eq(Mux(desc.dot, 0, (s1_y + 1) >> 1)),
            s2_odd.eq(Mux(desc.dot, 0, s1_y >> 1)),
            s2_column.eq(s1_base + Mux(desc.dot, 0, s1_x >> 3)),
            s2_below.eq(desc.in_height - s1_y),     # rows from here to the lower edge
            s2_right.eq(desc.in_width - s1_x),
        ]

        s3_even, s3_odd = Signal(16, reset_less=True), Signal(16, reset_less=True)
        s3_column, s3_offset = Signal(16, reset_less=True), Signal(3, reset_less=True)
        s3_rows, s3_columns = Signal(2, reset_less=True), Signal(8, reset_less=True)
        s3_swap = Signal(reset_less=True)
        rows_inside = Cat(
            (s2_y >= -i) & (s2_below > i) & s2_present for i in range(2)
        )
        columns_inside = Cat((s2_x >= -i) & (s2_right > i) for i in range(8))
        m.d.sync += [
            s3_even.eq(s2_even << desc.in_row_log2), s3_odd.eq(s2_odd << desc.in_row_log2),
            s3_column.eq(s2_column), s3_offset.eq(Mux(desc.dot, 0, s2_x[:3])),
            s3_rows.eq(rows_inside | desc.dot.replicate(2)),
            s3_columns.eq(columns_inside | desc.dot.replicate(8)),
            s3_swap.eq(~desc.dot & s2_y[0]),
        ]

        valid, tag = [self.go], [self.tag]
        for stage in range(1, 8):
            valid.append(Signal(name=f"s{stage}_valid"))
            tag.append(Signal(self._tag, name=f"s{stage}_tag", reset_less=True))
            m.d.sync += [valid[stage].eq(valid[stage - 1]), tag[stage].eq(tag[stage - 1])]
        m.d.sync += [
            feature.en.eq(valid[3] & s3_rows.any()),
            feature.even_addr.eq(s3_even + s3_column),
            feature.odd_addr.eq(s3_odd + s3_column),
            feature.offset.eq(s3_offset),
        ]

        masks = Cat(s3_rows, s3_columns, s3_swap)
        for stage in range(4, 7):
            delayed = Signal(len(masks), name=f"s{stage}_masks", reset_less=True)
            m.d.sync += delayed.eq(masks)
            masks = delayed
        rows, columns, swap = masks[:2], masks[2:10], masks[10]

        m.d.comb += [
            self.o.valid.eq(valid[7]),
            self.o.payload.tag.eq(tag[7]),
        ]
        for row in range(2):
            banks = (feature.even, feature.odd) if row == 0 else (feature.odd, feature.even)
            for column in range(8):
                pixel = Mux(swap, banks[1][column], banks[0][column])
                s7_pixel = Signal(signed(9), name=f"s7_pixel{row}{column}", reset_less=True)
                m.d.sync += s7_pixel.eq(Mux(
                    rows[row] & columns[column],
                    Cat(pixel, pixel[7] & desc.in_signed).as_signed(),
                    0,
                ))
                m.d.comb += self.o.payload.rows[row][column].eq(s7_pixel)
        return m
