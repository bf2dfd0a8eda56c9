import dataclasses

import numpy as np
import pytest

from model import golden
from model.halfplane import unpack
from model.lower import calibrate, lower
from model.network import Conv, Linear
from tests.model.toys import toy_image, toy_lenet, toy_network


def float_layer(network, index, maps, in_scale):
    """The layer in floating point on the dequantised weights; (B, N, H, W) real values."""
    layer, data = network.network.layers[index], network.layers[index]
    x = maps * in_scale
    if isinstance(layer, Conv):
        tiling = layer.tiling(maps.shape[1:], network.tile)
        patches = tiling.extract(x).reshape(*x.shape[:2], -1, network.tile, network.tile)
        words = (data.weight[..., 0] + 1j * data.weight[..., 1])
        spectrum = unpack(words * data.weight_scale[:, None, None])
        product = np.einsum("bctuv,ncuv->bntuv", np.fft.fft2(patches), spectrum)
        crop = layer.kernel - 1
        y = tiling.assemble(np.fft.ifft2(product).real[..., crop:, crop:])
    else:
        y = (x.reshape(len(x), -1) @ (data.weight * data.weight_scale[:, None]).T)[..., None, None]
    y = y + data.bias[:, None, None]
    if layer.relu:
        y = np.maximum(y, 0)
    pool = getattr(layer, "pool", 1)
    return golden._pool(y, pool)


@pytest.mark.parametrize("pattern", ["channel 1:4", "kernel 4"])
def test_every_layer_is_within_one_output_lsb_of_float(pattern):
    images = np.stack([toy_image((1, 28, 28), seed) for seed in range(4)])
    network = calibrate(toy_lenet(pattern=pattern), images)
    lowered = lower(network)
    maps, scale = images, network.in_scale
    for index, layer in enumerate(lowered.layers):
        out = golden._layer(layer, maps, network.tile)[3]
        exact = float_layer(network, index, maps, scale) / network.layers[index].out_scale
        low, high = (0, 255) if not layer.out_signed else (-(1 << 15), (1 << 15) - 1)
        error = np.abs(out - np.clip(exact, low, high))
        # Half an LSB of rounding, the rest from the multiplier (2^-13) and the 18-bit sums.
        assert error.max() < (0.75 if not layer.out_wide else 6), (layer.name, error.max())
        maps, scale = out, network.layers[index].out_scale


def test_calibration_keeps_headroom_and_beats_the_worst_case():
    images = np.stack([toy_image((1, 28, 28), seed) for seed in range(4)])
    network = toy_lenet()
    tuned = calibrate(network, images)
    for index, (worst, layer) in enumerate(
        zip(lower(network).layers, lower(tuned).layers, strict=True)
    ):
        assert layer.sum_shift <= worst.sum_shift
        peak = golden.accumulator_peaks(lower(tuned), images, index)
        assert peak >> layer.sum_shift < 1 << 17


def test_batched_scores_equal_single_runs():
    network = lower(toy_lenet())
    images = np.stack([toy_image((1, 28, 28), seed) for seed in range(3)])
    single = [golden.run(network, image)[-1].out.reshape(-1) for image in images]
    np.testing.assert_array_equal(golden.scores(network, images, batch=2), np.stack(single))


def test_chunks_do_not_change_the_maps(monkeypatch):
    network = lower(toy_lenet())
    images = np.stack([toy_image((1, 28, 28), seed) for seed in range(5)])
    whole = golden.outputs(network, images)
    peak = golden.accumulator_peaks(network, images, 1)
    monkeypatch.setattr(golden, "CHUNK_WORDS", 1)
    np.testing.assert_array_equal(golden.outputs(network, images), whole)
    assert golden.accumulator_peaks(network, images, 1) == peak
    assert whole.shape == (5, 10, 1, 1)


def test_signed_inputs():
    layer = Conv("a", 3, 4, 3, padding=1)
    network = dataclasses.replace(toy_network([layer], ["channel 1:1"], (3, 9, 9)), in_signed=True)
    image = toy_image((3, 9, 9)) - 128
    assert lower(network).layers[0].in_signed
    out = golden.outputs(lower(calibrate(network, image[None])), image[None])
    exact = float_layer(network, 0, image[None], network.in_scale) / network.layers[0].out_scale
    assert np.abs(out - np.clip(exact, 0, 255)).max() < 0.75
    with pytest.raises(ValueError, match="pixels must be -128..127, not -128..200"):
        golden.outputs(lower(network), np.where(image == image.max(), 200, image)[None])


def test_padded_signed_and_unpooled_layers():
    network = toy_network(
        [Conv("a", 3, 4, 3, padding=1, relu=False), Conv("b", 4, 5, 3, padding=1, pool=2),
         Linear("c", 5 * 25, 7)], ["channel 1:1", "channel 1:2", "channel 1:8"], (3, 11, 11),
    )
    traces = golden.run(lower(network), toy_image((3, 11, 11)))
    assert traces[0].out.min() < 0 and traces[0].out.shape == (4, 11, 11)
    assert traces[1].out.shape == (5, 5, 5) and traces[1].out.min() >= 0


@pytest.mark.parametrize("bad, match", [
    (np.zeros((1, 1, 27, 28), int), "images must have shape"),
    (np.zeros((1, 1, 28, 28)), "images must be integers, not float64"),
    (np.full((1, 1, 28, 28), 300), "pixels must be"),
])
def test_bad_images(bad, match):
    with pytest.raises((ValueError, TypeError), match=match):
        golden.scores(lower(toy_lenet()), bad)
