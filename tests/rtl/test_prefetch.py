"""Prefetch alone: its bursts, its rate, and where each beat of the stream goes."""

import numpy as np
import pytest
from amaranth.hdl import Value

from model.config import PRESETS
from model.descriptor import FIELDS, SELECT_BITS, WINDOW_CODE, pack
from model.stream import chunk_entries, lane_beats, pack_layer, param_beats
from rtl.prefetch import Prefetch
from rtl.signatures import LayerStats, ReadRequest
from sim.memory import MemoryModel, MemoryOptions
from tests.model.wide import CONFIGS
from tests.rtl.helpers import (
    collect,
    collect_level,
    contract,
    memory_port,
    simulate,
    source,
    unpack,
    until_count,
)

BASE = 1000


class Layers:
    """Random layers one after the other in a memory, and what becomes of each beat."""

    def __init__(self, config, shapes, seed=0, inputs=()):
        rng = np.random.default_rng(seed)
        self.descriptors = []       # packed
        self.streams = []
        self.inputs = inputs        # numbers of layers that read the input of the run
        self.passes = []            # (address, beats) of every reading of a stream
        self.beats = []             # (kind, payload), see `Sink`
        self.burst = 16 if config.port_bits == 64 else 64
        for code, sizes, lanes_last, tile_blocks, resident in shapes:
            self._layer(config, rng, code, sizes, lanes_last, tile_blocks, resident)
        self.memory = np.concatenate(
            [np.zeros(BASE * config.port_words, np.uint64), *self.streams]
        )

    def _layer(self, config, rng, code, sizes, lanes_last, tile_blocks, resident):
        half = 1 << (config.weight_bits - 1)
        lanes, select_bits = config.kernel_lanes, SELECT_BITS[code]
        blocks = [{
            "params": np.stack([rng.integers(-1 << 17, 1 << 17, lanes),
                                rng.integers(0, 1 << 14, lanes)], axis=1),
            "weights": rng.integers(-half, half, (size, lanes, 2)),
            "selects": rng.integers(0, 1 << select_bits, (size, lanes)),
            "addresses": rng.integers(0, 1 << 12, (size, config.banks)),
        } for size in sizes]
        for key in ("params", "weights"):
            blocks[-1][key][..., lanes_last:, :] = 0
        stream = pack_layer(config, blocks, select_bits, lanes_last=lanes_last)
        beats = [int.from_bytes(beat.tobytes(), "little")
                 for beat in stream.reshape(-1, config.port_words)]
        offset = sum(map(len, self.streams)) // config.port_words
        fields = dict.fromkeys((name for name, _ in FIELDS), 0) | {
            "kernel_blocks": len(sizes), "tile_blocks": tile_blocks, "resident": resident,
            "select_code": code, "stream_offset": offset, "stream_beats": len(beats),
            "row_beats_last": lane_beats(config, lanes_last), "lanes_last": lanes_last,
            "input": int(len(self.streams) in self.inputs),
        }
        self.streams.append(stream)
        self.descriptors.append(sum(beat << 64 * i for i, beat in enumerate(pack(fields))))
        passes = -(-tile_blocks // resident)
        self.passes += [(BASE + offset, len(beats))] * passes
        order = self._order(config, sizes, chunk_entries(config, select_bits), fields)
        self.beats += list(zip(order, beats, strict=True)) * passes

    @staticmethod
    def _order(config, sizes, per_chunk, fields):
        """Kind of each beat of a pass: where it goes."""
        order = []
        for index, size in enumerate(sizes):
            row = fields["row_beats_last"] if index == len(sizes) - 1 else config.row_beats
            last = param_beats(config) - 1
            order += ["count"] + [("param", beat == last) for beat in range(last + 1)]
            for entry in range(size):
                if per_chunk and entry % per_chunk == 0:
                    order.append("select")
                order += [("weight", bank, bank == row - 1) for bank in range(row)]
        return order

    def bursts(self):
        """Expected requests: of the same size but for the rest of a pass in the last."""
        return [
            (first + at, min(self.burst, beats - at))
            for first, beats in self.passes for at in range(0, beats, self.burst)
        ]


def sort(dut, got, stamps):
    """Process that notes where every beat goes, and in which cycle."""
    kernels = dut.kernels

    async def process(ctx):
        cycle = bank = 0
        samples = ctx.tick().sample(
            kernels.count.valid & kernels.count.ready, kernels.count.payload,
            kernels.select.valid & kernels.select.ready, kernels.select.payload,
            kernels.weight.valid & kernels.weight.ready, Value.cast(kernels.weight.payload),
            dut.param_en, dut.param_data, dut.param_last,
        )
        async for _, _, count, entries, select, word, weight, bits, param, pair, last in samples:
            assert count + select + weight + param <= 1
            if count:
                got.append(("count", entries))
            elif select:
                got.append(("select", word))
            elif param:
                got.append((("param", bool(last)), pair))
            elif weight:
                item = unpack(kernels.weight.payload.shape(), bits)
                got.append((("weight", bank, bool(item.last)), item.data))
                bank = 0 if item.last else bank + 1
            else:
                cycle += 1
                continue
            stamps.append(cycle)
            cycle += 1
    return process


def consume(dut, p, seed):
    """Process that drives the four ready signals at random, ``p`` = 1 always.

    Room for a count and for parameters, once there, stays until they come.
    """
    kernels = dut.kernels

    async def process(ctx):
        rng = np.random.default_rng(seed)
        signals = (kernels.count.ready, dut.param_room, kernels.select.ready, kernels.weight.ready)
        ready, counted, written = [0] * 4, 1, 1
        while True:
            for index, may_fall in enumerate((counted, written, 1, 1)):
                if may_fall or not ready[index]:
                    ready[index] = int(p == 1.0 or rng.random() < p)
                    ctx.set(signals[index], ready[index])
            _, _, counted, written = await ctx.tick().sample(
                kernels.count.valid & kernels.count.ready, dut.param_en & dut.param_last
            )
    return process


def run(config, layers, *, p=1.0, seed=0, more=None, **options):
    """Run the layers; ``more(dut, requested)`` is another process."""
    dut = Prefetch(config=config)
    model = MemoryModel(layers.memory, MemoryOptions(seed=seed, **options), config.port_bits)
    got, stamps, requests, stats, errors = [], [], [], [], []
    requested = []

    async def note(ctx):
        samples = ctx.tick().sample(dut.ar.valid & dut.ar.ready, Value.cast(dut.ar.payload))
        async for _, _, taken, bits in samples:
            if taken:
                requested.append(unpack(ReadRequest, bits))

    async def base(ctx):
        ctx.set(dut.kernel_base, BASE)
        await until_count(stats, len(layers.descriptors))(ctx)

    simulate(
        dut, base, source(dut.desc, layers.descriptors), monitors=[
            memory_port(model, dut.ar, dut.r), contract(dut.ar), sort(dut, got, stamps), note,
            consume(dut, p, seed), collect(dut.stats, stats), collect_level(dut.error, errors),
            *([more(dut, requested)] if more else []),
        ],
    )
    requests = [(item.addr, item.len + 1) for item in requested]
    return got, stamps, requests, [unpack(LayerStats, bits) for bits in stats], errors


#: select code, entries per kernel block, lanes of the last, tile blocks, those of a group
SHAPES = [
    (2, [7, 9, 1], 3, 3, 3), (0, [5, 6], 4, 1, 1), (4, [3, 1, 8], 1, 2, 1), (1, [33, 17], 2, 1, 1),
    (3, [12], 4, 5, 1), (2, [5, 3], 2, 7, 3), (2, [6], 2, 6, 3), (0, [1], 1, 1, 1),
]


@pytest.mark.parametrize("p, options", [
    (1.0, {"latency": 1}), (0.6, {"latency": 30, "stall": 0.3}),
    (1.0, {"latency": 7, "bandwidth": 0.3}),
])
@pytest.mark.parametrize("name", [*sorted(CONFIGS), "tiny-window"])
def test_every_beat_goes_where_it_belongs(name, p, options):
    config, shapes = CONFIGS.get(name), SHAPES
    if name == "tiny-window":
        config, shapes = PRESETS[name], [*SHAPES, (WINDOW_CODE, [5, 2, 1], 8, 2, 1)]
    layers = Layers(config, shapes, seed=1)
    got, _, requests, stats, errors = run(config, layers, p=p, seed=5, **options)
    expected = [("count" if kind == "count" else kind, word) for kind, word in layers.beats]
    assert got == expected
    assert requests == layers.bursts()
    assert not errors
    assert [item.layer for item in stats] == list(range(len(shapes)))
    assert sum(item.counts[0] for item in stats) == len(expected)
    assert any(item.counts[1] for item in stats) == (p < 1)


def test_the_next_input_of_a_batch_goes_first():
    """No kernels of a layer that reads it, or later ones, until all of it is asked for."""
    config = CONFIGS["tiny"]
    layers = Layers(config, SHAPES, seed=1, inputs=(0, 2, 3))
    counts = np.cumsum([-(-beats // layers.burst) for _, beats in layers.passes])
    before = counts[0 + 1], counts[1 + 2]       # passes of layers 0 and 1, 2 as well
    seen = []

    def more(dut, requested):
        async def process(ctx):
            ctx.set(dut.inputs, 1)
            for number in (2, 3):
                await ctx.tick().repeat(2000)
                seen.append(len(requested))
                ctx.set(dut.asking, 1)
                await ctx.tick().repeat(3)
                ctx.set(dut.inputs, number)
                await ctx.tick().repeat(50)
                seen.append(len(requested))
                ctx.set(dut.asking, 0)
        return process

    _, _, requests, *_ = run(config, layers, more=more, latency=3)
    assert requests == layers.bursts()
    assert seen == [before[0]] * 2 + [before[1]] * 2


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_streams_a_beat_per_cycle_at_latency_100(name):
    config = CONFIGS[name]
    layers = Layers(config, [(2, [150, 150], 4, 1, 1), (4, [40] * 3, 4, 2, 1), (0, [200], 4, 1, 1)])
    _, stamps, *_ = run(config, layers, latency=100)
    gaps = np.diff(stamps) - 1
    assert gaps.sum() == 0, gaps[gaps > 0]


def test_a_bus_error_is_reported():
    config = PRESETS["tiny"]
    layers = Layers(config, [(2, [40], 4, 1, 1)])
    *_, errors = run(config, layers, error_beat=20)
    assert len(errors) == 1
