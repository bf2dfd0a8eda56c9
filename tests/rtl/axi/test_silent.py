# amaranth: UnusedElaboratable=no
"""A slave that stops answering, on every channel: TIMEOUT, and nothing of the dead run later."""

import numpy as np
import pytest

from model import golden
from model.compile import compile_network
from model.config import PRESETS
from model.image import ErrorCode
from rtl.axi.top import AxiTop
from sim.backend import STATUS_BUSY, STATUS_OWING
from tests.model.toys import toy_image
from tests.rtl.axi.host import Host
from tests.rtl.axi.memory import AxiMemory
from tests.rtl.helpers import simulate
from tests.sim.toys import two_layers

CONFIG = PRESETS["tiny"]
#: Beat addresses; the picture of the dead run is another one than that of the run after it.
IMAGE, DEAD, INPUT, OUTPUT = 0x40, 0x400, 0x480, 0x500
DONE, IRQ_ENABLED, LOADED = 0b110, 1 << 16, 4
TIMEOUT = 100


@pytest.fixture(scope="module")
def program():
    return compile_network(two_layers(), CONFIG)


def session(program, bench):
    """Run ``bench(host, memory, complete_run)`` on a core with a loaded program's image."""
    dut = AxiTop(CONFIG, addr_bits=40)
    memory = AxiMemory(64, latency=20, seed=3)
    pixels = toy_image((1, 12, 12))
    beats = 2 * program.output_region.rows
    assert IMAGE + len(program.image) <= DEAD
    for base, words in ((IMAGE, program.image), (INPUT, program.pack_input(pixels)),
                        (DEAD, program.pack_input(pixels[:, ::-1]))):
        memory.words |= {base + i: word for i, word in enumerate(words.tolist())}

    async def whole(ctx):
        host = Host(ctx, dut)

        async def complete_run():
            await host.write("input_addr", INPUT)
            assert await host.command(2) == IRQ_ENABLED | DONE
            got = [memory.words.pop(OUTPUT + i, None) for i in range(beats)]
            expected = golden.run(program.network, pixels)[-1].out
            np.testing.assert_array_equal(
                program.unpack_output(np.array(got, dtype=np.uint64)), expected)
            assert await host.read("write_beats") == beats
            assert await host.read("read_beats") == 2 * program.input_region.rows + sum(
                layer.stream_beats for layer in program.layers)

        for name, value in (("irq_enable", 1), ("image_addr", IMAGE), ("input_addr", DEAD),
                            ("image_beats", len(program.image)), ("output_addr", OUTPUT),
                            ("timeout", TIMEOUT)):
            await host.write(name, value)
        await bench(host, memory, complete_run)

    simulate(dut, whole, monitors=[memory.process(dut, prefix="m_axi_")], limit=20_000)


async def stays_owing(host, loaded):
    """The memory sleeps on: both commands are refused, ABORT is ignored, CLEAR clears."""
    before = [await host.read(name) for name in ("cycles", "read_beats", "write_beats")]
    for control in (1, 2):
        status = await host.command(control)
        assert status == IRQ_ENABLED | ErrorCode.OWING << 8 | STATUS_OWING | loaded
    await host.write("control", 8)
    await host.write("control", 4)
    assert await host.read("status") == IRQ_ENABLED | STATUS_OWING | loaded
    assert before == [await host.read(name) for name in ("cycles", "read_beats", "write_beats")]


async def wakes(host, memory):
    """The memory answers late, until it owes nothing."""
    memory.stop = {}
    while await host.read("status") & (STATUS_BUSY | STATUS_OWING):
        pass
    assert not memory.owes


@pytest.mark.parametrize(("channel", "after"), [
    ("r", 5), ("w", 1),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ("ar", 0), ("ar", 2), ("r", 0), ("r", 150), ("aw", 0), ("w", 0), ("b", 0))),
])
def test_a_run_ends_and_the_next_one_is_right(program, channel, after):
    async def bench(host, memory, complete_run):
        assert await host.command(1) == IRQ_ENABLED | DONE
        memory.stop = {channel: memory.moved[channel] + after}
        status = await host.command(2)
        assert status == IRQ_ENABLED | ErrorCode.TIMEOUT << 8 | STATUS_OWING | LOADED
        cycles = await host.read("cycles")
        assert TIMEOUT < cycles < 900
        await stays_owing(host, LOADED)
        await wakes(host, memory)
        assert await host.read("status") == IRQ_ENABLED | LOADED
        for _ in range(2):
            await complete_run()

    session(program, bench)


@pytest.mark.parametrize(("channel", "after"), [
    ("r", 8),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (("ar", 1), ("r", 0), ("r", 30))),
])
def test_a_load_ends_and_the_next_one_is_right(program, channel, after):
    async def bench(host, memory, complete_run):
        memory.stop = {channel: after}
        status = await host.command(1)
        assert status == IRQ_ENABLED | ErrorCode.TIMEOUT << 8 | STATUS_OWING
        await stays_owing(host, 0)
        await wakes(host, memory)
        assert await host.command(2) == IRQ_ENABLED | ErrorCode.NOT_LOADED << 8
        assert await host.command(1) == IRQ_ENABLED | DONE
        await complete_run()

    session(program, bench)


def test_a_slave_that_wakes_up_in_the_middle_of_an_abort(program):
    """ABORT of a silent memory ends by the watchdog, in time by itself."""
    async def bench(host, memory, complete_run):
        assert await host.command(1) == IRQ_ENABLED | DONE
        for waits, code in ((20, ErrorCode.ABORTED), (2 * TIMEOUT, ErrorCode.TIMEOUT)):
            memory.stop = {"r": memory.moved["r"] + 60}
            await host.write("control", 4)
            await host.write("control", 2)
            while memory.moved["r"] < memory.stop["r"]:
                await host.ctx.tick()
            await host.write("control", 8)
            await host.ctx.tick().repeat(waits)
            await wakes(host, memory)
            assert await host.read("status") == IRQ_ENABLED | code << 8 | LOADED
        await complete_run()

    session(program, bench)


@pytest.mark.slow
def test_a_slow_slave_is_not_a_silent_one(program):
    """Again and again nothing moves for nearly TIMEOUT cycles."""
    async def bench(host, memory, complete_run):
        memory.pause = 0.1, TIMEOUT - 15
        assert await host.command(1) == IRQ_ENABLED | DONE
        await complete_run()
        assert await host.read("cycles") > 1200       # of 450 without

    session(program, bench)
