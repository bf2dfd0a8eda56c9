# amaranth: UnusedElaboratable=no
"""Feature memory against a byte array: every offset, plane and vector writes, bandwidth."""

import dataclasses
import random

import numpy as np
import pytest

from model.config import PRESETS
from rtl.feature import FeatureMemory
from rtl.signatures import FeatureWrite
from tests.rtl.helpers import drive, ecp5_cells, pack, raw, simulate


def apply(memory, write):
    """Model of a write on ``memory[row, parity, byte]``."""
    for i in range(write["count"]):
        position = write["offset"] + i
        row, parity = write["addr"], write["parity"]
        if position >= 8:
            if write["vector"]:
                row, parity = row + parity, 1 - parity
            else:
                row += 1
        memory[row % len(memory), parity, position % 8] = write["data"][i]
        if write.get("pair"):
            memory[row % len(memory), 1, position % 8] = write["below"][i]


def fetch(memory, parity, addr, offset):
    """Model of a read of one bank."""
    return [
        int(memory[(addr + (offset + i) // 8) % len(memory), parity, (offset + i) % 8])
        for i in range(8)
    ]


def fill(memory, rng):
    """Writes of whole rows that give every byte of ``memory`` a known random value."""
    for row in range(len(memory)):
        for parity in range(2):
            write = {
                "addr": row, "parity": parity, "offset": 0, "count": 8, "vector": 0,
                "data": [rng.randrange(256) for _ in range(8)],
            }
            apply(memory, write)
            yield pack(FeatureWrite, write)


async def read(ctx, dut, even, odd, offset):
    """Issue one read for this cycle."""
    ctx.set(dut.read.even_addr, even)
    ctx.set(dut.read.odd_addr, odd)
    ctx.set(dut.read.even_next, even + 1 if offset else 0)
    ctx.set(dut.read.odd_next, odd + 1 if offset else 0)
    ctx.set(dut.read.offset, offset)
    ctx.set(dut.read.en, 1)


def unpack_pixels(word):
    return [word >> (8 * i) & 255 for i in range(8)]


@pytest.mark.parametrize("vector, depth, pairs", [
    (0, 512, 0), (1, 512, 0), (0, 576, 0), (0, 512, 0.5),
])
def test_random_writes_then_reads_match_the_array(vector, depth, pairs):
    config = dataclasses.replace(PRESETS["tiny"], feature_depth=depth)
    dut = FeatureMemory(config=config)
    rng = random.Random(5 + vector)
    memory = np.zeros((depth, 2, 8), np.int64)
    fills, writes = list(fill(memory, rng)), []
    rows = depth - 1                            # no step into the row beyond the depth
    for number in range(600):
        write = {
            "addr": rng.randrange(rows), "parity": rng.randrange(2),
            "offset": number % 8, "count": number // 8 % 9, "vector": vector,
            "data": [rng.randrange(256) for _ in range(8)],
            "below": [rng.randrange(256) for _ in range(8)],
        }
        if rng.random() < pairs:
            write |= {"pair": 1, "parity": 0}
        apply(memory, write)
        writes.append(pack(FeatureWrite, write))
    checked = 0

    async def reader(ctx):
        nonlocal checked
        await drive(dut.fill, fills)(ctx)
        await drive(dut.write, writes)(ctx)     # one per cycle
        await ctx.tick().repeat(dut.WRITE_LATENCY - 1)
        expected = []
        for number in range(800):
            even, odd = rng.randrange(rows), rng.randrange(rows)
            await read(ctx, dut, even, odd, number % 8)
            expected.append([fetch(memory, p, a, number % 8) for p, a in ((0, even), (1, odd))])
            await ctx.tick()
            if number >= dut.LATENCY - 1:
                even_word, odd_word = ctx.get(raw(dut.read.even)), ctx.get(raw(dut.read.odd))
                got = [unpack_pixels(even_word), unpack_pixels(odd_word)]
                assert got == expected[number - dut.LATENCY + 1], f"read {number}"
                checked += 1

    simulate(dut, reader)
    assert checked == 799


def test_a_write_is_seen_write_latency_cycles_later():
    dut = FeatureMemory(config=PRESETS["tiny"])
    write = {"addr": 3, "parity": 1, "offset": 6, "count": 4, "vector": 0,
             "data": [11, 22, 33, 44, 0, 0, 0, 0]}

    async def bench(ctx):
        ctx.set(raw(dut.write.payload), pack(FeatureWrite, write))
        ctx.set(dut.write.valid, 1)
        await ctx.tick()
        ctx.set(dut.write.valid, 0)
        await ctx.tick().repeat(dut.WRITE_LATENCY - 1)
        await read(ctx, dut, 3, 3, 6)
        await ctx.tick()
        ctx.set(dut.read.en, 0)
        await ctx.tick().repeat(dut.LATENCY - 1)
        assert unpack_pixels(ctx.get(raw(dut.read.odd)))[:4] == [11, 22, 33, 44]
        # The data stay until the next read.
        await ctx.tick().repeat(3)
        assert unpack_pixels(ctx.get(raw(dut.read.odd)))[:4] == [11, 22, 33, 44]
        assert ctx.get(raw(dut.read.even)) == 0

    simulate(dut, bench)


@pytest.mark.synth
def test_every_memory_is_one_block_ram(tmp_path):
    config = PRESETS["ecp5-85f"]
    cells = ecp5_cells(FeatureMemory(config=config), tmp_path)
    assert cells["DP16KD"] == 16
    assert "MULT18X18D" not in cells


def test_refuses_other_configs():
    with pytest.raises(TypeError, match=r"^config must be an AcceleratorConfig, not 'tiny'$"):
        FeatureMemory(config="tiny")
