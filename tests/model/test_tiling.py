"""Tiling: geometry, inverse operations, and equality with an ordinary convolution."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import halfplane
from model.tiling import Tiling


@st.composite
def tilings(draw):
    tile = draw(st.sampled_from([4, 8, 16]))
    kernel = draw(st.integers(1, min(7, tile)))
    padding = draw(st.integers(0, kernel - 1))
    low = max(1, kernel - 2 * padding)
    height, width = (draw(st.integers(low, low + 20)) for _ in range(2))
    return Tiling(height, width, kernel, padding, tile)


def correlate(x, kernel, padding):
    """What a CNN layer computes for one input and one output channel."""
    padded = np.pad(x, padding)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape)
    return np.einsum("yxij,ij->yx", windows, kernel)


def test_lenet_layers():
    first, second = Tiling(28, 28, 5), Tiling(12, 12, 5)
    assert (first.step, first.out_height, first.tiles_y, first.tiles) == (4, 24, 6, 36)
    assert (second.out_width, second.tiles_x, second.tiles) == (8, 2, 4)


def test_vgg_layer_needs_a_cropped_tile():
    plan = Tiling(14, 14, 3, 1)
    assert (plan.step, plan.out_height, plan.tiles_y) == (6, 14, 3)
    assert plan.origins[:4].tolist() == [[-1, -1], [-1, 5], [-1, 11], [5, -1]]


@given(tilings())
def test_patches_lie_at_the_origins(plan):
    x = np.arange(1, plan.height * plan.width + 1).reshape(plan.height, plan.width)
    patches = plan.extract(x)
    assert patches.shape == (plan.tiles, plan.tile, plan.tile)
    assert patches.dtype == x.dtype
    for (row, col), patch in zip(plan.origins, patches, strict=True):
        for i in range(plan.tile):
            for j in range(plan.tile):
                inside = 0 <= row + i < plan.height and 0 <= col + j < plan.width
                assert patch[i, j] == (x[row + i, col + j] if inside else 0)


@given(tilings())
def test_every_output_comes_from_its_own_tile(plan):
    t = plan.step
    rows = np.arange(plan.tiles_y * t)[:, None] * 1000 + np.arange(plan.tiles_x * t)
    tiles = np.stack([
        rows[y * t : y * t + t, x * t : x * t + t]
        for y in range(plan.tiles_y) for x in range(plan.tiles_x)
    ])
    out = plan.assemble(tiles)
    np.testing.assert_array_equal(out, rows[: plan.out_height, : plan.out_width])
    assert (plan.tiles_y - 1) * t < plan.out_height <= plan.tiles_y * t
    assert (plan.tiles_x - 1) * t < plan.out_width <= plan.tiles_x * t


@settings(max_examples=40)
@given(tilings(), st.integers(0, 2**32 - 1))
def test_spectral_convolution_is_the_spatial_one(plan, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3, plan.height, plan.width))
    kernel = rng.standard_normal((3, plan.kernel, plan.kernel))
    spectra = halfplane.pack(np.fft.fft2(plan.extract(x)))
    weights = halfplane.from_spatial(kernel, plan.tile)[:, None]
    sums = halfplane.multiply(spectra, weights).sum(axis=0)
    y = plan.assemble(plan.valid(np.fft.ifft2(halfplane.unpack(sums)).real))
    expected = sum(correlate(*pair, plan.padding) for pair in zip(x, kernel, strict=True))
    np.testing.assert_allclose(y, expected, atol=1e-10)


@pytest.mark.parametrize("change, message", [
    ({"tile": 7}, "tile must be even.*7"),
    ({"kernel": 9}, "kernel must be 1..8.*9"),
    ({"kernel": 0}, "kernel must be 1..8.*0"),
    ({"padding": -1}, "padding must not be negative.*-1"),
    ({"height": 2}, "does not fit a 2x12 map"),
])
def test_impossible_geometry_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Tiling(**({"height": 12, "width": 12, "kernel": 5} | change))


def test_wrong_types_and_shapes_are_refused():
    plan = Tiling(12, 12, 5)
    with pytest.raises(TypeError, match="height must be an integer, not 12.0"):
        Tiling(12.0, 12, 5)
    with pytest.raises(TypeError, match="True"):
        Tiling(True, 12, 5)
    with pytest.raises(ValueError, match=r"12x12 map.*\(12, 11\)"):
        plan.extract(np.zeros((12, 11)))
    with pytest.raises(ValueError, match=r"\(4, 5, 4\)"):
        plan.assemble(np.zeros((4, 5, 4)))
    with pytest.raises(ValueError, match=r"\(4, 4\)"):
        plan.valid(np.zeros((4, 4)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.tile = 16
