# amaranth: UnusedElaboratable=no
"""Loader against `loader_model`: which pixels, in which order, when, and never too early."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from model.config import PRESETS
from rtl.feature import FeatureMemory
from rtl.loader import Loader
from rtl.signatures import Descriptor, Event, FeatureWrite, RowPair
from tests.rtl.helpers import collect, drive, pack, simulate, source
from tests.rtl.loader_model import Bench, Conv, Dot, bases, memory_model

SHAPES = {
    "digits": (Conv, {"size": (28, 28), "kernel": 5}),
    "padded": (Conv, {"size": (14, 14), "kernel": 3, "pad": 1, "channels": 3}),
    "odd step": (Conv, {"size": (13, 19), "kernel": 4, "pad": 3, "channels": 2, "in_signed": 1}),
    "more above than left": (Conv, {"size": (9, 13), "kernel": 3, "pad": 2, "pad_left": 0,
                                    "channels": 2}),
    "more left than above": (Conv, {"size": (13, 9), "kernel": 4, "pad": 1, "pad_left": 3,
                                    "channels": 2}),
    "many channels": (Conv, {"size": (12, 12), "kernel": 5, "channels": 10}),
    "one tile": (Conv, {"size": (4, 4), "kernel": 3, "pad": 1, "channels": 17}),
    "step 1": (Conv, {"size": (8, 10), "kernel": 8, "channels": 1, "in_signed": 1}),
    "dot": (Dot, {"length": 400}),
    "signed dot": (Dot, {"length": 84, "in_signed": 1}),
    "dot of two images": (Dot, {"length": 200, "in_signed": 1, "images": 2}),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["tiny", "ecp5-85f"])
def test_row_pairs_and_full_rate(name, shape):
    config = PRESETS[name]
    kind, arguments = SHAPES[shape]
    layer = kind(config, np.random.default_rng(1), 5, **arguments)
    if layer.block_words * layer.desc["tile_blocks"] > config.tile_depth:
        layer.desc["resident"] = 1
    bench = Bench(config, [layer])
    bench.run()
    # Blocks of up to half the ring are loaded without a bubble.
    if layer.block_words <= config.tile_depth // 2:
        assert bench.stamps[-1] - bench.stamps[0] == len(bench.stamps) - 1


WIDE = PRESETS["tiny-wide"]
#: Fewer lanes than banks, as many, more; blocks of an odd number of groups with sixteen banks.
BANKED = {
    "3 lanes, 8 banks": WIDE,
    "8 lanes, 8 banks": replace(WIDE, tile_lanes=8),
    "10 lanes, 8 banks": replace(WIDE, tile_lanes=10),
    "14 lanes, 16 banks": replace(WIDE, tile_lanes=14, kernel_lanes=16, feature_banks=16),
    "1 lane, 16 banks": replace(WIDE, tile_lanes=1, kernel_lanes=16, feature_banks=16),
}


@pytest.mark.parametrize("channels", [3, 17, 32])
@pytest.mark.parametrize("name", BANKED)
def test_banks_load_side_by_side(name, channels):
    config = BANKED[name]
    layer = Conv(config, np.random.default_rng(1), 5, size=(13, 9), kernel=4, pad=1, in_signed=1,
                 channels=channels, resident=1)
    bench = Bench(config, [layer])
    bench.run()
    lanes, banks = config.tile_lanes, config.feature_banks
    tiles = layer.locals * layer.desc["tile_blocks"]
    cycles = 4 * (tiles * max(lanes, banks) - max(0, banks - lanes))
    assert bench.stamps[-1] - bench.stamps[0] + 1 == cycles, "not at the full rate"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", BANKED)
def test_layers_with_slow_banks_and_slow_mac(name, seed):
    config = BANKED[name]
    layers = bases(
        config, np.random.default_rng(seed),
        (Conv, {"size": (12, 12), "kernel": 5, "channels": 3, "resident": 1}),
        (Conv, {"size": (9, 9), "kernel": 3, "pad": 1, "channels": 24, "resident": 1}),
        (Conv, {"size": (6, 6), "kernel": 4, "pad": 1, "channels": 33, "resident": 1}),
        (Conv, {"size": (5, 5), "kernel": 3, "pad": 1, "channels": 48}),
        (Conv, {"size": (9, 7), "kernel": 3, "pad": 1, "channels": 8, "resident": 1}),
    )
    bench = Bench(config, layers, seed=seed, slow_write=True, free_delay=(0, 600))
    counts = bench.run()
    assert sum(count[0] for count in counts) > 0, "the slow writers were never waited for"
    assert bench.most_words >= config.tile_depth // 2


def test_every_bank_is_waited_for():
    layers = bases(
        WIDE, np.random.default_rng(3),
        (Conv, {"size": (8, 8), "kernel": 5, "channels": 1}),
        (Conv, {"size": (8, 8), "kernel": 5, "channels": 16, "resident": 1}),
    )
    bench = Bench(WIDE, layers)

    async def writer(ctx):
        await bench.input(ctx)
        for channel in range(16):
            layers[1].write(bench.memory, channel)
        for local in range(2):
            for bank in (3, 0, 7, 6, 5, 4, 2, 1):
                await ctx.tick().repeat(90)
                assert len(bench.got) == (1 + local) * 12
                if local:
                    bench.level(ctx, "channels_done", 2, bank)
                else:       # the tiles lie in the first eight rows
                    bench.level(ctx, "channels_open", 2, bank)
                    bench.level(ctx, "channels_done", 1, bank)

    bench.writers = lambda: [writer]
    bench.run()


def watch_inputs(dut, reads, wanted):
    """Monitor of the cycles of every bank's reads, and of those in which an input is wanted."""
    async def process(ctx):
        cycle = 0
        async for _, _, pulse, *reading in ctx.tick().sample(
                dut.next_input, *(port.en for port in dut.feature)):
            reads.extend([cycle] * sum(reading))
            wanted.extend([cycle] * pulse)
            cycle += 1

    return process


@pytest.mark.parametrize("config", [PRESETS["tiny"], WIDE], ids=["one bank", "eight banks"])
def test_the_next_input_of_a_batch(config):
    """It is wanted when all banks have read the one before, and not read before it has come."""
    dut = Loader(config=config)
    layer = Conv(config, np.random.default_rng(3), 0, size=(8, 8), kernel=5, channels=9, input=1)
    reads, wanted = [], []

    async def dma(ctx):
        ctx.set(dut.input_row, layer.rows)      # all that is needed, but not the end
        await ctx.tick().repeat(500)
        ctx.set(dut.input_done, 1)
        await ctx.tick().until(dut.next_input)
        ctx.set(dut.input_done, 0)
        ctx.set(dut.input_row, 0)
        await ctx.tick().repeat(300)
        ctx.set(dut.input_row, layer.rows)
        ctx.set(dut.input_done, 1)
        await ctx.tick().repeat(400)
        assert ctx.get(dut.inputs) == 2

    simulate(dut, dma, source(dut.desc, [pack(Descriptor, layer.desc)] * 2), monitors=[
        watch_inputs(dut, reads, wanted)])
    (pulse,) = wanted
    assert pulse >= 500
    before, after = ([cycle for cycle in reads if (cycle > pulse) == late] for late in (0, 1))
    assert len(before) == len(after) > 0 and min(after) >= pulse + 300


@pytest.mark.parametrize("banks", [1, 8, 16])
def test_the_next_input_is_wanted_after_the_last_read(banks):
    """Even if nothing else holds it up: no bank reads the input before any more."""
    config = replace(PRESETS["tiny"], tile_depth=1024) if banks == 1 else replace(
        WIDE, tile_lanes=banks, kernel_lanes=16, feature_banks=banks, tile_depth=1024)
    dut = Loader(config=config)
    layer = Conv(config, np.random.default_rng(3), 0, size=(26, 26), kernel=3, channels=16, input=1)
    reads, wanted = [], []

    async def bench(ctx):
        ctx.set(dut.input_row, layer.rows)
        ctx.set(dut.input_done, 1)
        await ctx.tick().repeat(2400)

    simulate(dut, bench, source(dut.desc, [pack(Descriptor, layer.desc)] * 2), monitors=[
        watch_inputs(dut, reads, wanted)])
    (pulse,) = wanted
    assert len(reads) % 2 == 0 and reads[len(reads) // 2 - 1] < pulse
    # The gap of two layers, and once more until the last bank has read.
    assert reads[len(reads) // 2] - pulse < 16


def test_the_input_is_loaded_as_it_comes():
    config = PRESETS["tiny"]
    layer = Conv(config, np.random.default_rng(3), 7, size=(11, 9), kernel=3, pad=1, channels=2,
                 resident=1)                                    # 2 x 2 tiles at -1 and 5
    bench = Bench(config, [layer])

    async def writer(ctx):
        for channel in range(2):
            layer.write(bench.memory, channel)
        await ctx.tick().repeat(50)
        # Two rows of the memory per pair of map rows, 12 per channel. Both channels of a half of
        # the lanes, a tile, come before the other half.
        for rows, tiles in ((7, 0), (8, 1), (11, 1), (12, 1), (19, 1), (20, 5), (23, 5), (24, 8)):
            ctx.set(bench.dut.input_row, 7 + rows)
            await ctx.tick().repeat(50)
            assert len(bench.got) == 4 * tiles, rows

    bench.writers = lambda: [writer]
    bench.run()


@pytest.mark.parametrize("lanes", [1, 3])
def test_odd_numbers_of_lanes(lanes):
    config = replace(PRESETS["tiny"], tile_lanes=lanes)
    layer = Conv(config, np.random.default_rng(1), 5, size=(12, 12), kernel=5, channels=10,
                 resident=1)
    Bench(config, [layer]).run()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["tiny", "ecp5-85f"])
def test_layers_with_slow_writer_and_slow_mac(name, seed):
    config = PRESETS[name]
    layers = bases(
        config, np.random.default_rng(seed),
        (Conv, {"size": (12, 12), "kernel": 5, "resident": 1}),
        (Conv, {"size": (9, 9), "kernel": 3, "pad": 1, "channels": 9, "resident": 1}),
        (Dot, {"length": 100 + seed}),
        (Conv, {"size": (6, 6), "kernel": 4, "pad": 1, "channels": 3, "resident": 1}),
        (Conv, {"size": (5, 5), "kernel": 3, "pad": 1, "channels": 10}),
        (Dot, {"length": 70}),
        (Dot, {"length": 33, "in_signed": 1}),
    )
    bench = Bench(config, layers, seed=seed, slow_write=True, free_delay=(0, 600))
    counts = bench.run()
    assert sum(count[0] for count in counts) > 0, "the slow writer was never waited for"
    if name == "tiny":
        assert sum(count[1] for count in counts) > 0, "the ring was never full"
        assert bench.most_words >= config.tile_depth // 2


def test_ring_wraps_over_layers_that_stay():
    config = PRESETS["tiny"]
    layer = (Conv, {"size": (12, 12), "kernel": 5, "channels": 2})      # 4 tiles, 2 blocks
    layers = bases(config, np.random.default_rng(9), *[layer] * 7)
    counts = Bench(config, layers, free_delay=(200, 260)).run()
    # 64 of 128 words per layer: two layers fit, the next two wait for them, and so on.
    assert [count[1] > 50 for count in counts] == [False, False, True, False, True, False, True]


def test_a_channel_is_loaded_while_the_next_is_written():
    config = PRESETS["tiny"]
    layers = bases(
        config, np.random.default_rng(3),
        (Conv, {"size": (8, 8), "kernel": 5, "resident": 1}),
        (Conv, {"size": (8, 8), "kernel": 5, "channels": 4, "resident": 1}),
    )
    bench = Bench(config, layers)

    async def writer(ctx):
        for layer in layers:
            for channel in range(layer.desc["channels"]):
                layer.write(bench.memory, channel)
        ctx.set(bench.dut.input_done, 1)
        for channel in range(4):
            await ctx.tick().repeat(100)
            # Of the four channels the first lane's tiles come first.
            assert len(bench.got) == 8 + 4 * channel, "not exactly the channels that are there"
            bench.level(ctx, "channels_done", channel + 1)
        await ctx.tick().repeat(100)
        # The last channel too, though the layer is not said to be done.
        assert len(bench.got) == 40

    bench.writers = lambda: [writer]
    counts = bench.run()
    assert counts[1][0] > 300 and counts[1][1] == 0


def two_convolutions():
    """Bench of a small layer and one of 20 channels, all of whose rows are in the memory."""
    config = PRESETS["ecp5-85f"]
    layers = bases(
        config, np.random.default_rng(3),
        (Conv, {"size": (8, 8), "kernel": 5, "resident": 1}),
        (Conv, {"size": (12, 12), "kernel": 5, "channels": 20}),
    )
    bench = Bench(config, layers)
    for layer in layers:
        for channel in range(layer.desc["channels"]):
            layer.write(bench.memory, channel)
    return bench


def test_upper_tiles_are_loaded_while_the_lower_rows_are_written():
    bench = two_convolutions()

    async def writer(ctx):
        ctx.set(bench.dut.input_done, 1)
        # (levels, tiles of the second layer that may be loaded then)
        for levels, tiles in (
            ((8, 7, 0, 0), 0), ((8, 8, 0, 0), 16), ((8, 8, 3, 0), 22), ((16, 0, 8, 0), 32),
            ((16, 8, 8, 0), 48), ((24, 0, 8, 7), 48), ((24, 0, 8, 8), 48), ((24, 0, 16, 8), 72),
            ((24, 8, 18, 8), 76), ((24, 11, 19, 8), 78), ((0, 0, 20, 8), 80),
        ):
            for name, level in zip(
                ("channels_open", "rows_done", "channels_done", "rows_all"), levels, strict=True
            ):
                bench.level(ctx, name, level)
            await ctx.tick().repeat(150)
            assert len(bench.got) == 16 + 4 * tiles, levels

    bench.writers = lambda: [writer]
    bench.run()


def test_rows_of_all_channels_are_loaded_however_few_channels_are_complete():
    bench = two_convolutions()

    async def writer(ctx):
        ctx.set(bench.dut.input_done, 1)
        # Upper tiles of eight channels; with more rows their lower ones, and all that follow.
        for rows, tiles in ((7, 0), (8, 16), (11, 16), (12, 80)):
            bench.level(ctx, "rows_all", rows)
            await ctx.tick().repeat(400)
            assert len(bench.got) == 16 + 4 * tiles, rows

    bench.writers = lambda: [writer]
    bench.run()


def test_dot_waits_for_the_whole_layer():
    config = PRESETS["tiny"]
    layers = bases(config, np.random.default_rng(4), (Dot, {"length": 16}), (Dot, {"length": 48}))
    bench = Bench(config, layers)

    async def writer(ctx):
        layers[0].write(bench.memory, 0)
        ctx.set(bench.dut.input_done, 1)
        bench.level(ctx, "channels_done", 4)
        await ctx.tick().repeat(100)
        assert len(bench.got) == 1
        layers[1].write(bench.memory, 0)
        ctx.set(bench.dut.layers_done, 1)

    bench.writers = lambda: [writer]
    bench.run()


def test_reset_forgets_an_unfinished_run():
    config = PRESETS["tiny"]
    layer = Conv(config, np.random.default_rng(6), 0, size=(20, 20), kernel=5, channels=2,
                 resident=1)
    bench = Bench(config, [layer])
    dut, desc = bench.dut, pack(Descriptor, layer.desc)
    for channel in range(2):
        layer.write(bench.memory, channel)
    expected = [pack(RowPair(config), pair) for pair in layer.expected(0)[0]]
    got, reset = [], Signal()

    async def run(ctx):
        ctx.set(dut.input_done, 1)
        # Broken off in the first tile, waiting for the ring, and in between; nothing was freed.
        for cycles in (3, 200, 37, 1):
            await source(dut.desc, [desc])(ctx)
            await ctx.tick().repeat(cycles)
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)
            await ctx.tick().repeat(dut.LATENCY)
            got.clear()
        await source(dut.desc, [desc])(ctx)
        await ctx.tick().repeat(120)
        # Four blocks fill the ring.
        assert got == expected[:len(got)]
        assert len(got) == 4 * 2 * config.tile_lanes * 4

    simulate(ResetInserter(reset)(dut), run, monitors=[
        memory_model(dut.feature[0], bench.memory[0]), collect(dut.o[0], got)])


class WithMemory(wiring.Component):
    """A Loader on the real feature memory."""

    def __init__(self, config):
        self.loader, self.features = Loader(config=config), FeatureMemory(config=config)
        super().__init__({"write": In(Event(FeatureWrite)), "o": Out(Event(RowPair(config)))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.loader, m.submodules.features = self.loader, self.features
        wiring.connect(m, self.loader.feature[0], self.features.read)
        wiring.connect(m, self.features.write, wiring.flipped(self.write))
        wiring.connect(m, self.loader.o[0], wiring.flipped(self.o))
        return m


def test_with_the_real_feature_memory():
    config = PRESETS["tiny"]
    layer = Conv(config, np.random.default_rng(8), 2, size=(10, 11), kernel=4, pad=1, channels=2,
                 resident=1, in_signed=1)
    dut = WithMemory(config)
    memory = np.random.default_rng(0).integers(0, 256, (1, 40, 2, 8))
    for channel in range(2):
        layer.write(memory, channel)
    writes = [
        pack(FeatureWrite, {"addr": row, "parity": parity, "offset": 0, "count": 8, "vector": 0,
                            "data": memory[0, row, parity].tolist()})
        for row in range(40) for parity in range(2)
    ]
    expected = [pack(RowPair(config), pair) for pair in layer.expected(0)[0]]
    got, freed = [], dut.loader.freed

    async def run(ctx):
        await drive(dut.write, writes)(ctx)
        ctx.set(dut.loader.input_done, 1)
        await source(dut.loader.desc, [pack(Descriptor, layer.desc)])(ctx)
        ctx.set(freed.payload, 32)
        while len(got) < len(expected):
            ctx.set(freed.valid, len(got) % 16 == 15)
            await ctx.tick()

    simulate(dut, run, monitors=[collect(dut.o, got)])
    assert got == expected


def test_refuses_other_configs():
    with pytest.raises(TypeError, match=r"^config must be an AcceleratorConfig, not 4$"):
        Loader(config=4)
