"""Writer: where segments go and what is published, against NumPy."""

import random

import numpy as np
import pytest
from amaranth.hdl import Value

from model.config import PRESETS
from rtl.signatures import Descriptor, FeatureWrite, LayerStats
from rtl.writer import Writer
from tests.rtl import store_model
from tests.rtl.helpers import collect, pack, raw, simulate, unpack

#: Cycles from a write to the first read of the feature memory that sees it.
MEMORY_LATENCY = 2


def rows(config, layer):
    """Marks of the segment rows of a layer."""
    for block in store_model.blocks(layer):
        kernels = store_model.kernels(config, layer, block[0])
        for kernel in kernels:
            for row in range(layer["out_step"]):
                last = row == layer["out_step"] - 1
                tile = store_model.tile_marks(layer, *block, kernel == kernels[-1])
                yield {"tile_last": last, "tile": tile if last else dict.fromkeys(tile, 0)}


def run(config, layers, seed, pause=0.3):
    dut = Writer(config=config)
    rng = random.Random(seed)
    data_rng = np.random.default_rng(seed)
    got, stamps, stats, ends, expected, published, rows_published = [], [], [], [], [], [], []

    async def feed(ctx):
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        for layer in layers:
            ctx.set(Value.cast(dut.layer), pack(Descriptor, layer))
            ctx.set(dut.begin, 1)
            await ctx.tick()
            ctx.set(dut.begin, 0)
            lanes = 1 if layer["dot"] else config.tile_lanes
            await ctx.tick().repeat(2 * config.tile_lanes + 4)
            segments = []
            for marks in rows(config, layer):
                advance = marks["tile"]["advance"]
                while rng.random() < pause or (advance and not ctx.get(dut.spare)):
                    await ctx.tick()
                content = data_rng.integers(0, 256, (config.tile_lanes, 8)).tolist()
                segments += [bytes(lane) for lane in content[:lanes]]
                ctx.set(dut.i.valid, 1)
                ctx.set(dut.reserve, advance)
                ctx.set(Value.cast(dut.i.payload), pack(dut.i.payload.shape(), {
                    "marks": marks, "bytes": content,
                }))
                await ctx.tick()
                ctx.set(dut.i.valid, 0)
                ctx.set(dut.reserve, 0)
                if lanes > 1:
                    await ctx.tick().repeat(lanes - 1)
            expected.append(list(store_model.writes(config, layer, iter(segments))))
            await ctx.tick().until(dut.layer_end)
        await ctx.tick().repeat(3)

    async def count_cycles(ctx):
        cycle = 0
        async for *_, end, finished, done, count, channels_open, rows in ctx.tick().sample(
            dut.layer_end, dut.finished, dut.layers_done, dut.channels_done,
            dut.channels_open, dut.rows_done,
        ):
            if end:
                ends.append((cycle, finished))
            if not published or published[-1][1:] != (done, count):
                published.append((cycle, done, count))
            levels = done, channels_open, rows
            if not rows_published or rows_published[-1][1:] != levels:
                rows_published.append((cycle, *levels))
            cycle += 1
            ctx.set(dut.run_cycle, cycle)

    simulate(
        dut, feed,
        monitors=[collect(dut.write, got, stamps), collect(dut.stats, stats), count_cycles],
        limit=20000,
    )
    got = [unpack(FeatureWrite, word) for word in got]
    stats = [unpack(LayerStats, word) for word in stats]
    return got, stamps, stats, ends, expected, published, rows_published


@pytest.mark.parametrize("pause", [0.0, 0.4])
@pytest.mark.parametrize("name", ["tiny", "ecp5-85f"])
def test_layers_in_sequence(name, pause):
    config = PRESETS[name]
    layers = store_model.layers(config)
    got, stamps, stats, ends, expected, published, _ = run(config, layers, 7, pause)
    position = 0
    for index, (layer, wanted) in enumerate(zip(layers, expected, strict=True)):
        part = got[position : position + len(wanted)]
        assert [store_model.written(layer, word) for word in part] == wanted, layer
        position += len(wanted)
        # Rows and lanes outside the map may follow the last write.
        end, finished = ends[index]
        assert end >= stamps[position - 1] + MEMORY_LATENCY
        assert finished == layer["last"]
        assert stats[index].layer == index
        assert [stats[index].counts[i] for i in range(4)] == [end - 1, len(wanted), 0, 0]
    assert position == len(got)
    steps = [(0, 0)]
    for index, layer in enumerate(layers):
        if not layer["restream"]:
            steps += [(index, count) for count in range(1, layer["kernels"])]
        steps.append((index + 1, 0))
    assert [entry[1:] for entry in published] == steps


@pytest.mark.parametrize("name", ["tiny", "ecp5-85f"])
def test_channels_are_readable_when_published(name):
    config = PRESETS[name]
    layer = store_model.conv(
        config, kernels=3 * config.kernel_lanes, height=8, width=8, step=4, pool=1, out_base=7
    )
    got, stamps, _, _, _, published, _ = run(config, [layer], 3, 0.2)
    for cycle, done, count in published[1:]:
        visible = layer["kernels"] if done else count
        rows = range(7, 7 + visible * layer["out_plane"])
        landed = [stamp for word, stamp in zip(got, stamps, strict=True) if word.addr in rows]
        assert cycle == max(landed) + MEMORY_LATENCY


@pytest.mark.parametrize("name", ["tiny", "ecp5-85f"])
def test_rows_are_readable_when_published(name):
    config = PRESETS[name]
    lanes, kernels = config.tile_lanes, config.kernel_lanes
    shape = {"kernels": kernels + 1, "height": 16, "width": 12, "step": 4}
    layers = [
        store_model.conv(config, **shape, pool=1, out_base=7),
        store_model.conv(config, **shape, pool=1, out_base=7, restream=1),
        store_model.conv(config, **shape, out_base=7),
    ]
    got, stamps, _, ends, _, _, published = run(config, layers, 3, 0.2)
    steps = [(0, 0, 0)]
    for index, layer in enumerate(layers):
        blocks = range(1 if layer["restream"] else layer["tile_blocks"])
        rows = [block * lanes // layer["tiles_x"] * layer["out_step"] for block in blocks]
        for kernel_block in range(1 if layer["restream"] else layer["kernel_blocks"]):
            steps += dict.fromkeys((index, (kernel_block + 1) * kernels, done) for done in rows)
        steps.append((index + 1, 0, 0))
    assert [entry[1:] for entry in published] == steps
    for cycle, index, end, done in published[:-1]:
        layer, start = layers[index], ends[index - 1][0] if index else 0
        for word, stamp in zip(got, stamps, strict=True):
            kernel, row = divmod(word.addr - 7, layer["out_plane"])
            y = 2 * (row >> layer["out_row_log2"]) + word.parity
            if start < stamp <= ends[index][0] and end - kernels <= kernel < end and y < done:
                assert cycle >= stamp + MEMORY_LATENCY


def test_latency():
    config = PRESETS["ecp5-85f"]
    layer = store_model.conv(config, kernels=1, height=4, width=16, step=4)
    dut = Writer(config=config)
    cycles = []

    async def feed(ctx):
        ctx.set(Value.cast(dut.layer), pack(Descriptor, layer))
        ctx.set(dut.begin, 1)
        await ctx.tick()
        ctx.set(dut.begin, 0)
        await ctx.tick().repeat(2 * config.tile_lanes + 4)
        ctx.set(dut.i.valid, 1)
        await ctx.tick()
        ctx.set(dut.i.valid, 0)
        for cycle in range(1, 10):
            if ctx.get(raw(dut.write.valid)):
                cycles.append(cycle)
            await ctx.tick()

    simulate(dut, feed)
    assert cycles == [Writer.LATENCY + lane for lane in range(config.tile_lanes)]
