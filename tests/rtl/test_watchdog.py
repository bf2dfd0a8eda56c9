"""Watchdog of the memory port: to the cycle."""

import pytest

from rtl.watchdog import Watchdog
from tests.rtl.helpers import collect_level, simulate


@pytest.mark.parametrize("timeout", [0, 1, 2, 9])
def test_expires_after_so_many_still_cycles(timeout):
    dut = Watchdog()
    stamps = []

    async def bench(ctx):
        ctx.set(dut.timeout, timeout)
        await ctx.tick().repeat(5)
        ctx.set(dut.owed, 1)            # from cycle 5 on
        await ctx.tick().repeat(40)
        ctx.set(dut.moved, 1)           # in cycle 45
        await ctx.tick()
        ctx.set(dut.owed, 0)
        await ctx.tick().repeat(9)

    simulate(dut, bench, monitors=[collect_level(dut.expired, stamps)])
    begin = 5 + timeout - 1 + dut.LATENCY
    assert stamps == (list(range(begin, 45 + dut.LATENCY)) if timeout else [])


def test_every_sign_of_life_begins_the_count_anew():
    dut = Watchdog()
    stamps, timeout = [], 6

    async def bench(ctx):
        ctx.set(dut.timeout, timeout)
        for signal, still in ((dut.moved, 1), (dut.owed, 0)):
            ctx.set(dut.owed, 1)
            for _ in range(4):
                await ctx.tick().repeat(timeout - 1)
                before = ctx.get(signal)
                ctx.set(signal, still)
                await ctx.tick()
                ctx.set(signal, before)
        assert not stamps
        await ctx.tick().repeat(timeout + dut.LATENCY)

    simulate(dut, bench, monitors=[collect_level(dut.expired, stamps)])
    assert stamps
