import dataclasses

import numpy as np
import pytest

from model.config import PRESETS
from model.entries import addressing, blocks
from model.errors import UserError
from model.lower import lower
from model.network import Conv, Linear
from tests.model.toys import toy_network

CONFIG = PRESETS["ecp5-85f"]


def lowered(layer, pattern):
    shape = (layer.in_channels, 12, 12)
    return lower(toy_network([layer], [pattern], shape)).layers[0]


def walk(layer, config, how):
    """Play the issue unit's walk (docs/program-image.md) and rebuild the weights."""
    words = layer.weight if not layer.dot else layer.weight.reshape(len(layer.weight), -1, 1, 2)
    channels, frequencies = words.shape[1], words.shape[2]
    rebuilt = np.zeros_like(words)
    lanes = 1 << how.spread                             # tile lanes a step reads a row of each
    rows = -(-channels // (config.banks * lanes))
    for index, block in enumerate(blocks(layer, config, how)):
        entry, steps = 0, 0
        for f in range(frequencies):
            if how.scatter:
                last = False
                while not last:
                    select = block.selects[entry]
                    rows_of_bank = {}
                    for lane in range(config.kernel_lanes):
                        s = int(select[lane]) & 0x7F
                        assert rows_of_bank.setdefault(s & 7, s >> 3) == s >> 3
                        store(rebuilt, index, lane, (s >> 3) * 8 + (s & 7), f, block, entry)
                    last = bool(select[0] & 0x80)
                    entry, steps = entry + 1, steps + 1
                continue
            groups = -(-rows // how.hold)
            for group in range(groups):
                for j in range(how.entries_last if group == groups - 1 else how.entries):
                    for a in range(min(how.hold, rows - group * how.hold)):
                        steps += 1
                        for lane in range(config.kernel_lanes):
                            s = int(block.selects[entry][lane])
                            turn = s >> 3 + how.spread
                            if how.hold == 1 or turn == a:
                                row = (group * how.hold + a) * lanes + (s >> 3) % lanes
                                inside = ((j << how.sub_log2) & 7) + (s & 7)
                                store(rebuilt, index, lane, row * 8 + inside, f, block, entry)
                    entry += 1
        assert entry == len(block.weights) and steps == block.steps
    return words, rebuilt


def store(rebuilt, index, lane, channel, f, block, entry):
    weight = block.weights[entry][lane]
    kernel = index * CONFIG.kernel_lanes + lane
    if weight.any():
        assert not rebuilt[kernel, channel, f].any(), "a weight is multiplied twice"
        rebuilt[kernel, channel, f] = weight


@pytest.mark.parametrize("pattern", [
    "channel 1:1", "channel 1:2", "channel 1:4", "channel 1:8", "channel 2:8", "channel 4:8",
    "channel 1:16", "channel 2:16", "channel 1:32", "channel 1:64", "kernel 2", "kernel 4",
    "kernel 8", "kernel 16", "channel 3:5",
])
@pytest.mark.parametrize("channels", [1, 3, 8, 20, 50])
def test_conv_walk_multiplies_every_weight_once(pattern, channels):
    layer = lowered(Conv("conv", channels, 10, 3), pattern)
    words, rebuilt = walk(layer, CONFIG, addressing(layer, CONFIG))
    np.testing.assert_array_equal(rebuilt, words)


@pytest.mark.parametrize("pattern", ["channel 1:4", "channel 1:8", "channel 1:16", "channel 1:32"])
@pytest.mark.parametrize("length", [16, 84, 120, 400])
def test_dot_walk_multiplies_every_weight_once(pattern, length):
    network = toy_network(
        [Conv("conv", 1, length, 1), Linear("fc", length, 21)], ["channel 1:1", pattern], (1, 1, 1)
    )
    layer = lower(network).layers[1]
    words, rebuilt = walk(layer, CONFIG, addressing(layer, CONFIG))
    np.testing.assert_array_equal(rebuilt, words)


@pytest.mark.parametrize("pattern, dot_lanes, spread, hold, bits", [
    ("channel 1:4", 4, 0, 1, 2), ("channel 1:8", 4, 0, 1, 4), ("channel 1:16", 4, 1, 1, 4),
    ("channel 2:32", 4, 2, 1, 5), ("channel 1:64", 4, 2, 2, 8), ("channel 1:64", 2, 1, 4, 8),
    ("channel 1:256", 8, 3, 4, 8),
])
@pytest.mark.parametrize("length", [16, 120, 400, 1030])
def test_dot_walk_over_several_tile_lanes(pattern, dot_lanes, spread, hold, bits, length):
    config = dataclasses.replace(
        PRESETS["tiny-wide"], tile_lanes=8, dot_lanes=dot_lanes, name="spread"
    )
    network = toy_network(
        [Conv("conv", 1, length, 1), Linear("fc", length, 21)], ["channel 1:1", pattern], (1, 1, 1)
    )
    layer = lower(network).layers[1]
    how = addressing(layer, config)
    assert (how.spread, how.hold, how.select_bits) == (spread, hold, bits)
    words, rebuilt = walk(layer, config, how)
    np.testing.assert_array_equal(rebuilt, words)


def test_violated_pattern_is_refused():
    layer = lowered(Conv("conv", 8, 8, 3), "channel 1:4")
    layer.weight[3, :, 5] = 7
    with pytest.raises(UserError, match="layer conv: 4 weights in a group of 4 channels at freq"):
        blocks(layer, CONFIG, addressing(layer, CONFIG))


@pytest.mark.parametrize("pattern", ["kernel 4", "kernel 8", "balanced 4", "channel 3:5"])
@pytest.mark.parametrize("channels, kernels", [(1, 8), (3, 11), (20, 16), (150, 8)])
def test_entries_for_a_window_multiply_every_weight_once(pattern, channels, kernels):
    """Play the bank addresses and selects; a frequency is used only once it has left the drain."""
    config = dataclasses.replace(PRESETS["tiny-window"], inverse_rows=1)
    layer = lowered(Conv("conv", channels, kernels, 3), pattern)
    how = addressing(layer, config)
    assert how.scatter and how.select_bits == 3
    rebuilt = np.zeros_like(layer.weight)
    for index, block in enumerate(blocks(layer, config, how)):
        assert block.steps == len(block.weights) > 0
        for step in range(block.steps):
            for lane in np.flatnonzero(block.weights[step].any(axis=-1)).tolist():
                bank = int(block.selects[step][lane])
                group, f = divmod(int(block.addresses[step][bank]), 32)
                assert step >= f * config.drain_interval
                spot = (index * config.kernel_lanes + lane, group * 8 + (bank - f) % 8, f)
                assert not rebuilt[spot].any(), "a weight is multiplied twice"
                rebuilt[spot] = block.weights[step][lane]
            assert (block.addresses[step] % 32 * config.drain_interval <= step).all()
    np.testing.assert_array_equal(rebuilt, layer.weight)


def test_a_block_without_weights_has_an_entry_per_frequency():
    layer = lowered(Conv("conv", 4, 8, 3), "kernel 4")
    layer.weight[:] = 0
    config = PRESETS["tiny-window"]
    block, = blocks(layer, config, addressing(layer, config))
    assert len(block.weights) == len(block.selects) == len(block.addresses) == block.steps
    assert block.steps == config.words


def test_too_many_channels_for_scatter():
    layer = lowered(Conv("conv", 200, 8, 3), "kernel 4")
    with pytest.raises(UserError, match="layer conv: pattern kernel 4 over 200 words"):
        addressing(layer, CONFIG)
    wide = lowered(Conv("conv", 1030, 8, 1), "kernel 4")
    with pytest.raises(UserError, match="layer conv: pattern kernel 4 over 1030 words"):
        addressing(wide, PRESETS["tiny-window"])
