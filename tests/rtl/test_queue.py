# amaranth: UnusedElaboratable=no
"""Queues with registered flags against a list, under random reads and writes."""

import random

import pytest

from rtl.queue import Level, Queue
from tests.rtl.helpers import contract, simulate, sink, source


@pytest.mark.parametrize("depth", [2, 3, 8, 32])
def test_flags_follow_the_level(depth):
    dut, rng = Level(depth=depth), random.Random(1)
    seen = set()

    async def bench(ctx):
        level = 0
        for cycle in range(2000):
            flags = ctx.get(dut.room), ctx.get(dut.some), ctx.get(dut.many)
            assert flags == (level < depth, level > 0, level > 1)
            seen.add(level)
            likely = 0.8 if cycle // 100 % 2 else 0.3
            write = level < depth and rng.random() < likely
            read = level > 0 and rng.random() < 1 - likely
            ctx.set(dut.write, write)
            ctx.set(dut.read, read)
            level += write - read
            await ctx.tick()

    simulate(dut, bench, limit=2100)
    assert seen == set(range(depth + 1))


@pytest.mark.parametrize("depth", [2, 32])
@pytest.mark.parametrize("p_in, p_out", [(1, 1), (1, 0.4), (0.4, 1), (0.5, 0.5)])
def test_first_in_first_out(depth, p_in, p_out):
    dut, rng = Queue(8, depth=depth), random.Random(2)
    values = [rng.randrange(256) for _ in range(300)]
    got = []
    simulate(dut, source(dut.i, values, p=p_in, seed=1), sink(dut.o, got, 300, p=p_out, seed=2),
             monitors=[contract(dut.o)])
    assert got == values


def test_depths():
    with pytest.raises(ValueError, match="depth must be at least 2, not 1"):
        Level(depth=1)
    with pytest.raises(ValueError, match="depth must be a power of two of at least 2, not 6"):
        Queue(8, depth=6)
