# amaranth: UnusedElaboratable=no
"""AXI4 write master: gathering, order of the channels, acknowledgement, errors."""

import random

import pytest

from rtl.axi.signatures import WriteBeat
from rtl.axi.writer import AxiWriter
from tests.rtl.axi.memory import AxiMemory
from tests.rtl.helpers import collect_level, pack, simulate, source


def items(bits, writes):
    return [pack(WriteBeat(bits), {"addr": addr, "data": data}) for addr, data in writes]


def settle(dut, state=None):
    """Testbench that waits for the last acknowledgement."""
    async def testbench(ctx):
        await ctx.tick()
        quiet = 0
        while quiet < 30:
            quiet = 0 if ctx.get(dut.busy) else quiet + 1
            await ctx.tick()
        if state is not None:
            state.append(True)
    return testbench


def runs(rng, count, edge, bits):
    """Runs of consecutive writes, some across an edge, and single ones that repeat an address."""
    writes = []
    for _ in range(count):
        addr = rng.choice([rng.randrange(1 << 20), rng.randrange(6, 99) * edge - 5, 77])
        writes += [(addr + i, rng.getrandbits(bits)) for i in range(rng.choice([1, 1, 3, 16, 40]))]
    return writes


@pytest.mark.parametrize(("bits", "options"), [
    (64, {}), (64, {"max_burst": 1}), (64, {"outstanding": 1, "max_burst": 4}),
    (512, {"max_burst": 64, "addr_bits": 40}),
])
@pytest.mark.parametrize("order", [None, "aw", "w"])
@pytest.mark.parametrize("p", [1.0, 0.5])
def test_every_write_arrives_before_busy_falls(bits, options, order, p):
    dut = AxiWriter(data_bits=bits, **options)
    burst = options.get("max_burst", 16)
    memory = AxiMemory(bits, latency=9, p=p, seed=4, order=order)
    writes = runs(random.Random(bits), 14, burst, bits)
    done = []

    async def watch(ctx):
        """Idle means that every burst on the bus is answered."""
        async for _, _, busy in ctx.tick().sample(dut.busy):
            if not busy:
                assert memory.answered == len(memory.writes)

    async def feed(ctx):
        await source(dut.w, items(bits, writes), p, seed=5)(ctx)
        await settle(dut, done)(ctx)

    simulate(dut, feed, monitors=[memory.process(dut.axi), watch])
    assert done and memory.words == dict(writes)
    assert sum(beats for _, beats in memory.writes) == len(writes)
    assert all(beats <= burst - addr % burst for addr, beats in memory.writes)


def test_consecutive_writes_become_bursts_at_a_beat_per_cycle():
    dut = AxiWriter()
    memory = AxiMemory(64, latency=100)
    writes = [(5 + i, i) for i in range(500)]
    stamps, level = [], []

    async def feed(ctx):
        await source(dut.w, items(64, writes))(ctx)
        stamps.append(len(level))
        await settle(dut)(ctx)

    simulate(dut, feed, monitors=[memory.process(dut.axi), collect_level(dut.busy, level)])
    assert stamps[0] == len(writes) - 1         # never made to wait
    assert memory.writes == [(5, 11), *((16 * i, 16) for i in range(1, 31)), (496, 9)]
    assert memory.words == dict(writes)


def test_scattered_writes_every_other_cycle():
    dut = AxiWriter(outstanding=64)
    memory = AxiMemory(64, latency=20)
    writes = [(100 * i, i) for i in range(40)]
    level = []

    async def feed(ctx):
        await source(dut.w, items(64, writes))(ctx)
        assert len(level) <= 2 * len(writes)
        await settle(dut)(ctx)

    simulate(dut, feed, monitors=[memory.process(dut.axi), collect_level(dut.busy, level)])
    assert memory.writes == [(addr, 1) for addr, _ in writes]


def test_a_pause_closes_the_burst():
    dut = AxiWriter()
    memory = AxiMemory(64)

    async def feed(ctx):
        for addr, pause in ((32, dut.PATIENCE - 2), (33, dut.PATIENCE + 2), (34, 40)):
            await source(dut.w, items(64, [(addr, addr)]))(ctx)
            await ctx.tick().repeat(pause)
        assert not ctx.get(dut.busy)

    simulate(dut, feed, monitors=[memory.process(dut.axi)])
    assert memory.writes == [(32, 2), (34, 1)]


@pytest.mark.parametrize("bad", [20, 21])       # SLVERR, DECERR
def test_an_error_is_told_while_busy(bad):
    dut = AxiWriter()
    memory = AxiMemory(64, latency=30, bad={bad})
    errors, busy = [], []

    async def feed(ctx):
        await source(dut.w, items(64, [(i, i) for i in range(64)]))(ctx)
        await settle(dut)(ctx)

    simulate(dut, feed, monitors=[memory.process(dut.axi), collect_level(dut.error, errors),
                                  collect_level(dut.busy, busy)])
    assert len(errors) == 1 and errors[0] <= busy[-1]
    assert set(range(64)) - set(memory.words) == set(range(bad, 32))


@pytest.mark.parametrize(("arguments", "text"), [
    ({"max_burst": 512}, "max_burst must be a power of two of at most 256 at 64 bits, not 512"),
    ({"outstanding": -1}, "outstanding must be a positive integer, not -1"),
    ({"data_bits": 32}, "data_bits must be 64, 128, 256 or 512, not 32"),
])
def test_arguments(arguments, text):
    with pytest.raises(ValueError, match=text):
        AxiWriter(**arguments)
