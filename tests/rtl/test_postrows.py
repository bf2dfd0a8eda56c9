"""Row post: rows of the inverse FFT in, rows of every feature bank out, against NumPy."""

import random

import numpy as np
import pytest
from amaranth.hdl import Value

from model.config import PRESETS
from rtl.postrows import RowPostArray
from rtl.signatures import POSITION_BITS, Descriptor, TileMarks
from rtl.sums import SEGMENT_ROWS
from tests.rtl import store_model
from tests.rtl.helpers import collect, pack, simulate, unpack

MARKS = tuple(TileMarks.members)
#: One and two rows a cycle.
CONFIGS = {name: PRESETS[name] for name in ("tiny-wide", "tiny-wide2")}


def run(config, layer, tiles, *, p_tile=1.0, p_spare=1.0, seed=0):
    """Send tiles (values of every lane, bias, multiplier, base, marks) to the banks in turn.

    Rows and their cycles by bank, and the cycle of the first row sent.
    """
    dut = RowPostArray(config=config)
    rng = random.Random(seed)
    banks = range(config.feature_banks)
    credits = [SEGMENT_ROWS for _ in banks]
    entries = layer["out_step"] // store_model.rows_at_once(config, layer)
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
            while credits[bank] < entries or rng.random() >= p_tile:
                await tick()
            credits[bank] -= entries
            sent.append(cycle)
            for index in range(0, 8, config.inverse_rows):
                ctx.set(dut.i.valid, 1)
                ctx.set(Value.cast(dut.i.payload), pack(dut.i.payload.shape(), {
                    "rows": [
                        lane[index:][:config.inverse_rows].ravel().tolist() for lane in values
                    ],
                    "index": index,
                    "tag": {
                        "bias": bias, "multiplier": multiplier, "base": base,
                        "marks": dict(zip(MARKS, marks, strict=True)),
                    },
                }))
                await tick()
            ctx.set(dut.i.valid, 0)
        while sum(map(len, got)) < len(tiles) * entries:
            await tick()

    simulate(dut, feed, monitors=[watch, *map(collect, dut.o, got, stamps)])
    return [[unpack(dut.o[0].payload.shape(), word) for word in bank] for bank in got], stamps, sent


def random_tiles(config, rng, count):
    for _ in range(count):
        scale = int(rng.choice([60, 3000, 300_000, 1 << 23]))
        values = rng.integers(-scale, scale, (config.tile_lanes, 8, 8))
        bias = int(rng.choice([0, -(1 << 17), (1 << 17) - 1, rng.integers(-5000, 5000)]))
        multiplier = int(rng.choice([0, 1, (1 << 14) - 1, rng.integers(1 << 14)]))
        base = int(rng.integers(1 << POSITION_BITS))
        yield values, bias, multiplier, base, rng.integers(0, 2, len(MARKS)).tolist()


@pytest.mark.parametrize(("p_tile", "p_spare"), [(1.0, 1.0), (0.1, 0.02)])
@pytest.mark.parametrize("mode", range(7))
@pytest.mark.parametrize("name", CONFIGS)
def test_rows(name, mode, p_tile, p_spare):
    config = CONFIGS[name]
    layer = store_model.layers(config)[mode]
    banks, size = config.feature_banks, layer["out_step"]
    each = store_model.rows_at_once(config, layer)
    tiles = list(random_tiles(config, np.random.default_rng(mode), 3 * banks))
    got, stamps, _ = run(config, layer, tiles, p_tile=p_tile, p_spare=p_spare, seed=mode)
    for bank in range(banks):
        assert np.diff(stamps[bank]).min() >= config.tile_lanes
        words = iter(got[bank])
        for values, bias, multiplier, base, marks in tiles[bank::banks]:
            want = [store_model.post(layer, tile, bias, multiplier) for tile in values]
            for first in range(0, size, each):
                word = next(words)
                rows = [word.bytes]
                if config.inverse_rows > 1:
                    assert word.pair == (each > 1)
                    rows.append(word.below)
                for row, segments in enumerate(rows[:each], first):
                    for lane in range(config.tile_lanes):
                        expected = store_model.segment(layer, want[lane][row])
                        assert bytes(segments[lane][i] for i in range(size)) == expected
                last = first + each == size
                assert (word.marks.tile_last, word.marks.base) == (last, base)
                wanted = marks if last else [0] * len(MARKS)
                assert [word.marks.tile[mark] for mark in MARKS] == wanted
        assert next(words, None) is None


@pytest.mark.parametrize(("name", "step", "pool"), [
    ("tiny-wide", 6, 0), ("tiny-wide", 6, 1), ("tiny-wide", 1, 0),
    ("tiny-wide2", 6, 0), ("tiny-wide2", 6, 1), ("tiny-wide2", 2, 0),
])
def test_rate_and_latency(name, step, pool):
    config = CONFIGS[name]
    rows, cycles = config.inverse_rows, 8 // config.inverse_rows    # of a tile
    banks = config.feature_banks
    layer = store_model.conv(
        config, kernels=2 * banks, height=step, width=step, step=step, pool=pool
    )
    rng = np.random.default_rng(1)
    tiles = [(*tile[:4], [0] * len(MARKS)) for tile in random_tiles(config, rng, 2 * banks)]
    _, stamps, sent = run(config, layer, tiles)
    size = layer["out_step"] // store_model.rows_at_once(config, layer)
    assert sent == list(range(sent[0], sent[0] + 2 * cycles * banks, cycles))
    for number, cycle in enumerate(sent):
        first = stamps[number % banks][number // banks * size]
        assert first - cycle == RowPostArray.LATENCY + (layer["crop"] + pool) // rows
        leaving = stamps[number % banks][number // banks * size :][:size]
        assert np.diff(leaving).tolist() == [config.tile_lanes] * (size - 1)
