# amaranth: UnusedElaboratable=no
"""The whole core behind AXI: a program, bus errors of both directions, recovery from them."""

import numpy as np
import pytest

from model import golden
from model.compile import compile_network
from model.config import PRESETS
from model.image import ErrorCode
from rtl.axi.top import AxiTop
from sim.backend import CORE_ID
from tests.model.toys import toy_image
from tests.rtl.axi.host import Host
from tests.rtl.axi.memory import AxiMemory
from tests.rtl.helpers import simulate
from tests.sim.toys import two_layers

CONFIG = PRESETS["tiny"]
IMAGE, INPUT, OUTPUT = 0x40, 0x400, 0x500       # beat addresses
DONE, IRQ_ENABLED = 0b110, 1 << 16


@pytest.mark.parametrize("p", [1.0, 0.5])
def test_program_errors_and_recovery(p):
    program = compile_network(two_layers(), CONFIG)
    pixels = toy_image((1, 12, 12))
    dut = AxiTop(CONFIG, addr_bits=40)
    memory = AxiMemory(64, latency=30, p=p, seed=8)
    beats = 2 * program.output_region.rows

    def store(base, words):
        memory.words |= {base + i: word for i, word in enumerate(words.tolist())}

    def outputs():
        return [memory.words.pop(OUTPUT + i, None) for i in range(beats)]

    async def run(host, error=0):
        expected = IRQ_ENABLED | (error << 8 | 0b100 if error else DONE)
        assert await host.command(2) == expected
        assert memory.answered == len(memory.writes)

    async def bench(ctx):
        host = Host(ctx, dut)
        assert await host.read("id") == CORE_ID
        for name, value in (("irq_enable", 1), ("image_addr", IMAGE), ("input_addr", INPUT),
                            ("image_beats", len(program.image)), ("output_addr", OUTPUT)):
            await host.write(name, value)
        memory.bad = {IMAGE + len(program.image) - 3}
        assert await host.command(1) == IRQ_ENABLED | ErrorCode.BUS << 8
        memory.bad = set()
        assert await host.command(1) == IRQ_ENABLED | DONE

        kernels = IMAGE + len(program.image)
        for bad in (INPUT + 3, kernels - 100, kernels - 2):     # input, kernels of either layer
            memory.bad = {bad}
            await run(host, ErrorCode.BUS)
            assert outputs() == [None] * beats
        for bad in (OUTPUT, OUTPUT + beats - 1):                # the first and the last write
            memory.bad = {bad}
            await run(host, ErrorCode.BUS)
            assert len(memory.writes) and None in outputs()
        memory.bad = set()
        for _ in range(2):
            await run(host)
            expected = golden.run(program.network, pixels)[-1].out
            got = program.unpack_output(np.array(outputs(), dtype=np.uint64))
            np.testing.assert_array_equal(got, expected)
        assert await host.read("write_beats") == beats
        assert await host.read("read_beats") == 2 * program.input_region.rows + sum(
            layer.stream_beats for layer in program.layers)

    assert IMAGE + len(program.image) <= INPUT
    store(IMAGE, program.image)
    store(INPUT, program.pack_input(pixels))
    simulate(dut, bench, monitors=[memory.process(dut, prefix="m_axi_")], limit=30_000)
