"""Writer: where segments go and what is published, against NumPy."""

import dataclasses
import random
from collections import deque

import numpy as np
import pytest
from amaranth.hdl import Value

from model.config import PRESETS
from model.residency import groups
from rtl.signatures import Descriptor, FeatureWrite, LayerStats, Progress, SegmentRow
from rtl.writer import Writer
from tests.rtl import store_model
from tests.rtl.helpers import collect, pack, raw, simulate, unpack

_WIDE = PRESETS["tiny-wide"]
CONFIGS = {
    "tiny": PRESETS["tiny"], "ecp5-85f": PRESETS["ecp5-85f"], "tiny-wide": _WIDE,
    "tiny-wide2": PRESETS["tiny-wide2"],
    "wide-16": dataclasses.replace(_WIDE, kernel_lanes=32, feature_banks=16),
}

#: Cycles from a write to the first read of the feature memory that sees it.
MEMORY_LATENCY = 2


def rows(config, layer, rng):
    """(bank, marks, bytes of the rows and lanes) of what is written at once, and all segments."""
    found, segments = [], []
    for block in store_model.blocks(layer):
        for kernel in store_model.kernels(config, layer, block[0]):
            base = store_model.base(config, layer, kernel)
            tile = store_model.tile_marks(config, layer, *block, kernel)
            each = store_model.rows_at_once(config, layer)
            for row in range(0, layer["out_step"], each):
                last = row + each == layer["out_step"]
                marks = tile if last else dict.fromkeys(tile, 0)
                size = SegmentRow(config)["bytes"].shape.elem_shape.length
                contents = rng.integers(0, 256, (each, config.tile_lanes, size)).tolist()
                for content in contents:
                    segments += map(bytes, content[: store_model.lanes(config, layer)])
                found.append((
                    0 if layer["dot"] else kernel % config.feature_banks,
                    {"tile_last": last, "base": base, "tile": marks}, contents,
                ))
    return found, segments


class Run:
    """Sends the rows of layers, each bank at its own pace, and notes what comes of it.

    By bank: ``writes``, their ``stamps``, ``expected`` writes of every layer, and ``published``:
    (cycle, layers done, progress) whenever one of them changes.
    """

    def __init__(self, config, layers, seed, pause=0.3):
        self.config, self.layers, self.pause = config, layers, pause
        self.dut = dut = Writer(config=config)
        self.banks = range(config.feature_banks)
        self.seed = seed
        self.queues = [deque() for _ in self.banks]
        self.sent = False
        self.writes, self.stamps, self.published = ([[] for _ in self.banks] for _ in range(3))
        self.expected, self.stats, self.ends = [], [], []
        simulate(
            dut, self.feed, *(self.feed_bank(bank) for bank in self.banks),
            monitors=[
                *map(collect, dut.write, self.writes, self.stamps), collect(dut.stats, self.stats),
                self.watch,
            ],
            limit=20000,
        )
        self.writes = [[unpack(FeatureWrite, word) for word in bank] for bank in self.writes]
        self.stats = [unpack(LayerStats, word) for word in self.stats]

    async def feed(self, ctx):
        dut = self.dut
        rng = np.random.default_rng(self.seed)
        for layer in self.layers:
            ctx.set(Value.cast(dut.layer), pack(Descriptor, layer))
            ctx.set(dut.begin, 1)
            await ctx.tick()
            ctx.set(dut.begin, 0)
            await ctx.tick().repeat(2 * self.config.tile_lanes + 4)
            found, segments = rows(self.config, layer, rng)
            self.expected.append(store_model.writes(self.config, layer, iter(segments)))
            for bank, *row in found:
                self.queues[bank].append(row)
            await ctx.tick().until(dut.layer_end)
        self.sent = True
        await ctx.tick().repeat(3)

    def feed_bank(self, bank):
        dut, port, queue = self.dut, self.dut.i[bank], self.queues[bank]
        rng = random.Random(self.seed + bank)

        async def testbench(ctx):
            while not self.sent:
                if not queue or rng.random() < self.pause:
                    await ctx.tick()
                    continue
                marks, contents = queue.popleft()
                advance = marks["tile"]["advance"]
                while advance and not ctx.get(dut.spare[bank]):
                    await ctx.tick()
                ctx.set(port.valid, 1)
                ctx.set(dut.reserve[bank], advance)
                rows = dict(zip(("bytes", "below"), contents, strict=False))
                if len(contents) > 1:
                    rows["pair"] = 1
                ctx.set(Value.cast(port.payload), pack(port.payload.shape(), {
                    "marks": marks, **rows,
                }))
                lanes = ctx.get(dut.layer.tiles) if ctx.get(dut.layer.dot) \
                    else self.config.tile_lanes
                await ctx.tick()
                ctx.set(port.valid, 0)
                ctx.set(dut.reserve[bank], 0)
                if lanes > 1:
                    await ctx.tick().repeat(lanes - 1)
        return testbench

    async def watch(self, ctx):
        dut, cycle = self.dut, 0
        progress = [raw(progress) for progress in dut.progress]
        async for _, _, end, finished, done, *found in ctx.tick().sample(
            dut.layer_end, dut.finished, dut.layers_done, *progress
        ):
            if end:
                self.ends.append((cycle, finished))
            for published, bits in zip(self.published, found, strict=True):
                if not published or published[-1][1:] != (done, bits):
                    published.append((cycle, done, bits))
            cycle += 1
            ctx.set(dut.run_cycle, cycle)

    def progress(self, bank, *names):
        """(cycle, layers done, named counts) of a bank, whenever one of these changes."""
        steps = []
        for cycle, done, bits in self.published[bank]:
            counts = unpack(Progress, bits)
            levels = done, *(counts[name] for name in names)
            if not steps or steps[-1][1:] != levels:
                steps.append((cycle, *levels))
        return steps


def without(found, complete, several):
    """Levels published, without ``complete`` ones: those of a bank that waits for the others.

    The last of ``several`` banks, and a single one, ends together with the layer.
    """
    levels = [entry[1:] for entry in found]
    return [entry for entry in levels if not (several and entry in complete)]


@pytest.mark.parametrize("pause", [0.0, 0.4])
@pytest.mark.parametrize("name", list(CONFIGS))
def test_layers_in_sequence(name, pause):
    config = CONFIGS[name]
    layers = store_model.layers(config)
    run = Run(config, layers, 7, pause)
    position = [0 for _ in run.banks]
    for index, (layer, wanted) in enumerate(zip(layers, run.expected, strict=True)):
        end, finished = run.ends[index]
        for bank, part in enumerate(wanted):
            count, found = store_model.take_written(
                layer, run.writes[bank][position[bank] :], len(part)
            )
            assert found == part, layer
            position[bank] += count
            # Rows and lanes outside the map may follow the last write.
            assert end >= run.stamps[bank][position[bank] - 1] + MEMORY_LATENCY
        assert finished == layer["last"]
        assert run.stats[index].layer == index
        counts = [run.stats[index].counts[i] for i in range(4)]
        assert counts == [end - 1, sum(map(len, wanted)), 0, 0]
    assert position == [len(bank) for bank in run.writes]
    for bank in run.banks:
        steps, complete = [(0, 0)], []
        for index, layer in enumerate(layers):
            count = layer["kernels"] // len(run.banks)
            if layer["dot"]:
                count = layer["kernels"] * (bank == 0)
            steps += [(index, done) for done in range(1, count)]
            complete += [(index, count)] * (count > 0)
            steps.append((index + 1, 0))
        found = run.progress(bank, "channels_done")
        assert without(found, complete, len(run.banks) > 1) == steps


@pytest.mark.parametrize("name", list(CONFIGS))
def test_channels_are_readable_when_published(name):
    config = CONFIGS[name]
    layer = store_model.conv(
        config, kernels=3 * config.kernel_lanes, height=8, width=4 * config.tile_lanes, step=4,
        pool=1, out_base=7,
    )
    run = Run(config, [layer], 3, 0.2)
    for bank in run.banks:
        for cycle, done, count in run.progress(bank, "channels_done")[1:]:
            visible = layer["kernels"] // len(run.banks) if done else count
            rows = range(7, 7 + visible * layer["out_plane"])
            landed = [
                stamp for word, stamp in zip(run.writes[bank], run.stamps[bank], strict=True)
                if word.addr in rows
            ]
            waits = cycle - max(landed) - MEMORY_LATENCY
            assert waits == 0 or (done and len(run.banks) > 1 and waits > 0)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_rows_are_readable_when_published(name):
    config = CONFIGS[name]
    lanes, block = config.tile_lanes, config.kernel_lanes // config.feature_banks
    shape = {
        "kernels": config.kernel_lanes + config.feature_banks, "height": 16, "width": 12, "step": 4,
    }
    layers = [
        store_model.conv(config, **shape, pool=1, out_base=7),
        store_model.conv(config, **shape, pool=1, out_base=7, resident=1),
        store_model.conv(config, **shape, pool=1, out_base=7, resident=2),
        store_model.conv(config, **shape, out_base=7),
        store_model.conv(config, **shape, out_base=7, resident=2),
    ]
    run = Run(config, layers, 3, 0.2)
    names = "channels_open", "rows_done", "rows_all"
    for bank in run.banks:
        steps, complete = [(0, 0, 0, 0)], []
        for index, layer in enumerate(layers):
            parts = groups(layer["tile_blocks"], layer["resident"])
            rows = [at * lanes // layer["tiles_x"] * layer["out_step"]
                    for at in range(layer["tile_blocks"] + 1)]
            steps += [(index, block, 0, rows[group[0]]) for group in parts]
            final = parts[-1]
            if len(final) > 1:      # a single tile block has no rows before the current one
                for number in range(layer["kernel_blocks"]):
                    end = block * (number + 1)
                    steps += [(index, end, rows[at], rows[final[0]])
                              for at in final if at != final[0] or number]
                complete.append((index, end + block, rows[-1], rows[final[0]]))
            steps.append((index + 1, 0, 0, 0))
        steps = list(dict.fromkeys(steps))
        found = run.progress(bank, *names)
        assert without(found, complete, len(run.banks) > 1) == steps
        for cycle, index, end, done, every in found[:-1]:
            layer, start = layers[index], run.ends[index - 1][0] if index else 0
            for word, stamp in zip(run.writes[bank], run.stamps[bank], strict=True):
                channel, row = divmod(word.addr - 7, layer["out_plane"])
                y = 2 * (row >> layer["out_row_log2"]) + (word.parity | word.pair)
                counted = y < every or (y < done and end - block <= channel < end)
                if start < stamp <= run.ends[index][0] and counted:
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
        ctx.set(dut.i[0].valid, 1)
        await ctx.tick()
        ctx.set(dut.i[0].valid, 0)
        for cycle in range(1, 10):
            if ctx.get(raw(dut.write[0].valid)):
                cycles.append(cycle)
            await ctx.tick()

    simulate(dut, feed)
    assert cycles == [Writer.LATENCY + lane for lane in range(config.tile_lanes)]
