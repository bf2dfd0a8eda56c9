"""The `pysim` backend: the core on Amaranth's own simulator. Slow, but nothing to install."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.hdl import Value
from amaranth.sim import Simulator

from model.errors import UserError
from sim.backend import CSR, READ_LATENCY, STATUS_BUSY, Backend
from sim.events import Events, pack_payloads, probe_layouts
from sim.memory import MemoryModel

__all__ = ["PysimBackend"]


def _raw(value: Any) -> Value:
    """Bits of a signal or view, unsigned."""
    cast = Value.cast(value)
    return cast.as_unsigned() if cast.shape().signed else cast


def _probe(core: Any, name: str) -> Any:
    """Port of the core that a probe of `sim.events.probe_layouts` stands for."""
    kind = name.rstrip("0123456789")
    port = getattr(core, f"probe_{kind}")
    return port[int(name[len(kind):])] if kind != name else port


class PysimBackend(Backend):
    """Core on Amaranth's simulator.

    One never-ending testbench plays memory and host; the methods hand it operations and advance
    the simulator until they are done. All payloads travel as packed integers.

    Parameters
    ----------
    core : wiring.Component
        The core, with probes.
    record : bool
        Whether probe events are kept.
    trace : Path or None
        VCD file to write.
    **arguments
        Of `Backend`: config, options, max_cycles, memory_beats.
    """

    name = "pysim"

    def __init__(self, core: Any, *, record: bool = True, trace: Path | None = None,
                 **arguments: Any) -> None:
        super().__init__(**arguments)
        if trace:
            try:
                trace.open("w").close()
            except OSError as error:
                raise UserError(f"cannot write waveform {trace}: {error.strerror}") from error
        self._core = core
        self._model = MemoryModel(self.memory, self.options, self.config.port_bits)
        self._record = record
        self._cycle = 0
        self._probes = {name: _probe(core, name) for name in probe_layouts(self.config)}
        self._seen: dict[str, tuple[list[int], list[int]]] = {
            name: ([], []) for name in self._probes
        }
        self._job: Callable[[Any], Any] | None = None
        self._answer: Any = None
        self._stack = contextlib.ExitStack()
        self._sim = Simulator(core)
        self._sim.add_clock(1e-8)
        self._sim.add_testbench(self._testbench)
        if trace:
            self._stack.enter_context(self._sim.write_vcd(str(trace)))

    async def _testbench(self, ctx: Any) -> None:
        while True:
            if self._job is None:
                # Nobody asked for anything: let the caller's loop see that and stop advancing.
                await ctx.delay(0)
                continue
            self._answer = await self._job(ctx)
            self._job = None

    def _do(self, job: Callable[[Any], Any]) -> Any:
        self._job = job
        while self._job is not None:
            self._sim.advance()
        return self._answer

    async def _step(self, ctx: Any) -> None:
        """One clock cycle, as `Sim::step` in the harness."""
        model, mem = self._model, self._core.mem
        ctx.set(mem.ar.ready, model.ar_ready)
        ctx.set(mem.w.ready, model.w_ready)
        ctx.set(mem.w_busy, model.w_busy)
        ctx.set(mem.w_error, model.w_error)
        ctx.set(mem.r.valid, model.r_valid)
        if model.r_valid:
            ctx.set(Value.cast(mem.r.payload), model.r_payload)
        ar_valid = ctx.get(mem.ar.valid)
        w_valid = ctx.get(mem.w.valid)
        transfers = (
            ar_valid, ctx.get(_raw(mem.ar.payload)) if ar_valid else 0, ctx.get(mem.r.ready),
            w_valid, ctx.get(_raw(mem.w.payload)) if w_valid else 0,
        )
        if self._record:
            for name, probe in self._probes.items():
                if ctx.get(probe.valid):
                    cycles, payloads = self._seen[name]
                    cycles.append(self._cycle)
                    payloads.append(ctx.get(_raw(probe.payload)))
        await ctx.tick()
        self._cycle += 1
        model.step(*transfers)

    @property
    def cycle(self) -> int:
        """Cycles since reset."""
        return self._cycle

    @property
    def faults(self) -> int:
        """Accesses outside the memory."""
        return self._model.faults

    def csr_write(self, address: int, value: int) -> None:
        """Write a register."""
        async def job(ctx: Any) -> None:
            ctx.set(self._core.csr_addr, address)
            ctx.set(self._core.csr_w_data, value)
            ctx.set(self._core.csr_w_en, 1)
            await self._step(ctx)
            ctx.set(self._core.csr_w_en, 0)
        self._do(job)

    def csr_read(self, address: int) -> int:
        """Read a register."""
        async def job(ctx: Any) -> int:
            ctx.set(self._core.csr_addr, address)
            for _ in range(READ_LATENCY):
                await self._step(ctx)
            return ctx.get(self._core.csr_r_data)
        return self._do(job)

    def wait_idle(self, max_cycles: int) -> bool:
        """Step until not busy."""
        async def job(ctx: Any) -> bool:
            ctx.set(self._core.csr_addr, CSR["status"])
            for _ in range(4):
                await self._step(ctx)
            for _ in range(max_cycles):
                if not ctx.get(self._core.csr_r_data) & STATUS_BUSY:
                    return True
                await self._step(ctx)
            return False
        return self._do(job)

    def inject(self, *, error_beat: int | None = None, error_write: int | None = None,
               stop: int | None = None) -> None:
        """Let the memory fail, counted from now."""
        self._model.inject(error_beat, error_write, stop)

    def take_events(self) -> dict[str, Events]:
        """Hand out the recorded events and forget them."""
        events = {}
        for name, probe in self._probes.items():
            cycles, payloads = self._seen[name]
            width = len(Value.cast(probe.payload))
            events[name] = Events(np.array(cycles, dtype=np.uint64),
                                  pack_payloads(payloads, width))
            self._seen[name] = ([], [])
        return events

    def close(self) -> None:
        """Finish the waveform."""
        self._stack.close()
