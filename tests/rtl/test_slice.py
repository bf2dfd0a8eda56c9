"""Slices: a stream as it was, with nothing that goes through."""

import random

import pytest

from rtl.slice import AlternatingSlice, RegisterSlice
from tests.rtl.helpers import contract, simulate, sink, source

SLICES = pytest.mark.parametrize("kind", [RegisterSlice, AlternatingSlice])


@SLICES
@pytest.mark.parametrize("p_in, p_out", [(1.0, 1.0), (1.0, 0.4), (0.4, 1.0), (0.6, 0.6)])
def test_items_come_in_order(kind, p_in, p_out):
    dut, got = kind(16), []
    items = random.Random(3).sample(range(1 << 16), 200)
    simulate(dut, source(dut.i, items, p_in, 1), sink(dut.o, got, len(items), p_out, seed=2),
             monitors=[contract(dut.o)])
    assert got == items


@SLICES
def test_an_item_per_cycle_and_two_that_wait(kind):
    dut, taken, left = kind(8), [], []

    async def watch(ctx):
        ports = dut.i.ready, dut.o.valid & dut.o.ready, dut.o.payload
        async for _, _, ready, leaves, item in ctx.tick().sample(*ports):
            taken.append(ready)
            left.append(item if leaves else None)

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        for cycle in range(12):
            ctx.set(dut.i.payload, cycle)
            ctx.set(dut.o.ready, cycle < 4 or cycle > 7)
            before = ctx.get(dut.i.ready)
            ctx.set(dut.o.ready, not ctx.get(dut.o.ready))      # nothing goes through
            assert ctx.get(dut.i.ready) == before
            ctx.set(dut.o.ready, not ctx.get(dut.o.ready))
            await ctx.tick()

    simulate(dut, bench, monitors=[watch])
    # Two are kept while the other side waits; the source's count goes on with every cycle.
    assert taken[:12] == [1] * 5 + [0] * 4 + [1] * 3
    assert left[:12] == [None, 0, 1, 2, None, None, None, None, 3, 4, 9, 10]
