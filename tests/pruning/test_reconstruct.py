"""Frequency bins, tile sets and the solvers, against the definitions in `model` and brute force."""

import numpy as np
import pytest
import torch

from model import halfplane
from model.network import Conv
from model.patterns import parse, project
from pruning.bins import Bins
from pruning.reconstruct import admm, least_squares, normal_equations, project_bins
from pruning.samples import collect, decibels, signal_to_noise, some_places

LAYER = Conv("conv", 5, 6, 3, padding=1)
SHAPE = (5, 17, 14)


@pytest.fixture
def problem():
    rng = np.random.default_rng(3)
    tiling = LAYER.tiling(SHAPE, 8)
    bins = Bins(tiling)
    raw = rng.normal(size=(6, 5, 3, 3))
    words = halfplane.from_spatial(raw, 8)
    kernel = bins.weights(torch.tensor(words, dtype=torch.complex64))
    maps = torch.tensor(rng.random((3, *SHAPE)), dtype=torch.float32)
    bias = torch.tensor(rng.normal(size=6), dtype=torch.float32)
    places = some_places(tiling, 3, 90, 0)
    return bins, raw, words, maps, bias, collect(
        LAYER, tiling, bins, maps, maps, kernel, bias, places), places


def random_words(rng, *shape):
    return torch.tensor(rng.normal(size=shape) + 1j * rng.normal(size=shape),
                        dtype=torch.complex64)


def test_words_and_bins_are_a_bijection_that_multiplies():
    bins = Bins(LAYER.tiling(SHAPE, 8))
    words = random_words(np.random.default_rng(0), 4, 3, 32)
    torch.testing.assert_close(bins.words(bins.weights(words)), words)
    assert bins.count == 34 and int(bins.real.sum()) == 4
    a, b = (random_words(np.random.default_rng(seed), 1, 1, 32) for seed in (1, 2))
    product = bins.words(bins.weights(a) * bins.weights(b))
    np.testing.assert_allclose(
        product.numpy(), halfplane.multiply(a.numpy(), b.numpy()), rtol=1e-5, atol=1e-5
    )


def test_share_is_parseval():
    bins = Bins(LAYER.tiling(SHAPE, 8))
    patch = torch.tensor(np.random.default_rng(1).normal(size=(1, 1, 8, 8)), dtype=torch.float32)
    energy = (bins.spectra(patch).abs().square()[:, 0, 0] * bins.share).sum()
    torch.testing.assert_close(energy, patch.square().sum())


def test_targets_are_the_dense_convolution(problem):
    bins, raw, _, maps, bias, tiles, places = problem
    dense = torch.nn.functional.conv2d(
        maps, torch.tensor(raw, dtype=torch.float32), bias, padding=1
    )
    cells = iter(range(tiles.target.shape[1]))
    checked = 0
    for image, origins in enumerate(places.origins):
        for y, x in origins + 1:
            cell = next(cells)
            for pixel in range(36):
                row, col = y + pixel // 6, x + pixel % 6
                inside = 0 <= row < SHAPE[1] and 0 <= col < SHAPE[2]
                assert bool(tiles.kept[pixel, cell, 0]) == inside
                if inside:
                    torch.testing.assert_close(tiles.target[pixel, cell],
                                               dense[image, :, row, col], rtol=1e-4, atol=1e-4)
                    checked += 1
    assert checked > 1500


def test_real_tiles_come_before_shifted_ones():
    tiling = LAYER.tiling(SHAPE, 8)
    real = {tuple(origin) for origin in tiling.origins}
    few, many = (some_places(tiling, 2, count, 1).origins[1] for count in (10, 200))
    assert len(few) == 5 and {tuple(o) for o in few} <= real
    assert len(many) == 100 and {tuple(o) for o in many[:len(real)]} == real
    assert len({tuple(o) for o in many}) == 100


@pytest.mark.parametrize("text", ["channel 1:4", "kernel 4"])
def test_bin_projection_is_the_models(text):
    bins = Bins(LAYER.tiling(SHAPE, 8))
    words = random_words(np.random.default_rng(4), 6, 5, 32)
    expected = project(halfplane.energy(words.numpy()), parse(text))
    mask = project_bins(bins, bins.weights(words), parse(text))
    np.testing.assert_array_equal(bins.words(mask.to(torch.complex64)).real.numpy() > 0, expected)


def test_least_squares_on_a_support_is_exact(problem):
    bins, _, words, _, _, tiles, _ = problem
    kernel = bins.weights(torch.tensor(words, dtype=torch.complex64))
    normal = normal_equations(tiles.spectra, tiles.dense, kernel, 1e-3)
    mask = torch.from_numpy(np.random.default_rng(5).random(kernel.shape) < 0.5)
    found = least_squares(normal, mask, kernel * normal.scale, 30)
    for index, output in ((0, 0), (7, 3), (33, 5)):
        rows = mask[index, :, output]
        gram = normal.gram[index][rows][:, rows]
        exact = torch.linalg.solve(gram, normal.right[index][rows, output])
        torch.testing.assert_close(found[index, rows, output], exact, rtol=1e-3, atol=1e-4)
        assert not found[index, ~rows, output].any()


@pytest.mark.parametrize("text", ["channel 1:4", "kernel 4"])
def test_admm_obeys_the_pattern_and_beats_one_shot(problem, text):
    bins, _, words, _, bias, tiles, _ = problem
    pattern = parse(text)
    kernel = bins.weights(torch.tensor(words, dtype=torch.complex64))
    normal = normal_equations(tiles.spectra, tiles.dense, kernel, 1e-2)
    mask, z, residual = admm(bins, normal, pattern, kernel * normal.scale, 24)
    assert residual < 0.05
    solved = least_squares(normal, mask, z, 20) / normal.scale
    result = bins.words(solved).numpy()
    energy = halfplane.energy(result)
    np.testing.assert_array_equal(energy > 0, project(energy, pattern))

    def snr(weights):
        return signal_to_noise(bins, tiles, weights, bias, True)

    one_shot = bins.spread(torch.from_numpy(project(halfplane.energy(words), pattern)))
    magnitude = least_squares(normal, one_shot, kernel * normal.scale, 20) / normal.scale
    assert snr(solved) > snr(magnitude) > snr(kernel * one_shot)
    assert snr(kernel) == 200


def test_decibels():
    signal = torch.tensor([3.0, 4.0])
    assert decibels(signal, signal * 1.1) == pytest.approx(20, abs=1e-4)
    assert decibels(signal, signal) == pytest.approx(200)
