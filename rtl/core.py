"""The accelerator: control, memory port, feature memory and the engine; and a top with memory.

Everything is in the ``sync`` domain, or on its clock.
"""

from __future__ import annotations

from amaranth.hdl import (
    Cat,
    ClockDomain,
    ClockSignal,
    DomainRenamer,
    Module,
    Mux,
    ResetInserter,
    Signal,
)
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from model.config import AcceleratorConfig
from rtl.checker import Checker
from rtl.control import Controller
from rtl.csr import ADDRESS_BITS, UNITS, Csr
from rtl.dma import InputDma, OutputDma
from rtl.ecp5 import is_ecp5
from rtl.engine import Engine
from rtl.feature import FeatureMemory
from rtl.memory import OnChipMemory, ReadArbiter
from rtl.prefetch import burst_beats
from rtl.signatures import (
    Column,
    Event,
    FeatureReadSignature,
    FeatureWrite,
    MemorySignature,
    SumWrite,
)
from rtl.watchdog import Watchdog

__all__ = ["Core", "Top", "first_bursts"]


def first_bursts(config: AcceleratorConfig) -> int:
    """Count the bursts of kernels that may be read before the input: 1 or 2.

    They must fit the kernel side's buffers: nothing makes room there before the input has come, and
    that would wait behind them. One burst always fits: it is of layer 0, a convolution, whose
    kernel blocks have 32 entries at least. A second one may be of the next layer; if that is fully
    connected (its blocks may be of a few beats, more than parameters are kept for), the input goes
    before it (``Engine.dot_next``). The kernel buffer must have a row for every beat.
    """
    fits = config.feature_banks > 1 and config.kernel_depth >= 2 * burst_beats(config)
    return 2 if config.port_bits > 64 and fits else 1


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
    probe_tile : Out(Event(Column(config))).array(feature_banks)
        Columns of words into the tile buffer, of the channels of each feature bank.
    probe_sum : Out(Event(SumWrite(config)))
        Sums into the sum buffer.
    probe_write : Out(Event(FeatureWrite)).array(feature_banks)
        Activations into each feature bank, without those of the input DMA.
    """

    def __init__(self, config: AcceleratorConfig, *, probe: bool = False) -> None:
        if not isinstance(config, AcceleratorConfig):
            raise TypeError(f"config must be an AcceleratorConfig, not {config!r}")
        self.config = config
        self._probe = probe
        probes = {
            "probe_tile": Out(Event(Column(config))).array(config.feature_banks),
            "probe_sum": Out(Event(SumWrite(config))),
            "probe_write": Out(Event(FeatureWrite)).array(config.feature_banks),
        }
        port = {"mem": Out(MemorySignature(config.port_bits))}
        super().__init__(_HOST | port | (probes if probe else {}))

    def elaborate(self, platform) -> Module:
        """Wire control, port and feature memory around the engine."""
        m = Module()
        config = self.config
        m.submodules.csr = csr = Csr(config=config)
        m.submodules.control = control = Controller()
        checker = Checker(config=config)
        m.submodules.arbiter = arbiter = ReadArbiter(clients=3, port_bits=config.port_bits)
        input_dma, output_dma, engine = (
            unit(config=config) for unit in (InputDma, OutputDma, Engine)
        )
        # A run that failed leaves nothing behind: the next one starts from reset. A write that is
        # offered to the memory is not taken back.
        reset = control.engine_reset
        self._reset_by(m, control.checker_reset, {"checker": checker}, platform)
        self._reset_by(m, reset, {"engine": engine, "input_dma": input_dma}, platform)
        m.submodules.output_dma = ResetInserter(reset & ~output_dma.w.valid)(output_dma)

        self._registers(m, csr, control, checker)
        self._port(m, control, arbiter, (checker, input_dma, engine), output_dma)
        self._watchdog(m, csr, control, arbiter)
        for bank in range(config.feature_banks):
            m.submodules[f"feature{bank}"] = feature = FeatureMemory(config=config)
            self._features(
                m, feature, input_dma.write[bank], output_dma.read[bank], engine.write[bank],
                engine.read[bank], output_dma.reads,
            )

        m.d.comb += [
            checker.start.eq(control.checker_start),
            checker.image_addr.eq(csr.image_addr), checker.image_beats.eq(csr.image_beats),
            checker.desc_addr.eq(engine.store_addr), engine.store_data.eq(checker.desc_data),
            control.checker_done.eq(checker.done), control.checker_error.eq(checker.error),

            input_dma.start.eq(control.engine_start), input_dma.addr.eq(csr.input_addr),
            input_dma.base.eq(checker.input_base), input_dma.rows.eq(checker.input_rows),
            input_dma.hold.eq(Cat(write.valid for write in engine.write)),
            output_dma.start.eq(control.output_start), output_dma.addr.eq(csr.output_addr),
            output_dma.base.eq(checker.output_base), output_dma.rows.eq(checker.output_rows),
            control.output_done.eq(output_dma.done),

            engine.start.eq(control.engine_start), engine.layers.eq(checker.layers),
            engine.kernel_base.eq(checker.kernel_base), engine.run_cycle.eq(control.cycles),
            engine.input_done.eq(input_dma.done), engine.input_row.eq(input_dma.row),
            engine.input_asking.eq(input_dma.asking), input_dma.again.eq(engine.next_input),
            control.finished.eq(engine.finished),
            control.bus_error.eq(input_dma.error | engine.error),
        ]
        for unit in UNITS:
            connect(m, getattr(engine, unit), getattr(csr, unit))
        if self._probe:
            connect(m, engine.probe_sum, flipped(self.probe_sum))
            for bank in range(config.feature_banks):
                connect(m, engine.probe_tile[bank], flipped(self.probe_tile[bank]))
                connect(m, engine.probe_write[bank], flipped(self.probe_write[bank]))
        return m

    @staticmethod
    def _reset_by(m: Module, reset, units: dict, platform) -> None:
        """Give units a reset beside that of the domain, which sets ``reset``, too.

        On an ECP5 it is the only one: a domain of their own on the same clock, without a table for
        either of two resets in front of thousands of flip-flops. It is a cycle late: the domain's
        must last two, else what they ask for in its last cycle is taken and never fetched.
        Not in a simulator, where a clock that is assigned comes after the signals it reads.
        """
        if not is_ecp5(platform):
            for name, unit in units.items():
                m.submodules[name] = ResetInserter(reset)(unit)
            return
        first = next(iter(units))
        m.domains += (domain := ClockDomain(first, local=True))
        m.d.comb += [domain.clk.eq(ClockSignal()), domain.rst.eq(reset)]
        for name, unit in units.items():
            m.submodules[name] = DomainRenamer(first)(unit)

    def _registers(self, m: Module, csr: Csr, control: Controller, checker: Checker) -> None:
        """Host to registers, registers to control."""
        m.d.comb += [
            csr.addr.eq(self.csr_addr), csr.w_en.eq(self.csr_w_en),
            csr.w_data.eq(self.csr_w_data), self.csr_r_data.eq(csr.r_data),
            self.irq.eq(csr.irq), csr.layers.eq(checker.layers),
            *(getattr(control, name).eq(getattr(csr, name)) for name in (
                "load", "run", "clear", "abort")),
            *(getattr(csr, name).eq(getattr(control, name)) for name in (
                "busy", "done", "loaded", "owing", "error", "cycles", "read_beats",
                "write_beats")),
        ]

    def _port(self, m: Module, control: Controller, arbiter: ReadArbiter, readers,
              output_dma: OutputDma) -> None:
        """Readers to the arbiter, arbiter and output DMA to the port.

        The first kernels come first, so that layer 0 begins with its first rows: `first_bursts` of
        them, or what is asked for in 63 cycles. Then the input DMA goes before the engine: the
        kernel prefetch may let its beats wait until layer 0 has begun, so all of the input must
        have been asked for earlier.
        """
        checker, input_dma, engine = readers
        most = first_bursts(self.config)
        bursts, cycles, enough = Signal(range(most + 1)), Signal(6), Signal()
        kernels_asked = enough | engine.dot_next
        with m.If(engine.ar.valid & engine.ar.ready):
            m.d.sync += bursts.eq(bursts + 1)
        m.d.sync += cycles.eq(cycles + 1)
        with m.If(cycles.all() | ((bursts == most - 1) & engine.ar.valid & engine.ar.ready)):
            m.d.sync += enough.eq(1)
        with m.If(control.engine_reset):
            m.d.sync += [bursts.eq(0), cycles.eq(0), enough.eq(0)]
        connect(m, checker.ar, arbiter.ar[0])
        connect(m, engine.ar, arbiter.ar[2])
        m.d.comb += [
            arbiter.ar[1].valid.eq(input_dma.ar.valid & kernels_asked),
            arbiter.ar[1].payload.eq(input_dma.ar.payload),
            input_dma.ar.ready.eq(arbiter.ar[1].ready),
        ]
        for index, reader in enumerate(readers):
            connect(m, arbiter.r[index], reader.r)
        connect(m, arbiter.mem_ar, flipped(self.mem.ar))
        connect(m, flipped(self.mem.r), arbiter.mem_r)
        connect(m, output_dma.w, flipped(self.mem.w))
        m.d.comb += [
            arbiter.flush.eq(control.flush), output_dma.stop.eq(control.flush),
            control.idle.eq(arbiter.idle & ~self.mem.w.valid & ~self.mem.w_busy),
            control.w_busy.eq(self.mem.w_busy), control.w_error.eq(self.mem.w_error),
            control.r_taken.eq(self.mem.r.valid & self.mem.r.ready),
            control.w_taken.eq(self.mem.w.valid & self.mem.w.ready),
        ]

    def _watchdog(self, m: Module, csr: Csr, control: Controller, arbiter: ReadArbiter) -> None:
        """Watch the memory; a beat that waits for the core shows that it lives."""
        mem = self.mem
        m.submodules.watchdog = watchdog = Watchdog()
        m.d.comb += [
            watchdog.timeout.eq(csr.timeout), control.expired.eq(watchdog.expired),
            watchdog.owed.eq((~arbiter.idle & ~mem.r.valid) | mem.w.valid | mem.w_busy),
            watchdog.moved.eq(
                (mem.ar.valid & mem.ar.ready) | (mem.w.valid & mem.w.ready) | mem.alive
            ),
        ]

    def _features(self, m: Module, feature: FeatureMemory, input_write, output_read,
                  write, read, output_reads) -> None:
        """Give both ports of a bank of the feature memory to two users, never at the same time.

        The input DMA, which may still be at work when a layer writes, is held off meanwhile, bank
        by bank; the output DMA comes after the layers. A level says that it has: whether it reads
        in this cycle is known too late for the addresses of all block RAMs.
        """
        m.d.comb += [
            feature.write.valid.eq(write.valid), feature.write.payload.eq(write.payload),
            feature.fill.valid.eq(input_write.valid),
            feature.fill.payload.eq(input_write.payload),
            feature.read.en.eq(output_read.en | read.en),
        ]
        for name in FeatureReadSignature.PLACE:
            m.d.comb += getattr(feature.read, name).eq(
                Mux(output_reads, getattr(output_read, name), getattr(read, name))
            )
        for name in ("even", "odd"):
            m.d.comb += [
                getattr(reader, name).eq(getattr(feature.read, name))
                for reader in (output_read, read)
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
