"""Half-plane packing: a bijection with real tiles, a ring isomorphism, and Parseval."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import halfplane

EVEN = st.sampled_from([2, 4, 6, 8, 16])
SEEDS = st.integers(0, 2**32 - 1)


@given(EVEN, SEEDS)
def test_packing_is_a_bijection_from_real_tiles(tile, seed):
    x = np.random.default_rng(seed).standard_normal((2, 3, tile, tile))
    spectrum = np.fft.fft2(x)
    words = halfplane.pack(spectrum)
    assert words.shape == (2, 3, tile * tile // 2)
    np.testing.assert_allclose(halfplane.unpack(words), spectrum, atol=1e-12)


@given(EVEN, SEEDS)
def test_packing_is_a_bijection_onto_all_words(tile, seed):
    parts = np.random.default_rng(seed).standard_normal((2, tile * tile // 2))
    words = parts[0] + 1j * parts[1]
    spectrum = halfplane.unpack(words)
    np.testing.assert_array_equal(halfplane.pack(spectrum), words)
    assert abs(np.fft.ifft2(spectrum).imag).max() < 1e-12


def test_word_order_of_the_hardware():
    spectrum = np.fft.fft2(np.random.default_rng(1).standard_normal((8, 8)))
    words = halfplane.pack(spectrum)
    for v in range(1, 4):
        for u in range(8):
            assert words[8 * v + u] == spectrum[u, v]
    for u in range(1, 4):
        assert words[u] == spectrum[u, 0]
        assert words[4 + u] == spectrum[u, 4]
    assert words[0] == spectrum[0, 0].real + 1j * spectrum[4, 0].real
    assert words[4] == spectrum[0, 4].real + 1j * spectrum[4, 4].real
    assert np.flatnonzero(halfplane.is_real_word(8)).tolist() == [0, 4]
    assert halfplane.multiplicity(8).sum() == 62


@given(EVEN, SEEDS)
def test_product_is_circular_convolution(tile, seed):
    a, b = np.random.default_rng(seed).standard_normal((2, tile, tile))
    words = [halfplane.pack(np.fft.fft2(x)) for x in (a, b)]
    product = np.fft.ifft2(halfplane.unpack(halfplane.multiply(*words))).real
    expected = sum(
        b[i, j] * np.roll(a, (i, j), (0, 1)) for i in range(tile) for j in range(tile)
    )
    np.testing.assert_allclose(product, expected, atol=1e-9)


@given(EVEN, SEEDS)
def test_energy_is_that_of_the_tile(tile, seed):
    x = np.random.default_rng(seed).standard_normal((tile, tile))
    energy = halfplane.energy(halfplane.pack(np.fft.fft2(x)))
    assert energy.sum() == pytest.approx(tile**2 * (x**2).sum())
    assert (energy >= 0).all()


def test_integer_words_stay_exact():
    words = np.arange(32) + 1j * np.arange(32, 64)
    np.testing.assert_array_equal(halfplane.pack(halfplane.unpack(words)), words)


def test_from_spatial_flips():
    kernel = np.zeros((3, 3))
    kernel[0, 0] = 1.0
    tile = np.fft.ifft2(halfplane.unpack(halfplane.from_spatial(kernel, 8))).real
    assert np.unravel_index(tile.argmax(), tile.shape) == (2, 2)


@pytest.mark.parametrize("bad, error", [(7, ValueError), (0, ValueError), (8.0, TypeError)])
def test_bad_tile_is_refused(bad, error):
    with pytest.raises(error, match=str(bad)):
        halfplane.word_count(bad)


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(8, 6\)"):
        halfplane.pack(np.zeros((8, 6)))
    with pytest.raises(ValueError, match="31"):
        halfplane.unpack(np.zeros(31))
    with pytest.raises(ValueError, match=r"\(9, 9\)"):
        halfplane.from_spatial(np.zeros((9, 9)), 8)
