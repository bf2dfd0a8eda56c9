"""Store stage: from sums to written feature maps.

::

    sums -> SumBuffer -> P' x InverseFFT -> PostArray -> Writer -> write
                ^ SumReader   |                 |
                +-- credits --+-----------------+

Only one layer is read from the sum buffer at a time. This costs next to nothing: the first block of
a layer needs every channel of the layer before, if not every row; what is early waits in its slot.
"""

from __future__ import annotations

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from model.config import AcceleratorConfig
from rtl.fft.inverse import InverseFFT
from rtl.post import PostArray
from rtl.signatures import (
    Descriptor,
    Event,
    FeatureWrite,
    StoreTag,
    SumWrite,
)
from rtl.sums import SumBuffer, SumReader, parameter_ports
from rtl.writer import PROGRESS, Writer

__all__ = ["StoreStage"]


class StoreStage(wiring.Component):
    """Everything behind the multiply-accumulate array.

    A kernel of P' tiles takes ``max(8, rows * max(out_step, P'))`` cycles, where a tile has
    ``rows = out_step`` rows after the pool; a kernel of a dot layer takes 1, up to what the
    queue holds. A kernel's last write is ``(rows - 1)·max(out_step, P') + P' - 1`` cycles after its
    first.

    Parameters
    ----------
    config : AcceleratorConfig
        P' tile lanes, N' kernel lanes.

    Attributes
    ----------
    desc : In(stream.Signature(Descriptor))
        Layers in order; the next is taken when the one before is completely written. It must
        hold ``crop + step <= 8``; with ``pool``, ``crop`` and ``step`` even; with ``out_wide``,
        ``out_vector`` and ``out_step <= 4``.
    start : In(1)
        A run begins.
    sums : In(Event(SumWrite(config)))
        Sums of a block, into a free slot.
    slot_free : Out(1)
        A slot of the sum buffer is free again.
    param_ready, param_addr, param_data, param_next : In, Out, In, Out
        Parameter memory, see `SumReader`.
    write : Out(Event(FeatureWrite))
        To the feature memory.
    run_cycle, layers_done, channels_done, channels_open, rows_done, finished, stats
        See `Writer` (the outputs are its `PROGRESS`).
    """

    #: Cycles from the last sum of a block to its first write, besides those in which the inverse
    #: FFT delivers cropped rows and the post collects the values of the first segment (1 each).
    LATENCY = SumReader.LATENCY + InverseFFT.LATENCY + PostArray.LATENCY + Writer.LATENCY

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__({
            "desc": In(stream.Signature(Descriptor)),
            "start": In(1),
            "sums": In(Event(SumWrite(config))),
            "slot_free": Out(1),
            **parameter_ports(config),
            "write": Out(Event(FeatureWrite)),
            "run_cycle": In(32),
            **PROGRESS,
        })

    def elaborate(self, platform) -> Module:
        """Join the parts."""
        m = Module()
        m.submodules.buffer = buffer = SumBuffer(config=self._config)
        m.submodules.reader = reader = SumReader(config=self._config)
        m.submodules.post = post = PostArray(config=self._config)
        m.submodules.writer = writer = Writer(config=self._config)

        layer = Signal(Descriptor)
        active = Signal()
        begin = Signal()
        m.d.comb += self.desc.ready.eq(~active)
        m.d.sync += begin.eq(0)
        with m.If(self.desc.valid & self.desc.ready):
            m.d.sync += [layer.eq(self.desc.payload), active.eq(1), begin.eq(1)]
        with m.If(writer.layer_end):
            m.d.sync += active.eq(0)
        m.d.comb += [
            reader.layer.eq(layer), reader.begin.eq(begin),
            post.layer.eq(layer),
            writer.layer.eq(layer), writer.begin.eq(begin), writer.start.eq(self.start),
            writer.run_cycle.eq(self.run_cycle),
        ]

        connect(m, flipped(self.sums), buffer.i)
        connect(m, buffer.complete, reader.complete)
        m.d.comb += [
            reader.credit.eq(post.credit),
            reader.param_ready.eq(self.param_ready), reader.param_data.eq(self.param_data),
            self.param_addr.eq(reader.param_addr), self.param_next.eq(reader.param_next),
            self.slot_free.eq(reader.slot_free),
            buffer.r_en.eq(reader.r_en), buffer.r_slot.eq(reader.r_slot),
            buffer.r_kernel.eq(reader.r_kernel), buffer.r_index.eq(reader.r_index),
        ]

        for lane in range(self._config.tile_lanes):
            # The lanes are in lock-step: the first one's tag stands for all.
            inverse = InverseFFT(StoreTag if lane == 0 else unsigned(1))
            m.submodules[f"inverse{lane}"] = inverse
            m.d.comb += [
                inverse.i.valid.eq(reader.o.valid),
                inverse.i.payload.words.eq(buffer.o[lane]),
                inverse.i.payload.bypass.eq(reader.o.payload.bypass),
                post.i.payload.rows[lane].eq(inverse.o.payload.row),
            ]
            if lane == 0:
                m.d.comb += [
                    inverse.i.payload.tag.eq(reader.o.payload.tag),
                    post.i.valid.eq(inverse.o.valid),
                    post.i.payload.index.eq(inverse.o.payload.index),
                    post.i.payload.tag.eq(inverse.o.payload.tag),
                ]

        m.d.comb += [
            writer.i.valid.eq(post.o.valid), writer.i.payload.eq(post.o.payload),
            writer.reserve.eq(post.reserve), post.spare.eq(writer.spare),
            *(getattr(self, name).eq(getattr(writer, name))
              for name in PROGRESS if name != "stats"),
        ]
        connect(m, writer.stats, flipped(self.stats))
        connect(m, writer.write, flipped(self.write))
        return m
