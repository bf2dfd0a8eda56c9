from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import PRESETS
from model.descriptor import WINDOW_CODE
from model.stream import (
    chunk_entries,
    lane_beats,
    pack_layer,
    param_beats,
    select_beats,
    select_codes,
    unpack_layer,
)
from tests.model.wide import CONFIGS

TINY = PRESETS["tiny"]
#: Five bits of select, of which a number fills no word and, in the last, no beat either.
SPREAD = {
    f"spread-{port}": replace(PRESETS["tiny-wide"], dot_lanes=2, port_bits=port)
    for port in (64, 128, 256)
}
CONFIGS = CONFIGS | SPREAD


def random_blocks(rng, config, select_bits, sizes, lanes_last):
    half = 1 << (config.weight_bits - 1)
    blocks = [
        {
            "params": np.stack([rng.integers(-1 << 17, 1 << 17, config.kernel_lanes),
                                rng.integers(0, 1 << 14, config.kernel_lanes)], axis=1),
            "weights": rng.integers(-half, half, (size, config.kernel_lanes, 2)),
            "selects": rng.integers(0, 1 << select_bits, (size, config.kernel_lanes)),
        }
        for size in sizes
    ]
    blocks[-1]["params"][lanes_last:] = 0
    blocks[-1]["weights"][:, lanes_last:] = 0
    return blocks


def by_loops(config, blocks, select_bits, lanes_last):
    """The stream as the contract words it, bit by bit; a list of beats."""
    lanes, bits, port = config.kernel_lanes, config.weight_bits, config.port_bits
    per_chunk = port // (lanes * select_bits) if select_bits else None
    out = []
    for index, block in enumerate(blocks):
        present = lanes_last if index == len(blocks) - 1 else lanes
        row_beats = -(-present * 2 * bits // port)
        entries = range(len(block["weights"]))
        out.append(len(entries))
        words = [(int(bias) & 0x3FFFF) | int(multiplier) << 18
                 for bias, multiplier in block["params"]]
        params = sum(word << 32 * kernel for kernel, word in enumerate(words))
        out += [params >> at & (1 << port) - 1 for at in range(0, 32 * lanes, port)]
        for entry in entries:
            if per_chunk and entry % per_chunk == 0:
                out.append(sum(
                    int(block["selects"][other][lane])
                    << (other - entry) * lanes * select_bits + lane * select_bits
                    for other in entries[entry:entry + per_chunk] for lane in range(lanes)
                ))
            row = sum(
                (int(part) & (1 << bits) - 1) << (2 * lane + imag) * bits
                for lane in range(lanes) for imag, part in enumerate(block["weights"][entry][lane])
            )
            out += [row >> port * beat & (1 << port) - 1 for beat in range(row_beats)]
    return out


def beats_of(config, stream):
    """Words of a stream as beats."""
    return [int.from_bytes(beat.tobytes(), "little")
            for beat in stream.reshape(-1, config.port_words)]


@settings(deadline=None, max_examples=150, derandomize=True)
@given(
    name=st.sampled_from(sorted(CONFIGS)),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4), seed=st.integers(0, 1 << 30),
    data=st.data(),
)
def test_round_trip(name, sizes, seed, data):
    config = CONFIGS[name]
    lanes_last = data.draw(st.integers(1, config.kernel_lanes))
    select_bits = data.draw(st.sampled_from(
        [bits for code, bits in select_codes(config).items() if code != WINDOW_CODE]))
    rng = np.random.default_rng(seed)
    blocks = random_blocks(rng, config, select_bits, sizes, lanes_last)
    stream = pack_layer(config, blocks, select_bits, lanes_last=lanes_last)
    assert stream.dtype == np.uint64
    assert beats_of(config, stream) == by_loops(config, blocks, select_bits, lanes_last)
    assert len(stream) == config.port_words * sum(
        1 + param_beats(config) + select_beats(config, size, select_bits)
        + size * (lane_beats(config, lanes_last) if last else config.row_beats)
        for size, last in zip(sizes, [False] * (len(sizes) - 1) + [True], strict=True)
    )
    back = unpack_layer(config, stream, select_bits, len(blocks), lanes_last)
    for one, other in zip(blocks, back, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


@pytest.mark.parametrize("name, select_bits, entries", [
    ("tiny", 8, 2), ("tiny", 1, 16), ("ecp5-85f", 8, 1), ("ecp5-85f", 2, 4), ("ecp5-85f", 0, 0),
    ("u200", 2, 16), ("u200", 8, 4), ("tiny-wide", 1, 32), ("u200-window", 3, 7),
    ("tiny-window", 3, 2), ("tiny-window", 8, 4),
])
def test_chunks(name, select_bits, entries):
    assert chunk_entries(PRESETS[name], select_bits) == entries


def window_blocks(rng, config, sizes):
    blocks = random_blocks(rng, config, 3, sizes, config.kernel_lanes)
    return [block | {"addresses": rng.integers(0, 1 << 12, (size, 8))}
            for block, size in zip(blocks, sizes, strict=True)]


@pytest.mark.parametrize("name", ["tiny-window", "u200-window"])
def test_round_trip_for_a_window(name):
    """Banks of the lanes, addresses of the banks and the end mark, bit by bit."""
    config, rng = PRESETS[name], np.random.default_rng(5)
    lanes, sizes = config.kernel_lanes, [1, 7, 8, 30]
    blocks = window_blocks(rng, config, sizes)
    stream = pack_layer(config, blocks, 3, lanes_last=lanes)
    back = unpack_layer(config, stream, 3, len(blocks), lanes)
    for one, other in zip(blocks, back, strict=True):
        assert set(one) == set(other)
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])
    beats, width = beats_of(config, stream), 3 * lanes + 8 * 12 + 1
    at = 0
    for block, size in zip(blocks, sizes, strict=True):
        at += 1 + param_beats(config)
        for first in range(0, size, config.port_bits // width):
            count = min(config.port_bits // width, size - first)
            for index in range(count):
                entry = beats[at] >> index * width & (1 << width) - 1
                assert [entry >> 3 * lane & 7 for lane in range(lanes)] \
                    == block["selects"][first + index].tolist()
                assert [entry >> 3 * lanes + 12 * bank & 0xFFF for bank in range(8)] \
                    == block["addresses"][first + index].tolist()
                assert entry >> width - 1 == (first + index == size - 1)
            assert beats[at] >> count * width == 0
            at += 1 + count * config.row_beats
    assert at == len(beats)


def test_wrong_window_blocks_are_refused():
    config = PRESETS["tiny-window"]
    blocks = window_blocks(np.random.default_rng(6), config, [3])
    with pytest.raises(ValueError, match="address 4096 in block 0"):
        pack_layer(config, [blocks[0] | {"addresses": np.full((3, 8), 4096)}], 3, 8)
    stream = pack_layer(config, blocks, 3, 8)
    stream[4 * (1 + param_beats(config)) + 1] ^= np.uint64(1) << np.uint64(120 - 64)
    with pytest.raises(ValueError, match="not only the last is marked"):
        unpack_layer(config, stream, 3, 1, 8)


def blocks_with(**changes):
    block = random_blocks(np.random.default_rng(2), TINY, 2, [5], 4)[0]
    return [{**block, **changes}]


@pytest.mark.parametrize("changes, text", [
    ({"weights": np.zeros((0, 4, 2))}, "block 0 has 0 entries"),
    ({"weights": np.zeros((5, 8, 2))}, r"weights of block 0 must have shape \(5, 4, 2\)"),
    ({"selects": np.zeros((4, 4))}, "selects of block 0 must have shape"),
    ({"params": np.zeros((3, 2))}, "params of block 0 must have shape"),
    ({"weights": np.full((5, 4, 2), 128)}, r"weight 128 in block 0 lies outside -128\.\.127"),
    ({"selects": np.full((5, 4), 4)}, r"select 4 in block 0 lies outside 0\.\.3"),
    ({"params": np.full((4, 2), -1)}, "multiplier -1 in block 0"),
    ({"params": np.full((4, 2), 1 << 17)}, "bias 131072 in block 0"),
])
def test_pack_rejects(changes, text):
    with pytest.raises(ValueError, match=text):
        pack_layer(TINY, blocks_with(**changes), 2, 4)


def test_pack_rejects_arguments():
    with pytest.raises(ValueError, match="at least one kernel block"):
        pack_layer(TINY, [], 2, 4)
    with pytest.raises(ValueError, match="select_bits must be one of"):
        pack_layer(TINY, blocks_with(), 3, 4)
    with pytest.raises(ValueError, match="values beyond its 3 lanes"):
        pack_layer(TINY, blocks_with(), 2, lanes_last=3)
    with pytest.raises(ValueError, match="lanes must be 1 to 4, not 5"):
        lane_beats(TINY, 5)


def test_unpack_rejects_wrong_lengths():
    stream = pack_layer(TINY, blocks_with(), 2, lanes_last=4)
    with pytest.raises(ValueError, match="ends before"):
        unpack_layer(TINY, stream[:-1], 2, 1, 4)
    with pytest.raises(ValueError, match="should end after"):
        unpack_layer(TINY, np.append(stream, stream[:1]), 2, 1, 4)
