"""What the Loader does with layers, in NumPy, and a bench around it: shared by its tests.

The feature memory is a process over a byte array whose unwritten bytes are random: a pixel that
should have been masked, or a channel read before its writer had finished it, shows.
"""

import random
from math import ceil

import numpy as np

from model.config import ROW_BITS
from model.descriptor import FIELDS
from model.residency import groups
from model.tiling import Tiling
from rtl.fetch import SKEW
from rtl.loader import Loader
from rtl.signatures import Descriptor, LayerStats, RowPair
from tests.rtl.helpers import collect, pack, raw, simulate, source, unpack, until_count


class Layer:
    """One layer: its descriptor, its input, and where each channel's input lies."""

    def __init__(self, config, rng, base, **fields):
        self.config, self.rng = config, rng
        self.desc = dict.fromkeys((name for name, _ in FIELDS), 0) | {"in_base": base} | fields
        self.desc["resident"] = self.desc["resident"] or self.desc["tile_blocks"]

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

    def __init__(self, config, rng, base, *, size, kernel, pad=0, channels=1,
                 pad_left=None, **fields):
        height, width = size
        left = pad if pad_left is None else pad_left
        tiling = Tiling(height=height, width=width, kernel=kernel,
                        padding=(pad, left, pad, left))
        row_log2 = (ceil(width / 8) - 1).bit_length()
        self.maps = rng.integers(0, 256, (channels, height, width))
        plane = ceil(height / 2) << row_log2
        self.locals = ceil(channels / config.feature_banks)
        self.rows = self.locals * plane
        super().__init__(
            config, rng, base, channels=channels, groups=ceil(channels / 8), pad=pad,
            pad_left=left,
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
        pixels = np.pad(pixels, ((0, 0), (pad, size), (desc["pad_left"], size)))
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
    """A fully connected layer's input: random values, sixteen per row, of one or more images."""

    def __init__(self, config, rng, base, *, length, images=1, **fields):
        groups = ceil(length / 16)
        self.values, self.rows = rng.integers(0, 256, 16 * groups * images), groups * images
        super().__init__(config, rng, base, dot=1, channels=ceil(length / 2), groups=groups,
                         tiles=images, tiles_x=1, tile_blocks=1, step=1, **fields)
        self.block_words = groups

    def expected(self, ring, bank=0):
        groups, images = self.desc["groups"], self.desc["tiles"]
        values = np.where(self.desc["in_signed"] & (self.values > 127), self.values - 256,
                          self.values).reshape(images, groups, 2, 8)
        return [
            {"rows": values[image, g].tolist(), "tag": {
                "lane": image, "channel_low": 0, "addr": (ring + g) % self.config.tile_depth,
                "bypass": 1, "block_last": (image, g) == (images - 1, groups - 1),
            }}
            for image in range(images) for g in range(groups)
        ], groups * images


def memory_model(port, memory):
    """Process with the timing of `FeatureMemory`'s read port over a live array."""
    async def process(ctx):
        fetched = [[0] * 8, [0] * 8]
        samples = ctx.tick().sample(
            port.en, port.even_addr, port.odd_addr, port.even_next, port.odd_next, port.offset
        )
        async for _, _, en, even, odd, *following, offset in samples:
            if en and offset:
                assert following == [(row + 1) % (1 << ROW_BITS) for row in (even, odd)]
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
        layers[0].desc["input"] = 1
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
        """Give blocks back, all of a group at its end.

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
                        rows_left = layer.rows if tag.bypass else (
                            4 * self.config.tile_lanes * layer.locals)
                    rows_left -= 1
                last_rows += tag.block_last
                if tag.block_last and (tag.bypass or last_rows == 4):
                    last_rows = 0
                    layer, block = next(going)
                    for group in groups(layer.desc["tile_blocks"], layer.desc["resident"]):
                        if block == group[-1]:
                            words = layer.block_words * len(group)
                            due.append((cycle + self.rng.randint(*self.free_delay), words))
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
