"""Tile buffer: the spectral words of the tile blocks being multiplied.

``tile_lanes`` x 8 banks of ``tile_depth`` complex words, a ring shared by consecutive blocks. Word
u of channel c lies in bank (c + u) % 8, so that eight channels of one frequency are read in one
cycle and eight frequencies of one channel are written in one cycle.

With several feature banks a column of each comes in per cycle, for different lanes.

Latency: read 2 cycles (RAM, register); a column is readable 2 cycles after it came (3 with several
feature banks). Throughput: one column of every feature bank in and one read of all lanes and banks
per cycle. ECP5 cost: ``8 * tile_lanes`` DP16KD at a depth of 512, no multiplier.
"""

from __future__ import annotations

from functools import reduce
from operator import or_

from amaranth.hdl import Assert, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from model.config import AcceleratorConfig
from rtl.largeram import large_ram
from rtl.rotate import rotate
from rtl.signatures import Column, Complex, Event

__all__ = ["TileBuffer"]


class TileBuffer(wiring.Component):
    """Skewed banks of spectral words.

    The address of a bank is never read in the cycle it is written (a block is read after it is
    complete, and written where the ring is free): asserted, because the build relies on it to map
    each bank to one bare block RAM.

    Parameters
    ----------
    config : AcceleratorConfig
        Uses ``tile_lanes``, ``banks``, ``tile_depth``, ``word_bits``, ``feature_banks``.

    Attributes
    ----------
    i : In(Event(Column(config))).array(feature_banks)
        Columns from the forward FFTs. Word u goes to bank ``(channel_low + u) % 8`` at
        ``addr + 8*index + u`` (modulo the depth); if bypass, word i to bank i at ``addr``. With
        several feature banks no two columns are for one lane (asserted), ``channel_low`` is the
        feature bank modulo 8, ``addr`` a multiple of 32, and only the first one's are bypassed;
        then both are free.
    addr : In(ArrayLayout(range(tile_depth), 8))
        Read address of each bank, shared by the lanes.
    en : In(1)
        Read this cycle.
    data : Out(ArrayLayout(ArrayLayout(Complex(16), 8), tile_lanes))
        Word of every bank of every lane, ``LATENCY`` cycles after ``en``.
    block_loaded : Out(1)
        One cycle per block: its last word may be read from this cycle on.
    """

    #: Cycles from ``en`` to ``data``.
    LATENCY = 2
    def __init__(self, *, config: AcceleratorConfig) -> None:
        if not isinstance(config, AcceleratorConfig):
            raise TypeError(f"config must be an AcceleratorConfig, not {config!r}")
        self._config = config
        words = data.ArrayLayout(Complex(config.word_bits), config.banks)
        super().__init__({
            "i": In(Event(Column(config))).array(config.feature_banks),
            "addr": In(data.ArrayLayout(range(config.tile_depth), config.banks)),
            "en": In(1),
            "data": Out(data.ArrayLayout(words, config.tile_lanes)),
            "block_loaded": Out(1),
        })

    @property
    def write_latency(self) -> int:
        """Cycles from ``i.valid`` to the first ``en`` that sees it, and to ``block_loaded``."""
        return 2 if self._config.feature_banks == 1 else 3

    def elaborate(self, platform) -> Module:
        """Build the skew stage, the banks and their output registers."""
        m = Module()
        config = self._config
        word_bits = 2 * config.word_bits
        s1_last = Signal()
        m.d.sync += [
            s1_last.eq(Cat(
                column.valid & column.payload.tag.block_last
                & (column.payload.tag.bypass | (column.payload.index == 3)) for column in self.i
            ).any()),
        ]
        simulated = platform is None or platform == "formal"    # a board has no cell to assert
        if config.feature_banks == 1:
            writes = self._one(m)
            m.d.sync += self.block_loaded.eq(s1_last)
        else:
            writes = self._several(m, simulated)
            s2_last = Signal()
            m.d.sync += [s2_last.eq(s1_last), self.block_loaded.eq(s2_last)]

        for bank in range(config.banks):
            for lane in range(config.tile_lanes):
                ram = memory.Memory(
                    shape=word_bits, depth=config.tile_depth, init=[], attrs=large_ram(config)
                )
                m.submodules[f"lane{lane}_bank{bank}"] = ram
                write_port, read_port = ram.write_port(), ram.read_port()
                s2_word = Signal(word_bits, reset_less=True, name=f"s2_lane{lane}_bank{bank}")
                enable, addrs, words = writes[lane]
                m.d.comb += [
                    write_port.addr.eq(addrs[bank]),
                    write_port.data.eq(words[bank]),
                    write_port.en.eq(enable),
                    read_port.addr.eq(self.addr[bank]),
                    read_port.en.eq(self.en),
                    self.data[lane][bank].eq(s2_word),
                ]
                m.d.sync += s2_word.eq(read_port.data)
                if simulated:
                    m.d.sync += Assert(~(self.en & enable & (self.addr[bank] == addrs[bank])))
        return m

    def _one(self, m: Module) -> list:
        """Column of the only FFT, s1: per lane the enable, and the shared addresses and words."""
        config = self._config
        column, tag = self.i[0].payload, self.i[0].payload.tag
        s1_lanes = Signal(config.tile_lanes)
        m.d.sync += s1_lanes.eq(Mux(self.i[0].valid, 1 << tag.lane, 0))
        # A bypass row comes with channel_low 0: it is not turned.
        # Turned backwards, in a mirror: so ``channel_low``, which reaches all words, needs no
        # subtraction.
        mirrored = rotate([word.as_value() for word in reversed(list(column.words))],
                          tag.channel_low)
        turned = mirrored[::-1]
        words, addrs = [], []
        for bank in range(config.banks):
            s1_word = Signal(len(turned[bank]), reset_less=True, name=f"s1_word{bank}")
            s1_addr = Signal(range(config.tile_depth), reset_less=True, name=f"s1_addr{bank}")
            word = (bank - tag.channel_low)[:3]
            m.d.sync += [
                s1_word.eq(turned[bank]),
                s1_addr.eq(tag.addr + Mux(tag.bypass, 0, Cat(word, column.index))),
            ]
            words.append(s1_word)
            addrs.append(s1_addr)
        return [(s1_lanes[lane], addrs, words) for lane in range(config.tile_lanes)]

    def _several(self, m: Module, simulated: bool) -> list:
        """Columns of all FFTs (s1), for each lane the one that is for it (s2).

        Feature bank e turns its words by e, which is only wiring.
        """
        config = self._config
        columns = []
        # A bypassed row lies at any address.
        first = self.i[0].payload.tag
        s1_bypass, s2_bypass = Signal(), Signal(config.tile_lanes)
        s1_low, s2_low = Signal(3, reset_less=True), Signal(3, reset_less=True)
        m.d.sync += [
            s1_bypass.eq(first.bypass), s1_low.eq(first.addr), s2_low.eq(s1_low),
        ]
        for number, column in enumerate(self.i):
            tag = column.payload.tag
            place = Cat(column.payload.index, tag.addr[5:])
            if number == 0:
                place = Mux(tag.bypass, tag.addr[3:], place)
            s1_lanes = Signal(config.tile_lanes, name=f"s1_lanes{number}")
            s1_words = Signal.like(
                column.payload.words.as_value(), reset_less=True, name=f"s1_words{number}"
            )
            s1_place = Signal(
                exact_log2(config.tile_depth) - 3, reset_less=True, name=f"s1_place{number}"
            )
            m.d.sync += [
                s1_lanes.eq(Mux(column.valid, 1 << tag.lane, 0)),
                s1_words.eq(Cat(
                    column.payload.words[(bank - number) % 8].as_value()
                    for bank in range(config.banks)
                )),
                s1_place.eq(place),
            ]
            if simulated:
                right = (tag.channel_low == number % 8) & (tag.addr[:5] == 0) & ~tag.bypass
                if number == 0:
                    right |= tag.bypass
                m.d.sync += Assert(~column.valid | right)
            columns.append((s1_lanes, Cat(s1_words, s1_place, Const(number % 8, 3))))

        m.d.sync += s2_bypass.eq(columns[0][0] & s1_bypass.replicate(config.tile_lanes))
        writes = []
        for lane in range(config.tile_lanes):
            hits = Cat(s1_lanes[lane] for s1_lanes, _ in columns)
            if simulated:
                m.d.sync += Assert((hits & (hits - 1)) == 0)
            enable = Signal(name=f"s2_enable{lane}")
            chosen = Signal(len(columns[0][1]), reset_less=True, name=f"s2_column{lane}")
            m.d.sync += [
                enable.eq(hits.any()),
                chosen.eq(reduce(or_, (
                    Mux(s1_lanes[lane], column, 0) for s1_lanes, column in columns
                ))),
            ]
            bits = len(s1_words) // config.banks
            words = [chosen.word_select(bank, bits) for bank in range(config.banks)]
            place, turn = chosen[len(s1_words):-3], chosen[-3:]
            lows = [(bank - turn)[:3] for bank in range(config.banks)]
            lows = [Mux(s2_bypass[lane], s2_low, low) for low in lows]
            writes.append((enable, [Cat(low, place) for low in lows], words))
        return writes
