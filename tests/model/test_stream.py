import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import PRESETS
from model.stream import pack_layer, unpack_layer


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(PRESETS)), st.sampled_from([0, 1, 2, 4, 8]),
       st.lists(st.integers(1, 40), min_size=1, max_size=3), st.data())
def test_round_trip(name, select_bits, counts, data):
    config = PRESETS[name]
    lanes = config.kernel_lanes
    lanes_last = data.draw(st.integers(1, lanes))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    limit = 1 << (config.weight_bits - 1)
    blocks = []
    for index, count in enumerate(counts):
        weights = rng.integers(-limit, limit, (count, lanes, 2))
        if index == len(counts) - 1:
            weights[:, lanes_last:] = 0
        blocks.append({
            "params": np.stack([rng.integers(-(1 << 17), 1 << 17, lanes),
                                rng.integers(0, 1 << 14, lanes)], axis=1),
            "weights": weights, "selects": rng.integers(0, 1 << select_bits, (count, lanes)),
        })
    stream = pack_layer(config, blocks, select_bits, lanes_last)
    for ours, theirs in zip(
        blocks, unpack_layer(config, stream, len(blocks), select_bits, lanes_last), strict=True
    ):
        for key in ours:
            np.testing.assert_array_equal(ours[key], theirs[key])


def block(config, weight=0, select=0):
    lanes = config.kernel_lanes
    return {"params": np.zeros((lanes, 2), int), "weights": np.full((1, lanes, 2), weight),
            "selects": np.full((1, lanes), select)}


def test_size_of_a_dense_layer_and_of_a_partial_last_block():
    config = PRESETS["ecp5-85f"]
    # header, 4 parameter beats, select beat, 2 weight beats; the last with one weight beat.
    assert len(pack_layer(config, [block(config), block(config)], 2, 3)) == 8 + 7


def test_out_of_range_values_are_refused():
    config = PRESETS["ecp5-85f"]
    with pytest.raises(ValueError, match="weight spans 200..200, outside the 8-bit range"):
        pack_layer(config, [block(config, weight=200)], 2, 8)
    with pytest.raises(ValueError, match="select spans 4..4"):
        pack_layer(config, [block(config, select=4)], 2, 8)
    with pytest.raises(ValueError, match="select_bits must be one of"):
        pack_layer(config, [block(config)], 3, 8)
