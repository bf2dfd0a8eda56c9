"""Codes of positions: exact inverse, exact size, refusal of bits that are no mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.maskcode import (
    Bitmap,
    Dense,
    Grouped,
    Relative,
    Rice,
    best,
    parse_code,
)
from model.patterns import ChannelPattern

CODES = [Dense(), Bitmap(), Relative(1), Relative(3), Relative(8), Rice(0), Rice(2), Rice(7),
         Grouped(1, 1), Grouped(1, 4), Grouped(2, 8), Grouped(3, 5)]


@st.composite
def masks(draw):
    shape = tuple(draw(st.integers(1, 9)) for _ in range(3))
    density = draw(st.sampled_from([0.0, 0.03, 0.25, 0.9, 1.0]))
    return np.random.default_rng(draw(st.integers(0, 999))).random(shape) < density


@settings(max_examples=150, deadline=None)
@given(masks(), st.sampled_from(CODES))
def test_decode_is_the_inverse_and_size_is_exact(mask, code):
    if isinstance(code, Grouped) and not code.fits(mask):
        pairs = np.argwhere(mask)
        mask = np.zeros_like(mask)              # one word a group at most
        mask[tuple(pairs[:1].T)] = True
    stored = code.cover(mask)
    assert (stored | mask == stored).all()
    bits = code.encode(stored)
    assert len(bits) == code.size(stored) == code.size(mask)
    np.testing.assert_array_equal(code.decode(bits, mask.shape), stored)


@settings(max_examples=50, deadline=None)
@given(masks())
def test_grouped_keeps_n_of_every_group(mask):
    outputs, channels, words = mask.shape
    code = Grouped(2, 4)
    first = np.zeros_like(mask)
    first[:, ::2] = mask[:, ::2]                # at most two of four
    stored = code.cover(first)
    for start in range(0, channels, 4):
        group = stored[:, start:start + 4]
        assert (group.sum(axis=1) == min(2, group.shape[1])).all()


@pytest.mark.parametrize("mask, expected", [
    (np.ones((3, 8, 4), bool), "dense"),
    (np.arange(64).reshape(2, 8, 4) % 2 == 0, "bitmap"),
    (np.arange(4096).reshape(1, 128, 32) % 256 == 255, "relative 8"),
])
def test_best_of_plain_masks(mask, expected):
    code = best(mask, 16)
    assert code.size(mask) + 16 * int(code.cover(mask).sum()) == min(
        other.size(mask) + 16 * int(other.cover(mask).sum())
        for other in [Dense(), Bitmap(), *(Relative(b) for b in range(1, 17)),
                      *(Rice(b) for b in range(17))]
    )
    assert code.size(mask) <= parse_code(expected).size(mask)


def test_a_channel_pattern_is_stored_as_selects():
    rng = np.random.default_rng(1)
    mask = np.zeros((8, 32, 32), bool)
    np.put_along_axis(mask.reshape(8, 8, 4, 32), rng.integers(0, 4, (8, 8, 1, 32)), True, axis=2)
    assert str(best(mask, 16, ChannelPattern(1, 4))) == "grouped 1:4"
    assert Grouped(1, 4).size(mask) == 2 * mask.sum()
    # Rice codes of the same gaps are near the entropy of free positions, which is higher.
    assert min(Rice(b).size(mask) for b in range(5)) > Grouped(1, 4).size(mask)


@pytest.mark.parametrize("code", CODES)
def test_names_are_read_back(code):
    assert parse_code(str(code)) == code


@pytest.mark.parametrize("text", ["", "relative", "relative 0", "rice 17", "rice x", "grouped 4",
                                  "grouped 5:4", "bitmap 3", "huffman"])
def test_unknown_names(text):
    with pytest.raises(ValueError, match="unknown code of positions"):
        parse_code(text)


@pytest.mark.parametrize("code, bits, message", [
    (Dense(), [1], "no positions"),
    (Bitmap(), [1] * 7, "7 bits for a layer of 8 words"),
    (Relative(3), [1] * 4, "no whole number of 3-bit codes"),
    (Relative(2), [1, 1], "end with a skip"),
    (Relative(3), [0, 1, 1, 0, 1, 1], "beyond the layer's 8"),
    (Rice(2), [0, 0, 0], "do not match"),
    (Rice(1), [0, 0, 0, 0, 1, 1], "beyond the layer's 8"),
    (Grouped(1, 2), [0] * 3, "do not belong"),
    (Grouped(1, 3), [1, 1, 0, 0, 0, 0, 0, 0], "place 3 in a group of 3"),
])
def test_bits_that_are_no_mask(code, bits, message):
    with pytest.raises(ValueError, match=message):
        code.decode(np.array(bits, dtype=np.uint8), (2, 2, 2))
