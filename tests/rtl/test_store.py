"""Store stage: sums in, feature writes out, against `model.fft` and NumPy."""

import dataclasses
import random

import numpy as np
import pytest
from amaranth.hdl import Value

from model import fft
from model.config import PRESETS
from rtl.signatures import SUM_SLOTS, Descriptor, FeatureWrite, LayerStats
from rtl.store import StoreStage
from tests.rtl import store_model
from tests.rtl.helpers import collect, collect_level, pack, simulate, source, unpack

_WIDE = PRESETS["tiny-wide"]
#: With blocks of more than a kernel per bank, and of 16 banks.
CONFIGS = PRESETS | {
    "wide-8": dataclasses.replace(_WIDE, kernel_lanes=16, tile_lanes=2),
    "u200-32": dataclasses.replace(PRESETS["u200"], kernel_lanes=32, port_bits=1024),
    "wide-8-2": dataclasses.replace(PRESETS["tiny-wide2"], kernel_lanes=16, tile_lanes=2),
    "u200-32-2": dataclasses.replace(
        PRESETS["u200"], kernel_lanes=32, port_bits=1024, inverse_rows=2
    ),
    "wide-16": dataclasses.replace(_WIDE, kernel_lanes=32, tile_lanes=5, feature_banks=16),
}


def segments(config, layer, sums, parameters):
    """Bytes of every segment of every lane, in the hardware's order."""
    for kernel_block, tile_block in store_model.blocks(layer):
        first = tile_block * config.tile_lanes
        for kernel in store_model.kernels(config, layer, kernel_block):
            words = sums[first : first + config.tile_lanes, kernel]
            if layer["dot"]:
                tiles = np.zeros((layer["tiles"], 8, 8), dtype=int)
                tiles[:, 7, 7] = words[: layer["tiles"], 0, 0] << store_model.POST_SHIFT
            else:
                tiles = fft.inverse(words)
            results = [store_model.post(layer, tile, *parameters[kernel]) for tile in tiles]
            for row in range(layer["out_step"]):
                for result in results:
                    yield store_model.segment(layer, result[row])


def run(config, layers, sums, parameters, *, p_sum=1.0, p_param=1.0, seed=0, limit=30000,
        early=False):
    """Run the layers; per bank the writes and their cycles; statistics, cycle of each last sum.

    ``early``: sums of a layer come before the last write of the one before.
    """
    dut = StoreStage(config=config)
    rng = random.Random(seed)
    free, cycle = [2], [0]
    stats, finished, block_ends, queue = [], [], [], []
    writes, stamps = ([[] for _ in dut.write] for _ in range(2))

    async def watch(ctx):
        async for *_, slot_free in ctx.tick().sample(dut.slot_free):
            free[0] += slot_free
            cycle[0] += 1
            ctx.set(dut.run_cycle, cycle[0])

    async def feed(ctx):
        slot = 0
        for index, layer in enumerate(layers):
            while ctx.get(dut.layers_done) < index and not early:
                await ctx.tick()
            queue.extend(store_model.parameter_blocks(config, layer, parameters[index]))
            for block in store_model.blocks(layer):
                await ctx.tick()
                while not free[0]:
                    await ctx.tick()
                free[0] -= 1
                for word in store_model.block_sums(config, layer, sums[index], *block, slot):
                    while rng.random() >= p_sum:
                        await ctx.tick()
                    ctx.set(dut.sums.valid, 1)
                    ctx.set(Value.cast(dut.sums.payload), pack(dut.sums.payload.shape(), word))
                    await ctx.tick()
                    ctx.set(dut.sums.valid, 0)
                block_ends.append(cycle[0] - 1)
                slot = (slot + 1) % SUM_SLOTS
        while ctx.get(dut.layers_done) < len(layers):
            await ctx.tick()
        await ctx.tick().repeat(4)

    simulate(
        dut, feed, source(dut.desc, [pack(Descriptor, layer) for layer in layers]),
        monitors=[
            *map(collect, dut.write, writes, stamps), collect(dut.stats, stats), watch,
            collect_level(dut.finished, finished),
            store_model.parameter_memory(dut, queue, rng, p_param),
        ],
        limit=limit,
    )
    assert len(finished) == sum(layer["last"] for layer in layers) and not queue
    stats = [unpack(LayerStats, word) for word in stats]
    writes = [[unpack(FeatureWrite, word) for word in bank] for bank in writes]
    return writes, stamps, stats, block_ends


def check(config, layers, sums, parameters, got, stats):
    position = [0] * config.feature_banks
    for index, layer in enumerate(layers):
        values = segments(config, layer, sums[index], parameters[index])
        wanted = store_model.writes(config, layer, values)
        for bank, part in enumerate(wanted):
            count, rows = store_model.take_written(layer, got[bank][position[bank] :], len(part))
            assert rows == part, layer
            position[bank] += count
        assert (stats[index].layer, stats[index].counts[1]) == (index, sum(map(len, wanted)))
    assert position == [len(bank) for bank in got]


def random_layers(config, layers, seed):
    rng = np.random.default_rng(seed)
    sums = [
        store_model.random_sums(rng, config, layer, int(rng.choice([1 << 10, 1 << 14, 1 << 17])))
        for layer in layers
    ]
    return sums, [store_model.parameters(rng, layer) for layer in layers]


@pytest.mark.parametrize(("name", "p_sum", "p_param", "part"), [
    ("tiny", 1.0, 1.0, slice(0, None)), ("tiny", 0.5, 0.05, slice(4, None)),
    ("ecp5-85f", 0.9, 0.3, slice(3, 9, 2)),
    ("tiny-wide", 1.0, 1.0, slice(0, None, 2)),
    ("tiny-wide2", 1.0, 1.0, slice(0, None, 2)),
    pytest.param("tiny-wide2", 0.6, 0.3, slice(0, None), marks=pytest.mark.slow),
    pytest.param("wide-8-2", 0.8, 0.1, slice(0, None), marks=pytest.mark.slow),
    pytest.param("tiny-wide", 0.6, 0.3, slice(0, None), marks=pytest.mark.slow),
    pytest.param("wide-8", 0.8, 0.1, slice(0, None), marks=pytest.mark.slow),
    pytest.param("wide-16", 1.0, 1.0, slice(0, 6), marks=pytest.mark.slow),
])
def test_layers_in_sequence(name, p_sum, p_param, part):
    config = CONFIGS[name]
    layers = store_model.layers(config)[part]
    sums, parameters = random_layers(config, layers, 3)
    got, _, stats, _ = run(config, layers, sums, parameters, p_sum=p_sum, p_param=p_param, seed=4)
    check(config, layers, sums, parameters, got, stats)


def test_sums_that_come_before_the_layer_does():
    config = PRESETS["tiny"]
    layers = store_model.layers(config)
    layers = [layers[7], layers[4], layers[0], layers[8]]
    layers = [layer | {"last": 0} for layer in layers]
    sums, parameters = random_layers(config, layers, 8)
    got, _, stats, _ = run(config, layers, sums, parameters, early=True)
    check(config, layers, sums, parameters, got, stats)


@pytest.mark.parametrize(("step", "pool", "cycles"), [(4, 1, 8), (4, 0, 16), (6, 1, 12)])
def test_rate_and_latency(step, pool, cycles):
    config = PRESETS["ecp5-85f"]
    layer = store_model.conv(
        config, kernels=config.kernel_lanes, height=step, width=4 * step, step=step, pool=pool,
        relu=1, requant_shift=9,
    )
    sums, parameters = random_layers(config, [layer], 5)
    got, (stamps,), stats, ends = run(config, [layer], sums, parameters)
    check(config, [layer], sums, parameters, got, stats)
    size = layer["out_step"]
    assert stamps[0] - ends[0] == StoreStage.latency(config) + layer["crop"] + pool + size - 1
    # The first kernel's rows come as the inverse FFT delivers them, the last one's as the post
    # lets them; in between nothing is lost.
    rows = stamps[:: config.tile_lanes]
    assert stamps == [row + lane for row in rows for lane in range(config.tile_lanes)]
    kernels = rows[::size]
    assert np.diff(kernels).tolist()[-4:] == [cycles] * 4
    assert kernels[-1] - kernels[0] <= cycles * (config.kernel_lanes - 1)


@pytest.mark.parametrize(("name", "step", "pool"), [
    ("tiny-wide", 4, 1), ("wide-8", 6, 0), ("tiny-wide2", 4, 1), ("wide-8-2", 6, 0),
    pytest.param("u200-32", 6, 0, marks=pytest.mark.slow),
    pytest.param("u200-32-2", 6, 0, marks=pytest.mark.slow),
])
def test_several_writers_keep_up_with_the_inverse_fft(name, step, pool):
    config = CONFIGS[name]
    lanes, banks, rows = config.tile_lanes, config.feature_banks, config.inverse_rows
    layer = store_model.conv(
        config, kernels=config.kernel_lanes, height=step, width=lanes * step, step=step, pool=pool,
        relu=1, requant_shift=9,
    )
    sums, parameters = random_layers(config, [layer], 5)
    got, stamps, stats, (end,) = run(config, [layer], sums, parameters)
    check(config, [layer], sums, parameters, got, stats)
    size = layer["out_step"] // store_model.rows_at_once(config, layer) * lanes    # of a kernel
    for kernel in range(config.kernel_lanes):
        bank, number = kernel % banks, kernel // banks
        first, *_, last = stamps[bank][number * size : (number + 1) * size]
        skipped = (layer["crop"] + pool) // rows
        begun = 8 // rows * bank + number * max(8 // rows * banks, size)
        assert first - end == StoreStage.latency(config) + skipped + begun
        # Pooled rows come every other cycle, and the writer takes one as soon as it can.
        assert last - first == size - 1


@pytest.mark.parametrize("name", ["tiny-wide", "wide-8", "tiny-wide2", "u200-32-2"])
def test_several_banks_take_a_dot_product_a_cycle(name):
    """Whatever the queue of a bank holds; kernel block after kernel block."""
    config = CONFIGS[name]
    lanes = config.kernel_lanes
    layer = store_model.dot(config, kernels=2 * lanes, requant_shift=9)
    sums, parameters = random_layers(config, [layer], 6)
    got, stamps, stats, (end, _) = run(config, [layer], sums, parameters)
    check(config, [layer], sums, parameters, got, stats)
    stamps = sorted(stamp for bank in stamps for stamp in bank)
    first, second = stamps[:lanes], stamps[lanes:]
    assert first[0] - end == StoreStage.latency(config)
    assert np.diff(first).tolist() == np.diff(second).tolist() == [1] * (lanes - 1)
