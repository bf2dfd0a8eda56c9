"""Array with a file of accumulators against NumPy, at random places and read-outs."""

import dataclasses

import numpy as np
import pytest
from amaranth.sim import Simulator

from model.config import PRESETS
from rtl.mac import Mac, MacArray
from rtl.signatures import Step, SumsTag
from tests.rtl.helpers import PackedSums, collect_sums, drive, idle, pack, simulate
from tests.rtl.test_mac import extreme, random_memory, tile_memory, wrap

WINDOW = PRESETS["tiny-window"]
NARROW = dataclasses.replace(WINDOW, name="narrow", tile_lanes=2, weight_bits=8, acc_bits=32,
                             port_bits=128, feature_banks=8)


def test_mac_adds_to_any_place():
    rng = np.random.default_rng(1)
    dut = Mac(a_bits=17, b_bits=17, acc_bits=36, window=32)
    a, b = extreme(rng, 17, 400).tolist(), extreme(rng, 17, 400).tolist()
    place, shown = rng.integers(0, 6, 400).tolist(), rng.integers(0, 6, 400).tolist()
    first = (rng.random(400) < 0.2).tolist()
    got = []

    async def testbench(ctx):
        for index in range(len(a) + Mac.PRODUCT_LATENCY):
            if index < len(a):
                ctx.set(dut.a, a[index])
                ctx.set(dut.b, b[index])
            now = index - Mac.PRODUCT_LATENCY
            if now >= 0:
                ctx.set(dut.place, place[now])
                ctx.set(dut.out_place, shown[now])
                ctx.set(dut.first, first[now])
                got.append(ctx.get(dut.acc))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    want, totals = [], [0] * 32
    for x, y, here, there, load in zip(a, b, place, shown, first, strict=True):
        want.append(totals[there])          # as it was before this cycle's product
        totals[here] = wrap((0 if load else totals[here]) + x * y, 36)
    assert got == want


def traffic(rng, config, cycles, gaps):
    """Steps and read-outs of every cycle, and the accumulators each read-out shows."""
    steps, reads = [], []
    places = 6                              # few, so that they meet often
    dot = False
    for cycle in range(cycles):
        if cycle % 40 == 0:
            dot = rng.random() < 0.3
        step = read = None
        if rng.random() >= gaps:
            weights = extreme(rng, config.weight_bits, (config.kernel_lanes, 2)).tolist()
            step = {
                "addr": rng.integers(0, config.tile_depth, config.banks).tolist(),
                "select": rng.integers(0, config.banks, config.kernel_lanes).tolist(),
                "enable": (rng.random(config.kernel_lanes) < 0.8).astype(int).tolist(),
                "weight": [{"re": re, "im": im} for re, im in weights],
                "place": rng.integers(0, places, config.kernel_lanes).tolist(), "dot": int(dot),
            }
        if rng.random() < 0.3:
            read = {
                "real": int(rng.integers(0, 2)), "dot": int(rng.integers(0, 2)),
                "sum_shift": int(rng.integers(0, 64)), "frequency": int(rng.integers(0, places)),
                "slot": int(rng.integers(0, 4)), "block_last": int(rng.integers(0, 2)),
            }
        steps.append(step)
        reads.append(read)
    return steps, reads


def expected(words, steps, reads, config):
    """Sums in the order of the read-outs, each before the step of its cycle."""
    files = np.zeros((config.window, config.tile_lanes, config.kernel_lanes, 3), dtype=np.int64)
    out = []
    for step, read in zip(steps, reads, strict=True):
        if read:
            out.append((wrap(files[read["frequency"]], config.acc_bits), read))
            files[read["frequency"]] = 0
        if not step:
            continue
        for kernel in range(config.kernel_lanes):
            if not step["enable"][kernel]:
                continue
            bank, place = step["select"][kernel], step["place"][kernel]
            x = words[step["addr"][bank], bank]
            re, im = step["weight"][kernel]["re"], step["weight"][kernel]["im"]
            if step["dot"]:
                factors = re, im - re, re - im
            elif place in (0, 4):
                factors = 0, re, -im
            else:
                factors = re, im - re, re + im
            operands = np.stack([x.sum(axis=-1), x[:, 0], x[:, 1]], axis=-1)
            files[place, :, kernel] += np.array(factors) * operands
    return out


@pytest.mark.parametrize("config, cycles, gaps", [
    (WINDOW, 250, 0.0), (WINDOW, 250, 0.5), (NARROW, 400, 0.2),
])
def test_array_against_numpy(config, cycles, gaps):
    rng = np.random.default_rng(cycles + config.weight_bits)
    words, packed = random_memory(rng, config)
    steps, reads = traffic(rng, config, cycles, gaps)
    dut = MacArray(config)
    got, stamps = [], []
    simulate(
        dut,
        drive(dut.i, [step and pack(Step(config), step) for step in steps]),
        drive(dut.read_out, [read and pack(SumsTag, read) for read in reads]),
        idle(cycles + dut.LATENCY + 2),
        monitors=[collect_sums(dut.o, config, got, stamps), tile_memory(dut, packed)],
    )
    want = expected(words, steps, reads, config)
    assert len(want) > 40
    first = stamps[0] - next(cycle for cycle, read in enumerate(reads) if read)
    assert [cycle + first for cycle, read in enumerate(reads) if read] == stamps
    assert first == dut.LATENCY - 1
    layout = PackedSums(config)
    for (acc, read), bits in zip(want, got, strict=True):
        assert bits == pack(layout, {"acc": acc.tolist(), **read})
