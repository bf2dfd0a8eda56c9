# amaranth: UnusedElaboratable=no
"""Flatten: maps and vectors out of several feature banks, as rows of sixteen values."""

from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from amaranth.hdl import Value

from model import layout
from model.config import PRESETS
from model.descriptor import FIELDS
from rtl.flatten import Flatten
from rtl.signatures import Descriptor, RowPair
from tests.rtl.helpers import collect, pack, simulate, unpack
from tests.rtl.loader_model import memory_model

CONFIGS = {
    8: PRESETS["tiny-wide"],
    16: replace(PRESETS["tiny-wide"], kernel_lanes=16, feature_banks=16),
}
#: Maps of rows of one and several reads, of an odd height; a vector is (values,).
SHAPES = [(19, 6, 6), (9, 3, 11), (20, 1, 1), (3, 2, 23), (5, 5, 8), (700,), (16,), (37,)]


def run(config, inputs, spread=0):
    """Flatten the inputs one after the other; rows by input, and cycles from start to each.

    The values of a batch are a list of those of its images.
    """
    dut, banks = Flatten(config=config), config.feature_banks
    rng = np.random.default_rng(1)
    memory = rng.integers(0, 256, (banks, config.feature_depth, 2, 8))
    got, stamps, starts = [], [], []
    now = [0]

    async def clock(ctx):
        async for _ in ctx.tick():
            now[0] += 1

    async def feed(ctx):
        for number, (values, signed) in enumerate(inputs):
            base = 3 * number
            images = values if isinstance(values, list) else [values]
            values = images[0]
            for image, picture in enumerate(images):
                if values.ndim == 3:
                    region = layout.plane(values.shape, banks)
                    height, width = values.shape[1:]
                    words = layout.pack_plane(picture, region)
                else:
                    region, height, width = layout.vector(len(values), banks), 1, 1
                    words = np.zeros(2 * banks * region.rows, "<u8")
                    words.view(np.uint8)[:len(values)] = picture
                rows = words.view(np.uint8).reshape(region.rows, banks, 2, 8)
                first = base + image * region.rows
                memory[:, first:first + region.rows] = rows.swapaxes(0, 1)
            fields = {name: 0 for name, _ in FIELDS} | {
                "dot": 1, "channels": ceil(values.size / 2), "in_signed": signed, "in_base": base,
                "in_plane": region.plane, "in_row_log2": region.row_log2,
                "in_height": height, "in_width": width, "spread": spread, "tiles": len(images),
                "out_plane": region.rows,
            }
            ctx.set(Value.cast(dut.desc), pack(Descriptor, fields))
            await ctx.tick().repeat(4)
            ctx.set(dut.addr, config.tile_depth - 2)
            ctx.set(dut.start, 1)
            starts.append((now[0], len(got)))
            await ctx.tick()
            ctx.set(dut.start, 0)
            ctx.set(dut.addr, 0)
            while ctx.get(dut.busy):
                await ctx.tick()
            await ctx.tick().repeat(Flatten.LATENCY + 1)
        starts.append((now[0], len(got)))

    simulate(dut, feed, monitors=[clock, collect(dut.o, got, stamps), *(
        memory_model(port, bank) for port, bank in zip(dut.read, memory, strict=True))])
    rows = [unpack(RowPair(config), word) for word in got]
    parts = [(first, last) for (_, first), (_, last) in zip(starts, starts[1:], strict=False)]
    return [rows[slice(*part)] for part in parts], [stamps[slice(*part)] for part in parts]


@pytest.mark.parametrize("banks, spread", [(8, 0), (16, 0), (8, 1), (8, 2), (16, 2)])
def test_rows_in_order(banks, spread):
    """A row after the other, for 2^spread tile lanes of the four in turn."""
    config, rng = replace(CONFIGS[banks], tile_lanes=4, dot_lanes=4), np.random.default_rng(2)
    inputs = [(rng.integers(0, 256, shape), int(number) % 2)
              for number, shape in enumerate(SHAPES)]
    found, _ = run(config, inputs, spread)
    for (values, signed), rows in zip(inputs, found, strict=True):
        flat = values.reshape(-1)
        wanted = np.where(signed & (flat > 127), flat - 256, flat)
        assert len(rows) == ceil(flat.size / 16)
        made = np.array([[list(half) for half in row.rows] for row in rows]).reshape(-1)
        np.testing.assert_array_equal(made[:flat.size], wanted)
        for number, row in enumerate(rows):
            tag = row.tag
            turn, lane = divmod(number, 1 << spread)
            assert (tag.bypass, tag.lane, tag.channel_low) == (1, lane, 0)
            assert tag.addr == (config.tile_depth - 2 + turn) % config.tile_depth
            assert tag.block_last == (number == len(rows) - 1)


def test_rate():
    """A row of a vector a cycle; a row of a map a cycle, here of six pixels."""
    config = CONFIGS[8]
    _, (vector, maps) = run(config, [(np.arange(320) % 256, 0), (np.ones((16, 6, 6), int), 0)])
    assert np.diff(vector).tolist() == [1] * 19
    assert maps[-1] - maps[0] == ceil(576 / 6) - ceil(16 / 6)


def test_refuses_other_configs():
    with pytest.raises(TypeError, match="config must be an AcceleratorConfig"):
        Flatten(config={})


@pytest.mark.parametrize("banks", CONFIGS)
def test_images_of_a_batch(banks):
    """Rows of each image for its own lane, at the same addresses; the pause between is short."""
    config, rng = replace(CONFIGS[banks], tile_lanes=5), np.random.default_rng(3)
    inputs = [([rng.integers(0, 256, shape) for _ in range(images)], 0)
              for shape, images in zip(SHAPES, (5, 3, 2, 4, 1, 2, 5, 3), strict=True)]
    found, stamps = run(config, inputs)
    for (images, _), rows, times in zip(inputs, found, stamps, strict=True):
        groups = ceil(images[0].size / 16)
        assert len(rows) == groups * len(images)
        for number, row in enumerate(rows):
            image, group = divmod(number, groups)
            flat = images[image].reshape(-1)[16 * group:16 * group + 16]
            made = [row.rows[at // 8][at % 8] for at in range(len(flat))]
            np.testing.assert_array_equal(made, flat)
            tag = row.tag
            assert (tag.bypass, tag.lane) == (1, image)
            assert tag.addr == (config.tile_depth - 2 + group) % config.tile_depth
            assert tag.block_last == (number == len(rows) - 1)
        if images[0].ndim == 1:     # a row of a vector every cycle
            gaps = Flatten.GAP + Flatten.LATENCY - 1
            assert times[-1] - times[0] == len(rows) - 1 + gaps * (len(images) - 1)
