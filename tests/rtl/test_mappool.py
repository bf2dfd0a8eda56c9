"""Pooling of finished maps against the model, on feature memories."""

import dataclasses
import random

import numpy as np
import pytest

from model import layout
from model.config import PRESETS, ROW_BITS
from model.descriptor import FIELDS, POOL_ADD, POOL_AVERAGE, POOL_MAX
from model.mapadd import add_maps
from model.mappool import average_scale, pool_maps
from model.network import Pool
from model.rates import pool_cycles
from rtl.mappool import MapPool
from rtl.signatures import Descriptor
from tests.rtl.helpers import simulate

NARROW = dataclasses.replace(PRESETS["tiny"], feature_depth=256, map_pool=1)
WIDE = dataclasses.replace(PRESETS["tiny-wide"], feature_depth=128, map_pool=1)


def memory(dut, bank, content):
    """Process: a bank of the feature memory over ``content`` (rows, parity, byte)."""
    port, write = dut.read[bank], dut.write[bank]
    flat = content.reshape(-1)      # position: row, parity, byte

    async def process(ctx):
        pending = None
        signals = (port.en, port.even_addr, port.odd_addr, port.even_next, port.odd_next,
                   port.offset, write.valid, write.payload)
        async for _, _, en, even, odd, *following, offset, valid, payload in \
                ctx.tick().sample(*signals):
            if en and offset:
                assert following == [(row + 1) % (1 << ROW_BITS) for row in (even, odd)]
            if pending is not None:
                for pixels, row in zip((port.even, port.odd), pending, strict=True):
                    ctx.set(pixels, [int(value) for value in row])
            pending = None
            if en:
                at = offset + np.arange(8)
                pending = [content[(row + (at >> 3)) % len(content), parity, at & 7]
                           for parity, row in enumerate((even, odd))]
            if valid:
                for index in range(payload.count):
                    at = payload.offset + index
                    if payload.vector:
                        at += payload.addr * 16 + payload.parity * 8
                        flat[at] = payload.data[index]
                    else:
                        content[payload.addr + (at >> 3), payload.parity, at & 7] = \
                            payload.data[index]
    return process


async def run(ctx, dut, fields):
    """Let the unit do a layer; cycles it takes."""
    ctx.set(dut.layer, Descriptor.const(fields))
    await ctx.tick().repeat(2)
    ctx.set(dut.start, 1)
    cycles = 0
    while not ctx.get(dut.done):
        await ctx.tick()
        cycles += 1
    ctx.set(dut.start, 0)
    await ctx.tick()
    return cycles


CASES = [
    # config, pooling, (C, H, W), signed, vector
    (NARROW, Pool("max", 3, 2), (3, 13, 15), False, False),
    (NARROW, Pool("max", 3, 2, 1), (2, 9, 12), True, False),
    (NARROW, Pool("max", 3, 2), (4, 13, 13), False, True),
    (NARROW, Pool("max", 3, 1, 1), (2, 6, 9), True, False),
    (NARROW, Pool("max", 2, 2), (2, 7, 18), False, False),
    (NARROW, Pool("max", 3, 3), (2, 9, 13), False, True),
    (NARROW, Pool("max", 1, 2), (2, 8, 21), True, False),
    (NARROW, Pool("max", 2, 3, 1), (1, 8, 9), True, False),
    (NARROW, Pool("max", 5, 4, 2), (2, 11, 10), True, False),
    (NARROW, Pool("average", 2, 2), (2, 7, 10), False, False),
    (NARROW, Pool("average", 3, 2, 1), (2, 8, 7), True, True),
    (NARROW, Pool("average", 0), (5, 13, 13), False, True),
    (NARROW, Pool("average", 0), (3, 8, 8), True, True),
    (NARROW, Pool("max", 0), (3, 9, 9), True, False),
    # Windows of two reads, mostly padding; strides beyond the window; maps of one row or pixel.
    (NARROW, Pool("max", 15, 7, 7), (1, 15, 17), True, False),
    (NARROW, Pool("average", 15, 7, 7), (1, 16, 15), False, False),
    (NARROW, Pool("average", 9, 5, 4), (1, 11, 12), True, True),
    (NARROW, Pool("max", 2, 7), (2, 16, 16), False, True),
    (NARROW, Pool("max", 1, 7), (2, 9, 15), True, False),
    (NARROW, Pool("average", 1, 1), (1, 3, 9), True, False),
    (NARROW, Pool("max", 3, 2, 1), (2, 1, 1), True, False),
    (NARROW, Pool("max", 2, 1, 1), (1, 1, 10), True, False),
    (NARROW, Pool("average", 8, 1, 4), (1, 2, 3), True, False),
    (WIDE, Pool("max", 15, 7, 7), (8, 15, 16), True, False),
    (WIDE, Pool("average", 9, 5, 4), (16, 11, 12), True, False),
    (WIDE, Pool("max", 2, 7), (8, 16, 16), False, False),
    (WIDE, Pool("max", 3, 2), (16, 13, 13), False, False),
    (WIDE, Pool("average", 7, 1), (8, 8, 9), True, False),
]


@pytest.mark.parametrize("config", [NARROW, WIDE], ids=["narrow", "wide"])
def test_sums_of_maps(config):
    """In the place of the written map; both signs, ReLU or not, all units, odd sizes."""
    numbers = np.random.default_rng(5)
    dut, banks, done = MapPool(config=config), config.feature_banks, []
    content = np.zeros((banks, config.feature_depth, 2, 8), dtype=np.uint8)

    def put(maps, region):
        rows = layout.pack_plane(maps, region).view(np.uint8).reshape(-1, banks, 2, 8)
        content[:, region.base:region.base + region.rows] = rows.swapaxes(0, 1)

    async def testbench(ctx):
        for shape, signed, relu, shift in (
            ((banks, 7, 13), False, True, 3), ((2 * banks, 4, 6), True, False, 0),
            ((3 * banks, 5, 8), True, True, 6), ((banks, 1, 20), False, False, 2),
        ):
            region = layout.plane(shape, banks)
            other = dataclasses.replace(region, base=config.feature_depth - region.rows)
            region = dataclasses.replace(region, base=3)
            maps, added = (numbers.integers(low, low + 256, shape)
                           for low in (-128, -128 if signed else 0))
            content[:] = numbers.integers(0, 256, content.shape)
            put(maps, region)
            put(added, other)
            before = content.copy()
            expected = add_maps(maps, added, shift, relu) & 0xFF
            fields = dict.fromkeys((name for name, _ in FIELDS), 0) | {
                "pool_op": POOL_ADD, "pool_size": 1, "pool_stride": 1, "pool_base": other.base,
                "pool_row_log2": region.row_log2, "pool_height": shape[1],
                "pool_width": shape[2], "pool_multiplier": int(signed) | int(relu) << 1,
                "pool_shift": shift, "out_base": region.base, "out_plane": region.plane,
                "out_row_log2": region.row_log2, "out_height": shape[1], "out_width": shape[2],
                "out_signed": 1, "kernel_blocks": 1, "lanes_last": shape[0],
            }
            if shape[0] > config.kernel_lanes:
                fields |= {"kernel_blocks": 2, "lanes_last": shape[0] - config.kernel_lanes}
            assert await run(ctx, dut, fields) == pool_cycles(config, fields)
            here = slice(region.base, region.base + region.rows)
            linear = np.ascontiguousarray(content[:, here].swapaxes(0, 1)).reshape(-1)
            np.testing.assert_array_equal(
                layout.unpack_plane(linear.view("<u8"), shape, region), expected)
            before[:, here] = content[:, here]
            np.testing.assert_array_equal(before, content)
            done.append(shape)

    simulate(dut, testbench, monitors=[
        memory(dut, bank, part) for bank, part in enumerate(content)
    ], limit=40_000)
    assert len(done) == 4


@pytest.mark.parametrize("config", [NARROW, WIDE], ids=["narrow", "wide"])
def test_pooled_maps(config):
    """One layer after the other in one simulation, in random order, memory full of noise."""
    cases = [case[1:] for case in CASES if case[0] is config]
    random.Random(1).shuffle(cases)
    numbers = np.random.default_rng(2)
    dut, banks, done = MapPool(config=config), config.feature_banks, []
    content = np.zeros((banks, config.feature_depth, 2, 8), dtype=np.uint8)

    async def testbench(ctx):
        for pool, shape, signed, vector in cases:
            low = -128 if signed else 0
            maps = numbers.integers(low, low + 256, shape)
            out = pool.out_shape(shape)
            source = layout.plane(shape, banks)
            target = layout.vector(int(np.prod(out))) if vector else layout.plane(out, banks)
            bottom = numbers.integers(2)
            source, target = (
                dataclasses.replace(region, base=0 if first else config.feature_depth - region.rows)
                for region, first in ((source, bottom), (target, not bottom))
            )
            content[:] = numbers.integers(0, 256, content.shape)
            rows = layout.pack_plane(maps, source).view(np.uint8).reshape(-1, banks, 2, 8)
            content[:, source.base:source.base + source.rows] = rows.swapaxes(0, 1)
            before = content.copy()
            expected = pool_maps(pool, maps, signed) & 0xFF
            size = pool.window(shape)
            multiplier, shift = average_scale(size) if pool.kind == "average" else (0, 0)
            lanes = config.kernel_lanes
            fields = dict.fromkeys((name for name, _ in FIELDS), 0) | {
                "pool_op": POOL_MAX if pool.kind == "max" else POOL_AVERAGE, "pool_size": size,
                "pool_stride": pool.stride, "pool_pad": pool.padding, "pool_base": target.base,
                "pool_row_log2": target.row_log2, "pool_height": out[1], "pool_width": out[2],
                "pool_vector": int(vector), "pool_multiplier": multiplier, "pool_shift": shift,
                "out_base": source.base, "out_plane": source.plane,
                "out_row_log2": source.row_log2, "out_height": shape[1], "out_width": shape[2],
                "out_signed": int(signed), "out_map": out[1] * out[2] if vector else 0,
                "kernel_blocks": -(-shape[0] // lanes),
                "lanes_last": (shape[0] - 1) % lanes + 1,
            }
            cycles = await run(ctx, dut, fields)
            assert cycles == pool_cycles(config, fields), (pool, shape)
            here = slice(target.base, target.base + target.rows)
            linear = np.ascontiguousarray(content[:, here].swapaxes(0, 1)).reshape(-1)
            before[:, here] = content[:, here]
            np.testing.assert_array_equal(before, content)
            if vector:
                result = linear[:expected.size].reshape(out)
            else:
                result = layout.unpack_plane(linear.view("<u8"), out, target)
            np.testing.assert_array_equal(result, expected, err_msg=f"{pool} of {shape}")
            done.append(pool)

    simulate(dut, testbench, monitors=[
        memory(dut, bank, part) for bank, part in enumerate(content)
    ], limit=40_000)
    assert len(done) == len(cases)
