# amaranth: UnusedElaboratable=no
"""AXI4-Lite slave: order of AW and W, back-pressure, strobes, and one access per request."""

import random

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In

from rtl.axi.lite import AxiLite
from rtl.axi.signatures import Axi4LiteSignature
from rtl.csr import READ_LATENCY
from tests.rtl.helpers import simulate


class Registers(wiring.Component):
    """The slave in front of 1024 registers that count, too, how often they are written."""

    def __init__(self):
        super().__init__({"axi": In(Axi4LiteSignature(addr_bits=12))})
        self.lite = AxiLite()

    def elaborate(self, platform):
        m = Module()
        m.submodules.lite = lite = self.lite
        m.submodules.ram = ram = memory.Memory(shape=32, depth=1024, init=[])
        wiring.connect(m, wiring.flipped(self.axi), lite.axi)
        write_port, read_port = ram.write_port(), ram.read_port()
        m.d.comb += [
            write_port.addr.eq(lite.csr_addr), write_port.data.eq(lite.csr_w_data),
            write_port.en.eq(lite.csr_w_en),
            read_port.addr.eq(lite.csr_addr), read_port.en.eq(1),
        ]
        data = read_port.data
        for age in range(1, READ_LATENCY):
            late = Signal(32, name=f"late{age}")
            m.d.sync += late.eq(data)
            data = late
        m.d.comb += lite.csr_r_data.eq(data)
        return m


async def offer(ctx, rng, p, valid, ready, *settings):
    """One transfer to the slave after a random pause."""
    while rng.random() >= p:
        await ctx.tick()
    for signal, value in settings:
        ctx.set(signal, value)
    ctx.set(valid, 1)
    await ctx.tick().until(ready)
    ctx.set(valid, 0)


async def accept(ctx, rng, p, valid, ready, *values):
    """One answer of the slave; as long as it is not taken, it stays."""
    held = None
    while True:
        willing = rng.random() < p
        ctx.set(ready, willing)
        _, _, there, *got = await ctx.tick().sample(valid, *values)
        assert held is None or (there and got == held)
        held = got if there else None
        if willing and there:
            ctx.set(ready, 0)
            return got


@pytest.mark.parametrize("p", [1.0, 0.6, 0.2])
def test_reads_and_writes_with_pauses_everywhere(p):
    """AW, W, B, AR and R run by themselves; reads are of registers no write touches meanwhile."""
    dut = Registers()
    axi = dut.axi
    rng = random.Random(9)
    writes = [(4 * rng.randrange(1024) + rng.randrange(4), rng.getrandbits(32),
               rng.choice([15, rng.randrange(16)])) for _ in range(60)]
    final, responses, seen = {}, [], []
    for addr, value, strobe in writes:
        if strobe == 15:
            final[addr >> 2] = value

    def bench(channel, seed, values):
        async def run(ctx):
            own = random.Random(seed)
            for settings in values:
                await offer(ctx, own, p, getattr(axi, channel + "valid"),
                            getattr(axi, channel + "ready"), *settings)
        return run

    async def answers(ctx):
        own = random.Random(3)
        while len(responses) < len(writes):
            responses.append((await accept(ctx, own, p, axi.bvalid, axi.bready, axi.bresp))[0])

    async def read_back(ctx):
        own = random.Random(4)
        for _ in range(20):             # during the writes: answered, whatever they find
            await offer(ctx, own, p, axi.arvalid, axi.arready, (axi.araddr, 0))
            await accept(ctx, own, p, axi.rvalid, axi.rready, axi.rresp)
        while len(responses) < len(writes):
            await ctx.tick()
        for register in range(1024):
            if register in final or register % 50 == 0:
                await offer(ctx, own, p, axi.arvalid, axi.arready, (axi.araddr, 4 * register + 1))
                data, resp = await accept(ctx, own, p, axi.rvalid, axi.rready, axi.rdata,
                                          axi.rresp)
                assert resp == 0
                seen.append((register, data))

    simulate(
        dut, bench("aw", 1, [[(axi.awaddr, addr)] for addr, _, _ in writes]),
        bench("w", 2, [[(axi.wdata, value), (axi.wstrb, strobe)] for _, value, strobe in writes]),
        answers, read_back,
    )
    assert responses == [0 if strobe in (0, 15) else 2 for _, _, strobe in writes]
    assert len(final) > 20 and {2} <= set(responses)
    assert seen == [(register, final.get(register, 0)) for register, _ in seen]


@pytest.mark.parametrize("first", ["aw", "w"])
def test_either_channel_may_come_first(first):
    dut = Registers()
    axi = dut.axi
    settings = {"aw": (axi.awaddr, 0x40), "w": (axi.wdata, 77)}

    async def bench(ctx):
        rng = random.Random(0)
        ctx.set(axi.wstrb, 15)
        for channel in sorted(settings, key=lambda name: name != first):
            await offer(ctx, rng, 1.0, getattr(axi, channel + "valid"),
                        getattr(axi, channel + "ready"), settings[channel])
            if channel == first:
                for _ in range(20):
                    assert not ctx.get(axi.bvalid)
                    await ctx.tick()
        assert await accept(ctx, rng, 1.0, axi.bvalid, axi.bready, axi.bresp) == [0]
        await offer(ctx, rng, 1.0, axi.arvalid, axi.arready, (axi.araddr, 0x40))
        assert await accept(ctx, rng, 1.0, axi.rvalid, axi.rready, axi.rdata) == [77]

    simulate(dut, bench)


def test_rates():
    """With a master that never waits: a write every second cycle, a read every fifth."""
    dut = Registers()
    axi = dut.axi

    async def bench(ctx):
        for name in ("awvalid", "wvalid", "bready", "arvalid", "rready"):
            reading = name[:1] in "ar" and name[:2] != "aw"
            ctx.set(getattr(axi, name), not reading)
        ctx.set(axi.wstrb, 15)
        answers = 0
        for _ in range(60):
            _, _, valid = await ctx.tick().sample(axi.bvalid)
            answers += valid
        assert answers == 29
        for name in ("awvalid", "wvalid"):
            ctx.set(getattr(axi, name), 0)
        await ctx.tick().repeat(5)
        ctx.set(axi.arvalid, 1)
        ctx.set(axi.rready, 1)
        answers = 0
        for _ in range(60):
            _, _, valid = await ctx.tick().sample(axi.rvalid)
            answers += valid
        assert answers == 11

    simulate(dut, bench)
