import dataclasses

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Component, In, Out

from model.config import PRESETS
from model.fixed import round_shift, saturate
from rtl.drain import Drain, Rounder
from rtl.mac import MacArray
from rtl.signatures import Event, Step, SumWrite
from tests.rtl.helpers import (
    PackedSums,
    collect,
    drive,
    drive_sums,
    idle,
    pack,
    simulate,
)
from tests.rtl.test_mac import (
    SPREAD2,
    SPREAD4,
    extreme,
    of_lane,
    pack_steps,
    random_frequencies,
    random_memory,
    tile_memory,
)

TINY = PRESETS["tiny"]
TINY16 = dataclasses.replace(TINY, weight_bits=16, acc_bits=40)
ECP5 = PRESETS["ecp5-85f"]
ECP5_16 = PRESETS["ecp5-85f-w16"]
#: Eight kernels a cycle, in one cycle and in four.
WIDE = dataclasses.replace(PRESETS["tiny-wide2"], tile_depth=64)
WIDE_32 = dataclasses.replace(WIDE, kernel_lanes=32, tile_lanes=2)


def combine(acc, real, dot):
    """Exact sums (re, im) of accumulators (..., 3); `test_array_and_drain` ties them to x·w."""
    a1, a2, a3 = np.moveaxis(np.asarray(acc, dtype=np.int64), -1, 0)
    if dot:
        return np.stack([a1 - a3, 0 * a1], axis=-1)
    if real:
        return np.stack([a1 + a2, a1 - a3], axis=-1)
    return np.stack([a1 - a3, a1 + a2], axis=-1)


def across(sums, config):
    """Sums (tile lanes, ...) of a spread dot layer: the first lane has them all."""
    total = sums.copy()
    total[0] = sums[:config.dot_lanes].sum(axis=0)
    return total


def model_sums(words, steps, config):
    """Sums of one frequency from the products themselves, shape (tile, kernel lanes, 2)."""
    sums = np.zeros((config.tile_lanes, config.kernel_lanes, 2), dtype=np.int64)
    for step in steps:
        for kernel in np.flatnonzero(step["enable"]):
            bank = step["select"][kernel]
            x = words[step["addr"][bank], bank]
            if step["spread"]:
                x = np.where(of_lane(config, step["lane"][kernel])[:, None], x, 0)
            xr, xi = np.moveaxis(x, -1, 0)
            wr, wi = step["weight"][kernel]["re"], step["weight"][kernel]["im"]
            if step["dot"]:
                product = xr * wr + xi * wi, 0 * xr
            elif step["real"]:
                product = xr * wr, xi * wi
            else:
                product = xr * wr - xi * wi, xr * wi + xi * wr
            sums[:, kernel] += np.stack(product, axis=-1)
    return across(sums, config) if steps[0]["spread"] else sums


def pack_writes(sums, meta, config):
    """Packed sum words of one frequency, rounded, in order."""
    sums = saturate(round_shift(sums, meta["sum_shift"]), config.sum_bits).tolist()
    drained = config.drained
    quads = config.kernel_lanes // drained
    for quad in range(quads):
        yield pack(SumWrite(config), {
            "sums": [
                [{"re": re, "im": im} for re, im in lane[drained * quad:][:drained]]
                for lane in sums
            ],
            "frequency": meta["frequency"], "quad": quad, "slot": meta["slot"],
            "block_last": meta["block_last"] and quad == quads - 1,
        })


@pytest.mark.parametrize("config, count, gaps", [
    (TINY, 100, 0.0), (TINY, 40, 0.5), (TINY16, 100, 0.2), (ECP5, 25, 0.0), (ECP5, 20, 0.5),
    (ECP5_16, 20, 0.1), (WIDE, 25, 0.1), (WIDE_32, 10, 0.0), (SPREAD2, 40, 0.1), (SPREAD4, 40, 0.0),
])
def test_drain_rounds_and_orders(config, count, gaps):
    rng = np.random.default_rng(count)
    dut = Drain(config)
    items, want, arrivals = [], [], []
    for _ in range(count):
        kind = rng.choice(["complex", "real", "dot"])
        # Values of every magnitude, so that each shift rounds some and saturates others.
        shape = (config.tile_lanes, config.kernel_lanes, 3)
        acc = extreme(rng, config.acc_bits, shape, share=0.2) >> rng.integers(
            0, config.acc_bits - 1, shape
        )
        spread = int(config.spread and kind == "dot" and rng.random() < 0.7)
        if spread:
            acc >>= config.spread       # all together they fit an accumulator
        meta = {
            "real": int(kind != "complex"), "dot": int(kind == "dot"), "spread": spread,
            "sum_shift": int(rng.integers(0, 32)), "frequency": int(rng.integers(0, 32)),
            "slot": int(rng.integers(0, 4)), "block_last": int(rng.integers(0, 2)),
        }
        while rng.random() < gaps:
            items.append(None)
        arrivals.append(len(items))
        items.append(pack(PackedSums(config), {"acc": acc.tolist(), **meta}))
        items += [None] * (dut.INTERVAL - 1)
        sums = combine(acc, meta["real"], meta["dot"])
        want += pack_writes(across(sums, config) if spread else sums, meta, config)
    got, stamps = [], []
    simulate(
        dut, drive_sums(dut.i, items, config), idle(len(items) + dut.LATENCY + dut.INTERVAL),
        monitors=[collect(dut.o, got, stamps)],
    )
    assert got == want
    first = stamps[0] - dut.LATENCY
    assert stamps == [
        first - arrivals[0] + at + dut.LATENCY + quad
        for at in arrivals for quad in range(dut.INTERVAL)
    ]


def test_rounder_at_the_edges_of_saturation():
    """Values within one of the half LSB that decides, for every shift."""
    dut = Rounder(in_bits=41, sum_bits=18)
    cases = []
    for shift in range(22):
        half = 1 << shift >> 1
        for peak in (-(1 << 17), -1, 0, (1 << 17) - 1):
            near = (half * side + step for side in (-1, 1) for step in (-1, 0, 1))
            cases += [(shift, (peak << shift) + offset) for offset in near]
    got = []

    async def testbench(ctx):
        for index in range(len(cases) + dut.LATENCY):
            if index >= dut.LATENCY:
                got.append(ctx.get(dut.o))
            if index < len(cases):
                shift, value = cases[index]
                ctx.set(dut.value, value)
                ctx.set(dut.shift, shift)
            await ctx.tick()

    simulate(dut, testbench)
    assert got == [int(saturate(round_shift(np.int64(v), shift), 18)) for shift, v in cases]


class ArrayAndDrain(Component):
    def __init__(self, config):
        self._config = config
        self.array, self.drain = MacArray(config), Drain(config)
        super().__init__({
            "i": In(Event(Step(config))), "tile_en": Out(1),
            "tile_addr": Out(self.array.tile_addr.shape()),
            "tile_data": In(self.array.tile_data.shape()),
            "o": Out(Event(SumWrite(config))),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.array, m.submodules.drain = self.array, self.drain
        wiring.connect(m, wiring.flipped(self.i), self.array.i)
        wiring.connect(m, self.array.o, self.drain.i)
        wiring.connect(m, self.drain.o, wiring.flipped(self.o))
        m.d.comb += [
            self.tile_en.eq(self.array.tile_en), self.tile_addr.eq(self.array.tile_addr),
            self.array.tile_data.eq(self.tile_data),
        ]
        return m


@pytest.mark.parametrize("config, count, longest, gaps", [
    (TINY, 80, 1, 0.0), (TINY, 50, 5, 0.3), (TINY16, 60, 3, 0.0),
    (ECP5, 15, 2, 0.0), (ECP5, 10, 5, 0.2), (ECP5_16, 12, 4, 0.1), (WIDE, 20, 1, 0.0),
    (SPREAD2, 25, 3, 0.1), (SPREAD4, 25, 1, 0.0),
])
def test_array_and_drain_against_numpy(config, count, longest, gaps):
    """Sums and their order, at the highest rate of complete sums where ``longest`` is lowest."""
    rng = np.random.default_rng(count + longest)
    words, packed = random_memory(rng, config)
    kinds = rng.choice(["complex", "real", "dot"], count)
    frequencies = list(random_frequencies(rng, config, kinds, longest))
    want = []
    for steps in frequencies:
        want += pack_writes(model_sums(words, steps, config), steps[-1], config)
    items = pack_steps(config, frequencies, rng, gaps)
    dut = ArrayAndDrain(config)
    latency = dut.array.LATENCY + dut.drain.LATENCY + dut.drain.INTERVAL
    got = []
    simulate(
        dut, drive(dut.i, items), idle(len(items) + latency),
        monitors=[collect(dut.o, got), tile_memory(dut, packed)],
    )
    assert got == want
