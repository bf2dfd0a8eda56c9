"""The integer FFT pair against numpy.fft: accuracy, range, exactness."""

import numpy as np
import pytest

from model import fft, halfplane
from model.fixed import saturate

WORD_ONE = 2.0 ** (fft.SUM_BITS - 1)


def as_complex(words):
    return words[..., 0] + 1j * words[..., 1]


def exact_forward(tiles):
    return 2 * halfplane.pack(np.fft.fft2(tiles))


def exact_inverse(words):
    return 64 * np.fft.ifft2(halfplane.unpack(as_complex(words))).real


def sqnr(exact, got):
    return 10 * np.log10((np.abs(exact) ** 2).sum() / (np.abs(exact - got) ** 2).sum())


def forward_matrix():
    """Components of the words as linear forms of the pixels, [64, 64]."""
    words = exact_forward(np.eye(64).reshape(64, 8, 8))
    return np.stack([words.real, words.imag], axis=-1).reshape(64, 64).T


def inverse_matrix():
    """Pixels as linear forms of the components of the words, [64, 64]."""
    return exact_inverse(np.eye(64).reshape(64, 32, 2)).reshape(64, 64).T


@pytest.mark.parametrize("low,high,mean_too,floor", [
    (0, 255, True, 70.5), (0, 255, False, 62), (-128, 127, True, 62), (-256, 255, True, 68),
])
def test_forward_sqnr(low, high, mean_too, floor):
    tiles = np.random.default_rng(1).integers(low, high + 1, (4000, 8, 8))
    first = 0 if mean_too else 1
    words = as_complex(fft.forward(tiles))
    assert sqnr(exact_forward(tiles)[:, first:], words[:, first:]) > floor


def test_forward_error_and_bias():
    tiles = np.random.default_rng(2).integers(-256, 256, (10000, 8, 8))
    error = as_complex(fft.forward(tiles)) - exact_forward(tiles)
    assert max(abs(error.real).max(), abs(error.imag).max()) < 6
    assert abs(error.mean()) < 0.1


def test_inverse_sqnr():
    words = np.random.default_rng(3).integers(-20000, 20000, (4000, 32, 2))
    assert sqnr(exact_inverse(words), fft.inverse(words)) > 81


@pytest.mark.parametrize("low,high", [(0, 255), (-128, 127), (-256, 255)])
def test_round_trip_restores_the_pixels(low, high):
    rng = np.random.default_rng(4)
    tiles = rng.integers(low, high + 1, (10000, 8, 8))
    tiles[5000:] = np.where(tiles[5000:] > (low + high) // 2, high, low)
    back = fft.inverse(fft.forward(tiles)) / 128
    assert abs(back - tiles).max() < 0.35
    assert np.array_equal(np.rint(back), tiles)


def test_forward_is_exact_where_no_product_rounds():
    tiles = np.zeros((4, 8, 8), dtype=int)
    tiles[0, 0, 0], tiles[1] = 255, -256
    tiles[2, ::2, ::2] = 100
    tiles[3, 4, 4] = -7
    assert np.allclose(as_complex(fft.forward(tiles)), exact_forward(tiles), atol=1e-9)


def test_inverse_is_exact_for_the_mean():
    words = np.zeros((2, 32, 2), dtype=int)
    words[0, 0, 0], words[1, 0, 0] = 2**17 - 1, -(2**17)
    assert np.array_equal(fft.inverse(words), np.broadcast_to(words[:, :1, :1], (2, 8, 8)))


def test_forward_never_overflows():
    """Worst case over all tiles: L1 norm of every component's linear form, plus its rounding."""
    matrix = forward_matrix()
    positive, negative = np.maximum(matrix, 0).sum(1), np.maximum(-matrix, 0).sum(1)
    high, low = 255 * positive + 256 * negative, -256 * positive - 255 * negative
    exact = abs(matrix - np.rint(matrix)).max(axis=1) < 1e-9
    assert low.min() == -(2**15) and high.max() < 2**15  # the mean of -256 just fits
    assert high[~exact].max() < 0.8 * 2**15 > -low[~exact].min()  # room for the rounding


def test_forward_worst_tiles():
    matrix = forward_matrix()
    tiles = np.where(matrix > 1e-9, 255, np.where(matrix < -1e-9, -256, 0)).reshape(64, 8, 8)
    tiles = np.concatenate([tiles, ~tiles])
    words = fft.forward(tiles)
    assert words.min() == -(2**15) and words.max() < 2**15
    assert abs(as_complex(words) - exact_forward(tiles)).max() < 10


def test_inverse_worst_words():
    """25 bits hold every value before the saturation, and 24 do not."""
    matrix = inverse_matrix()
    bound = abs(matrix).sum(axis=1) * WORD_ONE
    assert bound.min() == pytest.approx(2**23)
    assert bound.max() == pytest.approx(1.2071 * 2**23, rel=1e-4)
    words = np.where(matrix > 1e-9, 2**17 - 1, np.where(matrix < -1e-9, -(2**17), 0))
    words = np.concatenate([words, ~words]).reshape(-1, 32, 2)
    tiles = fft.inverse(words)
    assert tiles.max() == 2**23 - 1 and tiles.min() == -(2**23)
    exact = exact_inverse(words)
    assert abs(tiles - np.clip(exact, -(2**23), 2**23 - 1)).max() < 1000


def test_inverse_of_full_scale_magnitude_does_not_saturate():
    """|word| <= 0.999 x 2**17 in every complex bin: all 64 bins in phase stay below 2**23."""
    y, x = np.divmod(np.arange(64), 8)
    tiles = np.zeros((64, 8, 8))
    tiles[np.arange(64), y, x] = 1
    words = 0.999 * WORD_ONE * halfplane.pack(np.fft.fft2(tiles))
    words = np.rint(np.stack([words.real, words.imag], axis=-1)).astype(int)
    values = fft.inverse(words)
    assert values.max() < 2**23 - 1
    assert abs(values - exact_inverse(words)).max() < 1000


def test_shapes_and_types():
    assert fft.forward(np.zeros((2, 3, 8, 8), dtype=np.uint8)).shape == (2, 3, 32, 2)
    assert fft.forward(np.zeros((8, 8), dtype=np.int8)).dtype == np.int64
    assert fft.inverse(np.zeros((2, 3, 32, 2), dtype=int)).shape == (2, 3, 8, 8)
    assert fft.inverse(np.zeros((0, 32, 2), dtype=int)).shape == (0, 8, 8)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"^expected \(\.\.\., 8, 8\), not shape \(8, 7\)$"):
        fft.forward(np.zeros((8, 7), dtype=int))
    with pytest.raises(ValueError, match=r"^pixel spans 0\.\.256, outside the 9-bit range"):
        fft.forward(np.eye(8, dtype=int) * 256)
    with pytest.raises(ValueError, match=r"^expected \(\.\.\., 32, 2\), not shape \(32, 3\)$"):
        fft.inverse(np.zeros((32, 3), dtype=int))
    with pytest.raises(ValueError, match=r"^word spans 0\.\.131072, outside the 18-bit range"):
        fft.inverse(np.eye(32, 2, dtype=int) * 2**17)


def test_sqrt_half_rounds_half_up():
    values = np.arange(-(2**14), 2**14)
    exact = values * (fft.SQRT_HALF / 2**fft.SQRT_HALF_SHIFT)
    assert np.array_equal(fft.sqrt_half(values), np.floor(exact + 0.5))
    assert abs(fft.SQRT_HALF / 2**fft.SQRT_HALF_SHIFT - 0.5**0.5) < 7.6e-5
    assert np.array_equal(saturate(values, 16), values)
