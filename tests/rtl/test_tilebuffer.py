# amaranth: UnusedElaboratable=no
"""Tile buffer against an array of banks: the skew, the ring, the moment a block is readable."""

import random
from dataclasses import replace

import pytest

from model.config import PRESETS
from rtl.signatures import Column
from rtl.tilebuffer import TileBuffer
from tests.rtl.helpers import collect_level, ecp5_cells, pack, raw, simulate

BANKS = 8


def columns(config, rng, count, bypass):
    """Random columns of tiles (or bypass rows), as dictionaries in order."""
    for number in range(count):
        tag = {
            "lane": 0 if bypass else rng.randrange(config.tile_lanes),
            "channel_low": 0 if bypass else rng.randrange(8),
            # No multiple of 32: blocks of dot layers leave the ring at any word.
            "addr": rng.randrange(config.tile_depth),
            "bypass": bypass, "block_last": number == count - 1,
        }
        for index in range(1 if bypass else 4):
            yield {"words": [rng.randrange(1 << 32) for _ in range(BANKS)],
                   "index": index, "tag": tag}


def apply(model, column):
    """Model of a column written to ``model[lane][bank][addr]``."""
    tag = column["tag"]
    for u, word in enumerate(column["words"]):
        bank = (tag["channel_low"] + u) % BANKS
        addr = tag["addr"] + (0 if tag["bypass"] else 8 * column["index"] + u)
        banks = model[tag["lane"]]
        banks[bank][addr % len(banks[bank])] = word


@pytest.mark.parametrize("bypass", [0, 1])
@pytest.mark.parametrize("name", ["tiny", "ecp5-85f"])
def test_words_lie_in_the_skewed_banks(name, bypass):
    config = PRESETS[name]
    dut = TileBuffer(config=config)
    rng = random.Random(f"{name}{bypass}")
    model = [[[0] * config.tile_depth for _ in range(BANKS)] for _ in range(config.tile_lanes)]
    items = list(columns(config, rng, 60, bypass))
    loaded = []

    async def bench(ctx):
        for item in items:
            while rng.random() < 0.2:
                ctx.set(dut.i[0].valid, 0)
                await ctx.tick()
            apply(model, item)
            ctx.set(raw(dut.i[0].payload), pack(Column(config), item))
            ctx.set(dut.i[0].valid, 1)
            await ctx.tick()
        ctx.set(dut.i[0].valid, 0)
        for _ in range(dut.write_latency - 1):
            await ctx.tick()
        # From the cycle of block_loaded on, the whole block is readable.
        assert ctx.get(dut.block_loaded) == 1
        expected = []
        for number in range(config.tile_depth + 1):
            # Each bank at its own address: the written ones all come by.
            addrs = [(number + 37 * bank) % config.tile_depth for bank in range(BANKS)]
            ctx.set(raw(dut.addr), pack(dut.addr.shape(), addrs))
            ctx.set(dut.en, 1)
            expected.append([
                [banks[bank][addr] for bank, addr in enumerate(addrs)] for banks in model
            ])
            await ctx.tick()
            if number >= dut.LATENCY - 1:
                word = ctx.get(raw(dut.data))
                got = [
                    [word >> (32 * (BANKS * lane + bank)) & 0xFFFFFFFF for bank in range(BANKS)]
                    for lane in range(config.tile_lanes)
                ]
                assert got == expected[number - dut.LATENCY + 1], f"read {number}"

    simulate(dut, bench, monitors=[collect_level(dut.block_loaded, loaded)])
    assert len(loaded) == 1


def test_block_loaded_only_after_the_last_column():
    config = PRESETS["tiny"]
    dut = TileBuffer(config=config)
    tag = {"lane": 1, "channel_low": 2, "addr": 32, "bypass": 0}
    loaded = []

    async def bench(ctx):
        for block in range(3):
            for index in range(8):
                item = {"words": [block] * 8, "index": index % 4,
                        "tag": tag | {"block_last": index >= 4}}
                ctx.set(raw(dut.i[0].payload), pack(Column(config), item))
                ctx.set(dut.i[0].valid, 1)
                await ctx.tick()
        ctx.set(dut.i[0].valid, 0)
        await ctx.tick().repeat(5)

    simulate(dut, bench, monitors=[collect_level(dut.block_loaded, loaded)])
    assert loaded == [8 * block + 7 + dut.write_latency for block in range(3)]


def test_reading_what_is_written_is_caught():
    config = PRESETS["tiny"]
    dut = TileBuffer(config=config)
    tag = {"lane": 0, "channel_low": 0, "addr": 5, "bypass": 1, "block_last": 0}

    async def bench(ctx):
        ctx.set(raw(dut.i[0].payload),
                pack(Column(config), {"words": [1] * 8, "index": 0, "tag": tag}))
        ctx.set(dut.i[0].valid, 1)
        await ctx.tick()
        ctx.set(dut.i[0].valid, 0)
        ctx.set(raw(dut.addr), pack(dut.addr.shape(), [5] * 8))
        ctx.set(dut.en, 1)
        await ctx.tick()
        await ctx.tick()

    with pytest.raises(AssertionError):
        simulate(dut, bench)


@pytest.mark.parametrize("banks", [8, 16])
def test_columns_of_several_feature_banks(banks):
    config = replace(PRESETS["tiny-wide"], kernel_lanes=16, feature_banks=banks, tile_lanes=5)
    dut = TileBuffer(config=config)
    rng = random.Random(banks)
    model = [[[0] * config.tile_depth for _ in range(BANKS)] for _ in range(config.tile_lanes)]
    loaded = []

    async def bench(ctx):
        for cycle in range(300):
            lanes = rng.sample(range(config.tile_lanes), rng.randint(0, config.tile_lanes))
            senders = rng.sample(range(banks), len(lanes))
            for port in dut.i:
                ctx.set(port.valid, 0)
            for number, (sender, lane) in enumerate(zip(senders, lanes, strict=True)):
                item = {
                    "words": [rng.randrange(1 << 32) for _ in range(BANKS)],
                    "index": rng.randrange(4), "tag": {
                        "lane": lane, "channel_low": sender % 8, "bypass": 0,
                        "addr": 32 * rng.randrange(config.tile_depth // 32),
                        "block_last": cycle == 299 and number == 0,
                    },
                }
                if item["tag"]["block_last"]:
                    item["index"] = 3
                apply(model, item)
                ctx.set(raw(dut.i[sender].payload), pack(Column(config), item))
                ctx.set(dut.i[sender].valid, 1)
            await ctx.tick()
        for port in dut.i:
            ctx.set(port.valid, 0)
        await ctx.tick().repeat(dut.write_latency - 1)
        assert ctx.get(dut.block_loaded) == bool(lanes)
        for addr in range(config.tile_depth):
            ctx.set(raw(dut.addr), pack(dut.addr.shape(), [addr] * BANKS))
            ctx.set(dut.en, 1)
            await ctx.tick()
            ctx.set(dut.en, 0)
            await ctx.tick().repeat(dut.LATENCY - 1)
            word = ctx.get(raw(dut.data))
            for lane in range(config.tile_lanes):
                got = [word >> (32 * (BANKS * lane + bank)) & 0xFFFFFFFF for bank in range(BANKS)]
                assert got == [bank[addr] for bank in model[lane]], (addr, lane)

    simulate(dut, bench, monitors=[collect_level(dut.block_loaded, loaded)])
    assert len(loaded) == 1


def test_rows_for_the_lanes_of_a_dot_layer():
    """Bypassed rows go to any address of any lane: rows in turn, or the images of a batch."""
    config = replace(PRESETS["tiny-wide"], tile_lanes=5, dot_lanes=4)
    dut, rng, model = TileBuffer(config=config), random.Random(4), {}

    async def write(ctx, lane, addr):
        words = [rng.randrange(1 << 32) for _ in range(BANKS)]
        model[lane, addr] = words
        tag = {"lane": lane, "channel_low": 0, "addr": addr, "bypass": 1, "block_last": 0}
        ctx.set(raw(dut.i[0].payload), pack(
            Column(config), {"words": words, "index": 0, "tag": tag}))
        ctx.set(dut.i[0].valid, 1)
        await ctx.tick()
        ctx.set(dut.i[0].valid, 0)

    async def bench(ctx):
        for _ in range(200):
            await write(ctx, rng.randrange(config.tile_lanes), rng.randrange(config.tile_depth))
        await ctx.tick().repeat(dut.write_latency)
        for (lane, addr), words in model.items():
            ctx.set(raw(dut.addr), pack(dut.addr.shape(), [addr] * BANKS))
            ctx.set(dut.en, 1)
            await ctx.tick()
            ctx.set(dut.en, 0)
            await ctx.tick().repeat(dut.LATENCY - 1)
            read = ctx.get(raw(dut.data)) >> 32 * BANKS * lane
            assert [read >> 32 * bank & 0xFFFFFFFF for bank in range(BANKS)] == words

    simulate(dut, bench)


@pytest.mark.parametrize("wrong", [{"lane": 2}, {"channel_low": 2}])
def test_what_several_feature_banks_may_not_send_is_caught(wrong):
    dut = TileBuffer(config=PRESETS["tiny-wide"])

    async def bench(ctx):
        for sender, lane in ((1, 2), (4, 1)):
            tag = {"lane": lane, "channel_low": sender, "addr": 32, "bypass": 0, "block_last": 0}
            tag |= wrong if sender == 4 else {}
            ctx.set(raw(dut.i[sender].payload), pack(
                Column(PRESETS["tiny-wide"]), {"words": [0] * 8, "index": 0, "tag": tag}))
            ctx.set(dut.i[sender].valid, 1)
        await ctx.tick()
        await ctx.tick()
        await ctx.tick()

    with pytest.raises(AssertionError):
        simulate(dut, bench)


@pytest.mark.synth
def test_every_memory_is_one_block_ram(tmp_path):
    config = PRESETS["ecp5-85f"]
    cells = ecp5_cells(TileBuffer(config=config), tmp_path)
    assert cells["DP16KD"] == 8 * config.tile_lanes
    assert "MULT18X18D" not in cells


def test_refuses_other_configs():
    with pytest.raises(TypeError, match=r"^config must be an AcceleratorConfig, not None$"):
        TileBuffer(config=None)
