# amaranth: UnusedElaboratable=no
"""Input and output DMA around the real feature memory."""

import random
from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import connect

from model import layout
from model.config import PRESETS
from rtl.dma import InputDma, OutputDma
from rtl.feature import FeatureMemory
from rtl.signatures import FeatureWrite
from sim.memory import MemoryModel, MemoryOptions
from tests.rtl.helpers import contract, memory_port, raw, simulate, unpack

TINY, WIDE = PRESETS["tiny"], PRESETS["tiny-wide"]
#: Beats per row: 2 (halves of it), 1, 16, 4, 2, 1.
CONFIGS = {
    "64 bits": TINY,
    "128 bits": replace(TINY, port_bits=128, kernel_lanes=8),
    "8 banks, 64 bits": replace(WIDE, port_bits=64),
    "8 banks, 256 bits": WIDE,
    "16 banks, 1024 bits": replace(WIDE, port_bits=1024, kernel_lanes=32, feature_banks=16),
    "8 banks, 1024 bits": replace(WIDE, port_bits=1024, kernel_lanes=32),
}


def bench_module(config):
    m = Module()
    m.submodules.into = into = InputDma(config=config)
    m.submodules.out = out = OutputDma(config=config)
    for bank in range(config.feature_banks):
        m.submodules[f"feature{bank}"] = feature = FeatureMemory(config=config)
        connect(m, into.write[bank], feature.fill)
        connect(m, out.read[bank], feature.read)
    return m, into, out


def holding(dut, probability, seed=7):
    """Monitor that takes the write port away at random, and sees that nothing is written then."""
    async def process(ctx):
        rng = random.Random(seed)
        ports = [port.valid for port in dut.write]
        async for _, _, held, *valid in ctx.tick().sample(dut.hold, *ports):
            assert not any(held >> bank & 1 and writes for bank, writes in enumerate(valid))
            ctx.set(dut.hold, sum((rng.random() < probability) << bank
                                  for bank in range(len(ports))))
    return process


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


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("options", [
    MemoryOptions(latency=1), MemoryOptions(latency=7, stall=0.5, bandwidth=0.5, seed=2),
])
def test_there_and_back(name, options):
    config = CONFIGS[name]
    m, into, out = bench_module(config)
    words = config.port_bits // 64      # of a beat
    beats = 128 * config.feature_banks // config.port_bits
    rng = np.random.default_rng(1)
    memory = rng.integers(1 << 63, size=2000 * words, dtype=np.uint64)
    rows, cycles = 45, []
    expected = memory.reshape(2000, words).copy()
    expected[1000:1000 + beats * rows] = expected[10:10 + beats * rows]
    expected[1900:1900 + 2 * beats] = expected[10 + 20 * beats:10 + 22 * beats]   # again
    model = MemoryModel(memory, options, config.port_bits)

    async def bench(ctx):
        cycles.append(await begin(into, 10, 100, rows)(ctx))
        cycles.append(await begin(out, 1000, 100, rows)(ctx))
        await begin(out, 1900, 120, 2)(ctx)
        await begin(out, 0, 120, 0)(ctx)     # nothing to do
        await begin(into, 0, 100, 0)(ctx)

    simulate(m, bench, monitors=[
        memory_port(model, into.ar, into.r, out.w), contract(into.ar), contract(out.w),
        holding(into, 0 if options.latency == 1 else 0.4)])
    np.testing.assert_array_equal(memory.reshape(2000, words), expected)
    assert model.faults == 0
    if options.latency == 1:
        assert cycles[0] <= beats * rows + 16 and cycles[1] <= beats * rows + 8


@pytest.mark.parametrize("name", CONFIGS)
def test_the_next_input_takes_the_place_of_the_one_before(name):
    """It begins where the one before ended in the memory; rows are announced from the start."""
    config = CONFIGS[name]
    m, into, out = bench_module(config)
    beats, rows = 128 * config.feature_banks // config.port_bits, 21
    memory = np.random.default_rng(1).integers(1 << 63, size=2000 * config.port_words,
                                               dtype=np.uint64)
    expected = memory.reshape(2000, -1).copy()
    model = MemoryModel(memory, MemoryOptions(latency=5, stall=0.3, seed=3), config.port_bits)

    async def bench(ctx):
        await begin(into, 10, 100, rows)(ctx)
        for number in range(1, 3):
            assert not ctx.get(into.asking) and ctx.get(into.row) == 100 + rows
            ctx.set(into.again, 1)
            await ctx.tick()
            ctx.set(into.again, 0)
            assert ctx.get(into.asking) and ctx.get(into.row) == 100 and not ctx.get(into.done)
            await ctx.tick().until(into.done)
            if number == 1:
                expected[1500:1500 + beats * rows] = expected[10 + beats * rows:][:beats * rows]
                await begin(out, 1500, 100, rows)(ctx)
        expected[1000:1000 + beats * rows] = expected[10 + 2 * beats * rows:][:beats * rows]
        await begin(out, 1000, 100, rows)(ctx)

    simulate(m, bench, monitors=[memory_port(model, into.ar, into.r, out.w), holding(into, 0.3)])
    np.testing.assert_array_equal(memory.reshape(2000, -1), expected)


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_are_announced_when_they_are_written(name):
    config = CONFIGS[name]
    banks = config.feature_banks
    m, into, _ = bench_module(config)
    image = np.random.default_rng(2).integers(0, 256, (banks + 2, 7, 12))
    region = layout.plane(image.shape, banks)
    packed = layout.pack_plane(image, region)
    wanted = packed.view(np.uint8).reshape(region.rows, banks, 2, 8)
    model = MemoryModel(packed.copy(), MemoryOptions(latency=3, stall=0.3), config.port_bits)
    written, base = {}, 60

    async def watch(ctx):
        ports = [value for port in into.write for value in (port.valid, raw(port.payload))]
        async for _, _, row, *values in ctx.tick().sample(into.row, *ports):
            for bank, (valid, bits) in enumerate(zip(values[::2], values[1::2], strict=True)):
                if valid:
                    write = unpack(FeatureWrite, bits)
                    assert (write.offset, write.count, write.vector) == (0, 8, 0)
                    halves = [(write.parity, write.data)]
                    if write.pair:
                        assert write.parity == 0
                        halves.append((1, write.below))
                    for parity, half in halves:
                        key = write.addr - base, bank, parity
                        assert key not in written
                        written[key] = list(half)
            assert all((below, bank, parity) in written for below in range(row - base)
                       for bank in range(banks) for parity in range(2))

    async def bench(ctx):
        await begin(into, 0, base, region.rows)(ctx)
        assert ctx.get(into.row) == base + region.rows

    simulate(m, bench, monitors=[memory_port(model, into.ar, into.r), watch, holding(into, 0.5)])
    assert written == {key: wanted[key].tolist() for key in np.ndindex(wanted.shape[:3])}


@pytest.mark.parametrize("config", [TINY, WIDE])
def test_bus_error_is_reported(config):
    m, into, _ = bench_module(config)
    model = MemoryModel(np.zeros(400, np.uint64), MemoryOptions(error_beat=5), config.port_bits)
    seen = []

    async def bench(ctx):
        await begin(into, 0, 0, 8)(ctx)

    async def watch(ctx):
        async for _, _, error in ctx.tick().sample(into.error):
            seen.append(error)

    simulate(m, bench, monitors=[memory_port(model, into.ar, into.r), watch])
    assert sum(seen) == 1


@pytest.mark.parametrize("name", ["64 bits", "8 banks, 1024 bits"])
def test_stop_takes_no_write_back_and_offers_no_other(name):
    m, _, out = bench_module(CONFIGS[name])
    taken = []

    async def watch(ctx):
        async for _, _, *levels in ctx.tick().sample(out.w.valid, out.w.ready, out.stop):
            if levels[:2] == [1, 1]:
                taken.append(levels[2])

    async def bench(ctx):
        ctx.set(out.rows, 20)
        await ctx.tick()
        ctx.set(out.start, 1)
        await ctx.tick()
        ctx.set(out.start, 0)
        ctx.set(out.w.ready, 1)
        await ctx.tick().repeat(8)
        ctx.set(out.w.ready, 0)
        await ctx.tick()
        assert ctx.get(out.w.valid)     # refused once: offered until it is taken
        ctx.set(out.stop, 1)
        await ctx.tick().repeat(10)
        assert ctx.get(out.w.valid)
        ctx.set(out.w.ready, 1)
        await ctx.tick().repeat(10)
        assert not ctx.get(out.w.valid) and not ctx.get(out.done)

    simulate(m, bench, monitors=[watch, contract(out.w)])
    assert 1 < len(taken) < 20 and taken == [0] * (len(taken) - 1) + [1]


@pytest.mark.parametrize("component", [InputDma, OutputDma])
def test_refuses_other_configs(component):
    with pytest.raises(TypeError, match=r"^config must be an AcceleratorConfig, not 8$"):
        component(config=8)
