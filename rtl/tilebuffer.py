"""Tile buffer: the spectral words of the tile blocks being multiplied.

``tile_lanes`` x 8 banks of ``tile_depth`` complex words, a ring shared by consecutive blocks. Word
u of channel c lies in bank (c + u) % 8, so that eight channels of one frequency are read in one
cycle and eight frequencies of one channel are written in one cycle.

Latency: read 2 cycles (RAM, register); a column is readable 2 cycles after it came.
Throughput: one column in and one read of all lanes and banks per cycle. ECP5 cost:
``8 * tile_lanes`` DP16KD at a depth of 512, no multiplier.
"""

from __future__ import annotations

from amaranth.hdl import Assert, Cat, Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
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
        Uses ``tile_lanes``, ``banks``, ``tile_depth``, ``word_bits``.

    Attributes
    ----------
    i : In(Event(Column(config)))
        Columns from the forward FFT. Word u goes to bank ``(channel_low + u) % 8`` at
        ``addr + 8*index + u`` (modulo the depth); if bypass, word i to bank i at ``addr``.
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
    #: Cycles from ``i.valid`` to the first ``en`` that sees the column (and to ``block_loaded``).
    WRITE_LATENCY = 2

    def __init__(self, *, config: AcceleratorConfig) -> None:
        if not isinstance(config, AcceleratorConfig):
            raise TypeError(f"config must be an AcceleratorConfig, not {config!r}")
        self._config = config
        words = data.ArrayLayout(Complex(config.word_bits), config.banks)
        super().__init__({
            "i": In(Event(Column(config))),
            "addr": In(data.ArrayLayout(range(config.tile_depth), config.banks)),
            "en": In(1),
            "data": Out(data.ArrayLayout(words, config.tile_lanes)),
            "block_loaded": Out(1),
        })

    def elaborate(self, platform) -> Module:
        """Build the skew stage, the banks and their output registers."""
        m = Module()
        config = self._config
        column, tag = self.i.payload, self.i.payload.tag
        word_bits = 2 * config.word_bits

        # s1: words turned to their banks, with one address per bank.
        s1_lanes = Signal(config.tile_lanes)
        s1_last = Signal()
        m.d.sync += [
            s1_lanes.eq(Mux(self.i.valid, 1 << tag.lane, 0)),
            s1_last.eq(self.i.valid & tag.block_last & (tag.bypass | (column.index == 3))),
            self.block_loaded.eq(s1_last),
        ]
        # A bypass row comes with channel_low 0: it is not turned.
        words = [column.words[u].as_value() for u in range(config.banks)]
        turned = rotate(words, (-tag.channel_low)[:3])
        for bank in range(config.banks):
            s1_word = Signal(word_bits, reset_less=True, name=f"s1_word{bank}")
            s1_addr = Signal(range(config.tile_depth), reset_less=True, name=f"s1_addr{bank}")
            word = (bank - tag.channel_low)[:3]
            m.d.sync += [
                s1_word.eq(turned[bank]),
                s1_addr.eq(tag.addr + Mux(tag.bypass, 0, Cat(word, column.index))),
            ]
            if platform is None or platform == "formal":    # a board has no cell for it
                m.d.sync += Assert(~(self.en & s1_lanes.any() & (self.addr[bank] == s1_addr)))
            for lane in range(config.tile_lanes):
                ram = memory.Memory(shape=word_bits, depth=config.tile_depth, init=[])
                m.submodules[f"lane{lane}_bank{bank}"] = ram
                write_port, read_port = ram.write_port(), ram.read_port()
                s2_word = Signal(word_bits, reset_less=True, name=f"s2_lane{lane}_bank{bank}")
                m.d.comb += [
                    write_port.addr.eq(s1_addr),
                    write_port.data.eq(s1_word),
                    write_port.en.eq(s1_lanes[lane]),
                    read_port.addr.eq(self.addr[bank]),
                    read_port.en.eq(self.en),
                    self.data[lane][bank].eq(s2_word),
                ]
                m.d.sync += s2_word.eq(read_port.data)
        return m
