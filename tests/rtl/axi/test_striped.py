# amaranth: UnusedElaboratable=no
"""Several ports as one: every wide beat from all of them, whatever their speeds."""

import random

import pytest

from rtl.axi.signatures import ReadBeat, ReadBurst
from rtl.axi.striped import StripedReader
from tests.rtl.axi.memory import AxiMemory
from tests.rtl.helpers import contract, pack, simulate, sink, source


def setting(ports, bits, p, seed, latency=None):
    """The reader, and memories that differ in contents, latency and eagerness."""
    dut = StripedReader(ports=ports, data_bits=bits)
    rng = random.Random(seed)
    memories = []
    for port in range(ports):
        memory = AxiMemory(bits, latency=latency or rng.randint(1, 60),
                           p=1.0 if p == 1.0 else rng.uniform(p, 1.0), seed=seed + port)
        memory.default = lambda address, port=port, plain=memory.default: (
            plain(address) ^ (port + 1) * 0x0123_4567_89AB_CDEF)
        memories.append(memory)
    return dut, memories


def wide(memories, base, wanted):
    """What must come: narrow beat i of the stream from port i mod P at address i div P."""
    bits = memories[0].data_bits
    for addr, beats in wanted:
        for i in range(beats):
            at = [addr + i + offset for offset in base]
            yield pack(ReadBeat(bits * len(memories)), {
                "data": sum(memory.word(at[port]) << bits * port
                            for port, memory in enumerate(memories)),
                "last": int(i == beats - 1),
                "error": int(any(at[port] in memory.bad for port, memory in enumerate(memories))),
            })


def run(dut, memories, wanted, base, p=1.0):
    got, cycles = [], []
    beats = list(wide(memories, base, wanted))

    async def take(ctx):
        for port, offset in enumerate(base):
            ctx.set(dut.base[port], offset)
        await sink(dut.r, got, len(beats), p, seed=5)(ctx)
        assert ctx.get(dut.idle)

    async def count(ctx):
        async for _ in ctx.tick():
            cycles.append(1)

    requests = [pack(ReadBurst(), {"addr": addr, "len": n - 1}) for addr, n in wanted]
    simulate(dut, take, source(dut.ar, requests, p, seed=6), monitors=[
        *(memory.process(dut.axi[port]) for port, memory in enumerate(memories)),
        contract(dut.r), count,
    ])
    assert got == beats
    return len(cycles)


@pytest.mark.parametrize(("ports", "bits"), [(1, 64), (2, 128), (4, 512), (3, 64)])
@pytest.mark.parametrize("p", [1.0, 0.3])
def test_ports_of_different_speeds(ports, bits, p):
    dut, memories = setting(ports, bits, p, seed=ports)
    rng = random.Random(bits)
    wanted = [(rng.randrange(1 << 20), rng.choice([1, 2, 16, 70])) for _ in range(10)]
    memories[-1].bad = {wanted[2][0] + 1000 * (ports - 1)}
    run(dut, memories, wanted, [1000 * port for port in range(ports)], p)


def test_full_rate_of_four_wide_ports_at_latency_100():
    dut, memories = setting(4, 512, 1.0, seed=2, latency=100)
    wanted = [(16 * i, 16) for i in range(60)]
    cycles = run(dut, memories, wanted, [0, 64, 128, 1 << 20])
    assert cycles <= 960 + 100 + 10


def test_arguments():
    with pytest.raises(ValueError, match="ports must be a positive integer, not 0"):
        StripedReader(ports=0)
    with pytest.raises(ValueError, match="data_bits must be"):
        StripedReader(ports=2, data_bits=96)
