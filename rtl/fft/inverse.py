"""Streaming 2-D inverse FFT of half-plane tiles: four words in, one row out, per cycle."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from model.config import POST_SHIFT
from model.fft import INVERSE_BITS, SUM_BITS
from rtl.fft.complex8 import ColumnTransform
from rtl.fft.pipeline import DelayLine, register
from rtl.fft.real8 import InverseRow
from rtl.fft.transposer import Transposer
from rtl.fixed import saturate
from rtl.signatures import Complex, Event

__all__ = ["InverseFFT", "InverseInput", "InverseOutput"]


def InverseInput(tag) -> data.StructLayout:  # noqa: N802
    """Words f = 4i..4i+3 in cycle i of a tile, or a bypassed value in ``words[0].re``."""
    return data.StructLayout({
        "words": data.ArrayLayout(Complex(SUM_BITS), 4), "bypass": 1, "tag": tag,
    })


def InverseOutput(tag) -> data.StructLayout:  # noqa: N802
    """Row ``index`` of a tile, in units of 1/64."""
    return data.StructLayout({
        "row": data.ArrayLayout(signed(INVERSE_BITS), 8), "index": 3, "tag": tag,
    })


class InverseFFT(wiring.Component):
    """Transform half-plane words into rows (`model.fft.inverse`, bit for bit).

    A column transform, used every other cycle, a stream transposer and a row transform.  No
    multiplier.  Growth is exact (25 bits) and saturated to 24 at the end, see `model.fft`.

    A tile is 8 consecutive valid cycles and gives 8 consecutive rows, 8 cycles a tile.  A bypassed
    value is one cycle and comes out as value 7 of row 7, shifted left by
    ``POST_SHIFT``.  Between a tile and a
    bypassed value `LATENCY` idle cycles are enough.

    Parameters
    ----------
    tag : ShapeCastable
        Shape of the tag; sampled in the first cycle of a tile, delivered with every row.

    Members
    -------
    i : :py:`In(Event(InverseInput(tag)))`
        Words.
    o : :py:`Out(Event(InverseOutput(tag)))`
        Rows, ``LATENCY`` cycles after the words of the same cycle of the tile.
    """

    LATENCY = 2 + ColumnTransform.LATENCY + 6 + InverseRow.LATENCY + 1

    def __init__(self, tag) -> None:
        self.tag = tag
        super().__init__({
            "i": In(Event(InverseInput(tag))), "o": Out(Event(InverseOutput(tag))),
        })

    def elaborate(self, platform) -> Module:
        """Collect a column, transform it, turn it into rows, transform and saturate those."""
        m = Module()
        payload = self.i.payload
        column_bits = SUM_BITS + 4  # see below; a row adds 3

        # What is where: element n of the lists is n cycles after the input.
        phase = Signal(3)
        valid, bypass, phases = [self.i.valid], [self.i.valid & payload.bypass], [phase]
        with m.If(valid[0] & ~bypass[0]):
            m.d.sync += phase.eq(phase + 1)
        for n in range(1, self.LATENCY + 1):
            valid.append(Signal(name=f"s{n}_valid"))
            bypass.append(Signal(name=f"s{n}_bypass"))
            phases.append(Signal(3, name=f"s{n}_phase"))
            m.d.sync += [
                valid[n].eq(valid[n - 1]), bypass[n].eq(bypass[n - 1]), phases[n].eq(phases[n - 1])
            ]

        # Both halves of a column meet in the second cycle.  Column 0 is put together again:
        # Z(u) = A(u) + jB(u), Z(-u) = conj A(u) + j conj B(u), with A in words 0..3, B in 4..7.
        low = [
            (register(m, w.re, f"s1_re{k}"), register(m, w.im, f"s1_im{k}"))
            for k, w in enumerate(payload.words)
        ]
        high = [(w.re, w.im) for w in payload.words]
        first = phases[0] == 1
        m.submodules.column = column = ColumnTransform(width=SUM_BITS + 1, inverse=True)
        z = low + high
        packed = [(low[0][0], high[0][0])] * 8
        packed[4] = low[0][1], high[0][1]
        for u in (1, 2, 3):
            packed[u] = low[u][0] - high[u][1], low[u][1] + high[u][0]
            packed[8 - u] = low[u][0] + high[u][1], high[u][0] - low[u][1]
        for u in range(8):
            m.d.comb += [
                port.eq(register(m, Mux(first, a, b), f"s2_{name}{u}", SUM_BITS + 1))
                for port, name, a, b in (
                    (column.i[u].re, "re", packed[u][0], z[u][0]),
                    (column.i[u].im, "im", packed[u][1], z[u][1]),
                )
            ]

        # Even rows go on at once, odd rows a cycle later.  Every component fits SUM_BITS + 4: it
        # is a sum of words with factors whose magnitudes add up to 4 + 4*sqrt(2) at most.
        turn_at = 2 + column.LATENCY
        m.submodules.transposer = turn = Transposer(Complex(column_bits), hold=2)
        m.submodules.row = row = InverseRow(width=column_bits)
        for lane in range(4):
            even, odd = column.o[2 * lane], column.o[2 * lane + 1]
            for part in ("re", "im"):
                later = register(m, odd[part], f"s{turn_at}_{part}{lane}", column_bits)
                now = even[part][:column_bits].as_signed()
                m.d.comb += turn.i[lane][part].eq(Mux(phases[turn_at][0], later, now))
        m.d.comb += [
            turn.valid.eq(valid[turn_at] & ~bypass[turn_at]), turn.phase.eq(phases[turn_at][1:]),
            row.i.eq(turn.o),
        ]

        last = self.LATENCY - 1
        m.submodules.bypassed = bypassed = DelayLine(signed(SUM_BITS), cycles=last)
        m.submodules.tags = tags = DelayLine(Shape(Shape.cast(self.tag).width), cycles=last)
        m.d.comb += [bypassed.i.eq(payload.words[0].re), tags.i.eq(Value.cast(payload.tag))]
        out = Signal(InverseOutput(self.tag), reset_less=True)
        m.d.sync += [out.row[k].eq(saturate(row.o[k], INVERSE_BITS)) for k in range(8)]
        with m.If(bypass[last]):
            m.d.sync += [out.row[7].eq(bypassed.o << POST_SHIFT), out.index.eq(7)]
        with m.Else():
            m.d.sync += out.index.eq(phases[last])
        with m.If(valid[last] & (bypass[last] | (phases[last] == 0))):
            m.d.sync += Value.cast(out.tag).eq(tags.o)
        m.d.comb += [self.o.valid.eq(valid[-1]), self.o.payload.eq(out)]
        return m
