"""Input and output DMA around the real feature memory."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import connect

from model.config import PRESETS
from rtl.dma import InputDma, OutputDma
from rtl.feature import FeatureMemory
from sim.memory import MemoryModel, MemoryOptions
from tests.rtl.helpers import contract, memory_port, simulate

CONFIG = PRESETS["tiny"]


def bench_module():
    m = Module()
    m.submodules.into = into = InputDma()
    m.submodules.out = out = OutputDma()
    m.submodules.feature = feature = FeatureMemory(config=CONFIG)
    connect(m, into.write, feature.write)
    connect(m, out.read, feature.read)
    return m, into, out


def begin(dut, addr, base, rows):
    async def bench(ctx):
        for port, value in ((dut.addr, addr), (dut.base, base), (dut.rows, rows), (dut.start, 1)):
            ctx.set(port, value)
        await ctx.tick()
        ctx.set(dut.start, 0)
        cycles = 0
        while not ctx.get(dut.done):
            cycles += 1
            await ctx.tick()
        return cycles
    return bench


@pytest.mark.parametrize("options", [
    MemoryOptions(latency=1), MemoryOptions(latency=7, stall=0.5, bandwidth=0.5, seed=2),
])
def test_there_and_back(options):
    m, into, out = bench_module()
    rng = np.random.default_rng(1)
    memory = rng.integers(1 << 63, size=600, dtype=np.uint64)
    rows, cycles = 45, []
    expected = memory.copy()
    expected[300:300 + 2 * rows] = memory[10:10 + 2 * rows]
    expected[500:504] = memory[50:54]       # rows 20 and 21 again
    model = MemoryModel(memory, options)

    async def bench(ctx):
        cycles.append(await begin(into, 10, 100, rows)(ctx))
        cycles.append(await begin(out, 300, 100, rows)(ctx))
        await begin(out, 500, 120, 2)(ctx)
        await begin(out, 0, 120, 0)(ctx)     # nothing to do
        await begin(into, 0, 100, 0)(ctx)

    simulate(m, bench, monitors=[
        memory_port(model, into.ar, into.r, out.w), contract(into.ar), contract(out.w)])
    np.testing.assert_array_equal(memory, expected)
    assert model.faults == 0
    if options.latency == 1:
        assert cycles[0] <= 2 * rows + 16 and cycles[1] <= 2 * rows + 8


def test_bus_error_is_reported():
    m, into, _ = bench_module()
    model = MemoryModel(np.zeros(100, np.uint64), MemoryOptions(error_beat=5))
    seen = []

    async def bench(ctx):
        await begin(into, 0, 0, 8)(ctx)

    async def watch(ctx):
        async for _, _, error in ctx.tick().sample(into.error):
            seen.append(error)

    simulate(m, bench, monitors=[memory_port(model, into.ar, into.r), watch])
    assert sum(seen) == 1
