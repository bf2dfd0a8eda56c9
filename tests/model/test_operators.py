"""Strided, grouped and pooled layers: what they compute, what is refused, how they are written."""

import dataclasses
import json

import numpy as np
import pytest

from model import golden
from model.errors import UserError
from model.grouped import block_diagonal
from model.halfplane import from_spatial
from model.lower import calibrate, lower
from model.mapadd import add_maps
from model.mappool import average_scale, pool_maps
from model.network import NETWORKS, Conv, Network, Pool, QuantisedLayer, QuantisedNetwork
from model.polyphase import fold_kernel
from tests.model.toys import toy_image, toy_network


def correlate(maps, kernel, stride, edges, groups=1):
    """Torch's convolution, by its definition."""
    top, left, bottom, right = edges
    padded = np.pad(maps, ((0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[2:], axis=(1, 2))
    windows = windows[:, ::stride, ::stride]
    parts = zip(np.split(windows, groups), np.split(kernel, groups), strict=True)
    return np.concatenate([np.einsum("chwij,ncij->nhw", *part) for part in parts])


@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), [
    (11, 4, 2, (31, 34)), (7, 2, 3, (20, 17)), (3, 2, (0, 1, 1, 0), (12, 13)), (5, 3, 0, (17, 17)),
    (1, 2, 0, (9, 9)), (3, 4, 1, (14, 9)),
])
def test_phases_give_the_strided_convolution(kernel, stride, padding, size):
    rng = np.random.default_rng(kernel)
    layer = Conv("a", 3, 4, kernel, padding=padding, stride=stride)
    shape = (3, *size)
    maps, weight = rng.integers(0, 256, shape), rng.integers(-9, 9, (4, 3, kernel, kernel))
    expected = correlate(maps, weight, stride, layer.edges)
    folded = layer.polyphase(shape).fold(maps)
    result = correlate(folded, fold_kernel(weight, stride), 1, (0, 0, 0, 0))
    assert layer.out_shape(shape) == expected.shape
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("layer", [
    Conv("a", 2, 4, 11, padding=2, stride=4, relu=False),
    Conv("a", 4, 6, 3, padding=(2, 0, 1, 2), groups=2, relu=False),
    Conv("a", 4, 4, 5, padding=2, groups=4, relu=False),
], ids=["strided", "grouped", "depthwise"])
def test_the_golden_model_is_the_convolution(layer):
    """Dense kernels in space, 16-bit words: within 1 % of a convolution in floating point."""
    rng = np.random.default_rng(5)
    shape = (layer.in_channels, 27, 30)
    kernel = rng.normal(size=(layer.out_channels, layer.in_channels // layer.groups,
                              layer.kernel, layer.kernel))
    words = from_spatial(fold_kernel(kernel, layer.stride), 8)
    raw = np.stack([words.real, words.imag], axis=-1)
    scale = np.abs(raw).reshape(len(raw), -1).max(axis=1) / 32767
    image = rng.integers(0, 256, shape)
    expected = correlate(image, kernel, layer.stride, layer.edges, layer.groups)
    data = QuantisedLayer(
        np.rint(raw / scale[:, None, None, None]).astype(np.int64), scale, np.zeros(len(raw)),
        float(np.abs(expected).max() / 127), "channel 1:1",
    )
    network = QuantisedNetwork(Network("n", shape, (layer,)), (data,), 16, 1.0)
    result = golden.run(lower(network), image)[-1].out * data.out_scale
    assert result.shape == expected.shape
    assert np.abs(result - expected).max() < 0.01 * np.abs(expected).max()


def test_a_block_diagonal_layer_computes_the_same():
    grouped = toy_network([Conv("a", 4, 6, 3, padding=1, groups=2)], ["channel 1:2"], (4, 9, 10))
    (layer,) = lower(grouped).layers
    whole = toy_network([Conv("a", 4, 6, 3, padding=1)], ["channel 1:1"], (4, 9, 10))
    (other,) = lower(whole).layers
    image = toy_image((4, 9, 10))
    trace = golden.run(lower(grouped), image)[0]
    tiles, sums = trace.tiles, trace.sums
    wide = block_diagonal(layer.weight, 2)
    assert wide.shape == other.weight.shape
    exact = np.einsum("tcf,ncf->tnf", tiles[..., 0] + 1j * tiles[..., 1],
                      wide[..., 0] + 1j * wide[..., 1])
    complex_word = 9            # of no real frequency
    shifted = np.floor(exact.real[..., complex_word] / 2**layer.sum_shift + 0.5)
    np.testing.assert_array_equal(sums[..., complex_word, 0], np.clip(shifted, -2**17, 2**17 - 1))


@pytest.mark.parametrize("pool", [
    Pool("max", 3, 2), Pool("max", 3, 2, 1), Pool("max", 5, 3, 2), Pool("average", 3, 2, 1),
    Pool("average", 0), Pool("max", 1, 2),
])
def test_pooling_is_torchs(pool):
    maps = np.random.default_rng(1).integers(-128, 128, (2, 13, 13))
    size = pool.size or 13
    lowest = -1000 if pool.kind == "max" else 0
    padded = np.pad(maps, ((0, 0), (pool.padding,) * 2, (pool.padding,) * 2),
                    constant_values=lowest)
    result = pool_maps(pool, maps, signed=True)
    assert result.shape == pool.out_shape(maps.shape)
    for channel, y, x in np.ndindex(result.shape):
        top, left = y * pool.stride, x * pool.stride
        window = padded[channel, top:top + size, left:left + size]
        assert window.shape == (size, size)
        if pool.kind == "max":
            assert result[channel, y, x] == window.max()
        else:
            assert abs(result[channel, y, x] - window.mean()) < 0.54


@pytest.mark.parametrize("size", range(1, 16))
def test_averages_of_full_scale_are_exact(size):
    multiplier, shift = average_scale(size)
    assert multiplier < 1 << 12 and shift < 1 << 5
    assert abs(multiplier / 2**shift * size**2 - 1) < 1 / 4000
    for value in (-128, 0, 255):
        maps = np.full((1, size, size), value)
        assert pool_maps(Pool("average", 0), maps, signed=value < 0) == value


def test_sums_are_of_the_real_values():
    """Within one unit of the sum: half of the rounding of the written map, half of its own."""
    rng = np.random.default_rng(3)
    maps = rng.integers(-128, 128, 4000)
    for shift, signed, relu in ((3, False, True), (0, True, False), (5, True, True)):
        other = rng.integers(-128 if signed else 0, 128 if signed else 256, 4000)
        exact = 2 * maps + other * 2.0 ** (shift - 3)
        low, high = (0, 255) if relu else (-128, 127)
        assert np.abs(add_maps(maps, other, shift, relu) - np.clip(exact, low, high)).max() <= 0.5


def test_a_residual_network_in_the_golden_model():
    layers = (Conv("a", 2, 4, 3, padding=1), Conv("b", 4, 4, 3, padding=1, relu=False),
              Conv("c", 4, 4, 3, padding=1, add="a"), Conv("d", 4, 3, 3))
    shape = (2, 11, 12)
    plain = toy_network([dataclasses.replace(layer, add=None) for layer in layers],
                        ["channel 1:2"] * 4, shape, seed=4)
    scales = [data.out_scale for data in plain.layers]
    scales[2] = 2 * scales[0]
    network = QuantisedNetwork(Network("r", shape, layers), tuple(
        dataclasses.replace(data, out_scale=scale)
        for data, scale in zip(plain.layers, scales, strict=True)), 8, 1.0)
    image = toy_image(shape, 4)
    first, _, third, last = golden.run(lower(network), image)
    np.testing.assert_array_equal(third.out, add_maps(third.map, first.out, 2, True))
    assert third.map.min() < 0 and len(np.unique(third.out)) > 20
    images = np.stack([image, toy_image(shape, 5)])
    np.testing.assert_array_equal(golden.outputs(lower(network), images)[0], last.out)
    tuned = calibrate(network, images)
    assert all(data.sum_shift is not None for data in tuned.layers)
    assert Network.from_dict(json.loads(json.dumps(network.network.to_dict()))) == network.network


def test_networks_are_written_and_read():
    for network in NETWORKS.values():
        assert Network.from_dict(json.loads(json.dumps(network.to_dict()))) == network
        network.shapes()
    odd = Network("odd", (4, 9, 9), (Conv("a", 4, 4, 3, padding=(1, 0, 2, 1), groups=2,
                                          pooling=Pool("average", 2, 2)),))
    assert Network.from_dict(json.loads(json.dumps(odd.to_dict()))) == odd
    # A layer without them is written as before they existed.
    assert set(NETWORKS["lenet"].to_dict()["layers"][0]) == {
        "type", "name", "in_channels", "out_channels", "kernel", "padding", "relu", "pool"}
    assert NETWORKS["alexnet"].shapes()[-4] == (256, 6, 6)
    assert NETWORKS["alexnet-grouped"].shapes()[-4] == (256, 6, 6)


def test_response_normalisation_is_refused():
    layer = {"type": "LocalResponseNorm", "name": "norm1", "size": 5}
    with pytest.raises(UserError, match="layer 'norm1': local response normalisation divides"):
        Network.from_dict({"name": "n", "input_shape": [3, 9, 9], "layers": [layer]})


@pytest.mark.parametrize(("build", "message"), [
    (lambda: Pool("mean", 2), "pooling must be 'max' or 'average', not 'mean'"),
    (lambda: Pool("max", 16), "pooling size must be 0 to 15, not 16"),
    (lambda: Pool("max", 3, 0), "pooling stride must be 1 to 7, not 0"),
    (lambda: Pool("max", 3, 2, 2), "pooling padding must be 0 to 1, not 2"),
    (lambda: Conv("a", 3, 4, 3, groups=2), "2 groups do not divide 3 and 4 channels"),
    (lambda: Conv("a", 3, 4, 3, padding=(0, 0, 3, 0)), "padding must be 0 to kernel-1"),
    (lambda: Conv("a", 3, 4, 3, stride=0), "stride must be positive"),
    (lambda: Conv("a", 3, 4, 3, pool=2, add="b"), "what b gave is added to a map that is not"),
    (lambda: Network("n", (3, 9, 9), (Conv("a", 3, 4, 3, add="b"),)).shapes(),
     "adds the output of 'b', which is no convolution before it"),
    (lambda: Network("n", (3, 9, 9), (Conv("b", 3, 4, 3), Conv("a", 4, 4, 3, add="b"))).shapes(),
     r"its output is \(4, 5, 5\), that of the layer it adds is \(4, 7, 7\)"),
    (lambda: Conv("a", 1, 4, 3, pooling=Pool("max", 3)).out_shape((1, 4, 4)), "does not fit a map"),
    (lambda: Conv("a", 1, 4, 3, pooling=Pool("max", 0)).out_shape((1, 9, 8)), "of square maps"),
])
def test_impossible_layers_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
