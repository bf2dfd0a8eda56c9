"""Streaming 2-D FFT of real 8 x 8 tiles: one, two, four or all eight rows per cycle."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from rtl.fft.complex8 import ColumnTransform
from rtl.fft.pipeline import DelayLine, register
from rtl.fft.real8 import RowTransform
from rtl.fft.transposer import Transposer, turn
from rtl.signatures import Complex, Event, TileTag

__all__ = ["ForwardFFT", "ForwardInput", "ForwardOutput"]


def ForwardInput(config: AcceleratorConfig, rows: int) -> data.StructLayout:  # noqa: N802
    """Adjacent rows of a tile, and its tag; with two rows a `RowPair`."""
    return data.StructLayout({
        "rows": data.ArrayLayout(data.ArrayLayout(signed(config.act_bits + 1), 8), rows),
        "tag": TileTag(config),
    })


def ForwardOutput(config: AcceleratorConfig, rows: int) -> data.StructLayout:  # noqa: N802
    """Words f = 8·index + n, of one or more columns; with one or two rows a `Column`."""
    return data.StructLayout({
        "words": data.ArrayLayout(Complex(config.word_bits), 8 * max(1, rows // 2)), "index": 2,
        "tag": TileTag(config),
    })


class ForwardFFT(wiring.Component):
    """Transform tiles of 9-bit pixels into half-plane words (`model.fft.forward`, bit for bit).

    A row transform and a stream transposer per row of a transfer, a column transform per column
    of one, then the separation of bins 0 and 4, which only column 0 needs.  No multiplier.
    Bypassed rows and the tags wait in a ring of LUT RAM.

    A tile is ``8 / rows`` consecutive valid cycles, rows ``rows * t`` and up in cycle t; tiles may
    be back to back.  Columns leave `LATENCY` cycles after a transfer:

    ====  ==============  ===============================  =======
    rows  cycles a tile   columns                          LATENCY
    ====  ==============  ===============================  =======
    1     8               v after transfer 2v + 1          17
    2     4               v after transfer v               14
    4     2               2t and 2t + 1 after transfer t   12
    8     1               0 to 3 after the only transfer   11
    ====  ==============  ===============================  =======

    A transfer with ``tag.bypass`` stands alone: word i is values 2i and 2i+1 of its ``8 * rows``,
    index 0.  With one row it is half of a pair, on two consecutive cycles, whose 16 values leave
    after the second.  Between a tile and a bypassed transfer `LATENCY` idle cycles are
    enough.

    Parameters
    ----------
    config : AcceleratorConfig
        Widths and the shape of the tag.
    rows : int, optional
        Rows taken per cycle: 1, 2, 4 or 8; by default ``config.forward_rows``.

    Members
    -------
    i : :py:`In(Event(ForwardInput(config, rows)))`
        Rows.
    o : :py:`Out(Event(ForwardOutput(config, rows)))`
        Words, with the tag of the transfer of `LATENCY` cycles ago.
    """

    def __init__(self, config: AcceleratorConfig, *, rows: int | None = None) -> None:
        if not isinstance(config, AcceleratorConfig):
            raise TypeError(f"config must be an AcceleratorConfig, not {config!r}")
        self.config = config
        self.rows = config.forward_rows if rows is None else rows
        self.LATENCY = (
            RowTransform.LATENCY + Transposer.cycles(*turn(self.rows)) + ColumnTransform.LATENCY + 2
        )
        super().__init__({
            "i": In(Event(ForwardInput(config, self.rows))),
            "o": Out(Event(ForwardOutput(config, self.rows))),
        })

    def elaborate(self, platform) -> Module:
        """Rows, transposers, columns, separation of bins 0 and 4, bypass and tags beside them."""
        m = Module()
        pixel_bits, word_bits = self.config.act_bits + 1, self.config.word_bits
        payload = self.i.payload
        size, hold = turn(self.rows)
        columns = 4 // size

        # What is where: element n of the lists is n cycles after the input.
        phase = Signal(range(size * hold))
        valid, bypass, phases = [self.i.valid], [self.i.valid & payload.tag.bypass], [phase]
        with m.If(valid[0] & ~bypass[0]):
            m.d.sync += phase.eq(phase + 1)
        if hold == 2:
            with m.Elif(bypass[0]):
                m.d.sync += phase[0].eq(~phase[0])
        for n in range(1, self.LATENCY + 1):
            valid.append(Signal(name=f"s{n}_valid"))
            bypass.append(Signal(name=f"s{n}_bypass"))
            phases.append(Signal(len(phase), name=f"s{n}_phase"))
            m.d.sync += [
                valid[n].eq(valid[n - 1]), bypass[n].eq(bypass[n - 1]), phases[n].eq(phases[n - 1])
            ]

        transforms = [ColumnTransform(width=pixel_bits + 4) for _ in range(columns)]
        for j, column in enumerate(transforms):
            m.submodules[f"column{j}"] = column
        bins = data.ArrayLayout(Complex(pixel_bits + 4), columns)
        # 0 while there is nothing to turn: a register, as it reaches all words.
        before = RowTransform.LATENCY - 1
        turn_phase = Signal(len(phase) - hold + 1)
        m.d.sync += turn_phase.eq(
            Mux(valid[before] & ~bypass[before], phases[before][hold - 1:], 0)
        )
        for r in range(self.rows):
            m.submodules[f"row{r}"] = row = RowTransform(width=pixel_bits)
            m.submodules[f"transposer{r}"] = turned = Transposer(bins, size=size, hold=hold)
            m.d.comb += [
                row.i.eq(payload.rows[r]), Value.cast(turned.i).eq(Value.cast(row.o)),
                turned.phase.eq(turn_phase),
            ]
            for lane in range(size):
                for j, column in enumerate(transforms):
                    word, y = turned.o[lane][j], self.rows * lane + r
                    if hold == 1:
                        m.d.comb += column.i[y].eq(word)
                    else:  # odd rows; the even ones have come a cycle earlier
                        m.d.comb += column.i[2 * lane + 1].eq(word)
                        for part in ("re", "im"):
                            even = register(m, word[part], f"even_{part}{lane}")
                            m.d.comb += column.i[2 * lane][part].eq(even)
        separate, last = self.LATENCY - 2, self.LATENCY - 1

        # Bypassed values: zero unless some are passing, and then the words are zero.
        m.submodules.bypassed = bypassed = DelayLine(
            data.ArrayLayout(signed(pixel_bits), 8 * self.rows), cycles=last
        )
        m.submodules.tags = tags = DelayLine(payload.tag.shape(), cycles=self.LATENCY)
        m.d.comb += [
            Value.cast(bypassed.i).eq(Value.cast(payload.rows)),
            bypassed.clear.eq(~bypass[separate]), tags.i.eq(payload.tag),
        ]
        passing = list(bypassed.o)
        if hold == 2:  # the other half of the pair has come a cycle earlier
            early = [register(m, value, f"early_{n}") for n, value in enumerate(passing)]
            passing = early + passing

        def keep(value, name):
            stage = register(m, value, name, word_bits)
            with m.If(bypass[separate]):
                m.d.sync += stage.eq(0)
            return stage

        def halve(total, name):
            return keep((total + 1) >> 1, name)

        def split(z, straight):
            """Words of bins 0 and 4 of the rows, from column 0 and its words so far."""
            words = [None] * 8
            words[0] = straight[0][0], straight[4][0]
            words[4] = straight[0][1], straight[4][1]
            for u in (1, 2, 3):
                mirror = z[8 - u]
                words[u] = (
                    halve(z[u].re + mirror.re, f"s{last}_a_re{u}"),
                    halve(z[u].im - mirror.im, f"s{last}_a_im{u}"),
                )
                words[u + 4] = (
                    halve(z[u].im + mirror.im, f"s{last}_b_re{u}"),
                    halve(mirror.re - z[u].re, f"s{last}_b_im{u}"),
                )
            return words

        # Column 0 passes in the first transfer of a tile, which with eight rows is every one.
        first = Const(1)
        if size > 1:
            first = Signal()
            m.d.sync += first.eq(phases[separate][hold - 1:] == 0)
        words = Signal(self.o.payload.words.shape(), reset_less=True)
        for j, column in enumerate(transforms):
            z = column.o
            straight = [
                (keep(z[u].re, f"s{last}_re{8 * j + u}"), keep(z[u].im, f"s{last}_im{8 * j + u}"))
                for u in range(8)
            ]
            separated = split(z, straight) if j == 0 else straight
            for u in range(8):
                n = 8 * j + u
                for part, component in enumerate((words[n].re, words[n].im)):
                    word = straight[u][part]
                    if j == 0:
                        word = Mux(first, separated[u][part], word)
                    m.d.sync += component.eq(word | passing[2 * n + part])
        index = Signal(2, reset_less=True)
        position = Cat(Const(0, columns.bit_length() - 1), phases[last][hold - 1:])
        m.d.sync += index.eq(Mux(bypass[last], 0, position))
        # With one row, a column follows every other transfer.
        m.d.comb += self.o.valid.eq(valid[-1] & phases[-1][0] if hold == 2 else valid[-1])
        m.d.comb += [
            self.o.payload.words.eq(words), self.o.payload.index.eq(index),
            self.o.payload.tag.eq(tags.o),
        ]
        return m
