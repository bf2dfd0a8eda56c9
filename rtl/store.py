"""Store stage: from sums to written feature maps.

::

    sums -> SumBuffer -> P' x InverseFFT -> PostArray -> Writer -> write
                ^ SumReader                     |
                +----------- credits -----------+

With several feature banks `RowPostArray` and a writer per bank keep up with inverse FFTs that give
R rows a cycle. With ``map_pool`` a unit beside the writers pools maps that are finished.

Only one layer is read from the sum buffer at a time. This costs next to nothing: the first block of
a layer needs every channel of the layer before, if not every row; what is early waits in its slot.
"""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from rtl.fft.inverse import InverseFFT, inverse_latency
from rtl.mappool import MapPool
from rtl.post import PostArray
from rtl.postrows import RowPostArray
from rtl.signatures import (
    Descriptor,
    Event,
    FeatureReadSignature,
    FeatureWrite,
    KernelParameters,
    LayerStats,
    Progress,
    StoreTag,
    SumWrite,
)
from rtl.sums import SumBuffer, SumReader
from rtl.writer import Writer

__all__ = ["StoreStage"]


class StoreStage(wiring.Component):
    """Everything behind the multiply-accumulate array.

    A kernel of P' tiles takes ``max(8, rows * max(out_step, P'))`` cycles, where a tile has
    ``rows = out_step`` rows after the pool; a kernel of a dot layer takes 1, up to what the
    queue holds. A kernel's last write is ``(rows - 1)·max(out_step, P') + P' - 1`` cycles after its
    first. With F > 1 feature banks, a kernel takes ``max(8 / R, rows * P' / F)`` cycles, and its
    last write is ``rows * P' - 1`` cycles after its first; if R = 2 and the layer is not pooled,
    two rows are written at a time, and ``rows`` is half as many. A kernel of a dot layer takes 1.

    Parameters
    ----------
    config : AcceleratorConfig
        P' tile lanes, N' kernel lanes, F feature banks, R rows of an inverse FFT per cycle.

    Attributes
    ----------
    desc : In(stream.Signature(Descriptor))
        Layers in order; the next is taken when the one before is completely written. It must
        hold ``crop + step <= 8``; with ``pool``, ``crop`` and ``step`` even; with ``out_wide``,
        ``out_vector`` and ``out_step <= 4``. With several feature banks: ``out_vector`` and
        ``out_wide`` of dot layers only, and of all those ``out_vector``, ``out_step <=
        post_values``; but of dot layers ``lanes_last`` a multiple of F and, with R = 2, ``crop``
        and ``step`` even.
    sums : In(Event(SumWrite(config)))
        Sums of a block, into a free slot.
    slot_free : Out(1)
        A slot of the sum buffer is free again.
    param_ready, param_addr, param_data, param_next : In, Out, In, Out
        Parameter memory, see `SumReader`.
    write : Out(Event(FeatureWrite)).array(F)
        To the banks of the feature memory; kernel k goes to bank k mod F.
    reads, read : Out(1), Out(FeatureReadSignature()).array(F), only with ``map_pool``
        Level: the read ports of the feature memory are used, when nobody else does.
    layers_done, progress, finished, run_cycle, stats
        See `Writer`.
    """

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__({
            "desc": In(stream.Signature(Descriptor)),
            "sums": In(Event(SumWrite(config))),
            "slot_free": Out(1),
            "param_ready": In(1),
            "param_addr": Out(range(config.kernel_lanes)),
            "param_data": In(KernelParameters),
            "param_next": Out(1),
            "write": Out(Event(FeatureWrite)).array(config.feature_banks),
            "layers_done": Out(8),
            "progress": Out(Progress).array(config.feature_banks),
            "run_cycle": In(32),
            "finished": Out(1),
            "stats": Out(Event(LayerStats)),
            **({"reads": Out(1), "read": Out(FeatureReadSignature()).array(config.feature_banks)}
               if config.map_pool else {}),
        })

    @staticmethod
    def latency(config: AcceleratorConfig) -> int:
        """Cycles from the last sum of a block to its first write.

        Besides those in which the inverse FFT delivers rows that are cropped or above a pooled one
        and, with one feature bank, the post collects the further values of the first segment (1
        each).
        """
        post = PostArray if config.feature_banks == 1 else RowPostArray
        return (
            SumReader.latency(config) + inverse_latency(config.inverse_rows) + post.LATENCY
            + Writer.LATENCY
        )

    def elaborate(self, platform) -> Module:
        """Join the parts."""
        m = Module()
        m.submodules.buffer = buffer = SumBuffer(config=self._config)
        m.submodules.reader = reader = SumReader(config=self._config)
        banks = self._config.feature_banks
        post = PostArray(config=self._config) if banks == 1 else RowPostArray(config=self._config)
        m.submodules.post = post
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
            writer.layer.eq(layer), writer.begin.eq(begin),
            writer.run_cycle.eq(self.run_cycle),
        ]

        m.d.comb += [
            buffer.i.valid.eq(self.sums.valid), buffer.i.payload.eq(self.sums.payload),
            reader.complete.valid.eq(buffer.complete.valid),
            reader.complete.payload.eq(buffer.complete.payload),
            reader.credit.eq(post.credit),
            reader.param_ready.eq(self.param_ready), self.param_addr.eq(reader.param_addr),
            reader.param_data.eq(self.param_data), self.param_next.eq(reader.param_next),
            self.slot_free.eq(reader.slot_free),
            buffer.r_en.eq(reader.r_en), buffer.r_slot.eq(reader.r_slot),
            buffer.r_kernel.eq(reader.r_kernel), buffer.r_index.eq(reader.r_index),
        ]

        for lane in range(self._config.tile_lanes):
            # The lanes are in lock-step: the first one's tag stands for all.
            inverse = InverseFFT(
                StoreTag if lane == 0 else unsigned(1), self._config.inverse_rows
            )
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
            writer.reserve.eq(post.reserve), post.spare.eq(writer.spare),
            self.layers_done.eq(writer.layers_done),
            self.finished.eq(writer.finished),
            self.stats.valid.eq(writer.stats.valid),
            self.stats.payload.eq(writer.stats.payload),
        ]
        for bank in range(banks):
            m.d.comb += [
                writer.i[bank].valid.eq(post.o[bank].valid),
                writer.i[bank].payload.eq(post.o[bank].payload),
                self.progress[bank].eq(writer.progress[bank]),
            ]
        if self._config.map_pool:
            self._pool(m, writer, layer)
        else:
            for mine, theirs in zip(self.write, writer.write, strict=True):
                m.d.comb += [mine.valid.eq(theirs.valid), mine.payload.eq(theirs.payload)]
        return m

    def _pool(self, m: Module, writer: Writer, layer) -> None:
        """Let the pooling of maps use the ports once the writers are done."""
        m.submodules.mappool = pool = MapPool(config=self._config)
        m.d.comb += [
            pool.layer.eq(layer), pool.start.eq(writer.written), writer.pooled.eq(pool.done),
            self.reads.eq(pool.busy),
        ]
        for bank, (mine, first, second) in enumerate(
            zip(self.write, writer.write, pool.write, strict=True)
        ):
            wiring.connect(m, pool.read[bank], wiring.flipped(self.read[bank]))
            m.d.comb += [
                mine.valid.eq(first.valid | second.valid),
                mine.payload.eq(Mux(
                    second.valid, second.payload.as_value(), first.payload.as_value()
                )),
            ]
