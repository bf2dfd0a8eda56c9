"""Post: rows of the inverse FFT in, bytes out, against NumPy; rate and latency."""

import random
from itertools import product

import numpy as np
import pytest
from amaranth.hdl import Value

from model import fixed
from model.config import PRESETS
from rtl.post import PostArray
from rtl.requantise import Requantiser
from rtl.signatures import POSITION_BITS, Descriptor
from rtl.sums import SEGMENT_ROWS
from tests.rtl import store_model
from tests.rtl.helpers import pack, raw, simulate, unpack

MARKS = ("commit", "advance", "layer_last")


def run(config, layer, tiles, seed, pauses=True, spare=1.0):
    """Send tiles (per tile: values of every lane, bias, multiplier, base, marks); the segments."""
    dut = PostArray(config=config)
    rng = random.Random(seed)
    rows_per_tile = layer["out_step"]
    credits = SEGMENT_ROWS
    first_row = 7 if layer["dot"] else 0
    got, stamps, sent = [], [], []

    async def feed(ctx):
        nonlocal credits
        ctx.set(Value.cast(dut.layer), pack(Descriptor, layer))
        await ctx.tick().repeat(3)
        queue = [(tile, index) for tile in tiles for index in range(first_row, 8)]
        cycle = 0
        while len(got) < len(tiles) * rows_per_tile:
            send = False
            if queue:
                (values, bias, multiplier, base, marks), index = queue[0]
                if index > first_row:
                    send = True
                elif credits >= rows_per_tile and (not pauses or rng.random() < 0.3):
                    credits -= rows_per_tile
                    send = True
            ctx.set(dut.i.valid, send)
            ctx.set(dut.spare, rng.random() < spare)
            if send:
                queue.pop(0)
                sent.append(cycle)
                ctx.set(Value.cast(dut.i.payload), pack(dut.i.payload.shape(), {
                    "rows": [values[lane][index].tolist() for lane in range(config.tile_lanes)],
                    "index": index,
                    "tag": {
                        "bias": bias, "multiplier": multiplier, "base": base,
                        "marks": dict(zip(MARKS, marks, strict=True)),
                    },
                }))
            _, _, credit, reserve, can, valid, word = await ctx.tick().sample(
                dut.credit, dut.reserve, dut.spare, dut.o[0].valid, raw(dut.o[0].payload)
            )
            credits += credit
            assert not reserve or can
            if valid:
                got.append(unpack(dut.o[0].payload.shape(), word))
                stamps.append(cycle)
            cycle += 1

    simulate(dut, feed, limit=200 * (len(tiles) + 5))
    return got, stamps, sent


def random_tiles(rng, config, layer, count):
    tiles = []
    for _ in range(count):
        scale = int(rng.choice([60, 3000, 300_000, 1 << 23]))
        values = rng.integers(-scale, scale, (config.tile_lanes, 8, 8))
        bias = int(rng.choice([0, -(1 << 17), (1 << 17) - 1, rng.integers(-5000, 5000)]))
        multiplier = int(rng.choice([0, 1, (1 << 14) - 1, rng.integers(1 << 14)]))
        base = int(rng.integers(1 << POSITION_BITS))
        tiles.append((values, bias, multiplier, base, rng.integers(0, 2, len(MARKS)).tolist()))
    return tiles


def modes(config):
    layers = store_model.layers(config)
    extremes = [
        layers[1] | {"requant_shift": 63}, layers[1] | {"requant_shift": 33, "relu": 1},
        layers[6] | {"requant_shift": 1, "out_signed": 0},
    ]
    return layers + extremes


@pytest.mark.parametrize(
    ("name", "mode"),
    [("tiny", mode) for mode in range(len(modes(PRESETS["tiny"])))]
    + [("ecp5-85f", mode) for mode in (0, 1, 7, 8, 11)],
)
def test_segments(name, mode):
    config = PRESETS[name]
    layer = modes(config)[mode]
    rng = np.random.default_rng(mode)
    tiles = random_tiles(rng, config, layer, 6)
    got, _, _ = run(config, layer, tiles, seed=mode, spare=0.5)
    got = iter(got)
    for values, bias, multiplier, base, marks in tiles:
        want = [store_model.post(layer, tile, bias, multiplier) for tile in values]
        for row in range(layer["out_step"]):
            word = next(got)
            for lane in range(store_model.lanes(config, layer)):
                expected = store_model.segment(layer, want[lane][row])
                assert bytes(word.bytes[lane][i] for i in range(len(expected))) == expected
            last = row == layer["out_step"] - 1
            assert (word.marks.tile_last, word.marks.base) == (last, base)
            assert [word.marks.tile[mark] for mark in MARKS] == (marks if last else [0, 0, 0])


@pytest.mark.parametrize(("fields", "cycles"), [
    ({"step": 4, "pool": 1}, 8), ({"step": 6, "pool": 1}, 12), ({"step": 4}, 16),
    ({"step": 6}, 36), ({"step": 8}, 64), ({"step": 2}, 8),
])
def test_rate(fields, cycles):
    config = PRESETS["ecp5-85f"]
    layer = store_model.conv(config, kernels=1, height=16, width=16, **fields)
    tiles = random_tiles(np.random.default_rng(1), config, layer, 9)
    got, stamps, _ = run(config, layer, [(*t[:4], [0, 0, 0]) for t in tiles], 0, pauses=False)
    rows = layer["out_step"]
    assert len(got) == 9 * rows
    # From the fifth tile on the queue is in its steady state.
    assert stamps[-1] - stamps[5 * rows - 1] == 4 * cycles


def test_latency():
    config = PRESETS["tiny"]
    layer = store_model.dot(config, kernels=1)
    tiles = random_tiles(np.random.default_rng(2), config, layer, 1)
    _, stamps, sent = run(config, layer, [(*tiles[0][:4], [0, 0, 0])], 0, pauses=False)
    assert stamps[0] - sent[0] == PostArray.LATENCY


@pytest.mark.parametrize("width", [18, 20])
def test_limits(width):
    """Values around every limit, and the ends of the range, for small, usual and large shifts."""
    dut = Requantiser(width)
    least = -1 << width - 1
    got, wanted = [], []

    async def feed(ctx):
        for wide, out_signed in product((0, 1), repeat=2):
            bits, is_signed = (16, True) if wide else (8, bool(out_signed))
            for shift, multiplier in product((1, 2, 9, width + 7, 63), (1, 1 << 13, 16383)):
                limits = [limit << shift for limit in fixed.int_range(bits, is_signed)]
                values = {limit // multiplier + near for limit in limits for near in range(-6, 7)}
                values = [v for v in values if least <= v < -least] + [least, -least - 1]
                ctx.set(Value.cast(dut.layer), pack(Descriptor, {
                    "out_wide": wide, "out_signed": out_signed, "requant_shift": shift,
                }))
                ctx.set(dut.multiplier, multiplier)
                for value in values + [0] * dut.LATENCY:
                    ctx.set(dut.value, value)
                    await ctx.tick()
                    got.append(ctx.get(dut.o) % (1 << bits))
                products = np.array(values) * multiplier
                results = fixed.saturate(fixed.round_shift(products, shift), bits, is_signed)
                wanted.extend([None] * (dut.LATENCY - 1))
                wanted.extend((results % (1 << bits)).tolist() + [None])

    simulate(dut, feed, limit=30000)
    assert sum(word is not None for word in wanted) > 900
    assert [g if w is not None else None for g, w in zip(got, wanted, strict=True)] == wanted
