# amaranth: UnusedElaboratable=no
"""Read arbiter and on-chip memory."""

import random
from collections import deque

import pytest
from amaranth.hdl import Value

from rtl.memory import OnChipMemory, ReadArbiter
from rtl.signatures import ReadData, ReadRequest, WriteRequest
from tests.rtl.helpers import contract, idle, pack, simulate, sink, source, unpack

WORD = 0x9E37_79B9_7F4A_7C15


def request(addr, beats):
    return pack(ReadRequest, {"addr": addr, "len": beats - 1})


def bursts(requests, bits=64):
    """Beats of the requests of a memory that holds ``addr * WORD``."""
    for addr, beats in requests:
        for beat in range(beats):
            yield pack(ReadData(bits), {"data": (addr + beat) * WORD % (1 << bits),
                                        "last": int(beat == beats - 1), "error": 0})


def responder(dut, order, p, seed, width=64):
    """Memory behind the arbiter: notes the requests in ``order``, answers after a while."""
    queue = deque()

    async def take(ctx):
        rng = random.Random(seed)
        while True:
            ready = rng.random() < p
            ctx.set(dut.mem_ar.ready, ready)
            _, _, valid, bits = await ctx.tick().sample(
                dut.mem_ar.valid, Value.cast(dut.mem_ar.payload))
            if ready and valid:
                item = unpack(ReadRequest, bits)
                order.append((item.addr, item.len + 1))
                queue.extend(bursts([order[-1]], width))

    async def give(ctx):
        rng = random.Random(seed + 1)
        while True:
            if queue and rng.random() < p:
                ctx.set(dut.mem_r.valid, 1)
                ctx.set(Value.cast(dut.mem_r.payload), queue.popleft())
                await ctx.tick().until(dut.mem_r.ready)
                ctx.set(dut.mem_r.valid, 0)
            else:
                await ctx.tick()
    return take, give


@pytest.mark.parametrize("p, bits", [(1.0, 64), (0.5, 64), (0.5, 2048)])
def test_arbiter_routes_bursts(p, bits):
    rng = random.Random(1)
    dut = ReadArbiter(clients=3, port_bits=bits)
    wanted = [[(1000 * client + 20 * i, rng.randint(1, 16)) for i in range(8)]
              for client in range(3)]
    got, order = [[], [], []], []
    benches = []
    for client in range(3):
        beats = list(bursts(wanted[client], bits))
        benches += [
            source(dut.ar[client], [request(*item) for item in wanted[client]], p, seed=client),
            sink(dut.r[client], got[client], len(beats), p, seed=10 + client),
        ]
    simulate(dut, *benches, monitors=[*responder(dut, order, p, 7, bits), contract(dut.mem_ar)])
    for client in range(3):
        assert got[client] == list(bursts(wanted[client], bits))
        assert [item for item in order if item[0] // 1000 == client] == wanted[client]
    if p == 1.0:    # all ask at once: the first client's requests go first
        assert order[:8] == wanted[0]


def test_arbiter_flush_drops_what_is_under_way():
    dut = ReadArbiter(clients=2)
    order = []

    async def bench(ctx):
        ctx.set(dut.ar[1].payload, {"addr": 5, "len": 9})
        ctx.set(dut.ar[1].valid, 1)
        await ctx.tick().repeat(2)
        ctx.set(dut.flush, 1)
        await ctx.tick()
        assert not ctx.get(dut.idle)
        for _ in range(40):
            assert not ctx.get(dut.r[1].valid) and not ctx.get(dut.ar[1].ready)
            await ctx.tick()
        assert ctx.get(dut.idle)
        ctx.set(dut.ar[1].valid, 0)
        ctx.set(dut.flush, 0)
        got = []
        await source(dut.ar[0], [request(3, 2)])(ctx)
        await sink(dut.r[0], got, 2)(ctx)
        assert got == list(bursts([(3, 2)]))

    simulate(dut, bench, monitors=responder(dut, order, 1.0, 3))


def fill(dut, words):
    async def bench(ctx):
        ctx.set(dut.host_en, 1)
        ctx.set(dut.host_w_en, 1)
        for addr, word in enumerate(words):
            ctx.set(dut.host_addr, addr)
            ctx.set(dut.host_w_data, word)
            await ctx.tick()
        ctx.set(dut.host_en, 0)
        ctx.set(dut.host_w_en, 0)
    return bench


@pytest.mark.parametrize("p", [1.0, 0.4])
def test_onchip_reads_and_writes(p):
    dut = OnChipMemory(kib=1)
    words = [addr * WORD % (1 << 64) for addr in range(dut.depth)]
    wanted = [(0, 16), (100, 1), (60, 20), (112, 16)]
    written = [(64 + i, (i + 7) * WORD % (1 << 64)) for i in range(0, 20, 3)]
    got, back = [], []

    async def bench(ctx):
        await fill(dut, words)(ctx)
        for addr, word in [*written, (dut.depth, 0)]:    # the last one lies outside
            await source(dut.bus.w, [pack(WriteRequest(64), {"addr": addr, "data": word})])(ctx)
            words[addr:addr + 1] = [word] if addr < dut.depth else []
        for item in wanted:
            await source(dut.bus.ar, [request(*item)], p, 1)(ctx)

    async def host(ctx):
        await ctx.tick().repeat(dut.depth + 30)
        for addr in (0, 64, 127):      # the host reads in between
            ctx.set(dut.host_addr, addr)
            ctx.set(dut.host_en, 1)
            await ctx.tick()
            ctx.set(dut.host_en, 0)
            await ctx.tick().repeat(dut.HOST_LATENCY - 1)
            back.append((addr, ctx.get(dut.host_r_data)))

    simulate(dut, bench, host, sink(dut.bus.r, got, sum(n for _, n in wanted), p, seed=2),
             monitors=[contract(dut.bus.r)])
    expected = [
        pack(ReadData(64), {"data": words[addr + i], "last": int(i == beats - 1), "error": 0})
        for addr, beats in wanted for i in range(beats)
    ]
    assert got == expected
    assert back == [(addr, words[addr]) for addr, _ in back]


def test_onchip_beats_of_several_words():
    dut = OnChipMemory(kib=2, port_bits=256)
    assert dut.depth == 64
    words = [addr * WORD % (1 << 64) for addr in range(256)]

    def beat(addr):
        return sum(word << 64 * place for place, word in enumerate(words[4 * addr:4 * addr + 4]))

    got, back = [], []

    async def bench(ctx):
        await fill(dut, words)(ctx)
        for addr in (7, 63, 64):        # the last one lies outside
            data = random.Random(addr).getrandbits(256)
            await source(dut.bus.w, [pack(WriteRequest(256), {"addr": addr, "data": data})])(ctx)
            if addr < dut.depth:
                words[4 * addr:4 * addr + 4] = [data >> at & (1 << 64) - 1
                                                for at in range(0, 256, 64)]
        await source(dut.bus.ar, [request(5, 4), request(62, 3)])(ctx)
        await sink(dut.bus.r, got, 7)(ctx)
        for addr in (28, 31, 255, 0):
            ctx.set(dut.host_addr, addr)
            ctx.set(dut.host_en, 1)
            await ctx.tick()
            ctx.set(dut.host_en, 0)
            await ctx.tick().repeat(dut.HOST_LATENCY - 1)
            back.append((addr, ctx.get(dut.host_r_data)))

    simulate(dut, bench)
    items = [unpack(ReadData(256), bits) for bits in got]
    assert [item.data for item in items[:6]] == [beat(addr) for addr in (5, 6, 7, 8, 62, 63)]
    assert [item.last for item in items] == [0, 0, 0, 1, 0, 0, 1]
    assert [item.error for item in items] == [0] * 6 + [1]
    assert back == [(addr, words[addr]) for addr, _ in back]


def test_onchip_rate_and_error():
    dut = OnChipMemory(kib=1)
    got, cycles = [], []

    async def bench(ctx):
        await source(dut.bus.ar, [request(0, 64), request(96, 32), request(126, 4)])(ctx)

    async def count(ctx):
        await sink(dut.bus.r, got, 100)(ctx)
        cycles.append(1)

    simulate(dut, bench, count, limit=110)
    errors = [unpack(ReadData(64), bits).error for bits in got]
    assert errors == [0] * 98 + [1] * 2
    assert len(cycles) == 1


@pytest.mark.parametrize("kwargs, text", [
    ({"clients": 0}, "clients must be a positive integer, not 0"),
    ({"clients": 1, "outstanding": 1}, "outstanding must be an integer of at least 2, not 1"),
    ({"clients": 1, "outstanding": "x"}, "outstanding must be an integer of at least 2, not 'x'"),
])
def test_arbiter_arguments(kwargs, text):
    with pytest.raises(ValueError, match=text):
        ReadArbiter(**kwargs)


def test_onchip_arguments():
    with pytest.raises(ValueError, match="kib must be a positive integer, not 0"):
        OnChipMemory(kib=0)
    with pytest.raises(ValueError, match="port_bits must be a power of two from .* not 96"):
        OnChipMemory(kib=1, port_bits=96)


def test_idle_memory_stays_silent():
    dut = OnChipMemory(kib=1)
    got = []

    async def watch(ctx):
        for _ in range(20):
            got.append(ctx.get(dut.bus.r.valid))
            await ctx.tick()

    simulate(dut, watch, idle(5))
    assert not any(got)
