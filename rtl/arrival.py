"""Arrival: has the input of the next tile been written? Latency: `Arrival.LATENCY`."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from model.config import ROW_BITS, AcceleratorConfig
from rtl.signatures import Descriptor, Progress

__all__ = ["Arrival"]


class Arrival(wiring.Component):
    """Compare the rows a tile needs with what the store stage or the input DMA has written.

    The question (``channel``, ``end``, ``base``) stands until the next one; `LATENCY` cycles later
    the answer is right, and a yes stays. Of several banks all must have the rows.

    The input of a run comes row by row of the memory, channel after channel: a tile is there when
    the last row that it reads is. In a batch it is the input of several layers, image after image;
    the layer before one of these is that of another image and need not be written, unless it pools
    its map, which takes the read ports.

    Parameters
    ----------
    config : AcceleratorConfig
        Uses ``feature_banks``.

    Attributes
    ----------
    desc : In(Descriptor)
        Of the layer to be loaded. Uses ``dot``, ``input``, ``in_row_log2``, ``in_plane``. A dot
        layer has only one question, whether the layer before is completely written.
    layer : In(8)
        Its number.
    pooled : In(1), only with ``map_pool``
        The layer before pools its map, or adds to it.
    channel, end, base : In(13), In(signed(13)), In(ROW_BITS)
        Local channel of the tile, first map row below it, row of the memory at which the channel
        begins.
    input_done, input_row : In(1), In(ROW_BITS + 1)
        Levels: the input of the run is in the feature memory; it is there below this row.
    layers_done : In(8)
        Level: layers of this run completely written.
    progress : In(Progress).array(feature_banks)
        Levels: how far the layer being written is; change together with ``layers_done``.
    ok : Out(1)
        The tile may be read.
    """

    #: Cycles from a question to its answer; with one bank 1, if it is not about the run's input.
    LATENCY = 3

    def __init__(self, *, config: AcceleratorConfig) -> None:
        if not isinstance(config, AcceleratorConfig):
            raise TypeError(f"config must be an AcceleratorConfig, not {config!r}")
        self._banks, self._pools = config.feature_banks, bool(config.map_pool)
        super().__init__({
            "desc": In(Descriptor), "layer": In(8),
            "channel": In(13), "end": In(signed(13)), "base": In(ROW_BITS),
            "input_done": In(1), "input_row": In(ROW_BITS + 1),
            "layers_done": In(8), "progress": In(Progress).array(self._banks),
            "ok": Out(1), **({"pooled": In(1)} if config.map_pool else {}),
        })

    def elaborate(self, platform) -> Module:
        """Register the levels, compare, register the answer."""
        m = Module()
        # All levels are seen in the same cycle: the rows fall back to 0 when their channels are
        # counted.
        s1_all, s1_here, s1_first = Signal(), Signal(), Signal()
        s1_row = Signal(ROW_BITS + 1)
        before = self.layers_done >= self.layer
        free = before | ~self.pooled if self._pools else 1
        m.d.sync += [
            s1_all.eq(Mux(self.desc.input, self.input_done & free, before)),
            s1_here.eq(~self.desc.input & ~self.desc.dot & (self.layers_done + 1 == self.layer)),
            s1_first.eq(self.desc.input & ~self.desc.dot & free),
            s1_row.eq(self.input_row),
        ]
        written = []
        for bank, progress in enumerate(self.progress):
            s1 = Signal(Progress, name=f"s1_progress{bank}")
            m.d.sync += s1.eq(progress)
            there = (self.channel < s1.channels_done) | (
                (self.channel < s1.channels_open) & (self.end <= s1.rows_done)
            ) | (self.end <= s1.rows_all)
            if self._banks > 1:     # a register before the AND of all
                s2_there = Signal(name=f"s2_there{bank}")
                m.d.sync += s2_there.eq(s1_here & there)
                written.append(s2_there)
            else:
                written.append(s1_here & there)

        # The run's input: rows of the memory up to the end of the tile, or of the channel.
        s1_offset = Signal(ROW_BITS + 1, reset_less=True)
        s2_wanted = Signal(ROW_BITS + 1, reset_less=True)
        pairs = Mux(self.end < 0, 0, ((self.end + 1) >> 1)[:10])
        m.d.sync += [
            s1_offset.eq(pairs << self.desc.in_row_log2),
            s2_wanted.eq(self.base + Mux(
                s1_offset > self.desc.in_plane, self.desc.in_plane, s1_offset
            )),
            self.ok.eq(s1_all | Cat(written).all() | (s1_first & (s2_wanted <= s1_row))),
        ]
        return m
