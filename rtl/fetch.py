"""Row pair of a tile: from its map coordinates to its pixels, zero outside the map.

A pipeline without waiting: `LATENCY` cycles, one row pair of every bank per cycle. Addresses need
no multiplier, because the row stride is a power of two. The banks read the same rows, each
`SKEW` cycles after the one before it, so the address is computed once and then delayed.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from model.config import ROW_BITS, AcceleratorConfig
from rtl.signatures import Descriptor, Event, FeatureReadSignature, RowPair, TileTag

__all__ = ["COORDINATE", "SKEW", "Fetch"]

#: Map coordinate of a pixel, negative in the padding.
COORDINATE = signed(12)
#: Cycles by which a bank is behind the bank before it: those of a tile.
SKEW = 4


class Fetch(wiring.Component):
    """Pipeline of a row pair of every bank, from its coordinates to its pixels.

    Parameters
    ----------
    config : AcceleratorConfig
        Uses ``feature_banks``, and ``tile_lanes`` and ``tile_depth`` (widths of the tag).

    Attributes
    ----------
    go : In(1)
        A row pair starts, with the values below.
    desc : In(Descriptor)
        Of the layer; held for 3 cycles more. Uses ``in_signed``, ``in_row_log2``, ``in_height``,
        ``in_width`` and, with one bank, ``dot``.
    y, x : In(COORDINATE)
        Upper left pixel of the pair (not used by a dot layer).
    base : In(ROW_BITS)
        Row of the memory where the channel begins; the row to read in a dot layer.
    present : In(1)
        The tile exists; else the pair is zero.
    last_bank : In(range(max(2, feature_banks)))
        Banks beyond this one have no channel: they take no part.
    tag : In(TileTag(config))
        Goes with the pair. With several banks, ``channel_low`` and ``addr`` are those of bank 0,
        and ``block_last`` is left to ``last_bank``.
    feature : Out(FeatureReadSignature()).array(feature_banks)
        Read ports of the feature memory; not enabled for pairs that lie outside the map.
    o : Out(Event(RowPair(config))).array(feature_banks)
        The pair, zero outside the map.
    """

    #: Cycles from ``go`` to ``o[0]``; bank e follows ``SKEW * e`` cycles later.
    LATENCY = 7

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        self._tag = TileTag(config)
        banks = config.feature_banks
        super().__init__({
            "go": In(1), "desc": In(Descriptor), "y": In(COORDINATE), "x": In(COORDINATE),
            "base": In(ROW_BITS), "present": In(1), "last_bank": In(range(max(2, banks))),
            "tag": In(self._tag),
            "feature": Out(FeatureReadSignature()).array(banks),
            "o": Out(Event(RowPair(config))).array(banks),
        })

    def elaborate(self, platform) -> Module:
        """Build the stages: s1 coordinates, s2 and s3 rows and masks, then each bank's."""
        m = Module()
        desc = self.desc
        dot = desc.dot if len(self.o) == 1 else Const(0, 1)     # else `rtl.flatten` reads

        s1_y, s1_x = Signal(COORDINATE, reset_less=True), Signal(COORDINATE, reset_less=True)
        s1_base, s1_present = Signal(ROW_BITS, reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            s1_y.eq(self.y), s1_x.eq(self.x), s1_base.eq(self.base), s1_present.eq(self.present),
        ]

        # The first row of the pair lies in the memory of its parity, the other one in the other
        # memory: of an odd and an even row, the even one is the second and one row of its memory
        # on.
        s2_y, s2_x = Signal(COORDINATE, reset_less=True), Signal(COORDINATE, reset_less=True)
        s2_even, s2_odd = Signal(COORDINATE, reset_less=True), Signal(COORDINATE, reset_less=True)
        s2_below = Signal(signed(13), reset_less=True)
        s2_right = Signal(signed(13), reset_less=True)
        s2_column, s2_present = Signal(ROW_BITS, reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            s2_y.eq(s1_y), s2_x.eq(s1_x), s2_present.eq(s1_present),
            s2_even.eq(Mux(dot, 0, (s1_y + 1) >> 1)),
            s2_odd.eq(Mux(dot, 0, s1_y >> 1)),
            s2_column.eq(s1_base + Mux(dot, 0, s1_x >> 3)),
            s2_below.eq(desc.in_height - s1_y),     # rows from here to the lower edge
            s2_right.eq(desc.in_width - s1_x),
        ]

        s3 = Signal(data.StructLayout({
            "even": ROW_BITS, "odd": ROW_BITS, "column": ROW_BITS, "offset": 3,
            "rows": 2, "columns": 8, "swap": 1, "signed": 1,
        }), reset_less=True)
        rows_inside = Cat(
            _at_least(s2_y, -i) & _at_least(s2_below, i + 1) & s2_present for i in range(2)
        )
        columns_inside = Cat(
            _at_least(s2_x, -i) & _at_least(s2_right, i + 1) for i in range(8)
        )
        m.d.sync += [
            s3.even.eq(s2_even << desc.in_row_log2), s3.odd.eq(s2_odd << desc.in_row_log2),
            s3.column.eq(s2_column), s3.offset.eq(Mux(dot, 0, s2_x[:3])),
            s3.rows.eq(rows_inside | dot.replicate(2)),
            s3.columns.eq(columns_inside | dot.replicate(8)),
            s3.swap.eq(~dot & s2_y[0]),
            s3.signed.eq(desc.in_signed),
        ]

        follows = data.StructLayout({"tag": self._tag, "last_bank": range(max(2, len(self.o)))})
        valid, late = self.go, Signal(follows)
        m.d.comb += [late.tag.eq(self.tag), late.last_bank.eq(self.last_bank)]
        for stage in range(1, 4):
            valid, late = _register(m, f"s{stage}", valid, late)
        # s4: the address; with several banks it waits for them here.
        command = Signal(data.StructLayout({
            "even_addr": ROW_BITS, "odd_addr": ROW_BITS, "offset": 3,
            "rows": 2, "columns": 8, "swap": 1, "signed": 1, "late": follows,
        }))
        m.d.comb += [
            command.even_addr.eq(s3.even + s3.column), command.odd_addr.eq(s3.odd + s3.column),
            *(command[name].eq(s3[name])
              for name in ("offset", "rows", "columns", "swap", "signed")),
            command.late.eq(late),
        ]
        for bank in range(len(self.o)):
            self._bank(m, bank, valid, command)
            for step in range(SKEW if bank + 1 < len(self.o) else 0):
                valid, command = _register(m, f"wait{bank}_{step}", valid, command)
        return m

    def _bank(self, m: Module, bank: int, valid, command) -> None:
        """From the command of a bank (s3) to its pixels (s7)."""
        feature, o = self.feature[bank], self.o[bank]
        tag = Signal(self._tag, name=f"bank{bank}_tag")
        takes_part = valid
        m.d.comb += tag.eq(command.late.tag)
        if len(self.o) > 1:
            last_bank = command.late.last_bank
            takes_part = valid & (bank <= last_bank)
            m.d.comb += [
                tag.channel_low.eq(bank % 8),
                tag.addr.eq(command.late.tag.addr + bank // 8 * self._config.words),
                tag.block_last.eq(command.late.tag.block_last & (bank == last_bank)),
            ]
        m.d.sync += [
            feature.en.eq(takes_part & command.rows.any()),
            feature.even_addr.eq(command.even_addr), feature.even_next.eq(command.even_addr + 1),
            feature.odd_addr.eq(command.odd_addr), feature.odd_next.eq(command.odd_addr + 1),
            feature.offset.eq(command.offset),
        ]
        masks = Signal(data.StructLayout({
            "rows": 2, "columns": 8, "swap": 1, "signed": 1, "tag": self._tag,
        }), name=f"bank{bank}_masks")
        m.d.comb += [
            *(masks[name].eq(command[name]) for name in ("rows", "columns", "swap", "signed")),
            masks.tag.eq(tag),
        ]
        for stage in range(4, 7):
            takes_part, masks = _register(m, f"bank{bank}_s{stage}", takes_part, masks)
        s7_valid = Signal(name=f"bank{bank}_s7_valid")
        s7_tag = Signal(self._tag, reset_less=True, name=f"bank{bank}_s7_tag")
        m.d.sync += [s7_valid.eq(takes_part), s7_tag.eq(masks.tag)]
        m.d.comb += [o.valid.eq(s7_valid), o.payload.tag.eq(s7_tag)]
        for row in range(2):
            memories = (feature.even, feature.odd) if row == 0 else (feature.odd, feature.even)
            for column in range(8):
                pixel = Mux(masks.swap, memories[1][column], memories[0][column])
                s7_pixel = Signal(
                    signed(9), name=f"bank{bank}_s7_pixel{row}{column}", reset_less=True
                )
                m.d.sync += s7_pixel.eq(Mux(
                    masks.rows[row] & masks.columns[column],
                    Cat(pixel, pixel[7] & masks.signed).as_signed(),
                    0,
                ))
                m.d.comb += o.payload.rows[row][column].eq(s7_pixel)


def _at_least(value, least: int):
    """Compare a signed value with one from -7 to 8, by what all such comparisons share."""
    low, high, negative = value[:3], value[3:-1], value[-1]
    if least > 0:
        return ~negative & (high.any() | (low >= least if least < 8 else 0))
    return ~negative | (high.all() & (low >= 8 + least if least < 0 else 0))


def _register(m: Module, name: str, valid, payload):
    """Delay an event by a cycle."""
    late_valid = Signal(name=f"{name}_valid")
    late = Signal(payload.shape(), reset_less=True, name=f"{name}_payload")
    m.d.sync += [late_valid.eq(valid), late.eq(payload)]
    return late_valid, late
