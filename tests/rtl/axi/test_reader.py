# amaranth: UnusedElaboratable=no
"""AXI4 read master: bursts, order, room, errors, rate."""

import random

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring

from rtl.axi.reader import AxiReader
from rtl.axi.signatures import ReadBeat, ReadBurst
from rtl.memory import ReadArbiter
from tests.rtl.axi.memory import AxiMemory
from tests.rtl.helpers import contract, idle, pack, simulate, sink, source, unpack


def request(addr, beats, len_bits=8):
    return pack(ReadBurst(len_bits), {"addr": addr, "len": beats - 1})


def expected(memory, wanted):
    return [
        pack(ReadBeat(memory.data_bits), {
            "data": memory.word(addr + i), "last": int(i == beats - 1),
            "error": int(addr + i in memory.bad),
        })
        for addr, beats in wanted for i in range(beats)
    ]


def random_requests(rng, count, edge, longest=256):
    """Half of them around a multiple of the longest burst."""
    for _ in range(count):
        near = rng.randrange(1, 1 << 20) * edge - rng.randrange(20)
        yield (rng.choice([near, rng.randrange(1 << 31)]),
               rng.choice([1, 2, 16, rng.randint(1, longest)]))


@pytest.mark.parametrize(("bits", "options"), [
    (64, {}), (64, {"max_burst": 4, "depth": 8, "outstanding": 3, "addr_bits": 40}),
    (128, {"max_burst": 1, "depth": 4}), (512, {"outstanding": 1}), (512, {"id_bits": 4}),
])
@pytest.mark.parametrize("p", [1.0, 0.5])
def test_every_beat_in_order(bits, options, p):
    dut = AxiReader(data_bits=bits, **options)
    burst = options.get("max_burst", min(256, 32768 // bits))
    memory = AxiMemory(bits, latency=7, p=p, seed=1)
    wanted = list(random_requests(random.Random(bits), 12, burst, 100))
    memory.bad = {wanted[3][0], wanted[5][0] + wanted[5][1] - 1}
    beats, got = expected(memory, wanted), []

    async def finish(ctx):
        await sink(dut.r, got, len(beats), p, seed=3)(ctx)
        assert ctx.get(dut.idle)

    simulate(dut, source(dut.ar, [request(*item) for item in wanted], p, seed=2), finish,
             monitors=[memory.process(dut.axi), contract(dut.r)])
    assert got == beats
    # The bursts are the requests, in pieces as long as can be.
    for addr, count in wanted:
        while count:
            piece = min(count, burst - addr % burst)
            assert memory.reads.pop(0) == (addr, piece)
            addr, count = addr + piece, count - piece
    assert not memory.reads and 0 < memory.most <= options.get("outstanding", 8)


def test_long_requests():
    dut = AxiReader(len_bits=12)
    memory = AxiMemory(64, latency=3)
    wanted = [(100, 1500), (7, 1), (4000, 600)]
    got = []
    simulate(dut, source(dut.ar, [request(*item, 12) for item in wanted]),
             sink(dut.r, got, 2101), monitors=[memory.process(dut.axi)])
    assert got == expected(memory, wanted)
    assert memory.reads[:3] == [(100, 156), (256, 256), (512, 256)]


def measure(dut, memory, wanted):
    """Cycles from the first beat to the last, and those before the first."""
    stamps, got = [], []
    total = sum(beats for _, beats in wanted)

    async def take(ctx):
        ctx.set(dut.r.ready, 1)
        cycle = 0
        while len(got) < total:
            _, _, valid, bits = await ctx.tick().sample(dut.r.valid, dut.r.payload.as_value())
            if valid:
                got.append(bits)
                stamps.append(cycle)
            cycle += 1

    simulate(dut, source(dut.ar, [request(*item) for item in wanted]), take,
             monitors=[memory.process(dut.axi)])
    assert got == expected(memory, wanted)
    return stamps[-1] - stamps[0] + 1, stamps[0]


@pytest.mark.parametrize(("bits", "outstanding", "beats", "latency"), [
    (64, 8, 16, 100), (512, 8, 16, 100), (64, 4, 256, 200), (512, 8, 64, 400), (64, 128, 1, 100),
])
def test_a_beat_per_cycle(bits, outstanding, beats, latency):
    """With enough under way: no idle cycle after the first beat."""
    dut = AxiReader(data_bits=bits, outstanding=outstanding)
    wanted = [(i * beats, beats) for i in range(2000 // beats)]
    cycles, first = measure(dut, AxiMemory(bits, latency=latency), wanted)
    assert cycles == sum(count for _, count in wanted)
    assert first == dut.LATENCY + latency + dut.DATA_LATENCY


def test_too_little_under_way_costs_what_it_must():
    """Four bursts of 16 beats in each trip of the memory, no more and no less."""
    dut = AxiReader(outstanding=4)
    wanted = [(16 * i, 16) for i in range(100)]
    cycles, _ = measure(dut, AxiMemory(64, latency=200), wanted)
    trip = cycles / 25
    assert 200 <= trip <= 200 + 16 + dut.ROUND_TRIP


def test_asks_for_no_more_than_it_has_room_for():
    dut = AxiReader(depth=64, max_burst=32)
    memory = AxiMemory(64)
    wanted = [(8, 100), (500, 60)]
    got = []

    async def late(ctx):
        await ctx.tick().repeat(300)
        assert sum(beats for _, beats in memory.reads) <= 64 and not ctx.get(dut.idle)
        await sink(dut.r, got, 160, 0.3)(ctx)

    simulate(dut, source(dut.ar, [request(*item) for item in wanted]), late,
             monitors=[memory.process(dut.axi)])
    assert got == expected(memory, wanted)


class Shared(wiring.Component):
    """Reader behind the arbiter, as in the core."""

    def __init__(self):
        self.arbiter, self.reader = ReadArbiter(clients=2), AxiReader(max_burst=8)
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules += [self.arbiter, self.reader]
        wiring.connect(m, self.arbiter.mem_ar, self.reader.ar)
        wiring.connect(m, self.reader.r, self.arbiter.mem_r)
        return m


@pytest.mark.parametrize("wait", [1, 3, 20, 45, 70])
@pytest.mark.parametrize("p", [1.0, 0.4])
def test_flush_drains_what_is_under_way(wait, p):
    """As after a bus error: two clients have bursts of several pieces on their way."""
    dut = Shared()
    arbiter = dut.arbiter
    memory = AxiMemory(64, latency=20, p=p, seed=wait, bad={30, 31})
    got = []

    async def bench(ctx):
        for client, addr in enumerate((5, 1000)):
            ctx.set(arbiter.ar[client].payload, {"addr": addr, "len": 29})
            ctx.set(arbiter.ar[client].valid, 1)
        await ctx.tick().repeat(wait)
        ctx.set(arbiter.flush, 1)
        await ctx.tick()
        for client in range(2):
            ctx.set(arbiter.ar[client].valid, 0)
        for _ in range(2000):
            if ctx.get(arbiter.idle):
                break
            assert not any(ctx.get(arbiter.r[client].valid) for client in range(2))
            await ctx.tick()
        assert ctx.get(arbiter.idle) and ctx.get(dut.reader.idle)
        ctx.set(arbiter.flush, 0)
        await source(arbiter.ar[1], [request(3, 20)])(ctx)
        await sink(arbiter.r[1], got, 20)(ctx)

    simulate(dut, bench, monitors=[memory.process(dut.reader.axi)])
    assert got == expected(memory, [(3, 20)])
    assert memory.reads[-3:] == [(3, 5), (8, 8), (16, 7)]


def test_addresses_wrap_at_the_width_of_the_bus():
    dut = AxiReader(addr_bits=32)
    memory = AxiMemory(64)
    got = []
    simulate(dut, source(dut.ar, [request(1 << 29 | 5, 1)]), sink(dut.r, got, 1), idle(1),
             monitors=[memory.process(dut.axi)])
    assert memory.reads == [(5, 1)]
    assert unpack(ReadBeat(64), got[0]).data == memory.word(5)


@pytest.mark.parametrize(("arguments", "text"), [
    ({"data_bits": 1024}, "data_bits must be 64, 128, 256 or 512, not 1024"),
    ({"addr_bits": 31}, "addr_bits must be 32 to 64, not 31"),
    ({"id_bits": 0}, "id_bits must be 1 to 16, not 0"),
    ({"max_burst": 3}, "max_burst must be a power of two of at most 256 at 64 bits, not 3"),
    ({"data_bits": 512, "max_burst": 128}, "of at most 64 at 512 bits, not 128"),
    ({"depth": 255}, "depth must be at least max_burst, 256, not 255"),
    ({"outstanding": 0}, "outstanding must be a positive integer, not 0"),
    ({"len_bits": 0}, "len_bits must be 1 to 32, not 0"),
])
def test_arguments(arguments, text):
    with pytest.raises(ValueError, match=text):
        AxiReader(**arguments)
