"""Streaming 2-D FFT of real 8 x 8 tiles: two rows in, one spectral column out, per cycle."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from rtl.fft.complex8 import ColumnTransform
from rtl.fft.pipeline import DelayLine, register
from rtl.fft.real8 import RowTransform
from rtl.fft.transposer import Transposer
from rtl.signatures import Column, Complex, Event, RowPair

__all__ = ["ForwardFFT"]


class ForwardFFT(wiring.Component):
    """Transform tiles of 9-bit pixels into half-plane words (`model.fft.forward`, bit for bit).

    Two row transforms, two stream transposers and one column transform, then the separation of
    bins 0 and 4, which only column 0 needs.  No multiplier.  Bypassed rows and the tags wait in
    a ring of LUT RAM.

    A tile is 4 consecutive valid cycles (rows 2i and 2i+1), tiles may be back to back, and every
    tile gives 4 consecutive columns: 4 cycles a tile.  A row pair with ``tag.bypass`` is a
    transfer of its own: word i is values 2i and 2i+1 of the 16.  Between a tile and a bypassed
    pair `LATENCY` idle cycles are enough.

    Parameters
    ----------
    config : AcceleratorConfig
        Widths and the shape of the tag.

    Members
    -------
    i : :py:`In(Event(RowPair(config)))`
        Rows.
    o : :py:`Out(Event(Column(config)))`
        Words, ``LATENCY`` cycles after the row pair of the same index.
    """

    LATENCY = RowTransform.LATENCY + 3 + ColumnTransform.LATENCY + 2

    def __init__(self, config: AcceleratorConfig) -> None:
        if not isinstance(config, AcceleratorConfig):
            raise TypeError(f"config must be an AcceleratorConfig, not {config!r}")
        self.config = config
        super().__init__({"i": In(Event(RowPair(config))), "o": Out(Event(Column(config)))})

    def elaborate(self, platform) -> Module:
        """Rows, transposers, column, separation of bins 0 and 4, bypass and tags beside them."""
        m = Module()
        pixel_bits, word_bits = self.config.act_bits + 1, self.config.word_bits
        payload = self.i.payload

        # What is where: element n of the lists is n cycles after the input.
        phase = Signal(2)
        valid, bypass, phases = [self.i.valid], [self.i.valid & payload.tag.bypass], [phase]
        with m.If(valid[0] & ~bypass[0]):
            m.d.sync += phase.eq(phase + 1)
        for n in range(1, self.LATENCY + 1):
            valid.append(Signal(name=f"s{n}_valid"))
            bypass.append(Signal(name=f"s{n}_bypass"))
            phases.append(Signal(2, name=f"s{n}_phase"))
            m.d.sync += [
                valid[n].eq(valid[n - 1]), bypass[n].eq(bypass[n - 1]), phases[n].eq(phases[n - 1])
            ]

        m.submodules.column = column = ColumnTransform(width=pixel_bits + 4)
        for parity in range(2):
            row = RowTransform(width=pixel_bits)
            m.submodules[f"row{parity}"] = row
            m.submodules[f"transposer{parity}"] = turn = Transposer(Complex(pixel_bits + 4))
            m.d.comb += [
                row.i.eq(payload.rows[parity]), turn.i.eq(row.o),
                turn.phase.eq(phases[row.LATENCY]),
                turn.valid.eq(valid[row.LATENCY] & ~bypass[row.LATENCY]),
            ]
            m.d.comb += [column.i[2 * lane + parity].eq(turn.o[lane]) for lane in range(4)]
        separate = self.LATENCY - 2

        # Bypassed pairs: zero unless one is passing, and then the words are zero.
        m.submodules.bypassed = bypassed = DelayLine(
            data.ArrayLayout(signed(pixel_bits), 16), cycles=separate + 1
        )
        m.submodules.tags = tags = DelayLine(payload.tag.shape(), cycles=self.LATENCY)
        m.d.comb += [
            Value.cast(bypassed.i).eq(Value.cast(payload.rows)),
            bypassed.clear.eq(~bypass[separate]), tags.i.eq(payload.tag),
        ]

        def keep(value, name):
            stage = register(m, value, name, word_bits)
            with m.If(bypass[separate]):
                m.d.sync += stage.eq(0)
            return stage

        def halve(total, name):
            return keep((total + 1) >> 1, name)

        z = column.o
        last = separate + 1
        straight = [
            (keep(z[u].re, f"s{last}_re{u}"), keep(z[u].im, f"s{last}_im{u}")) for u in range(8)
        ]
        split = [None] * 8
        split[0] = straight[0][0], straight[4][0]
        split[4] = straight[0][1], straight[4][1]
        for u in (1, 2, 3):
            mirror = z[8 - u]
            split[u] = (
                halve(z[u].re + mirror.re, f"s{last}_a_re{u}"),
                halve(z[u].im - mirror.im, f"s{last}_a_im{u}"),
            )
            split[u + 4] = (
                halve(z[u].im + mirror.im, f"s{last}_b_re{u}"),
                halve(mirror.re - z[u].re, f"s{last}_b_im{u}"),
            )
        first = Signal()
        m.d.sync += first.eq(phases[separate] == 0)

        words = Signal(self.o.payload.words.shape(), reset_less=True)
        for u in range(8):
            for part, component in enumerate((words[u].re, words[u].im)):
                word = Mux(first, split[u][part], straight[u][part])
                m.d.sync += component.eq(word | bypassed.o[2 * u + part])
        index = Signal(2, reset_less=True)
        m.d.sync += index.eq(Mux(bypass[last], 0, phases[last]))
        m.d.comb += [
            self.o.valid.eq(valid[-1]), self.o.payload.words.eq(words),
            self.o.payload.index.eq(index), self.o.payload.tag.eq(tags.o),
        ]
        return m
