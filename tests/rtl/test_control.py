"""Order of events of the commands."""

from amaranth.hdl import Module, ResetInserter, Signal

from model.image import ErrorCode
from rtl.control import Controller
from rtl.watchdog import Watchdog
from tests.rtl.helpers import simulate


async def pulse(ctx, port, **others):
    ctx.set(port, 1)
    await ctx.tick()
    ctx.set(port, 0)


def state(ctx, dut):
    return tuple(ctx.get(port) for port in (dut.busy, dut.done, dut.loaded, dut.error))


async def load(ctx, dut, error=0):
    ctx.set(dut.load, 1)
    assert ctx.get(dut.checker_start)
    await ctx.tick()
    ctx.set(dut.load, 0)
    assert state(ctx, dut) == (1, 0, 0, 0)
    await ctx.tick().repeat(3)
    ctx.set(dut.checker_error, error)
    await pulse(ctx, dut.checker_done)
    assert ctx.get(dut.flush) and ctx.get(dut.busy)
    await ctx.tick().repeat(2)
    assert ctx.get(dut.busy)        # until the port is idle
    ctx.set(dut.idle, 1)
    await ctx.tick().repeat(2)
    ctx.set(dut.idle, 0)
    assert state(ctx, dut) == (0, int(not error), int(not error), error)


async def begin_run(ctx, dut, *others):
    for port in others:
        ctx.set(port, 1)
    await pulse(ctx, dut.run)
    for port in others:
        ctx.set(port, 0)
    assert state(ctx, dut) == (1, 0, 1, 0)
    await ctx.tick()
    assert ctx.get(dut.engine_reset) and not ctx.get(dut.engine_start)
    await ctx.tick()
    assert not ctx.get(dut.engine_reset) and ctx.get(dut.engine_start)
    await ctx.tick()
    assert not ctx.get(dut.engine_start)


def test_the_resets_last_from_that_of_the_domain_to_a_cycle_after_it():
    """On an ECP5 they are the only ones of checker, input DMA and engine."""
    dut, reset = Controller(), Signal()
    m = Module()
    m.submodules.dut = ResetInserter(reset)(dut)
    seen = []

    async def bench(ctx):
        await ctx.tick().repeat(3)
        for level in (1, 1, 0, 0):
            ctx.set(reset, level)
            await ctx.tick()
            seen.append((ctx.get(dut.engine_reset), ctx.get(dut.checker_reset)))

    simulate(m, bench)
    assert seen == [(1, 1), (1, 1), (0, 0), (0, 0)]


def test_load_and_run():
    dut = Controller()

    async def bench(ctx):
        await pulse(ctx, dut.run)
        assert state(ctx, dut) == (0, 0, 0, ErrorCode.NOT_LOADED)
        await pulse(ctx, dut.clear)
        assert state(ctx, dut) == (0, 0, 0, 0)
        await load(ctx, dut)
        await load(ctx, dut, ErrorCode.CONFIG)      # forgets the program
        await pulse(ctx, dut.run)
        assert state(ctx, dut) == (0, 0, 0, ErrorCode.NOT_LOADED)
        await load(ctx, dut)

        await begin_run(ctx, dut)
        ctx.set(dut.r_taken, 1)
        await ctx.tick().repeat(10)
        ctx.set(dut.r_taken, 0)
        await pulse(ctx, dut.finished)
        assert ctx.get(dut.output_start)
        ctx.set(dut.w_taken, 1)
        await ctx.tick().repeat(5)
        ctx.set(dut.w_taken, 0)
        assert state(ctx, dut) == (1, 0, 1, 0)
        await pulse(ctx, dut.output_done)
        ctx.set(dut.idle, 1)
        await ctx.tick().repeat(4)
        ctx.set(dut.idle, 0)
        assert state(ctx, dut) == (0, 1, 1, 0)
        assert ctx.get(dut.read_beats) == 10 and ctx.get(dut.write_beats) == 5
        assert ctx.get(dut.cycles) == 21
        await pulse(ctx, dut.clear)
        assert state(ctx, dut) == (0, 0, 1, 0)

    simulate(dut, bench)


def test_bus_error_and_recovery():
    dut = Controller()

    async def bench(ctx):
        await load(ctx, dut)
        for _ in range(2):
            await begin_run(ctx, dut)
            await ctx.tick().repeat(3)
            await pulse(ctx, dut.bus_error)
            assert ctx.get(dut.flush)
            await ctx.tick()
            assert ctx.get(dut.engine_reset)
            ctx.set(dut.idle, 1)
            await ctx.tick().repeat(2)
            ctx.set(dut.idle, 0)
            assert state(ctx, dut) == (0, 0, 1, ErrorCode.BUS)

    simulate(dut, bench)


def test_abort_stops_the_layers():
    """From the cycle behind RUN on, as a bus error does; the program stays loaded."""
    dut = Controller()

    async def bench(ctx):
        await load(ctx, dut)
        for cycles in (0, 1, 2, 3, 9):
            ctx.set(dut.idle, 0)
            await pulse(ctx, dut.run)
            for _ in range(cycles):
                await ctx.tick()
            await pulse(ctx, dut.abort)
            while not ctx.get(dut.flush):
                await ctx.tick()
            ctx.set(dut.finished, 1)        # too late
            await ctx.tick().repeat(5)
            ctx.set(dut.finished, 0)
            assert ctx.get(dut.engine_reset) and not ctx.get(dut.output_start)
            assert state(ctx, dut) == (1, 0, 1, 0)      # until the port is idle
            ctx.set(dut.idle, 1)
            await ctx.tick().repeat(2)
            assert state(ctx, dut) == (0, 0, 1, ErrorCode.ABORTED)
        await pulse(ctx, dut.clear)
        assert state(ctx, dut) == (0, 0, 1, 0)

    simulate(dut, bench)


def test_abort_is_ignored_elsewhere():
    """Idle, while loading, and once the outputs are being written; nor is it remembered."""
    dut = Controller()

    async def bench(ctx):
        await pulse(ctx, dut.abort)
        assert state(ctx, dut) == (0, 0, 0, 0)
        ctx.set(dut.idle, 1)
        await pulse(ctx, dut.load)
        await pulse(ctx, dut.abort)
        await pulse(ctx, dut.checker_done)
        await ctx.tick().repeat(3)
        assert state(ctx, dut) == (0, 1, 1, 0)
        await begin_run(ctx, dut, dut.abort)     # written together with RUN
        await pulse(ctx, dut.finished)
        assert ctx.get(dut.output_start)
        await pulse(ctx, dut.abort)
        assert state(ctx, dut) == (1, 0, 1, 0)
        await pulse(ctx, dut.output_done)
        await ctx.tick().repeat(4)
        assert state(ctx, dut) == (0, 1, 1, 0)
        await begin_run(ctx, dut)
        await ctx.tick().repeat(20)
        assert state(ctx, dut) == (1, 0, 1, 0)

    simulate(dut, bench)


def test_bus_error_goes_before_abort():
    dut = Controller()

    async def bench(ctx):
        await load(ctx, dut)
        await begin_run(ctx, dut)
        ctx.set(dut.idle, 1)
        await pulse(ctx, dut.abort)
        await pulse(ctx, dut.bus_error)
        await ctx.tick().repeat(3)
        assert state(ctx, dut) == (0, 0, 1, ErrorCode.BUS)

    simulate(dut, bench)


def test_the_engine_is_silent_before_the_flush_ends():
    """It may not ask for a burst in the gap: nobody would take it from the port."""
    dut = Controller()

    async def bench(ctx):
        await load(ctx, dut)
        await begin_run(ctx, dut)
        ctx.set(dut.idle, 1)
        await pulse(ctx, dut.bus_error)
        silenced = False
        while ctx.get(dut.busy):
            assert ctx.get(dut.flush)
            silenced = ctx.get(dut.engine_reset)
            await ctx.tick()
        assert silenced

    simulate(dut, bench)


def test_clear_does_not_hide_a_failure():
    """A failure is told when the command has ended, so that no CLEAR can come in between."""
    dut = Controller()

    async def bench(ctx):
        await load(ctx, dut)
        await begin_run(ctx, dut)
        await pulse(ctx, dut.bus_error)
        assert state(ctx, dut) == (1, 0, 1, 0)
        await pulse(ctx, dut.clear)
        ctx.set(dut.idle, 1)
        await ctx.tick().repeat(3)
        assert state(ctx, dut) == (0, 0, 1, ErrorCode.BUS)

    simulate(dut, bench)


def test_a_run_ends_with_the_last_acknowledgement():
    """Busy (and counting) until every write is answered; a failed write is a bus error."""
    for failed in (0, 1):
        dut = Controller()

        async def bench(ctx, dut=dut, failed=failed):
            await load(ctx, dut)
            await begin_run(ctx, dut)
            await pulse(ctx, dut.finished)
            ctx.set(dut.w_busy, 1)
            ctx.set(dut.idle, 1)
            await ctx.tick()
            ctx.set(dut.output_done, 1)
            await ctx.tick().repeat(20)
            assert state(ctx, dut) == (1, 0, 1, 0)
            ctx.set(dut.w_error, failed)
            await ctx.tick()            # the last answer
            ctx.set(dut.w_error, 0)
            ctx.set(dut.w_busy, 0)
            counted = ctx.get(dut.cycles)
            await ctx.tick().repeat(5)
            assert ctx.get(dut.cycles) == counted + 2
            assert state(ctx, dut) == (0, int(not failed), 1, ErrorCode.BUS if failed else 0)

        simulate(dut, bench)


def test_a_silent_memory_ends_a_run():
    """In the layers, in the output and in the drain: told at once, and no command until it woke."""
    dut = Controller()

    async def bench(ctx):
        await load(ctx, dut)
        for phase in ("layers", "output", "drain"):
            await begin_run(ctx, dut)
            await ctx.tick().repeat(3)
            if phase == "output":
                await pulse(ctx, dut.finished)
                ctx.set(dut.w_busy, 1)
                await ctx.tick().repeat(3)
            elif phase == "drain":
                await pulse(ctx, dut.abort)
                await ctx.tick().repeat(3)
            await pulse(ctx, dut.expired)
            assert state(ctx, dut) == (0, 0, 1, ErrorCode.TIMEOUT) and ctx.get(dut.owing)
            counted = ctx.get(dut.cycles)
            for command in (dut.run, dut.load):
                await pulse(ctx, dut.clear)
                assert state(ctx, dut) == (0, 0, 1, 0) and ctx.get(dut.owing)
                ctx.set(dut.checker_done, 1)        # nobody listens
                await pulse(ctx, command)
                ctx.set(dut.checker_done, 0)
                await pulse(ctx, dut.expired)
                assert state(ctx, dut) == (0, 0, 1, ErrorCode.OWING) and ctx.get(dut.owing)
                assert not ctx.get(dut.checker_start) and not ctx.get(dut.checker_reset)
                assert ctx.get(dut.flush) and ctx.get(dut.engine_reset)
            ctx.set(dut.w_busy, 0)
            await pulse(ctx, dut.idle)
            await ctx.tick()
            assert state(ctx, dut) == (0, 0, 1, ErrorCode.OWING) and not ctx.get(dut.owing)
            assert ctx.get(dut.cycles) == counted
        await begin_run(ctx, dut)       # forgets the error
        await pulse(ctx, dut.finished)
        ctx.set(dut.idle, 1)
        await ctx.tick()
        ctx.set(dut.output_done, 1)
        await ctx.tick().repeat(5)
        assert state(ctx, dut) == (0, 1, 1, 0)

    simulate(dut, bench)


def test_a_silent_memory_ends_a_load():
    """The checker is reset before the next command can begin."""
    dut = Controller()

    async def bench(ctx):
        ctx.set(dut.idle, 1)
        await pulse(ctx, dut.load)
        await ctx.tick().repeat(4)
        await pulse(ctx, dut.expired)
        assert state(ctx, dut) == (0, 0, 0, ErrorCode.TIMEOUT) and ctx.get(dut.owing)
        assert ctx.get(dut.checker_reset)
        while ctx.get(dut.owing):
            assert ctx.get(dut.flush)
            await ctx.tick()
        assert not ctx.get(dut.checker_reset)
        ctx.set(dut.idle, 0)
        await load(ctx, dut)

    simulate(dut, bench)


def test_the_end_goes_before_the_watchdog():
    dut = Controller()

    async def bench(ctx):
        await load(ctx, dut)
        await begin_run(ctx, dut)
        await pulse(ctx, dut.bus_error)
        await ctx.tick()
        ctx.set(dut.idle, 1)
        await ctx.tick()
        await pulse(ctx, dut.expired)
        assert state(ctx, dut) == (0, 0, 1, ErrorCode.BUS) and not ctx.get(dut.owing)

    simulate(dut, bench)


def test_an_abort_at_any_time_of_a_silence_ends():
    """With the real watchdog: also in the cycle in which it expires, and just before and after."""
    timeout = 5
    for delay in range(1, timeout + 6):
        m = Module()
        m.submodules.dut = dut = Controller()
        m.submodules.watchdog = watchdog = Watchdog()
        m.d.comb += [dut.expired.eq(watchdog.expired), watchdog.timeout.eq(timeout)]

        async def bench(ctx, dut=dut, watchdog=watchdog, delay=delay):
            await load(ctx, dut)
            await begin_run(ctx, dut)
            ctx.set(watchdog.owed, 1)
            await ctx.tick().repeat(delay)
            await pulse(ctx, dut.abort)
            await ctx.tick().repeat(timeout + watchdog.LATENCY)
            assert state(ctx, dut) == (0, 0, 1, ErrorCode.TIMEOUT) and ctx.get(dut.owing)

        simulate(m, bench)
