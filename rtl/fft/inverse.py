"""Streaming 2-D inverse FFT of half-plane tiles: one, two, four or all eight rows per cycle."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from model.config import POST_SHIFT
from model.fft import INVERSE_BITS, SUM_BITS
from rtl.fft.complex8 import ColumnTransform
from rtl.fft.pipeline import DelayLine, register
from rtl.fft.real8 import InverseRow
from rtl.fft.transposer import Transposer, turn
from rtl.fixed import saturate
from rtl.signatures import Complex, Event

__all__ = ["InverseFFT", "InverseInput", "InverseOutput", "inverse_latency"]


def InverseInput(tag, rows: int = 1) -> data.StructLayout:  # noqa: N802
    """Words f = 4·rows·i and up in cycle i of a tile, or a bypassed value in ``words[0].re``."""
    return data.StructLayout({
        "words": data.ArrayLayout(Complex(SUM_BITS), 4 * rows), "bypass": 1, "tag": tag,
    })


def InverseOutput(tag, rows: int = 1) -> data.StructLayout:  # noqa: N802
    """Rows ``index``, ``index`` + 1 ... of a tile, one behind the other, in units of 1/64."""
    return data.StructLayout({
        "row": data.ArrayLayout(signed(INVERSE_BITS), 8 * rows), "index": 3, "tag": tag,
    })


def inverse_latency(rows: int) -> int:
    """``LATENCY`` of an `InverseFFT` that gives ``rows`` rows per cycle."""
    size, hold = turn(rows)
    return (
        hold + ColumnTransform.LATENCY + Transposer.cycles(size, hold) + InverseRow.LATENCY + 1
    )


class InverseFFT(wiring.Component):
    """Transform half-plane words into rows (`model.fft.inverse`, bit for bit).

    A column transform per column of a cycle (with one row it works every other cycle), a stream
    transposer and a row transform per row of a cycle.  No multiplier.  Growth is exact (25 bits)
    and saturated to 24 at the end, see `model.fft`.

    A tile is ``8 / rows`` consecutive valid cycles and gives its rows in as many: 8, 4, 2 or 1
    cycles a tile for 1, 2, 4 or 8 rows, with a `LATENCY` of 18, 14, 12 or 11.  A bypassed value
    is one cycle and comes out as value 7 of row 7, the last one of its transfer, shifted left by
    ``POST_SHIFT``.  Between a tile and a bypassed value `LATENCY` idle cycles are enough.

    Parameters
    ----------
    tag : ShapeCastable
        Shape of the tag; sampled in the first cycle of a tile, delivered with every row.
    rows : int
        Rows given per cycle: 1, 2, 4 or 8.

    Members
    -------
    i : :py:`In(Event(InverseInput(tag, rows)))`
        Words.
    o : :py:`Out(Event(InverseOutput(tag, rows)))`
        Rows, ``LATENCY`` cycles after the words of the same cycle of the tile.
    """

    #: With one row; an instance has its own.
    LATENCY = inverse_latency(1)

    def __init__(self, tag, rows: int = 1) -> None:
        self.LATENCY = inverse_latency(rows)
        self.tag = tag
        self.rows = rows
        super().__init__({
            "i": In(Event(InverseInput(tag, rows))), "o": Out(Event(InverseOutput(tag, rows))),
        })

    def elaborate(self, platform) -> Module:
        """Collect columns, transform them, turn them into rows, transform and saturate those."""
        m = Module()
        payload = self.i.payload
        size, hold = turn(self.rows)
        columns = 4 // size
        column_bits = SUM_BITS + 4  # see below; a row adds 3

        # What is where: element n of the lists is n cycles after the input.
        phase = Signal(range(size * hold))
        valid, bypass, phases = [self.i.valid], [self.i.valid & payload.bypass], [phase]
        with m.If(valid[0] & ~bypass[0]):
            m.d.sync += phase.eq(phase + 1)
        for n in range(1, self.LATENCY + 1):
            valid.append(Signal(name=f"s{n}_valid"))
            bypass.append(Signal(name=f"s{n}_bypass"))
            phases.append(Signal(len(phase), name=f"s{n}_phase"))
            m.d.sync += [
                valid[n].eq(valid[n - 1]), bypass[n].eq(bypass[n - 1]), phases[n].eq(phases[n - 1])
            ]

        # With one row both halves of a column meet in the second cycle.
        words = [(w.re, w.im) for w in payload.words]
        if hold == 2:
            words = [
                (register(m, re, f"s1_re{k}"), register(m, im, f"s1_im{k}"))
                for k, (re, im) in enumerate(words)
            ] + words
        transforms = []
        for j in range(columns):
            column = ColumnTransform(width=SUM_BITS + 1, inverse=True)
            m.submodules[f"column{j}"] = column
            transforms.append(column)
            z = words[8 * j:8 * j + 8]
            if j == 0:  # column 0 comes in the first transfer of a tile
                together = phases[0] == hold - 1 if size > 1 else Const(1)
                z = [
                    [Mux(together, a, b) for a, b in zip(*pair, strict=True)]
                    for pair in zip(self._combine(z), z, strict=True)
                ]
            for u in range(8):
                for part, value in zip(("re", "im"), z[u], strict=True):
                    m.d.comb += column.i[u][part].eq(
                        register(m, value, f"s{hold}_{part}{8 * j + u}", SUM_BITS + 1)
                    )

        # Every component fits SUM_BITS + 4: it is a sum of words with factors whose magnitudes
        # add up to 4 + 4*sqrt(2) at most.
        turn_at = hold + ColumnTransform.LATENCY
        bins = data.ArrayLayout(Complex(column_bits), columns)
        # 0 while there is nothing to turn: a register, as it reaches all words.
        before = turn_at - 1
        turn_phase = Signal(len(phase) - hold + 1)
        m.d.sync += turn_phase.eq(
            Mux(valid[before] & ~bypass[before], phases[before][hold - 1:], 0)
        )
        results = []
        for r in range(self.rows):
            m.submodules[f"transposer{r}"] = turned = Transposer(bins, size=size, hold=hold)
            m.submodules[f"row{r}"] = row = InverseRow(width=column_bits)
            results += list(row.o)
            for lane in range(size):
                for j, column in enumerate(transforms):
                    for part in ("re", "im"):
                        value = column.o[self.rows * lane + r][part]
                        if hold == 2:  # even rows go on at once, odd rows a cycle later
                            even, odd = column.o[2 * lane][part], column.o[2 * lane + 1][part]
                            later = register(m, odd, f"s{turn_at}_{part}{lane}", column_bits)
                            now = even[:column_bits].as_signed()
                            value = Mux(phases[turn_at][0], later, now)
                        m.d.comb += turned.i[lane][j][part].eq(value)
            m.d.comb += [
                turned.phase.eq(turn_phase),
                Value.cast(row.i).eq(Value.cast(turned.o)),
            ]

        last = self.LATENCY - 1
        m.submodules.bypassed = bypassed = DelayLine(signed(SUM_BITS), cycles=last)
        m.submodules.tags = tags = DelayLine(Shape(Shape.cast(self.tag).width), cycles=last)
        m.d.comb += [bypassed.i.eq(payload.words[0].re), tags.i.eq(Value.cast(payload.tag))]
        out = Signal(self.o.payload.shape(), reset_less=True)
        m.d.sync += [
            out.row[k].eq(saturate(value, INVERSE_BITS)) for k, value in enumerate(results)
        ]
        with m.If(bypass[last]):
            m.d.sync += [out.row[-1].eq(bypassed.o << POST_SHIFT), out.index.eq(8 - self.rows)]
        with m.Else():
            m.d.sync += out.index.eq(Cat(Const(0, self.rows.bit_length() - 1), phases[last]))
        with m.If(valid[last] & (bypass[last] | (phases[last] == 0))):
            m.d.sync += Value.cast(out.tag).eq(tags.o)
        m.d.comb += [self.o.valid.eq(valid[-1]), self.o.payload.eq(out)]
        return m

    @staticmethod
    def _combine(z):
        """Z(u) = A(u) + jB(u), Z(-u) = conj A(u) + j conj B(u), with A in words 0..3, B in 4..7."""
        packed = [(z[0][0], z[4][0])] * 8
        packed[4] = z[0][1], z[4][1]
        for u in (1, 2, 3):
            (a_re, a_im), (b_re, b_im) = z[u], z[u + 4]
            packed[u] = a_re - b_im, a_im + b_re
            packed[8 - u] = a_re + b_im, b_re - a_im
        return packed
