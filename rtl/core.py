"""The accelerator: control, memory port, feature memory and the engine; and a top with memory.

Everything is in the ``sync`` domain.
"""

from __future__ import annotations

from amaranth.hdl import Module, Mux, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from model.config import AcceleratorConfig
from rtl.checker import Checker
from rtl.control import Controller
from rtl.csr import ADDRESS_BITS, UNITS, Csr
from rtl.dma import InputDma, OutputDma
from rtl.engine import Engine
from rtl.feature import FeatureMemory
from rtl.memory import OnChipMemory, ReadArbiter
from rtl.signatures import Column, Event, FeatureWrite, MemorySignature, SumWrite

__all__ = ["Core", "Top"]

#: Host side: register access and interrupt.
_HOST = {
    "csr_addr": In(ADDRESS_BITS), "csr_w_en": In(1), "csr_w_data": In(32), "csr_r_data": Out(32),
    "irq": Out(1),
}
_HOST_INPUTS = ("csr_addr", "csr_w_en", "csr_w_data")
_HOST_OUTPUTS = ("csr_r_data", "irq")


class Core(wiring.Component):
    """The accelerator with an open memory port.

    Parameters
    ----------
    config : AcceleratorConfig
        What to build.
    probe : bool
        Bring out what the golden model predicts word by word.

    Attributes
    ----------
    csr_addr, csr_w_en, csr_w_data, csr_r_data : In(10), In(1), In(32), Out(32)
        Registers, see `rtl.csr`.
    irq : Out(1)
        Interrupt, level.
    mem : Out(MemorySignature(port_bits))
        Memory port.
    probe_tile : Out(Event(Column(config)))
        Columns of words into the tile buffer.
    probe_sum : Out(Event(SumWrite(config)))
        Sums into the sum buffer.
    probe_write : Out(Event(FeatureWrite))
        Activations into the feature memory, without those of the input DMA.
    """

    def __init__(self, config: AcceleratorConfig, *, probe: bool = False) -> None:
        if not isinstance(config, AcceleratorConfig):
            raise TypeError(f"config must be an AcceleratorConfig, not {config!r}")
        self.config = config
        self._probe = probe
        probes = {
            "probe_tile": Out(Event(Column(config))),
            "probe_sum": Out(Event(SumWrite(config))),
            "probe_write": Out(Event(FeatureWrite)),
        }
        port = {"mem": Out(MemorySignature(config.port_bits))}
        super().__init__(_HOST | port | (probes if probe else {}))

    def elaborate(self, platform) -> Module:
        """Wire control, port and feature memory around the engine."""
        m = Module()
        config = self.config
        m.submodules.csr = csr = Csr(config=config)
        m.submodules.control = control = Controller()
        m.submodules.checker = checker = Checker(config=config)
        m.submodules.arbiter = arbiter = ReadArbiter(clients=3, port_bits=config.port_bits)
        m.submodules.feature = feature = FeatureMemory(config=config)
        input_dma, output_dma, engine = InputDma(), OutputDma(), Engine(config=config)
        # A run that failed leaves nothing behind: the next one starts from reset.
        for name, unit in (("input_dma", input_dma), ("output_dma", output_dma),
                           ("engine", engine)):
            m.submodules[name] = ResetInserter(control.engine_reset)(unit)

        self._registers(m, csr, control, checker)
        self._port(m, control, arbiter, (checker, input_dma, engine), output_dma)
        self._features(m, feature, input_dma, output_dma, engine)

        m.d.comb += [
            checker.start.eq(control.checker_start),
            checker.image_addr.eq(csr.image_addr), checker.image_beats.eq(csr.image_beats),
            checker.desc_addr.eq(engine.store_addr), engine.store_data.eq(checker.desc_data),
            control.checker_done.eq(checker.done), control.checker_error.eq(checker.error),

            input_dma.start.eq(control.engine_start), input_dma.addr.eq(csr.input_addr),
            input_dma.base.eq(checker.input_base), input_dma.rows.eq(checker.input_rows),
            output_dma.start.eq(control.output_start), output_dma.addr.eq(csr.output_addr),
            output_dma.base.eq(checker.output_base), output_dma.rows.eq(checker.output_rows),
            control.output_done.eq(output_dma.done),

            engine.start.eq(control.engine_start), engine.layers.eq(checker.layers),
            engine.kernel_base.eq(checker.kernel_base), engine.run_cycle.eq(control.cycles),
            engine.input_ready.eq(input_dma.done),
            control.finished.eq(engine.finished),
            control.bus_error.eq(input_dma.error | engine.error),
        ]
        for unit in UNITS:
            connect(m, getattr(engine, unit), getattr(csr, unit))
        if self._probe:
            for name in ("probe_tile", "probe_sum", "probe_write"):
                connect(m, getattr(engine, name), flipped(getattr(self, name)))
        return m

    def _registers(self, m: Module, csr: Csr, control: Controller, checker: Checker) -> None:
        """Host to registers, registers to control."""
        m.d.comb += [
            csr.addr.eq(self.csr_addr), csr.w_en.eq(self.csr_w_en),
            csr.w_data.eq(self.csr_w_data), self.csr_r_data.eq(csr.r_data),
            self.irq.eq(csr.irq), csr.layers.eq(checker.layers),
            *(getattr(control, name).eq(getattr(csr, name)) for name in ("load", "run", "clear")),
            *(getattr(csr, name).eq(getattr(control, name)) for name in (
                "busy", "done", "loaded", "error", "cycles", "read_beats", "write_beats")),
        ]

    def _port(self, m: Module, control: Controller, arbiter: ReadArbiter, readers,
              output_dma: OutputDma) -> None:
        """Readers to the arbiter, arbiter and output DMA to the port.

        The input DMA goes before the engine: the kernel prefetch may let its beats wait until
        layer 0 has begun, so all of the input must have been asked for earlier.
        """
        for index, reader in enumerate(readers):
            connect(m, reader.ar, arbiter.ar[index])
            connect(m, arbiter.r[index], reader.r)
        connect(m, arbiter.mem_ar, flipped(self.mem.ar))
        connect(m, flipped(self.mem.r), arbiter.mem_r)
        connect(m, output_dma.w, flipped(self.mem.w))
        m.d.comb += [
            arbiter.flush.eq(control.flush), control.idle.eq(arbiter.idle),
            control.r_taken.eq(self.mem.r.valid & self.mem.r.ready),
            control.w_taken.eq(self.mem.w.valid & self.mem.w.ready),
        ]

    def _features(self, m: Module, feature: FeatureMemory, input_dma: InputDma,
                  output_dma: OutputDma, engine: Engine) -> None:
        """Both ports of the feature memory have two users, never at the same time."""
        write, reading = feature.write, output_dma.read.en
        m.d.comb += [
            write.valid.eq(input_dma.write.valid | engine.write.valid),
            write.payload.eq(Mux(input_dma.write.valid, input_dma.write.payload.as_value(),
                                 engine.write.payload.as_value())),
            feature.read.en.eq(reading | engine.read.en),
        ]
        for name in ("even_addr", "odd_addr", "offset"):
            m.d.comb += getattr(feature.read, name).eq(
                Mux(reading, getattr(output_dma.read, name), getattr(engine.read, name))
            )
        for name in ("even", "odd"):
            m.d.comb += [
                getattr(reader.read, name).eq(getattr(feature.read, name))
                for reader in (output_dma, engine)
            ]


class Top(wiring.Component):
    """The core, with an on-chip memory behind its port if the config has one.

    Parameters
    ----------
    config : AcceleratorConfig
        What to build; ``onchip_kib`` decides about the memory.

    Attributes
    ----------
    csr_addr, csr_w_en, csr_w_data, csr_r_data, irq
        See `Core`.
    mem : Out(MemorySignature(port_bits))
        Memory port, if ``onchip_kib`` is 0.
    host_addr, host_en, host_w_en, host_w_data, host_r_data
        Host port of the memory, see `rtl.memory.OnChipMemory`, if it is not.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        if not isinstance(config, AcceleratorConfig):
            raise TypeError(f"config must be an AcceleratorConfig, not {config!r}")
        self.config = config
        depth = 128 * config.onchip_kib
        memory = {
            "host_addr": In(range(depth)), "host_en": In(1), "host_w_en": In(1),
            "host_w_data": In(64), "host_r_data": Out(64),
        } if depth else {"mem": Out(MemorySignature(config.port_bits))}
        super().__init__(_HOST | memory)

    def elaborate(self, platform) -> Module:
        """Core and memory side by side."""
        m = Module()
        m.submodules.core = core = Core(self.config)
        m.d.comb += [
            *(getattr(core, name).eq(getattr(self, name)) for name in _HOST_INPUTS),
            *(getattr(self, name).eq(getattr(core, name)) for name in _HOST_OUTPUTS),
        ]
        if not self.config.onchip_kib:
            connect(m, core.mem, flipped(self.mem))
            return m
        m.submodules.memory = memory = OnChipMemory(
            kib=self.config.onchip_kib, port_bits=self.config.port_bits
        )
        connect(m, core.mem, memory.bus)
        m.d.comb += [
            memory.host_addr.eq(self.host_addr), memory.host_en.eq(self.host_en),
            memory.host_w_en.eq(self.host_w_en), memory.host_w_data.eq(self.host_w_data),
            self.host_r_data.eq(memory.host_r_data),
        ]
        return m
