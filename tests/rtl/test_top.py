"""A program from the on-chip memory, put there and read back by the host, as on a board."""

import dataclasses

import numpy as np

from model import golden
from model.compile import compile_network
from model.config import PRESETS
from rtl.core import Top
from rtl.memory import OnChipMemory
from sim.backend import CSR
from tests.model.toys import toy_image
from tests.rtl.helpers import simulate
from tests.sim.toys import two_layers

CONFIG = dataclasses.replace(PRESETS["tiny"], onchip_kib=4)
INPUT, OUTPUT = 400, 500


def test_host_loads_runs_and_reads_back():
    program = compile_network(two_layers(), CONFIG)
    pixels = toy_image((1, 12, 12))
    dut = Top(CONFIG)
    output = []

    async def store(ctx, base, beats):
        ctx.set(dut.host_en, 1)
        ctx.set(dut.host_w_en, 1)
        for addr, beat in enumerate(beats.tolist(), base):
            ctx.set(dut.host_addr, addr)
            ctx.set(dut.host_w_data, beat)
            await ctx.tick()
        ctx.set(dut.host_en, 0)
        ctx.set(dut.host_w_en, 0)

    async def write(ctx, name, value):
        ctx.set(dut.csr_addr, CSR[name])
        ctx.set(dut.csr_w_data, value)
        ctx.set(dut.csr_w_en, 1)
        await ctx.tick()
        ctx.set(dut.csr_w_en, 0)

    async def command(ctx, value):
        """Status at the interrupt."""
        await write(ctx, "control", value)
        ctx.set(dut.csr_addr, CSR["status"])
        await ctx.tick().repeat(2)
        await ctx.tick().until(dut.irq)
        await ctx.tick()
        return ctx.get(dut.csr_r_data)

    async def host(ctx):
        assert len(program.image) <= INPUT
        await store(ctx, 0, program.image)
        await store(ctx, INPUT, program.pack_input(pixels))
        for name, value in (("irq_enable", 1), ("image_addr", 0), ("input_addr", INPUT),
                            ("image_beats", len(program.image)), ("output_addr", OUTPUT)):
            await write(ctx, name, value)
        assert await command(ctx, 1) == 0x10006
        assert await command(ctx, 2) == 0x10006
        ctx.set(dut.host_en, 1)
        for beat in range(2 * program.output_region.rows):
            ctx.set(dut.host_addr, OUTPUT + beat)
            await ctx.tick().repeat(OnChipMemory.HOST_LATENCY)
            output.append(ctx.get(dut.host_r_data))

    simulate(dut, host, limit=3000)
    expected = golden.run(program.network, pixels)[-1].out
    got = program.unpack_output(np.array(output, dtype=np.uint64))
    np.testing.assert_array_equal(got, expected)
