"""Sum buffer and its reader: order, credits, slots and parameters against NumPy."""

import dataclasses
import random

import numpy as np
import pytest
from amaranth.hdl import Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from model.config import PRESETS
from rtl.signatures import SUM_SLOTS, Descriptor, Event, KernelParameters, SumWrite
from rtl.sums import SEGMENT_ROWS, SumBuffer, SumReader, tile_reads
from tests.rtl import store_model
from tests.rtl.helpers import pack, raw, simulate, unpack

#: With several kernels per bank in a block.
CONFIGS = PRESETS | {
    "wide": dataclasses.replace(PRESETS["tiny-wide"], kernel_lanes=32, tile_lanes=2),
    "wide2": dataclasses.replace(PRESETS["tiny-wide2"], kernel_lanes=32, tile_lanes=2),
}


class BufferAndReader(wiring.Component):
    """Both, joined as in the store stage."""

    def __init__(self, config):
        self.buffer = SumBuffer(config=config)
        self.reader = SumReader(config=config)
        super().__init__({
            "layer": In(Descriptor), "begin": In(1), "i": In(Event(SumWrite(config))),
            "credit": In(config.feature_banks), "param_ready": In(1), "param_next": Out(1),
            "slot_free": Out(1),
            "param_addr": Out(range(config.kernel_lanes)), "param_data": In(KernelParameters),
        })
        self.o, self.words = self.reader.o, self.buffer.o

    def elaborate(self, platform):
        m = Module()
        m.submodules.buffer, m.submodules.reader = buffer, reader = self.buffer, self.reader
        for name in ("layer", "begin", "credit", "param_ready", "param_data"):
            m.d.comb += getattr(reader, name).eq(getattr(self, name))
        for name in ("param_addr", "param_next", "slot_free"):
            m.d.comb += getattr(self, name).eq(getattr(reader, name))
        for name in ("r_en", "r_slot", "r_kernel", "r_index"):
            m.d.comb += getattr(buffer, name).eq(getattr(reader, name))
        m.d.comb += [
            buffer.i.valid.eq(self.i.valid), buffer.i.payload.eq(self.i.payload),
            reader.complete.valid.eq(buffer.complete.valid),
            reader.complete.payload.eq(buffer.complete.payload),
        ]
        return m


class Bench:
    """Sends the sums of layers one after the other and notes the tiles read."""

    def __init__(self, config, *, p_sum=1.0, p_param=1.0, p_credit=1.0, parity=None, seed=0):
        self.config = config
        self.dut = BufferAndReader(config)
        self.p_sum, self.p_credit = p_sum, p_credit
        self.parity = parity            # of the first block of a layer; None: goes on
        self.rng = random.Random(seed)
        self.free = SUM_SLOTS                       # slots of the buffer
        self.queued = [0] * config.feature_banks    # rows in the queues behind
        self.reads, self.stamps, self.last_sum = [], [], []
        self.parameters = []
        self.memory = store_model.parameter_memory(self.dut, self.parameters, self.rng, p_param)
        self.layer, self.in_layer, self.cycle = None, 0, 0

    async def watch(self, ctx):
        dut = self.dut
        async for *_, valid, tag, words, slot_free in ctx.tick().sample(
            dut.o.valid, raw(dut.o.payload), raw(dut.words), dut.slot_free
        ):
            if valid:
                self.reads.append((unpack(dut.o.payload.shape(), tag), words))
                self.stamps.append(self.cycle)
                kernel, index = divmod(self.in_layer, self.reads_per_tile)
                if index == 0:
                    # With several banks the one of dot products takes one a cycle, of a batch less.
                    dot, banks = self.layer["dot"], len(self.queued)
                    bank = 0 if dot else kernel % banks
                    if banks == 1 or not dot or self.layer["tiles"] > 1:
                        self.queued[bank] += self.layer["out_step"] // store_model.rows_at_once(
                            self.config, self.layer)
                    assert self.queued[bank] <= SEGMENT_ROWS
                self.in_layer += 1
            self.free += slot_free
            credits = [rows > 0 and self.rng.random() < self.p_credit for rows in self.queued]
            self.queued = [rows - credit for rows, credit in zip(self.queued, credits, strict=True)]
            ctx.set(dut.credit, sum(credit << bank for bank, credit in enumerate(credits)))
            self.cycle += 1

    async def send_layer(self, ctx, layer, sums, values):
        dut, config = self.dut, self.config
        self.layer, self.in_layer = layer, 0
        self.reads_per_tile = 1 if layer["dot"] else tile_reads(config)
        self.parameters += store_model.parameter_blocks(config, layer, values)
        await ctx.tick().repeat(3)      # without a layer nothing may start
        ctx.set(Value.cast(dut.layer), pack(Descriptor, layer))
        ctx.set(dut.begin, 1)
        await ctx.tick()
        ctx.set(dut.begin, 0)
        slot = len(self.last_sum) % SUM_SLOTS if self.parity is None else self.parity
        for block in store_model.blocks(layer):
            await ctx.tick().repeat(2)
            while not self.free:
                await ctx.tick()
            self.free -= 1
            for word in store_model.block_sums(config, layer, sums, *block, slot):
                while self.rng.random() >= self.p_sum:
                    await ctx.tick()
                ctx.set(dut.i.valid, 1)
                ctx.set(Value.cast(dut.i.payload), pack(dut.i.payload.shape(), word))
                await ctx.tick()
                ctx.set(dut.i.valid, 0)
            self.last_sum.append(self.cycle)
            slot = (slot + 1) % SUM_SLOTS
        expected = len(list(reads_of(config, layer, sums, values)))
        while self.in_layer < expected or any(self.queued) or self.free < 2:
            await ctx.tick()
        await ctx.tick().repeat(3)
        assert not self.parameters and self.in_layer == expected

    def run(self, layers, sums, parameters):
        async def feed(ctx):
            for item in zip(layers, sums, parameters, strict=True):
                await self.send_layer(ctx, *item)

        simulate(self.dut, feed, monitors=[self.watch, self.memory], limit=30000)


def reads_of(config, layer, sums, values):
    """(words of every lane, bypass, (bias, multiplier, base), marks) per cycle of the output."""
    for kernel_block, tile_block in store_model.blocks(layer):
        kernels = store_model.kernels(config, layer, kernel_block)
        for kernel in kernels:
            marks = store_model.tile_marks(config, layer, kernel_block, tile_block, kernel)
            base = store_model.base(config, layer, kernel)
            first = tile_block * config.tile_lanes
            tiles = sums[first : first + config.tile_lanes, kernel]
            for i in range(1 if layer["dot"] else tile_reads(config)):
                words = tiles[:, config.drained * i :][:, : config.drained]
                yield words, layer["dot"], (*values[kernel], base), marks


def check(config, bench, layers, sums, parameters):
    got = iter(bench.reads)
    for item in zip(layers, sums, parameters, strict=True):
        for words, bypass, values, marks in reads_of(config, *item):
            note, found = next(got)
            found = unpack(bench.dut.words.shape(), found)
            for lane in range(config.tile_lanes):
                for j in range(1 if bypass else config.drained):
                    assert (found[lane][j].re, found[lane][j].im) == tuple(words[lane][j])
            assert note.bypass == bypass
            assert (note.tag.bias, note.tag.multiplier, note.tag.base) == values
            assert {mark: note.tag.marks[mark] for mark in marks} == marks
    assert next(got, None) is None


@pytest.mark.parametrize(("p_sum", "p_param", "p_credit", "parity"), [
    (1.0, 1.0, 1.0, None), (0.5, 0.1, 1.0, 0), (1.0, 0.5, 0.3, 1), (1.0, 0.5, 0.05, 1),
])
@pytest.mark.parametrize("name", ["tiny", "ecp5-85f", "tiny-wide", "wide", "tiny-wide2", "wide2"])
def test_tiles(name, p_sum, p_param, p_credit, parity):
    config = CONFIGS[name]
    rng = np.random.default_rng(11)
    every = store_model.layers(config)
    picked = (3, 4, 5, 6, 10) if config.feature_banks == 1 else (0, 4, 5, 6, 10)
    layers = [every[index] for index in picked]
    sums = [store_model.random_sums(rng, config, layer) for layer in layers]
    parameters = [store_model.parameters(rng, layer) for layer in layers]
    bench = Bench(config, p_sum=p_sum, p_param=p_param, p_credit=p_credit, parity=parity, seed=5)
    bench.run(layers, sums, parameters)
    check(config, bench, layers, sums, parameters)


@pytest.mark.parametrize(("name", "latency"), [("ecp5-85f", 7), ("tiny-wide2", 9)])
def test_back_to_back_and_latency(name, latency):
    config = PRESETS[name]
    layer = store_model.conv(
        config, kernels=16, height=4, width=4 * config.tile_lanes, step=4, pool=1
    )
    rng = np.random.default_rng(1)
    bench = Bench(config, seed=1)
    bench.run(
        [layer], [store_model.random_sums(rng, config, layer)],
        [store_model.parameters(rng, layer)],
    )
    reads = 8 * tile_reads(config)
    first, second = bench.stamps[:reads], bench.stamps[reads:]
    assert first == list(range(first[0], first[0] + reads))
    assert second == list(range(second[0], second[0] + reads))
    assert first[0] - (bench.last_sum[0] - 1) == SumReader.latency(config) == latency
