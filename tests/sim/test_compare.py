"""The comparison against events written out loop by loop as the contract orders them."""

import dataclasses

import numpy as np
import pytest

from model import golden
from model.compile import compile_network
from model.config import PRESETS
from model.network import Conv
from rtl.signatures import Column, FeatureWrite, SumWrite
from sim.compare import _sum_stage, compare_run
from sim.events import Events, pack_payloads, probe_layouts
from tests.model.toys import toy_image, toy_network
from tests.rtl.helpers import pack
from tests.sim.toys import digit_toy, two_layers

CONFIG = PRESETS["tiny"]


def hardware(config, program, traces):
    """What the probes of a right core show, as dictionaries."""
    tiles, sums, writes, base = [], [], [], 0
    for layer, trace in zip(program.layers, traces, strict=True):
        d = layer.descriptor
        lanes, width = config.tile_lanes, config.kernel_lanes
        if d["dot"]:
            for group in range(d["groups"]):
                words = [(0, 0)] * 8
                for i in range(8):
                    if group * 8 + i < len(trace.tiles):
                        words[i] = trace.tiles[group * 8 + i]
                tiles.append(column(words, 0, 0, 0, (base + group) % config.tile_depth, 1))
            base += d["groups"]
        else:
            for block in range(d["tile_blocks"]):
                for c, p in loading_order(d["channels"], lanes):
                    tile = block * lanes + p
                    for v in range(4):
                        words = [(0, 0)] * 8
                        if tile < d["tiles"]:
                            words = trace.tiles[tile, c, 8 * v:8 * v + 8]
                        addr = (base + (c >> 3) * 32) % config.tile_depth
                        tiles.append(column(words, v, p, c & 7, addr, 0))
                base += d["groups"] * 32
        order, left = [], list(range(d["tile_blocks"]))
        while left:
            group, left = left[:d["resident"]], left[d["resident"]:]
            order += [(k, t) for k in range(d["kernel_blocks"]) for t in group]
        for kernel_block, tile_block in order:
            for f in range(trace.sums.shape[2]):
                for quad in range(width // config.drained):
                    item = [[{"re": 77, "im": -77} for _ in range(config.drained)]
                            for _ in range(lanes)]
                    for p in range(lanes):
                        for k in range(config.drained):
                            tile = tile_block * lanes + p
                            n = kernel_block * width + quad * config.drained + k
                            if tile < d["tiles"] and n < d["kernels"]:
                                re, im = trace.sums[tile, n, f]
                                item[p][k] = {"re": re, "im": im}
                    sums.append({"sums": item, "frequency": f, "quad": quad})
            for k in range(width):
                n = kernel_block * width + k
                if n >= d["kernels"]:
                    continue
                for line in range(d["out_step"]):
                    for p in range(lanes):
                        tile = tile_block * lanes + p
                        y = tile // d["tiles_x"] * d["out_step"] + line
                        x = tile % d["tiles_x"] * d["out_step"]
                        writes.append(segment(d, trace.out, tile, n, y, x))
    return tiles, sums, writes


def loading_order(channels, lanes):
    """(channel, lane) of the tiles of a block."""
    for group in range(0, channels, 8):
        for half in range(lanes // 2), range(lanes // 2, lanes):
            for c in range(group, min(group + 8, channels)):
                for p in half:
                    yield c, p


def column(words, index, lane, low, addr, bypass):
    return {
        "words": [{"re": re, "im": im} for re, im in words], "index": index,
        "tag": {"lane": lane, "channel_low": low, "addr": addr, "bypass": bypass},
    }


def segment(d, out, tile, n, y, x):
    values = []
    if tile < d["tiles"] and y < d["out_height"]:
        values = out[n, y, x:x + d["out_step"]].tolist()
    raw = []
    for value in values:
        raw += [value & 0xFF, value >> 8 & 0xFF] if d["out_wide"] else [value & 0xFF]
    addr, parity, offset = 0, 0, 0
    if raw and d["out_vector"]:
        index = n * d["out_map"] + y * d["out_width"] + x
        index *= 1 + d["out_wide"]
        addr, parity, offset = d["out_base"] + index // 16, index // 8 % 2, index % 8
    elif raw:
        addr = d["out_base"] + n * d["out_plane"] + (y // 2 << d["out_row_log2"]) + x // 8
        parity, offset = y % 2, x % 8
    return {"addr": addr, "parity": parity, "offset": offset, "count": len(raw),
            "vector": d["out_vector"], "data": raw + [0xEE] * (8 - len(raw))}


def as_events(config, parts):
    events = {}
    shapes = (Column(config), SumWrite(config), FeatureWrite)
    banks = config.feature_banks
    for kind, shape, items in zip(("tile", "sum", "write"), shapes, parts, strict=True):
        for bank in range(1 if kind == "sum" else banks):
            mine = [(100 + when, pack(shape, item)) for when, item in enumerate(items)
                    if kind == "sum" or item.get("bank", 0) == bank]
            name = kind if kind == "sum" else f"{kind}{bank}"
            events[name] = Events(
                np.array([when for when, _ in mine], dtype=np.uint64),
                pack_payloads([value for _, value in mine], probe_layouts(config)[name].size),
            )
    return events


def compare(config, program, traces, parts):
    layers = [(layer.name, layer.descriptor) for layer in program.layers]
    return compare_run(config, layers, traces, as_events(config, parts), start=100)


@pytest.fixture(scope="module")
def toy():
    program = compile_network(two_layers(), CONFIG)
    return program, golden.run(program.network, toy_image((1, 12, 12)))


@pytest.mark.parametrize("name, resident", [("tiny", 2), ("tiny", 3), ("ecp5-85f", None)])
def test_right_events_are_exact(name, resident):
    config = PRESETS[name]
    program = compile_network(digit_toy(), config, resident=resident)
    traces = golden.run(program.network, toy_image((1, 28, 28)))
    result = compare(config, program, traces, hardware(config, program, traces))
    assert result.exact, str(result.difference)
    words = 0
    for trace in traces:
        words += trace.tiles.size // 2 + trace.sums.size // 2 + trace.out.size
    assert result.words == words + traces[-1].out.size      # 16-bit scores are two words each


def test_wrong_spectral_word(toy):
    program, traces = toy
    parts = hardware(CONFIG, program, traces)
    # Event 3*4+2: block 1, lane 1 (tile 3), column v = 2.
    index = next(i for i, item in enumerate(parts[0]) if i >= 8 and item["tag"]["lane"] == 1
                 and item["index"] == 2)
    parts[0][index]["words"][5]["im"] += 1
    result = compare(CONFIG, program, traces, parts)
    re, im = traces[0].tiles[3, 0, 21].tolist()
    where = result.difference.where
    assert (where["tile block"], where["tile"], where["lane"], where["channel"]) == (1, 3, 1, 0)
    assert (where["word f"], where["v"], where["u"]) == (21, 2, 5)
    assert result.difference.expected == (re, im) and result.difference.got == (re, im + 1)
    assert result.difference.cycle == index
    assert "layer conv1: first differing spectral word" in str(result.difference)
    assert "1 of" in result.difference.note


def test_wrong_sum(toy):
    program, traces = toy
    parts = hardware(CONFIG, program, traces)
    sums = parts[1]
    # First event of the second kernel block: frequency 0, kernels 4..7, of which 6 and 7 are idle.
    sums[2 * 32 + 9]["sums"][0][1]["re"] ^= 4
    result = compare(CONFIG, program, traces, parts)
    where = result.difference.where
    assert (where["kernel"], where["frequency"], where["tile"]) == (5, 9, 0)
    assert result.difference.stage == "sum"


def test_sums_of_eight_kernels_at_a_time():
    config = dataclasses.replace(PRESETS["tiny-wide2"], kernel_lanes=16)
    network = toy_network([Conv("conv1", 1, 20, 5)], ["channel 1:1"], (1, 12, 12), weight_bits=16)
    program = compile_network(network, config)
    (trace,) = golden.run(program.network, toy_image((1, 12, 12)))
    _, sums, _ = hardware(config, program, [trace])
    stage = _sum_stage(config, program.layers[0].descriptor, trace)
    assert len(stage.words) == len(sums) == 2 * 2 * 32 * 2      # blocks, frequencies, eights
    for event, item in enumerate(sums):
        for name in ("frequency", "quad"):
            assert stage.tags[name][event] == item[name]
        for lane, words in enumerate(item["sums"]):
            wanted = [(word["re"], word["im"]) for word in words]
            inside = [word != (77, -77) for word in wanted]
            np.testing.assert_array_equal(stage.active[event, lane], inside)
            np.testing.assert_array_equal(stage.words[event, lane][inside],
                                          np.array(wanted)[inside])


def test_wrong_pixel_and_wrong_address(toy):
    program, traces = toy
    parts = hardware(CONFIG, program, traces)
    spot = next(i for i, item in enumerate(parts[2]) if item["count"] and i > 20)
    parts[2][spot]["data"][1] ^= 0x80
    result = compare(CONFIG, program, traces, parts)
    assert result.difference.stage == "output"
    where = result.difference.where
    expected = int(traces[0].out[where["kernel"], where["y"], where["x"]])
    assert result.difference.expected == (expected,)
    assert result.difference.got == (expected ^ 0x80,)
    parts[2][spot - 1]["offset"] ^= 1
    result = compare(CONFIG, program, traces, parts)
    assert result.difference.where["field"] == "offset"


def test_earliest_stage_is_reported_not_its_consequences(toy):
    program, traces = toy
    parts = hardware(CONFIG, program, traces)
    parts[2][0]["data"][0] ^= 1
    parts[0][5]["words"][0]["re"] += 1
    assert compare(CONFIG, program, traces, parts).difference.stage == "spectral word"


def test_missing_and_surplus_events(toy):
    program, traces = toy
    parts = hardware(CONFIG, program, traces)
    short = (parts[0], parts[1][:40], parts[2][:3])
    result = compare(CONFIG, program, traces, short)
    assert "the others never came" in str(result.difference)
    assert result.difference.got == (40,)
    long = (parts[0] + parts[0][-1:], parts[1], parts[2])
    assert "more events than expected" in str(compare(CONFIG, program, traces, long).difference)
    empty = compare(CONFIG, program, traces, ([], [], []))
    assert empty.words == 0 and empty.difference.got == (0,)
