"""The engine: everything that takes part in a run between the feature memory and itself.

Every unit takes the layers' descriptors from the sequencer by itself and waits only for what it
needs: tiles, kernel entries, room for sums, channels of the layer before.
"""

from __future__ import annotations

from amaranth.hdl import Module, Mux
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from model.config import ROW_BITS, AcceleratorConfig
from model.descriptor import BEATS
from rtl.csr import UNITS
from rtl.drain import Drain
from rtl.fft.forward import ForwardFFT
from rtl.issue import Issue
from rtl.kernelbuffer import KernelBuffer
from rtl.loader import Loader
from rtl.mac import MacArray
from rtl.parameters import ParamMemory
from rtl.prefetch import Prefetch
from rtl.sequencer import Sequencer
from rtl.signatures import (
    Column,
    Event,
    FeatureReadSignature,
    FeatureWrite,
    LayerStats,
    ReadData,
    ReadRequest,
    SumWrite,
)
from rtl.store import StoreStage
from rtl.tilebuffer import TileBuffer

__all__ = ["Engine"]


class Engine(wiring.Component):
    """Sequencer, loader, FFT, array, store stage and the kernel side, wired.

    Parameters
    ----------
    config : AcceleratorConfig
        What to build.

    Attributes
    ----------
    start : In(1)
        Begin a run, after a reset: that is what empties all units.
    layers : In(range(max_layers + 1))
        Layers of the program.
    store_addr, store_data : Out, In
        Descriptor store, see `rtl.sequencer.Sequencer`.
    kernel_base : In(32)
        Beat address of section KERN.
    input_done, input_row : In(1), In(ROW_BITS + 1)
        Levels: the input is in the feature memory; it is there below this row.
    input_asking, next_input : In(1), Out(1)
        Level: the input is not yet asked for wholly; pulse: load the next one of the batch.
    run_cycle : In(32)
        Cycle of the run.
    ar, r : Out(stream.Signature(ReadRequest)), In(stream.Signature(ReadData(port_bits)))
        Memory reads of the kernel prefetch.
    read, write : Out(FeatureReadSignature()), Out(Event(FeatureWrite)), arrays (feature_banks)
        Feature memory.
    dot_next : Out(1)
        Level: the next kernels asked for, or later ones, are a dot layer's.
    finished : Out(1)
        Pulse: the last layer is written and may be read.
    error : Out(1)
        Pulse: a beat came with a bus error.
    mac, prefetch, store, loader : Out(Event(LayerStats))
        Counters of the layers.
    probe_tile, probe_sum, probe_write
        See `rtl.core.Core`.
    """

    def __init__(self, *, config: AcceleratorConfig) -> None:
        if not isinstance(config, AcceleratorConfig):
            raise TypeError(f"config must be an AcceleratorConfig, not {config!r}")
        self._config = config
        super().__init__({
            "start": In(1), "layers": In(range(config.max_layers + 1)),
            "store_addr": Out(range(config.max_layers * BEATS)), "store_data": In(64),
            "kernel_base": In(32), "run_cycle": In(32),
            "input_done": In(1), "input_row": In(ROW_BITS + 1),
            "input_asking": In(1), "next_input": Out(1),
            "ar": Out(stream.Signature(ReadRequest)),
            "r": In(stream.Signature(ReadData(config.port_bits))),
            "read": Out(FeatureReadSignature()).array(config.feature_banks),
            "write": Out(Event(FeatureWrite)).array(config.feature_banks),
            "dot_next": Out(1), "finished": Out(1), "error": Out(1),
            **{unit: Out(Event(LayerStats)) for unit in UNITS},
            "probe_tile": Out(Event(Column(config))).array(config.feature_banks),
            "probe_sum": Out(Event(SumWrite(config))),
            "probe_write": Out(Event(FeatureWrite)).array(config.feature_banks),
        })

    def elaborate(self, platform) -> Module:
        """Wire the data's way, the kernels' way, what flows back, and the descriptors."""
        m = Module()
        config = self._config
        m.submodules.loader = loader = Loader(config=config)
        m.submodules.tiles = tiles = TileBuffer(config=config)
        m.submodules.issue = issue = Issue(config)
        m.submodules.mac = mac = MacArray(config)
        m.submodules.drain = drain = Drain(config)
        m.submodules.store = store = StoreStage(config=config)
        m.submodules.prefetch = prefetch = Prefetch(config=config)
        m.submodules.kernels = kernels = KernelBuffer(config=config)
        m.submodules.params = params = ParamMemory(config=config)

        # The data's way.
        for bank in range(config.feature_banks):
            m.submodules[f"fft{bank}"] = fft = ForwardFFT(config)
            if config.map_pool:
                self._share(m, self.read[bank], loader.feature[bank], store.read[bank], store.reads)
            else:
                connect(m, loader.feature[bank], flipped(self.read[bank]))
            connect(m, loader.o[bank], fft.i)
            connect(m, fft.o, tiles.i[bank])
            m.d.comb += [
                self.probe_tile[bank].valid.eq(fft.o.valid),
                self.probe_tile[bank].payload.eq(fft.o.payload),
            ]
        connect(m, issue.o, mac.i)
        if config.window > 1:
            connect(m, issue.read_out, mac.read_out)
        m.d.comb += [
            tiles.en.eq(mac.tile_en), tiles.addr.eq(mac.tile_addr), mac.tile_data.eq(tiles.data),
        ]
        connect(m, mac.o, drain.i)
        connect(m, drain.o, store.sums)
        for source, write, probe in zip(store.write, self.write, self.probe_write, strict=True):
            for target in (write, probe):
                m.d.comb += [
                    target.valid.eq(source.valid), target.payload.eq(source.payload),
                ]

        # The kernels' way.
        connect(m, prefetch.ar, flipped(self.ar))
        connect(m, flipped(self.r), prefetch.r)
        connect(m, prefetch.kernels, kernels.write)
        connect(m, kernels.entries, issue.entries)
        m.d.comb += [
            prefetch.kernel_base.eq(self.kernel_base), self.dot_next.eq(prefetch.dot_next),
            prefetch.param_room.eq(params.room), params.w_en.eq(prefetch.param_en),
            params.w_data.eq(prefetch.param_data), params.w_last.eq(prefetch.param_last),
            store.param_ready.eq(params.ready), params.r_addr.eq(store.param_addr),
            store.param_data.eq(params.r_data), params.next.eq(store.param_next),
        ]

        # What flows back.
        connect(m, issue.freed, loader.freed)
        m.d.comb += [
            issue.block_loaded.eq(tiles.block_loaded), issue.slot_free.eq(store.slot_free),
            loader.input_done.eq(self.input_done), loader.input_row.eq(self.input_row),
            self.next_input.eq(loader.next_input),
            prefetch.inputs.eq(loader.inputs), prefetch.asking.eq(self.input_asking),
            loader.layers_done.eq(store.layers_done),
            *(mine.eq(theirs) for mine, theirs in zip(
                loader.progress, store.progress, strict=True)),
            store.run_cycle.eq(self.run_cycle),
            self.finished.eq(store.finished), self.error.eq(prefetch.error),
        ]
        for unit, source in (("mac", issue), ("prefetch", prefetch), ("store", store),
                             ("loader", loader)):
            connect(m, source.stats, flipped(getattr(self, unit)))

        # Descriptors.
        consumers = (loader, prefetch, kernels, issue, store)
        m.submodules.sequencer = sequencer = Sequencer(config=config, clients=len(consumers))
        m.d.comb += [
            sequencer.start.eq(self.start), sequencer.layers.eq(self.layers),
            self.store_addr.eq(sequencer.store_addr),
            sequencer.store_data.eq(self.store_data),
        ]
        for desc, unit in zip(sequencer.desc, consumers, strict=True):
            connect(m, desc, unit.desc)

        m.d.comb += [
            self.probe_sum.valid.eq(drain.o.valid), self.probe_sum.payload.eq(drain.o.payload),
        ]
        return m

    def _share(self, m: Module, port, loader, pool, pooling) -> None:
        """Read port of a bank: the loader's, and meanwhile idle, of the pooling of a map."""
        for name in ("en", *FeatureReadSignature.PLACE):
            m.d.comb += getattr(port, name).eq(
                Mux(pooling, getattr(pool, name), getattr(loader, name))
            )
        for name in ("even", "odd"):
            m.d.comb += [
                getattr(reader, name).eq(getattr(port, name)) for reader in (loader, pool)
            ]
