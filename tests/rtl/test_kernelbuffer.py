# amaranth: UnusedElaboratable=no
"""Prefetch, kernel buffer and parameter memory against the packed stream."""

import random

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring

from model.config import PRESETS
from model.descriptor import FIELDS, SELECT_BITS, WINDOW_CODE, pack
from model.residency import groups
from model.stream import lane_beats, pack_layer, param_beats, select_beats
from rtl.kernelbuffer import KernelBuffer, Ring
from rtl.parameters import ParamMemory
from rtl.passes import Passes
from rtl.prefetch import Prefetch
from rtl.signatures import KernelEntry
from sim.memory import MemoryModel, MemoryOptions
from tests.model.wide import CONFIGS
from tests.rtl.helpers import (
    collect,
    contract,
    ecp5_cells,
    memory_port,
    simulate,
    sink,
    source,
    unpack,
)
from tests.rtl.helpers import pack as pack_value

BASE = 40


class Chain(wiring.Component):
    """The three units as the core joins them; their outer ports are driven directly."""

    def __init__(self, config):
        super().__init__({})
        self.prefetch = Prefetch(config=config)
        self.buffer = KernelBuffer(config=config)
        self.params = ParamMemory(config=config)

    def elaborate(self, platform):
        m = Module()
        m.submodules.prefetch, m.submodules.buffer = self.prefetch, self.buffer
        m.submodules.params = self.params
        wiring.connect(m, self.prefetch.kernels, self.buffer.write)
        m.d.comb += [
            self.prefetch.param_room.eq(self.params.room), self.prefetch.kernel_base.eq(BASE),
            self.params.w_en.eq(self.prefetch.param_en),
            self.params.w_data.eq(self.prefetch.param_data),
            self.params.w_last.eq(self.prefetch.param_last),
        ]
        return m


def make_layer(config, rng, code, counts, tile_blocks=1, resident=0):
    lanes, limit = config.kernel_lanes, 1 << (config.weight_bits - 1)
    lanes_last = int(rng.integers(1, lanes + 1))
    blocks = [{
        "params": np.stack([rng.integers(-(1 << 17), 1 << 17, lanes),
                            rng.integers(0, 1 << 14, lanes)], axis=1),
        "weights": rng.integers(-limit, limit, (count, lanes, 2)),
        "selects": rng.integers(0, 1 << SELECT_BITS[code], (count, lanes)),
        "addresses": rng.integers(0, 1 << 12, (count, config.banks)),
    } for count in counts]
    for key in ("params", "weights"):
        blocks[-1][key][..., lanes_last:, :] = 0
    stream = pack_layer(config, blocks, SELECT_BITS[code], lanes_last=lanes_last)
    descriptor = dict.fromkeys((name for name, _ in FIELDS), 0) | {
        "kernel_blocks": len(counts), "tile_blocks": tile_blocks,
        "resident": resident or tile_blocks,
        "select_code": code, "lanes_last": lanes_last,
        "stream_beats": len(stream) // config.port_words,
        "row_beats_last": lane_beats(config, lanes_last),
    }
    return blocks, stream, descriptor


def in_order(blocks, descriptor):
    """Blocks in the order the issue unit multiplies them, and in parameter order."""
    parts = groups(descriptor["tile_blocks"], descriptor["resident"])
    return [block for group in parts for block in blocks for _ in group], blocks * len(parts)


def entry_bits(config, weights, selects):
    """An entry as packed bits, and which of them count: lanes without a kernel hold anything."""
    width = 2 * config.weight_bits * config.kernel_lanes
    content = weights.astype(f"<i{config.weight_bits // 8}").tobytes()
    low = int.from_bytes(content, "little")
    high = int.from_bytes(selects.astype(np.uint8).tobytes(), "little")
    mask = (1 << 8 * len(content)) - 1 | (1 << 8 * config.kernel_lanes) - 1 << width
    return low | high << width, mask


def with_addresses(config, bits, mask, addresses, last):
    """Bits and mask of an entry for a window."""
    for name, value in (("addr", pack_value(KernelEntry(config)["addr"].shape, addresses)),
                        ("last", int(last))):
        field = KernelEntry(config)[name]
        bits |= value << field.offset
        mask |= (1 << field.width) - 1 << field.offset
    return bits, mask


def test_entry_bits_follow_the_layout():
    config = CONFIGS["tiny-wide"]
    weights, selects = np.array([[-3, 5], [7, -9]]), np.arange(8)
    bits, mask = entry_bits(config, weights, selects)
    entry = unpack(KernelEntry(config), bits)
    assert [(entry.weight[lane].re, entry.weight[lane].im)
            for lane in range(2)] == [(-3, 5), (7, -9)]
    assert [entry.select[lane] for lane in range(8)] == list(range(8))
    ones = unpack(KernelEntry(config), mask)
    assert [ones.weight[lane].re for lane in range(3)] == [-1, -1, 0] and ones.select[7] == 255


def run(config, layers, p_out=1.0, latency=10, stall=0.0, seed=0):
    """Run layers through the chain and compare every entry and parameter."""
    streams, descriptors, expected, parameters = [], [], [], []
    offset = 0
    for blocks, stream, descriptor in layers:
        descriptor["stream_offset"] = offset
        offset += descriptor["stream_beats"]
        streams.append(stream)
        descriptors.append(sum(beat << 64 * i for i, beat in enumerate(pack(descriptor))))
        entry_order, parameter_order = in_order(blocks, descriptor)
        for block in entry_order:
            last = block is blocks[-1]
            lanes = descriptor["lanes_last"] if last else config.kernel_lanes
            entries = [entry_bits(config, w[:lanes], s) for w, s in zip(
                block["weights"], block["selects"], strict=True)]
            if descriptor["select_code"] == WINDOW_CODE:
                entries = [with_addresses(config, *entry, addresses, number == len(entries) - 1)
                           for number, (entry, addresses) in enumerate(
                               zip(entries, block["addresses"].tolist(), strict=True))]
            expected += entries
        parameters += [block["params"] for block in parameter_order]
    memory = np.concatenate([np.zeros(BASE * config.port_words, np.uint64), *streams])
    dut = Chain(config)
    options = MemoryOptions(latency=latency, stall=stall, seed=seed)
    model = MemoryModel(memory, options, config.port_bits)
    got, read = [], []

    async def read_parameters(ctx):
        rng = random.Random(seed)
        for block in parameters:
            while not ctx.get(dut.params.ready) or rng.random() < 0.3:
                await ctx.tick()
            for lane in range(config.kernel_lanes):
                ctx.set(dut.params.r_addr, lane)
                await ctx.tick().repeat(dut.params.LATENCY)
                value = ctx.get(dut.params.r_data)
                assert (value.bias, value.multiplier) == tuple(block[lane])
            read.append(block)
            ctx.set(dut.params.next, 1)
            await ctx.tick()
            ctx.set(dut.params.next, 0)

    stats = []
    simulate(
        dut,
        source(dut.prefetch.desc, descriptors), source(dut.buffer.desc, descriptors),
        sink(dut.buffer.entries, got, len(expected), p=p_out, seed=seed), read_parameters,
        monitors=[
            memory_port(model, dut.prefetch.ar, dut.prefetch.r),
            contract(dut.buffer.entries), contract(dut.prefetch.ar),
            collect(dut.prefetch.stats, stats),
        ],
        limit=60000,
    )
    assert len(read) == len(parameters) and len(stats) == len(layers)
    for index, (bits, (wanted, mask)) in enumerate(zip(got, expected, strict=True)):
        assert bits & mask == wanted, index


@pytest.mark.parametrize("name", sorted(CONFIGS))
@pytest.mark.parametrize("p_out, latency, stall", [(1, 1, 0), (0.5, 30, 0.3), (0.9, 100, 0.1)])
def test_layers_back_to_back(name, p_out, latency, stall):
    config = CONFIGS[name]
    rng = np.random.default_rng(1)
    layers = [
        make_layer(config, rng, 2, [7, 9, 4], tile_blocks=3),
        make_layer(config, rng, 0, [5, 6]),
        make_layer(config, rng, 4, [3, 1, 8], tile_blocks=2, resident=1),
        make_layer(config, rng, 1, [33, 17]),
        make_layer(config, rng, 2, [5, 1, 6], tile_blocks=7, resident=3),
        make_layer(config, rng, 2, [4], tile_blocks=4, resident=2),
        make_layer(config, rng, 3, [12], tile_blocks=5),
    ]
    run(config, layers, p_out, latency, stall, seed=3)


@pytest.mark.parametrize("p_out, latency, stall", [(1, 1, 0), (0.5, 30, 0.3)])
def test_layers_for_a_window(p_out, latency, stall):
    config = PRESETS["tiny-window"]
    rng = np.random.default_rng(8)
    layers = [
        make_layer(config, rng, WINDOW_CODE, [7, 1, 4], tile_blocks=3),
        make_layer(config, rng, 2, [5, 6]),
        make_layer(config, rng, WINDOW_CODE, [3, 8], tile_blocks=2, resident=1),
    ]
    run(config, layers, p_out, latency, stall, seed=4)


def test_more_than_the_buffer_holds():
    config = PRESETS["tiny"]
    rng = np.random.default_rng(2)
    layers = [make_layer(config, rng, 4, [150, 180, 170], tile_blocks=2),
              make_layer(config, rng, 2, [300, 310])]
    run(config, layers, p_out=0.8, latency=20, stall=0.1)


def test_more_selects_than_the_buffer_holds():
    """Its next place is written whether a beat comes or not, but only while there is room."""
    config = CONFIGS["port-128"]
    layers = [make_layer(config, np.random.default_rng(4), 4, [150, 180, 170], tile_blocks=1)]
    run(config, layers, p_out=0.3, latency=5)


def test_more_kernel_blocks_than_the_parameter_ring():
    config = PRESETS["tiny"]
    run(config, [make_layer(config, np.random.default_rng(3), 2, [2] * 40)])


@pytest.mark.parametrize("name", ["ecp5-85f", "port-128", "tiny-wide", "port-2048"])
def test_sustains_an_entry_per_cycle_once_the_rows_are_there(name):
    config = CONFIGS[name]
    rng = np.random.default_rng(4)
    dut = KernelBuffer(config=config)
    blocks, stream, descriptor = make_layer(config, rng, 2, [64], tile_blocks=6)
    bits = sum(beat << 64 * i for i, beat in enumerate(pack(descriptor)))
    per_beat = 64 // select_beats(config, 64, 2)
    got, stamps = [], []

    async def write(ctx):
        ctx.set(dut.write.count.payload, 64)
        ctx.set(dut.write.count.valid, 1)
        await ctx.tick()
        ctx.set(dut.write.count.valid, 0)
        for index in range(64):
            if index % per_beat == 0:
                ctx.set(dut.write.select.valid, 1)
                await ctx.tick()
                ctx.set(dut.write.select.valid, 0)
            for bank in range(config.row_beats):
                ctx.set(dut.write.weight.payload.last, bank == config.row_beats - 1)
                ctx.set(dut.write.weight.valid, 1)
                await ctx.tick()
            ctx.set(dut.write.weight.valid, 0)

    async def watch(ctx):
        cycle = 0
        async for _, _, valid, ready in ctx.tick().sample(dut.entries.valid, dut.entries.ready):
            cycle += 1
            if valid and ready:
                stamps.append(cycle)

    simulate(dut, write, source(dut.desc, [bits]), sink(dut.entries, got, 64 * 6),
             monitors=[watch])
    replays = stamps[64 * 2:]
    assert replays[-1] - replays[0] == len(replays) - 1


def test_a_wide_port_feeds_an_entry_per_weight_beat():
    # One select beat and 16 beats of weights for 16 entries, from a memory with a latency of 100.
    config = CONFIGS["port-2048"]
    _, stream, descriptor = make_layer(config, np.random.default_rng(7), 2, [200, 200])
    bits = sum(beat << 64 * i for i, beat in enumerate(pack(descriptor | {"stream_offset": 0})))
    memory = np.concatenate([np.zeros(BASE * config.port_words, np.uint64), stream])
    dut, stamps = Chain(config), []
    model = MemoryModel(memory, MemoryOptions(latency=100), config.port_bits)

    async def take(ctx):
        ctx.set(dut.buffer.entries.ready, 1)
        cycle = 0
        while len(stamps) < 400:
            _, _, valid = await ctx.tick().sample(dut.buffer.entries.valid)
            if valid:
                stamps.append(cycle)
            cycle += 1

    simulate(dut, source(dut.prefetch.desc, [bits]), source(dut.buffer.desc, [bits]), take,
             monitors=[memory_port(model, dut.prefetch.ar, dut.prefetch.r)])
    # Besides a cycle per entry one per select beat, and two more before the second block.
    assert stamps[-1] - stamps[0] <= 399 + 2 * 13 + 2


def test_no_idle_cycle_between_blocks_or_layers():
    config = PRESETS["ecp5-85f"]
    rng = np.random.default_rng(5)
    layers = [make_layer(config, rng, 2, [40] * 3, tile_blocks=3),
              make_layer(config, rng, 2, [40] * 3), make_layer(config, rng, 1, [30] * 2)]
    count = 3 * 120 + 120 + 60
    descriptors, offset = [], 0
    for _, stream, descriptor in layers:
        descriptor["stream_offset"] = offset
        offset += len(stream)
        descriptors.append(sum(beat << 64 * i for i, beat in enumerate(pack(descriptor))))
    dut = Chain(config)
    memory = np.concatenate([np.zeros(BASE, np.uint64), *(stream for _, stream, _ in layers)])
    model = MemoryModel(memory, MemoryOptions(latency=4))
    got, stamps = [], []

    async def late(ctx):
        await ctx.tick().repeat(offset + 50)        # everything is in the buffer by then
        cycle = 0
        while len(got) < count:
            ctx.set(dut.buffer.entries.ready, 1)
            _, _, valid = await ctx.tick().sample(dut.buffer.entries.valid)
            if valid:
                got.append(1)
                stamps.append(cycle)
            cycle += 1

    simulate(
        dut, source(dut.prefetch.desc, descriptors), source(dut.buffer.desc, descriptors), late,
        monitors=[memory_port(model, dut.prefetch.ar, dut.prefetch.r)],
    )
    assert np.all(np.diff(stamps) == 1)


@pytest.mark.parametrize("code", range(5))
def test_latency_from_a_row_to_its_entry(code):
    config = PRESETS["tiny"]
    dut = KernelBuffer(config=config)
    _, _, descriptor = make_layer(config, np.random.default_rng(6), code, [1])
    cycles = []

    async def bench(ctx):
        await source(dut.desc, [sum(b << 64 * i for i, b in enumerate(pack(descriptor)))])(ctx)
        await source(dut.write.count, [1])(ctx)
        if code:
            await source(dut.write.select, [0])(ctx)
        await ctx.tick().repeat(5)
        ctx.set(dut.write.weight.payload.last, 1)
        ctx.set(dut.write.weight.valid, 1)
        await ctx.tick()
        ctx.set(dut.write.weight.valid, 0)
        cycles.append(1)
        while not ctx.get(dut.entries.valid):
            await ctx.tick()
            cycles.append(1)

    simulate(dut, bench, limit=60)
    assert len(cycles) == KernelBuffer.LATENCY


@pytest.mark.synth
@pytest.mark.parametrize("unit, count", [(KernelBuffer, 2 * 4 + 2), (ParamMemory, 2)])
def test_block_rams(unit, count, tmp_path):
    # Weights: row_beats banks of 64 x 1024 (4 blocks each); selects: 64 x 512 (2).
    cells = ecp5_cells(unit(config=PRESETS["ecp5-85f"]), tmp_path)
    assert cells["DP16KD"] == count and "MULT18X18D" not in cells


def test_ring_depth():
    for depth in (0, 1, 12, "8"):
        with pytest.raises(ValueError, match="depth must be a power of two of at least 2, not"):
            Ring(depth=depth)


def test_passes_are_ahead_of_who_takes_them():
    """As many as may wait, one more each other cycle: short passes in a row are there in time."""
    config, dut, found = CONFIGS["tiny"], Passes(), []
    _, _, descriptor = make_layer(config, np.random.default_rng(9), 2, [1] * 20)
    bits = sum(beat << 64 * i for i, beat in enumerate(pack(descriptor)))

    async def bench(ctx):
        ctx.set(dut.desc.payload.as_value(), bits)
        ctx.set(dut.desc.valid, 1)
        ctx.set(dut.count.payload, 1)
        ctx.set(dut.count.valid, 1)
        await ctx.tick().until(dut.desc.ready)
        ctx.set(dut.desc.valid, 0)
        await ctx.tick().repeat(20)
        ctx.set(dut.o.ready, 1)
        async for _, _, valid, payload in ctx.tick().sample(dut.o.valid, dut.o.payload):
            found.append(valid)
            assert not valid or (payload.entries, payload.single) == (1, 1)
            if sum(found) == 12:
                break

    simulate(dut, bench)
    assert found[:6] == [1] * 6 and len(found) <= 12 + 7


def test_counts_wait_when_many_blocks_are_short():
    config, rng = CONFIGS["tiny"], np.random.default_rng(8)
    assert Passes.COUNTS < 120
    run(config, [make_layer(config, rng, 2, [1] * 120)], p_out=0.02)


def test_parameters_are_ready_over_a_release_when_there_are_more():
    dut, seen = ParamMemory(config=CONFIGS["tiny"]), []
    beats = param_beats(CONFIGS["tiny"])

    async def bench(ctx):
        async def write_block():
            for beat in range(beats):
                ctx.set(dut.w_en, 1)
                ctx.set(dut.w_last, beat == beats - 1)
                await ctx.tick()
            ctx.set(dut.w_en, 0)

        async def release():
            ctx.set(dut.next, 1)
            await ctx.tick()
            ctx.set(dut.next, 0)
            seen.append(ctx.get(dut.ready))

        for _ in range(2):
            await write_block()
        await ctx.tick().repeat(2)
        assert ctx.get(dut.ready)
        await release()                     # one is left
        await ctx.tick()
        assert ctx.get(dut.ready)
        await release()                     # none, and none comes
        await ctx.tick().repeat(5)
        assert not ctx.get(dut.ready)
        await write_block()
        await ctx.tick().repeat(2)
        assert ctx.get(dut.ready)
        # The last goes as another comes: not ready, then ready.
        for beat in range(beats):
            ctx.set(dut.w_en, 1)
            ctx.set(dut.w_last, beat == beats - 1)
            ctx.set(dut.next, beat == beats - 1)
            await ctx.tick()
        ctx.set(dut.w_en, 0)
        ctx.set(dut.next, 0)
        for _ in range(3):
            seen.append(ctx.get(dut.ready))
            await ctx.tick()

    simulate(dut, bench)
    assert seen == [1, 0, 0, 0, 1]


@pytest.mark.parametrize("releases", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["tiny", "tiny-wide"])
def test_parameters_are_ready_only_if_they_are_there(name, releases):
    config = CONFIGS[name]
    dut, rng = ParamMemory(config=config), np.random.default_rng(5)
    beats, done, seen = param_beats(config), 200, []
    words = rng.integers(0, 1 << 32, (done, config.kernel_lanes), dtype=np.uint64)
    lanes_each = config.kernel_lanes // beats

    async def bench(ctx):
        written, given, beat, waited, reads = 0, 0, 0, 0, []
        while given < done:
            ready, room = ctx.get(dut.ready), ctx.get(dut.room)
            assert not ready or given < written
            # Nothing keeps them for longer than what they pass through.
            waited = waited + 1 if written > given and not ready else 0
            assert waited <= 2
            writes = written < done and (beat > 0 or room) and rng.random() < 0.6
            goes = ready and not ctx.get(dut.next) and rng.random() < releases
            lane = int(rng.integers(config.kernel_lanes))
            part = words[min(written, done - 1), lanes_each * beat:lanes_each * (beat + 1)]
            ctx.set(dut.w_en, writes)
            ctx.set(dut.w_last, beat == beats - 1)
            ctx.set(dut.w_data, sum(int(word) << 32 * at for at, word in enumerate(part)))
            ctx.set(dut.next, goes)
            ctx.set(dut.r_addr, lane)
            reads.append(int(words[given, lane]) if ready else None)
            await ctx.tick()
            if len(reads) >= dut.LATENCY and reads[-dut.LATENCY] is not None:
                assert ctx.get(dut.r_data.as_value()) == reads[-dut.LATENCY]
            if writes:
                beat = (beat + 1) % beats
                written += beat == 0
            given += goes
            seen.append(written - given)

    simulate(dut, bench)
    assert max(seen) <= dut.BLOCKS and (releases > 0.1 or max(seen) == dut.BLOCKS)
