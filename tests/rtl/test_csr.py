# amaranth: UnusedElaboratable=no
"""Registers and the profile table."""

import dataclasses
import random

import pytest

from model.config import PRESETS
from rtl.csr import PROFILE, PROFILE_BASE, PROFILE_WORDS, READ_LATENCY, UNITS, Csr
from rtl.signatures import LayerStats
from rtl.watchdog import DEFAULT_TIMEOUT
from sim.backend import CSR
from sim.backend import PROFILE_BASE as HOST_PROFILE_BASE
from sim.backend import READ_LATENCY as HOST_READ_LATENCY
from tests.rtl.helpers import pack, raw, simulate

CONFIG = PRESETS["tiny"]


async def write(ctx, dut, name, value):
    ctx.set(dut.addr, CSR[name])
    ctx.set(dut.w_data, value)
    ctx.set(dut.w_en, 1)
    await ctx.tick()
    ctx.set(dut.w_en, 0)


async def read(ctx, dut, address):
    ctx.set(dut.addr, CSR.get(address, address))
    await ctx.tick().repeat(READ_LATENCY)
    return ctx.get(dut.r_data)


def test_registers():
    dut = Csr(config=CONFIG)

    async def bench(ctx):
        assert await read(ctx, dut, "id") == 0x53504543
        assert await read(ctx, dut, "version") == 3
        assert await read(ctx, dut, "config") == CONFIG.digest
        assert await read(ctx, dut, "timeout") == DEFAULT_TIMEOUT == ctx.get(dut.timeout)
        addresses = ("image_addr", "image_beats", "input_addr", "output_addr", "timeout")
        for index, name in enumerate(addresses):
            await write(ctx, dut, name, 0xDEADBEE0 + index)
        await ctx.tick()            # a write counts a cycle later, as a command does
        ctx.set(dut.busy, 1)
        for name in addresses:      # refused while busy
            await write(ctx, dut, name, 0)
        await ctx.tick()
        ctx.set(dut.busy, 0)
        for index, name in enumerate(addresses):
            assert await read(ctx, dut, name) == 0xDEADBEE0 + index
            assert ctx.get(getattr(dut, name)) == 0xDEADBEE0 + index
        for index, name in enumerate(("cycles", "read_beats", "write_beats", "layers")):
            ctx.set(getattr(dut, name), 1000 + index)
            assert await read(ctx, dut, name) == 1000 + index
        assert await read(ctx, dut, 15) == 0

    simulate(dut, bench)


def test_commands():
    dut = Csr(config=CONFIG)

    async def bench(ctx):
        ports = (dut.load, dut.run, dut.clear, dut.abort)
        for value in range(16):
            await write(ctx, dut, "control", value)
            assert [ctx.get(port) for port in ports] == [value >> bit & 1 for bit in range(4)]
            await ctx.tick()
            assert not any(ctx.get(port) for port in ports)
            await write(ctx, dut, "irq_enable", value)
            assert not any(ctx.get(port) for port in ports)

    simulate(dut, bench)


def test_a_read_sees_the_write_before_it():
    """Of every cycle the register that its address names, as the writes before have left it."""
    dut = Csr(config=CONFIG)
    rng = random.Random(4)
    names = ("image_addr", "image_beats", "input_addr", "output_addr", "timeout")

    async def bench(ctx):
        values = {name: ctx.get(getattr(dut, name)) for name in names}
        expected = []
        for cycle in range(300):
            name, value = rng.choice(names), rng.getrandbits(32)
            expected.append(values[name])
            ctx.set(dut.addr, CSR[name])
            ctx.set(dut.w_data, value)
            ctx.set(dut.w_en, rng.random() < 0.5)
            if ctx.get(dut.w_en):
                values[name] = value
            await ctx.tick()
            if cycle >= READ_LATENCY - 1:
                assert ctx.get(dut.r_data) == expected[cycle - READ_LATENCY + 1]

    simulate(dut, bench)


def test_status_and_interrupt():
    dut = Csr(config=CONFIG)

    async def bench(ctx):
        for enable in (0, 1):
            await write(ctx, dut, "irq_enable", enable)
            assert await read(ctx, dut, "irq_enable") == enable
            for busy, done, loaded, owing, error in (
                (1, 0, 0, 0, 0), (0, 1, 1, 0, 0), (0, 0, 1, 0, 10), (0, 0, 0, 1, 12),
            ):
                for port, value in ((dut.busy, busy), (dut.done, done), (dut.loaded, loaded),
                                    (dut.owing, owing), (dut.error, error)):
                    ctx.set(port, value)
                status = await read(ctx, dut, "status")
                assert status == (busy | done << 1 | loaded << 2 | owing << 3 | error << 8
                                  | enable << 16)
                assert ctx.get(dut.irq) == (enable & (done | (error != 0)))

    simulate(dut, bench)


def test_profile():
    dut = Csr(config=CONFIG)
    rng = random.Random(1)
    counts = {(unit, layer): [rng.getrandbits(32) for _ in range(4)]
              for unit in UNITS for layer in range(CONFIG.max_layers)}
    assert PROFILE_BASE == HOST_PROFILE_BASE and READ_LATENCY == HOST_READ_LATENCY

    async def bench(ctx):
        for layer in range(CONFIG.max_layers):
            for unit in UNITS:      # all units at once
                stats = getattr(dut, unit)
                ctx.set(stats.valid, 1)
                ctx.set(raw(stats.payload), pack(
                    LayerStats, {"layer": layer, "counts": counts[unit, layer]}))
            await ctx.tick()
        for unit in UNITS:
            ctx.set(getattr(dut, unit).valid, 0)
        for layer in range(CONFIG.max_layers):
            row = [await read(ctx, dut, PROFILE_BASE + PROFILE_WORDS * layer + word)
                   for word in range(PROFILE_WORDS)]
            assert row[:len(PROFILE)] == [counts[unit, layer][count] for unit, count, _ in PROFILE]
            assert row[len(PROFILE):] == [0] * (PROFILE_WORDS - len(PROFILE))

    simulate(dut, bench)


def test_arguments():
    with pytest.raises(TypeError, match="config must be an AcceleratorConfig, not None"):
        Csr(config=None)
    with pytest.raises(ValueError, match="max_layers must be at most 32 for the .* not 33"):
        Csr(config=dataclasses.replace(CONFIG, max_layers=33))
