# amaranth: UnusedElaboratable=no
"""Several ports as one: every wide beat from or to all of them, whatever their speeds."""

import random

import pytest

from rtl.axi.port import AxiPort
from rtl.axi.signatures import ReadBeat, ReadBurst, WriteBeat
from rtl.axi.striped import StripedReader, StripedWriter
from tests.rtl.axi.memory import AxiMemory
from tests.rtl.axi.test_writer import runs, settle
from tests.rtl.helpers import collect_level, contract, pack, simulate, sink, source


def setting(ports, bits, p, seed, latency=None, kind=StripedReader):
    """The reader, and memories that differ in contents, latency and eagerness."""
    dut = kind(ports=ports, data_bits=bits)
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


def write(dut, memories, writes, base, p=1.0):
    """Cycles in which a failure was told, and whether all of it was answered by the end."""
    ports, bits = len(memories), memories[0].data_bits
    errors, busy, done = [], [], []

    async def watch(ctx):
        """Idle means that every burst on every bus is answered."""
        async for _, _, level in ctx.tick().sample(dut.busy):
            if not level:
                assert all(memory.answered == len(memory.writes) for memory in memories)

    async def feed(ctx):
        for port, offset in enumerate(base):
            ctx.set(dut.base[port], offset)
        await source(dut.w, [pack(WriteBeat(ports * bits), {"addr": addr, "data": data})
                             for addr, data in writes], p, seed=5)(ctx)
        await settle(dut, done)(ctx)

    simulate(dut, feed, monitors=[
        *(memory.process(dut.axi[port]) for port, memory in enumerate(memories)), watch,
        collect_level(dut.error, errors), collect_level(dut.busy, busy),
    ])
    assert done and (not errors or errors[-1] <= busy[-1])
    return errors, busy


@pytest.mark.parametrize(("ports", "bits"), [(1, 64), (2, 128), (4, 512), (3, 64)])
@pytest.mark.parametrize("p", [1.0, 0.3])
def test_every_write_arrives_at_every_port(ports, bits, p):
    dut, memories = setting(ports, bits, p, seed=ports, kind=StripedWriter)
    writes = runs(random.Random(bits), 10, 16, ports * bits)
    base = [3000 * port for port in range(ports)]
    errors, _ = write(dut, memories, writes, base, p)
    assert not errors
    for port, memory in enumerate(memories):
        assert memory.words == {
            addr + base[port]: data >> bits * port & (1 << bits) - 1 for addr, data in writes
        }


def test_an_error_of_one_port_is_told_while_busy():
    dut, memories = setting(4, 64, 1.0, seed=3, kind=StripedWriter)
    memories[2].bad = {17}
    errors, _ = write(dut, memories, [(i, i) for i in range(40)], [0] * 4)
    assert len(errors) == 1


def test_full_rate_of_wide_writes():
    dut, memories = setting(4, 512, 1.0, seed=2, latency=100, kind=StripedWriter)
    _, busy = write(dut, memories, [(16 * 7 + i, i) for i in range(500)], [0] * 4)
    assert busy[-1] - busy[0] <= 500 + 100 + 30


def test_arguments():
    for kind in (StripedReader, StripedWriter):
        with pytest.raises(ValueError, match="ports must be a positive integer, not 0"):
            kind(ports=0)
        with pytest.raises(ValueError, match="data_bits must be"):
            kind(ports=2, data_bits=96)


@pytest.mark.parametrize(("arguments", "text"), [
    ({"port_bits": 256, "ports": 3}, "ports must divide 256 bits into 64, 128, 256 or 512, not 3"),
    ({"port_bits": 256, "ports": 8}, "not 8"), ({"port_bits": 2048, "ports": 2}, "not 2"),
    ({"port_bits": 256, "ports": 4, "stride": 1000}, "stride must be a multiple of 4096 bytes"),
    ({"port_bits": 2048, "stride": 1 << 31, "addr_bits": 32}, "4 memories must begin within 0x1"),
])
def test_arguments_of_the_port(arguments, text):
    with pytest.raises(ValueError, match=text):
        AxiPort(**arguments)
