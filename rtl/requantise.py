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
    """Rows ``index`` and up (R) of the tiles of all lanes, and the tag that they have in common."""
    rows = data.ArrayLayout(signed(24), 8 * config.inverse_rows)
    return data.StructLayout({
        "rows": data.ArrayLayout(rows, config.tile_lanes), "index": 3, "tag": StoreTag,
    })


def delayed(m: Module, value, cycles: int, name: str):
    """``value``, ``cycles`` cycles later."""
    for stage in range(cycles):
        later = Signal.like(value, name=f"{name}_{stage}")
        m.d.sync += later.eq(value)
        value = later
    return value


class RowPool(wiring.Component):
    """Round and saturate rows; with ``pool``, the maximum of neighbours in two rows.

    Parameters
    ----------
    width : int
        Bits of a result.
    rows : int
        Rows per cycle: 1, or 2, of which the first has an even index.

    Attributes
    ----------
    row : In(8·rows x signed(24))
        ``rows`` rows per cycle, one behind the other.
    pool : In(1)
        Constant while rows are under way. A pooled value takes the place of its even column, in
        the odd row; of two rows per cycle, in the first.
    o : Out(8·rows x signed(width))
        The rows, `LATENCY` cycles later.
    """

    #: Cycles from ``row`` to ``o``.
    LATENCY = 4

    def __init__(self, width: int, rows: int = 1) -> None:
        if rows not in (1, 2):
            raise ValueError(f"rows must be 1 or 2, not {rows!r}")
        self._width, self._rows = width, rows
        super().__init__({
            "row": In(data.ArrayLayout(signed(24), 8 * rows)), "pool": In(1),
            "o": Out(data.ArrayLayout(signed(width), 8 * rows)),
        })

    def elaborate(self, platform) -> Module:
        """One register after each adder and comparison."""
        m = Module()
        count = 8 * self._rows
        values = data.ArrayLayout(signed(self._width), count)
        s0_row = Signal(data.ArrayLayout(signed(25 - POST_SHIFT), count), reset_less=True)
        s1_row = Signal(values, reset_less=True)
        s2_row = Signal(values, reset_less=True)
        s3_row = Signal(values, reset_less=True)
        m.d.comb += self.o.eq(s3_row)
        for column in range(count):
            m.d.sync += [
                s0_row[column].eq(round_shift(self.row[column], POST_SHIFT)),
                s1_row[column].eq(saturate(s0_row[column], self._width)),
                s2_row[column].eq(s1_row[column]),
                s3_row[column].eq(s2_row[column]),
            ]
        for left in range(0, count, 2):
            with m.If(self.pool & (s1_row[left + 1] > s1_row[left])):
                m.d.sync += s2_row[left].eq(s1_row[left + 1])
        for left in range(0, 8, 2):
            if self._rows == 1:
                other = Signal(signed(self._width), name=f"s2_above{left}", reset_less=True)
                m.d.sync += other.eq(s2_row[left])
            else:
                other = s2_row[8 + left]
            with m.If(self.pool & (other > s2_row[left])):
                m.d.sync += s3_row[left].eq(other)
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
        s5_round = Signal(16, reset_less=True)
        s5_within = Signal(3, reset_less=True)      # but for a carry: 16 bits, 8 signed, 8 unsigned
        s5_below = Signal(reset_less=True)
        s5_limit = Signal(16, reset_less=True)
        s6_value = Signal(signed(16), reset_less=True)
        limited = saturate(s0_sum, width)

        # What the bits above the result are is found beside the rounding: it can only carry into
        # them, which shows in the bit above the largest result. The least one needs no carry.
        def upper(bits):
            return s4_fine[bits + 1:]

        wide, signed8 = layer.out_wide, layer.out_signed & ~layer.out_wide
        within = Cat(
            wide & (upper(15) == 0), signed8 & (upper(7) == 0),
            ~wide & ~layer.out_signed & (upper(8) == 0),
        )
        below = Mux(wide, upper(15).all(), signed8 & upper(7).all())
        negative = s4_fine[-1]
        limit = Cat(
            (~negative).replicate(7), negative ^ ~signed8,
            Mux(wide, ~negative, signed8 & negative).replicate(7),
            (wide | signed8) & negative,
        )
        carried = Cat(s5_round[15], s5_round[7], s5_round[8])
        m.d.sync += [
            s0_sum.eq(self.value + self.bias),
            s1_value.eq(Mux(layer.relu & s0_sum[-1], 0, limited)),
            s2_product.eq(s1_value * Cat(self.multiplier, Const(0, 1)).as_signed()),
            s3_coarse.eq(
                Cat(Const(0, 1), s2_product).as_signed()
                >> Cat(Const(0, 3), layer.requant_shift[3:])
            ),
            s4_fine.eq(s3_coarse >> layer.requant_shift[:3]),
            s5_round.eq((s4_fine[:17] + 1) >> 1),
            s5_within.eq(within), s5_below.eq(below), s5_limit.eq(limit),
            s6_value.eq(Mux(s5_below | (s5_within & ~carried).any(), s5_round, s5_limit)),
        ]
        m.d.comb += self.o.eq(s6_value)
        return m
