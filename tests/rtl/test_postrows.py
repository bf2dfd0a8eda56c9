"""Row post: rows of the inverse FFT in, rows of every feature bank out, against NumPy."""

import random

import numpy as np
import pytest
from amaranth.hdl import Value

from model.config import PRESETS
from rtl.postrows import RowPostArray
from rtl.signatures import POSITION_BITS, Descriptor
from rtl.sums import SEGMENT_ROWS
from tests.rtl import store_model
from tests.rtl.helpers import collect, pack, simulate, unpack

MARKS = ("commit", "advance", "layer_last")
CONFIG = PRESETS["tiny-wide"]


def run(layer, tiles, *, p_tile=1.0, p_spare=1.0, seed=0):
    """Send tiles (values of every lane, bias, multiplier, base, marks) to the banks in turn.

    Rows and their cycles by bank, and the cycle of the first row sent.
    """
    dut = RowPostArray(config=CONFIG)
    rng = random.Random(seed)
    banks = range(CONFIG.feature_banks)
    credits = [SEGMENT_ROWS for _ in banks]
    got, stamps = ([[] for _ in banks] for _ in range(2))
    sent = []

    async def watch(ctx):
        async for *_, credit, reserve, spare in ctx.tick().sample(
            dut.credit, dut.reserve, dut.spare
        ):
            assert not reserve & ~spare
            for bank in banks:
                credits[bank] += credit >> bank & 1

    async def feed(ctx):
        cycle = 0
        ctx.set(Value.cast(dut.layer), pack(Descriptor, layer))
        ctx.set(dut.spare, -1)

        async def tick():
            nonlocal cycle
            *_, spare, reserve = await ctx.tick().sample(dut.spare, dut.reserve)
            cycle += 1
            # Once there, the next places stay until they are reserved.
            found = sum((rng.random() < p_spare) << bank for bank in banks)
            ctx.set(dut.spare, spare & ~reserve | found)

        await tick()
        await tick()
        for number, (values, bias, multiplier, base, marks) in enumerate(tiles):
            bank = number % len(banks)
            while credits[bank] < layer["out_step"] or rng.random() >= p_tile:
                await tick()
            credits[bank] -= layer["out_step"]
            sent.append(cycle)
            for index in range(8):
                ctx.set(dut.i.valid, 1)
                ctx.set(Value.cast(dut.i.payload), pack(dut.i.payload.shape(), {
                    "rows": [lane[index].tolist() for lane in values], "index": index,
                    "tag": {
                        "bias": bias, "multiplier": multiplier, "base": base,
                        "marks": dict(zip(MARKS, marks, strict=True)),
                    },
                }))
                await tick()
            ctx.set(dut.i.valid, 0)
        while sum(map(len, got)) < len(tiles) * layer["out_step"]:
            await tick()

    simulate(dut, feed, monitors=[watch, *map(collect, dut.o, got, stamps)])
    return [[unpack(dut.o[0].payload.shape(), word) for word in bank] for bank in got], stamps, sent


def random_tiles(rng, count):
    for _ in range(count):
        scale = int(rng.choice([60, 3000, 300_000, 1 << 23]))
        values = rng.integers(-scale, scale, (CONFIG.tile_lanes, 8, 8))
        bias = int(rng.choice([0, -(1 << 17), (1 << 17) - 1, rng.integers(-5000, 5000)]))
        multiplier = int(rng.choice([0, 1, (1 << 14) - 1, rng.integers(1 << 14)]))
        base = int(rng.integers(1 << POSITION_BITS))
        yield values, bias, multiplier, base, rng.integers(0, 2, len(MARKS)).tolist()


@pytest.mark.parametrize(("p_tile", "p_spare"), [(1.0, 1.0), (0.1, 0.02)])
@pytest.mark.parametrize("mode", range(len(store_model.layers(CONFIG))))
def test_rows(mode, p_tile, p_spare):
    layer = store_model.layers(CONFIG)[mode]
    banks, size = CONFIG.feature_banks, layer["out_step"]
    tiles = list(random_tiles(np.random.default_rng(mode), 3 * banks))
    got, stamps, _ = run(layer, tiles, p_tile=p_tile, p_spare=p_spare, seed=mode)
    for bank in range(banks):
        assert np.diff(stamps[bank]).min() >= CONFIG.tile_lanes
        words = iter(got[bank])
        for values, bias, multiplier, base, marks in tiles[bank::banks]:
            want = [store_model.post(layer, tile, bias, multiplier) for tile in values]
            for row in range(size):
                word = next(words)
                for lane in range(CONFIG.tile_lanes):
                    expected = store_model.segment(layer, want[lane][row])
                    assert bytes(word.bytes[lane][i] for i in range(size)) == expected
                last = row == size - 1
                assert (word.marks.tile_last, word.marks.base) == (last, base)
                assert [word.marks.tile[mark] for mark in MARKS] == (marks if last else [0, 0, 0])
        assert next(words, None) is None


@pytest.mark.parametrize(("step", "pool"), [(6, 0), (6, 1), (1, 0)])
def test_rate_and_latency(step, pool):
    banks = CONFIG.feature_banks
    layer = store_model.conv(
        CONFIG, kernels=2 * banks, height=step, width=step, step=step, pool=pool
    )
    tiles = [(*tile[:4], [0, 0, 0]) for tile in random_tiles(np.random.default_rng(1), 2 * banks)]
    _, stamps, sent = run(layer, tiles)
    size = layer["out_step"]
    assert sent == list(range(sent[0], sent[0] + 16 * banks, 8))
    for number, cycle in enumerate(sent):
        first = stamps[number % banks][number // banks * size]
        assert first - cycle == RowPostArray.LATENCY + layer["crop"] + pool
        rows = stamps[number % banks][number // banks * size :][:size]
        assert np.diff(rows).tolist() == [CONFIG.tile_lanes] * (size - 1)
