# amaranth: UnusedElaboratable=no
"""Loader against a NumPy model: which pixels, in which order, when, and never too early.

The feature memory is a process over a byte array whose unwritten bytes are random: a pixel that
should have been masked, or a channel read before its writer had finished it, shows.
"""

import random
from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from model.config import PRESETS
from model.descriptor import FIELDS
from model.tiling import Tiling
from rtl.feature import FeatureMemory
from rtl.fetch import SKEW
from rtl.loader import Loader
from rtl.signatures import Descriptor, Event, FeatureWrite, LayerStats, RowPair
from tests.rtl.helpers import collect, drive, pack, raw, simulate, source, unpack, until_count


class Layer:
    """One layer: its descriptor, its input, and where each channel's input lies."""

    def __init__(self, config, rng, base, **fields):
        self.config, self.rng = config, rng
        self.desc = dict.fromkeys((name for name, _ in FIELDS), 0) | {"in_base": base} | fields

    def write(self, memory, channel, rows=slice(None)):
        """Put rows of a channel (of a dot layer: all) into ``memory[bank, row, parity, byte]``."""
        desc = self.desc
        if desc["dot"]:
            count = len(self.values) // 16
            memory[0, desc["in_base"]:desc["in_base"] + count] = self.values.reshape(count, 2, 8)
            return
        local, bank = divmod(channel, len(memory))
        base = desc["in_base"] + local * desc["in_plane"]
        for y in range(desc["in_height"])[rows]:
            for x in range(desc["in_width"]):
                row = base + ((y >> 1) << desc["in_row_log2"]) + (x >> 3)
                memory[bank, row, y & 1, x & 7] = self.maps[channel, y, x]


class Conv(Layer):
    """A convolution's input: random maps, tiles as `model.tiling` lays them."""

    def __init__(self, config, rng, base, *, size, kernel, pad=0, channels=1, **fields):
        height, width = size
        tiling = Tiling(height=height, width=width, kernel=kernel, padding=pad)
        row_log2 = (ceil(width / 8) - 1).bit_length()
        self.maps = rng.integers(0, 256, (channels, height, width))
        plane = ceil(height / 2) << row_log2
        self.locals = ceil(channels / config.feature_banks)
        self.rows = self.locals * plane
        super().__init__(
            config, rng, base, channels=channels, groups=ceil(channels / 8), pad=pad,
            step=tiling.step, tiles=tiling.tiles, tiles_x=tiling.tiles_x,
            tile_blocks=ceil(tiling.tiles / config.tile_lanes), in_height=height, in_width=width,
            in_row_log2=row_log2, in_plane=plane, **fields,
        )
        self.block_words = self.desc["groups"] * 32

    def expected(self, ring, bank=0):
        """Row pairs of a bank in order, and the number of reads."""
        desc, lanes = self.desc, self.config.tile_lanes
        pixels = np.where(desc["in_signed"] & (self.maps > 127), self.maps - 256, self.maps)
        pad, size = desc["pad"], 8 + desc["step"]
        pixels = np.pad(pixels, ((0, 0), (pad, size), (pad, size)))
        pairs, reads = [], 0
        for block in range(desc["tile_blocks"]):
            for channel, lane in self.order(bank):
                ty, tx = divmod(block * lanes + lane, desc["tiles_x"])
                patch = np.zeros((8, 8), np.int64)
                if block * lanes + lane < desc["tiles"]:
                    y, x = ty * desc["step"], tx * desc["step"]
                    cut = pixels[channel, y:y + 8, x:x + 8]
                    patch[:cut.shape[0], :cut.shape[1]] = cut
                    top = np.arange(0, 8, 2) + y - pad
                    reads += int(((top > -2) & (top < desc["in_height"])).sum())
                tag = {
                    "lane": lane, "channel_low": channel % 8, "bypass": 0,
                    "addr": (ring + 32 * (channel // 8)) % self.config.tile_depth,
                    "block_last": (channel, lane) == (desc["channels"] - 1, lanes - 1),
                }
                pairs += [{"rows": patch[i:i + 2].tolist(), "tag": tag} for i in (0, 2, 4, 6)]
            ring += self.block_words
        return pairs, reads

    def order(self, bank=0):
        """(channel, lane) of the tiles of a block: upper half of the lanes first, per group.

        With several banks: of all channels of the bank, all lanes.
        """
        lanes, channels = self.config.tile_lanes, self.desc["channels"]
        banks = self.config.feature_banks
        if banks > 1:
            return [(channel, lane) for channel in range(bank, channels, banks)
                    for lane in range(lanes)]
        upper = (lanes + 1) // 2
        return [
            (channel, lane)
            for first in range(0, channels, 8) for half in (range(upper), range(upper, lanes))
            for channel in range(first, min(first + 8, channels)) for lane in half
        ]


class Dot(Layer):
    """A fully connected layer's input: random values, sixteen per row."""

    def __init__(self, config, rng, base, *, length, **fields):
        groups = ceil(length / 16)
        self.values, self.rows = rng.integers(0, 256, 16 * groups), groups
        super().__init__(config, rng, base, dot=1, channels=ceil(length / 2), groups=groups,
                         tiles=1, tiles_x=1, tile_blocks=1, step=1, **fields)
        self.block_words = groups

    def expected(self, ring, bank=0):
        groups = self.desc["groups"]
        values = np.where(self.desc["in_signed"] & (self.values > 127), self.values - 256,
                          self.values).reshape(groups, 2, 8)
        return [
            {"rows": values[g].tolist(), "tag": {
                "lane": 0, "channel_low": 0, "addr": (ring + g) % self.config.tile_depth,
                "bypass": 1, "block_last": g == groups - 1,
            }}
            for g in range(groups)
        ], groups


def memory_model(port, memory):
    """Process with the timing of `FeatureMemory`'s read port over a live array."""
    async def process(ctx):
        fetched = [[0] * 8, [0] * 8]
        samples = ctx.tick().sample(port.en, port.even_addr, port.odd_addr, port.offset)
        async for _, _, en, even, odd, offset in samples:
            for pixels, bank in zip((port.even, port.odd), fetched, strict=True):
                ctx.set(raw(pixels), sum(byte << (8 * i) for i, byte in enumerate(bank)))
            if en:
                fetched = [
                    [int(memory[(addr + (offset + i) // 8) % len(memory), parity,
                                (offset + i) % 8]) for i in range(8)]
                    for parity, addr in enumerate((even, odd))
                ]
    return process


class Bench:
    """Everything around a Loader: memory, writer of the inputs, MAC that frees the ring."""

    def __init__(self, config, layers, *, seed=0, slow_write=False, free_delay=(0, 0)):
        self.config, self.layers = config, layers
        self.dut = Loader(config=config)
        self.rng = random.Random(seed)
        self.slow_write, self.free_delay = slow_write, free_delay
        shape = (config.feature_banks, config.feature_depth, 2, 8)
        self.memory = np.random.default_rng(seed).integers(0, 256, shape)
        self.banks = [[] for _ in range(config.feature_banks)]
        self.bank_stamps = [[] for _ in range(config.feature_banks)]
        self.got, self.stamps = self.banks[0], self.bank_stamps[0]
        self.stats, self.most_words = [], 0
        self.writing, self.idle_banks = 0, 0    # layer being written; banks that wait for the next

    async def pause(self, ctx, cycles):
        if self.slow_write:
            await ctx.tick().repeat(self.rng.randrange(1, cycles))

    def level(self, ctx, name, value, bank=0):
        ctx.set(getattr(self.dut.progress[bank], name), value)

    async def input(self, ctx):
        """Write the input of layer 0, row by row of the memory as the `InputDma` does."""
        layer, dut = self.layers[0], self.dut
        full, base = self.memory.copy(), layer.desc["in_base"]
        for channel in range(1 if layer.desc["dot"] else layer.desc["channels"]):
            layer.write(full, channel)
        for row in range(base, base + layer.rows):
            await self.pause(ctx, 9)
            self.memory[:, row] = full[:, row]
            ctx.set(dut.input_row, row + 1)
        await self.pause(ctx, 60)
        ctx.set(dut.input_done, 1)

    def writers(self):
        return [self.writer(bank) for bank in range(self.config.feature_banks)]

    def writer(self, bank):
        """Write a bank's part of each input at random moments, if slow, and say how far it is.

        As the `Writer` does: rows of several channels together, the last rows channel by channel.
        """
        async def process(ctx):
            banks = self.config.feature_banks
            if bank == 0:
                await self.input(ctx)
            for index, layer in enumerate(self.layers[1:], 1):
                while self.writing < index - 1:
                    await ctx.tick()
                await self.channels(ctx, layer, bank)
                self.idle_banks += 1
                if self.idle_banks == banks:
                    await self.pause(ctx, 60)
                    ctx.set(self.dut.layers_done, index)
                    for each in range(banks):
                        self.level(ctx, "channels_done", 0, each)
                    self.idle_banks, self.writing = 0, index
        return process

    async def channels(self, ctx, layer, bank):
        channels, banks = 1 if layer.desc["dot"] else layer.locals, self.config.feature_banks
        size = self.rng.randint(1, 8)
        while not ctx.get(self.dut.input_done):
            await ctx.tick()
        for first in range(0, channels, size):
            block = range(first, min(first + size, channels))
            done = 0

            def write(local, rows):
                channel = local * banks + bank
                if layer.desc["dot"] or channel < layer.desc["channels"]:
                    layer.write(self.memory, channel, rows)

            self.level(ctx, "channels_open", first + size, bank)
            while not layer.desc["dot"] and self.rng.random() < 0.7:
                await self.pause(ctx, 90)
                rows = slice(done, self.rng.randint(done, layer.desc["in_height"] - 1))
                for local in block:
                    write(local, rows)
                done = rows.stop
                self.level(ctx, "rows_done", done, bank)
            for local in block:
                await self.pause(ctx, 60)
                write(local, slice(done, None))
                self.level(ctx, "channels_done", local + 1, bank)
            self.level(ctx, "rows_done", 0, bank)

    async def mac(self, ctx):
        """Give blocks back: each, if restreamed; all at the end of the layer, if not.

        Asserts that no two banks send to one lane at the same time.
        """
        dut, held, due, cycle = self.dut, 0, [], 0
        blocks = [(layer, block) for layer in self.layers
                  for block in range(layer.desc["tile_blocks"])]
        coming, going = iter(blocks), iter(blocks)
        rows_left, last_rows = 0, 0
        ports = [value for o in dut.o for value in (o.valid, raw(o.payload.tag))]
        shape = dut.o[0].payload.shape()["tag"].shape
        async for _, _, *values in ctx.tick().sample(*ports):
            cycle += 1
            sent = [(bank, unpack(shape, tag)) for bank, (valid, tag) in enumerate(
                zip(values[::2], values[1::2], strict=True)) if valid]
            assert len({tag.lane for _, tag in sent}) == len(sent), "two banks at one lane"
            for bank, tag in sent:
                if bank == 0:
                    if rows_left == 0:
                        layer, _ = next(coming)
                        held += layer.block_words
                        self.most_words = max(self.most_words, held)
                        assert held <= self.config.tile_depth, "block loaded over one in use"
                        rows_left = layer.desc["groups"] if tag.bypass else (
                            4 * self.config.tile_lanes * layer.locals)
                    rows_left -= 1
                last_rows += tag.block_last
                if tag.block_last and (tag.bypass or last_rows == 4):
                    last_rows = 0
                    layer, block = next(going)
                    ends = block + 1 == layer.desc["tile_blocks"]
                    words = layer.block_words
                    if layer.desc["restream"] or ends:
                        number = 1 if layer.desc["restream"] else block + 1
                        due.append((cycle + self.rng.randint(*self.free_delay), words * number))
            ctx.set(dut.freed.valid, 0)
            if due and due[0][0] <= cycle:
                words = due.pop(0)[1]
                held -= words
                ctx.set(dut.freed.payload, words)
                ctx.set(dut.freed.valid, 1)

    def run(self, limit=20000):
        """Simulate all layers; check row pairs and stats; return the stats' counts."""
        dut, ring = self.dut, 0
        expected, ends, reads = [[] for _ in self.banks], [], []
        for layer in self.layers:
            for bank, items in enumerate(expected):
                pairs, count = layer.expected(ring, bank)
                items += [pack(RowPair(self.config), pair) for pair in pairs]
                if bank == 0:
                    reads.append(count)
            ends.append(len(expected[0]))
            ring += layer.block_words * layer.desc["tile_blocks"]
        descs = [pack(Descriptor, layer.desc) for layer in self.layers]

        async def until_silent(ctx):
            await until_count(self.stats, len(descs))(ctx)
            await ctx.tick().repeat(SKEW * len(self.banks))

        simulate(
            dut, *self.writers(), source(dut.desc, descs), until_silent,
            monitors=[
                self.mac, collect(dut.stats, self.stats),
                *(memory_model(port, memory)
                  for port, memory in zip(dut.feature, self.memory, strict=True)),
                *(collect(port, got, stamps) for port, got, stamps in zip(
                    dut.o, self.banks, self.bank_stamps, strict=True)),
            ], limit=limit,
        )
        for bank, items in enumerate(expected):
            for number, (got, want) in enumerate(zip(self.banks[bank], items, strict=True)):
                assert got == want, f"bank {bank}, row pair {number}"
            # Behind bank 0 by the skew, and silent where there is no channel.
            assert {stamp - SKEW * bank for stamp in self.bank_stamps[bank]} <= set(self.stamps)
        self.stats = [unpack(LayerStats, word) for word in self.stats]
        assert [stats.layer for stats in self.stats] == list(range(len(self.layers)))
        counts = [list(stats.counts) for stats in self.stats]
        assert [count[2] for count in counts] == reads
        # Every cycle is a row pair, an idle step, a wait that was counted, or the gap between two
        # layers.
        empty = max(0, self.config.feature_banks - self.config.tile_lanes)
        for index in range(1, len(ends)):
            cycles = self.stamps[ends[index] - 1] - self.stamps[ends[index - 1] - 1]
            waits = counts[index][0] + counts[index][1]
            layer = self.layers[index]
            idle_cycles = (
                4 * empty * layer.locals * layer.desc["tile_blocks"] if empty else 0
            )
            assert cycles == dut.layer_gap + ends[index] - ends[index - 1] + waits + idle_cycles
        return counts


def bases(config, rng, *layers):
    """Layers (class, arguments) with inputs one after the other."""
    made, base = [], 0
    for kind, arguments in layers:
        made.append(kind(config, rng, base, **arguments))
        base += made[-1].rows
    assert base <= config.feature_depth
    return made


SHAPES = {
    "digits": (Conv, {"size": (28, 28), "kernel": 5}),
    "padded": (Conv, {"size": (14, 14), "kernel": 3, "pad": 1, "channels": 3}),
    "odd step": (Conv, {"size": (13, 19), "kernel": 4, "pad": 3, "channels": 2, "in_signed": 1}),
    "many channels": (Conv, {"size": (12, 12), "kernel": 5, "channels": 10}),
    "one tile": (Conv, {"size": (4, 4), "kernel": 3, "pad": 1, "channels": 17}),
    "step 1": (Conv, {"size": (8, 10), "kernel": 8, "channels": 1, "in_signed": 1}),
    "dot": (Dot, {"length": 400}),
    "signed dot": (Dot, {"length": 84, "in_signed": 1}),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["tiny", "ecp5-85f"])
def test_row_pairs_and_full_rate(name, shape):
    config = PRESETS[name]
    kind, arguments = SHAPES[shape]
    layer = kind(config, np.random.default_rng(1), 5, **arguments)
    words = layer.block_words * layer.desc["tile_blocks"]
    layer.desc["restream"] = int(words > config.tile_depth)
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
                 channels=channels, restream=1)
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
        (Conv, {"size": (12, 12), "kernel": 5, "channels": 3, "restream": 1}),
        (Conv, {"size": (9, 9), "kernel": 3, "pad": 1, "channels": 24, "restream": 1}),
        (Conv, {"size": (6, 6), "kernel": 4, "pad": 1, "channels": 33, "restream": 1}),
        (Conv, {"size": (5, 5), "kernel": 3, "pad": 1, "channels": 48}),
        (Conv, {"size": (9, 7), "kernel": 3, "pad": 1, "channels": 8, "restream": 1}),
    )
    bench = Bench(config, layers, seed=seed, slow_write=True, free_delay=(0, 600))
    counts = bench.run()
    assert sum(count[0] for count in counts) > 0, "the slow writers were never waited for"
    assert bench.most_words >= config.tile_depth // 2


def test_every_bank_is_waited_for():
    layers = bases(
        WIDE, np.random.default_rng(3),
        (Conv, {"size": (8, 8), "kernel": 5, "channels": 1}),
        (Conv, {"size": (8, 8), "kernel": 5, "channels": 16, "restream": 1}),
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


def test_the_input_is_loaded_as_it_comes():
    config = PRESETS["tiny"]
    layer = Conv(config, np.random.default_rng(3), 7, size=(11, 9), kernel=3, pad=1, channels=2,
                 restream=1)                                    # 2 x 2 tiles at -1 and 5
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
                 restream=1)
    Bench(config, [layer]).run()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["tiny", "ecp5-85f"])
def test_layers_with_slow_writer_and_slow_mac(name, seed):
    config = PRESETS[name]
    layers = bases(
        config, np.random.default_rng(seed),
        (Conv, {"size": (12, 12), "kernel": 5, "restream": 1}),
        (Conv, {"size": (9, 9), "kernel": 3, "pad": 1, "channels": 9, "restream": 1}),
        (Dot, {"length": 100 + seed}),
        (Conv, {"size": (6, 6), "kernel": 4, "pad": 1, "channels": 3, "restream": 1}),
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
        (Conv, {"size": (8, 8), "kernel": 5, "restream": 1}),
        (Conv, {"size": (8, 8), "kernel": 5, "channels": 4, "restream": 1}),
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


def test_upper_tiles_are_loaded_while_the_lower_rows_are_written():
    config = PRESETS["ecp5-85f"]
    layers = bases(
        config, np.random.default_rng(3),
        (Conv, {"size": (8, 8), "kernel": 5, "restream": 1}),
        (Conv, {"size": (12, 12), "kernel": 5, "channels": 20}),
    )
    bench = Bench(config, layers)
    dut = bench.dut

    async def writer(ctx):
        for layer in layers:
            for channel in range(layer.desc["channels"]):
                layer.write(bench.memory, channel)
        ctx.set(dut.input_done, 1)
        # (levels, tiles of the second layer that may be loaded then)
        for levels, tiles in (
            ((8, 7, 0), 0), ((8, 8, 0), 16), ((8, 8, 3), 22), ((16, 0, 8), 32), ((16, 8, 8), 48),
            ((24, 8, 16), 72), ((24, 8, 18), 76), ((24, 11, 19), 78), ((0, 0, 20), 80),
        ):
            for name, level in zip(("channels_open", "rows_done", "channels_done"), levels,
                                   strict=True):
                bench.level(ctx, name, level)
            await ctx.tick().repeat(150)
            assert len(bench.got) == 16 + 4 * tiles, levels

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


def test_start_forgets_an_unfinished_run():
    config = PRESETS["tiny"]
    layer = Conv(config, np.random.default_rng(6), 0, size=(20, 20), kernel=5, channels=2,
                 restream=1)
    bench = Bench(config, [layer])
    dut, desc = bench.dut, pack(Descriptor, layer.desc)
    for channel in range(2):
        layer.write(bench.memory, channel)
    expected = [pack(RowPair(config), pair) for pair in layer.expected(0)[0]]
    got = []

    async def run(ctx):
        ctx.set(dut.input_done, 1)
        # Broken off in the first tile, waiting for the ring, and in between; nothing was freed.
        for cycles in (3, 200, 37, 1):
            await source(dut.desc, [desc])(ctx)
            await ctx.tick().repeat(cycles)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            await ctx.tick().repeat(dut.LATENCY)
            got.clear()
        await source(dut.desc, [desc])(ctx)
        await ctx.tick().repeat(120)
        # Four blocks fill the ring.
        assert got == expected[:len(got)]
        assert len(got) == 4 * 2 * config.tile_lanes * 4

    simulate(dut, run, monitors=[
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
                 restream=1, in_signed=1)
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
