"""What `rtl.post` and `rtl.postrows` are made of: round and pool a row, requantise a value."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from model.config import POST_SHIFT, AcceleratorConfig
from rtl.fixed import round_shift, saturate
from rtl.signatures import Descriptor, StoreTag

__all__ = ["Requantiser", "RowPool", "TileRow", "TileRows", "delayed"]

#: One row of a tile as it leaves the inverse FFT.
TileRow = data.ArrayLayout(signed(24), 8)


def TileRows(config: AcceleratorConfig) -> data.StructLayout:  # noqa: N802
    """Row ``index`` of the tiles of all lanes, and the tag that they have in common."""
    return data.StructLayout({
        "rows": data.ArrayLayout(TileRow, config.tile_lanes), "index": 3, "tag": StoreTag,
    })


def delayed(m: Module, value, cycles: int, name: str):
    """``value``, ``cycles`` cycles later."""
    for stage in range(cycles):
        later = Signal.like(value, name=f"{name}_{stage}")
        m.d.sync += later.eq(value)
        value = later
    return value


class RowPool(wiring.Component):
    """Round and saturate a row; with ``pool``, the maximum with its neighbours and the row before.

    Parameters
    ----------
    width : int
        Bits of a result.

    Attributes
    ----------
    row : In(TileRow)
        One per cycle.
    pool : In(1)
        Constant while rows are under way. A pooled value takes the place of its even column, in
        the odd row.
    o : Out(8 x signed(width))
        The row, `LATENCY` cycles later.
    """

    #: Cycles from ``row`` to ``o``.
    LATENCY = 4

    def __init__(self, width: int) -> None:
        self._width = width
        super().__init__({
            "row": In(TileRow), "pool": In(1), "o": Out(data.ArrayLayout(signed(width), 8)),
        })

    def elaborate(self, platform) -> Module:
        """One register after each adder and comparison."""
        m = Module()
        values = data.ArrayLayout(signed(self._width), 8)
        s0_row = Signal(data.ArrayLayout(signed(25 - POST_SHIFT), 8), reset_less=True)
        s1_row = Signal(values, reset_less=True)
        s2_row = Signal(values, reset_less=True)
        s2_above = Signal(data.ArrayLayout(signed(self._width), 4), reset_less=True)
        s3_row = Signal(values, reset_less=True)
        m.d.comb += self.o.eq(s3_row)
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
            with m.If(self.pool & (right > left)):
                m.d.sync += s2_row[2 * pair].eq(right)
            with m.If(self.pool & (s2_above[pair] > s2_row[2 * pair])):
                m.d.sync += s3_row[2 * pair].eq(s2_above[pair])
        return m


class Requantiser(wiring.Component):
    """Bias, ReLU, multiply, shift, saturate; one 18x15 multiplier, a value per cycle.

    One register after each adder, product and level of the shifter.

    Parameters
    ----------
    width : int
        Bits of a value.

    Attributes
    ----------
    value : In(signed(width))
        The value.
    layer : In(Descriptor)
        Constant while values are under way.
    bias, multiplier : In(signed(18)), In(14)
        ``bias`` with the value, ``multiplier`` `MULTIPLIER_DELAY` cycles later.
    o : Out(signed(16))
        The result, `LATENCY` cycles after the value; 8 bits of it count unless ``out_wide``.
    """

    #: Cycles from ``value`` to its ``multiplier``.
    MULTIPLIER_DELAY = 2
    #: Cycles from ``value`` to ``o``.
    LATENCY = 7

    def __init__(self, width: int) -> None:
        self._width = width
        super().__init__({
            "value": In(signed(width)), "layer": In(Descriptor),
            "bias": In(signed(18)), "multiplier": In(14), "o": Out(signed(16)),
        })

    def elaborate(self, platform) -> Module:
        """Build the pipeline."""
        m = Module()
        layer = self.layer
        width = self._width
        s0_sum = Signal(signed(width + 1), reset_less=True)
        s1_value = Signal(signed(width), reset_less=True)
        s2_product = Signal(signed(width + 15), reset_less=True)
        # One bit more below the point, kept for the rounding.
        s3_coarse = Signal(signed(width + 16), reset_less=True)
        s4_fine = Signal(signed(width + 16), reset_less=True)
        s5_round = Signal(signed(width + 16), reset_less=True)
        s6_value = Signal(signed(16), reset_less=True)
        limited = saturate(s0_sum, width)
        m.d.sync += [
            s0_sum.eq(self.value + self.bias),
            s1_value.eq(Mux(layer.relu & s0_sum[-1], 0, limited)),
            s2_product.eq(s1_value * Cat(self.multiplier, Const(0, 1)).as_signed()),
            s3_coarse.eq(
                Cat(Const(0, 1), s2_product).as_signed()
                >> Cat(Const(0, 3), layer.requant_shift[3:])
            ),
            s4_fine.eq(s3_coarse >> layer.requant_shift[:3]),
            s5_round.eq((s4_fine + 1) >> 1),
            s6_value.eq(
                Mux(
                    layer.out_wide,
                    saturate(s5_round, 16),
                    Mux(layer.out_signed, saturate(s5_round, 8), saturate(s5_round, 8, False)),
                )
            ),
        ]
        m.d.comb += self.o.eq(s6_value)
        return m
