# amaranth: UnusedElaboratable=no
"""A core with a wide port on four AXI ports of different speeds: bit exact, errors, silence."""

import numpy as np
import pytest

from model import golden, photographs
from model.compile import compile_network
from model.config import PRESETS
from model.image import ErrorCode
from model.network import Conv, Network
from model.synthetic import synthetic_network
from rtl.axi.top import AxiTop
from sim.backend import STATUS_OWING
from tests.rtl.axi.host import Host
from tests.rtl.axi.memory import AxiMemory
from tests.rtl.axi.test_silent import wakes
from tests.rtl.helpers import simulate

CONFIG = PRESETS["tiny-wide"]
PORTS, STRIDE = 4, 0x8000
IMAGE, DEAD, INPUT, OUTPUT = 0x40, 0x600, 0x700, 0x800      # beat addresses
DONE, IRQ_ENABLED, LOADED = 0b110, 1 << 16, 4


class Memories:
    """Four memories with one beat each of every wide beat; port p from p * STRIDE on."""

    def __init__(self, p, latencies):
        self.each = [AxiMemory(64, latency=latency, p=chance, seed=port)
                     for port, (chance, latency) in enumerate(zip(p, latencies, strict=True))]

    def at(self, port, beat):
        return beat + port * STRIDE // 8

    def store(self, base, words):
        for i, word in enumerate(words.tolist()):
            beat, port = divmod(i, PORTS)
            self.each[port].words[self.at(port, base + beat)] = word

    def take(self, base, beats):
        """Words of the beats, None where nothing was written."""
        return [self.each[port].words.pop(self.at(port, base + beat), None)
                for beat in range(beats) for port in range(PORTS)]

    def owes(self):
        return any(memory.owes for memory in self.each)


@pytest.fixture(scope="module")
def job():
    network = Network("two", (3, 10, 10), (Conv("a", 3, 8, 3, padding=1), Conv("b", 8, 8, 3)))
    program = compile_network(synthetic_network(network, seed=4), CONFIG)
    images = [photographs.quantise(photographs.synthetic(1, (3, 10, 10), seed))[0]
              for seed in (1, 2)]
    return program, images


def session(job, bench, p, latencies):
    program, (dead, pixels) = job
    dut = AxiTop(CONFIG, ports=PORTS, stride=STRIDE, addr_bits=32)
    memories = Memories(p, latencies)
    assert IMAGE + len(program.image) // PORTS <= DEAD
    assert OUTPUT + CONFIG.map_row_beats * program.output_region.rows <= STRIDE // 8
    for base, words in ((IMAGE, program.image), (DEAD, program.pack_input(dead)),
                        (INPUT, program.pack_input(pixels))):
        memories.store(base, words)

    async def whole(ctx):
        host = Host(ctx, dut)

        async def complete_run():
            beats = CONFIG.map_row_beats * program.output_region.rows
            await host.write("input_addr", INPUT)
            assert await host.command(2) == IRQ_ENABLED | DONE
            assert not memories.owes()
            got = program.unpack_output(np.array(memories.take(OUTPUT, beats), dtype=np.uint64))
            np.testing.assert_array_equal(got, golden.run(program.network, pixels)[-1].out)
            assert await host.read("write_beats") == beats

        for name, value in (("irq_enable", 1), ("image_addr", IMAGE), ("input_addr", DEAD),
                            ("image_beats", len(program.image) // PORTS),
                            ("output_addr", OUTPUT), ("timeout", 200)):
            await host.write(name, value)
        assert await host.command(1) == IRQ_ENABLED | DONE
        await bench(host, memories, complete_run)

    simulate(dut, whole, limit=30_000, monitors=[
        memory.process(dut, prefix=f"m_axi_{port}_") for port, memory in enumerate(memories.each)])


@pytest.mark.slow
@pytest.mark.parametrize(("p", "latencies"), [
    ((1.0,) * 4, (30,) * 4), ((1.0, 0.9, 0.5, 0.7), (1, 60, 20, 35)),
])
def test_bit_exact_at_different_speeds(job, p, latencies):
    async def bench(host, memories, complete_run):
        await complete_run()
        await complete_run()

    session(job, bench, p, latencies)


@pytest.mark.slow
def test_an_error_of_any_port_ends_the_run(job):
    program = job[0]

    async def bench(host, memories, complete_run):
        kernels = IMAGE + len(program.image) // PORTS
        beats = CONFIG.map_row_beats * program.output_region.rows
        for port, beat in ((0, DEAD + 5), (1, kernels - 2), (2, OUTPUT), (3, OUTPUT + beats - 1)):
            memories.each[port].bad = {memories.at(port, beat)}
            assert await host.command(2) == IRQ_ENABLED | ErrorCode.BUS << 8 | LOADED
            memories.each[port].bad = set()
            memories.take(OUTPUT, beats)
        assert not memories.owes()
        await complete_run()

    session(job, bench, (1.0, 0.8, 1.0, 0.9), (9, 3, 40, 20))


@pytest.mark.slow
@pytest.mark.parametrize(("port", "channel", "after"), [
    (0, "ar", 3), (2, "r", 40), (1, "aw", 0), (3, "w", 1), (2, "b", 0),
])
def test_silence_of_one_port(job, port, channel, after):
    """The other ports have brought or taken more than it: nothing of that is left."""
    async def bench(host, memories, complete_run):
        silent = memories.each[port]
        silent.stop = {channel: silent.moved[channel] + after}
        status = await host.command(2)
        assert status == IRQ_ENABLED | ErrorCode.TIMEOUT << 8 | STATUS_OWING | LOADED
        status = await host.command(2)
        assert status == IRQ_ENABLED | ErrorCode.OWING << 8 | STATUS_OWING | LOADED
        await wakes(host, silent)
        assert not memories.owes()
        await complete_run()

    session(job, bench, (1.0, 0.9, 1.0, 1.0), (12, 40, 20, 7))
