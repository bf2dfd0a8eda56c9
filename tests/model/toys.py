"""Random quantised networks that obey their patterns, for tests without training."""

import numpy as np

from model.halfplane import from_spatial
from model.network import Conv, Linear, Network, QuantisedLayer, QuantisedNetwork
from model.patterns import linear_energy, linear_mask, parse, project


def toy_layer(layer, pattern, rng, weight_bits=8, tile=8, out_scale=1.0):
    limit = (1 << (weight_bits - 1)) - 1
    if isinstance(layer, Conv):
        shape = (layer.out_channels, layer.channels, layer.taps, layer.taps)
        words = from_spatial(rng.normal(size=shape), tile)
        mask = project(np.abs(words) ** 2, parse(pattern))
        raw = np.stack([words.real, words.imag], axis=-1) * mask[..., None]
    else:
        raw = rng.normal(size=(layer.out_features, layer.in_features))
        raw = raw * linear_mask(project(linear_energy(raw), parse(pattern)), layer.in_features)
    scale = np.abs(raw).reshape(len(raw), -1).max(axis=1) / limit
    scale = np.where(scale > 0, scale, 1.0)
    expanded = scale.reshape((-1,) + (1,) * (raw.ndim - 1))
    return QuantisedLayer(
        weight=np.rint(raw / expanded).astype(np.int64), weight_scale=scale,
        bias=rng.normal(size=len(raw)) * out_scale * 10, out_scale=out_scale, pattern=pattern,
    )


def toy_network(layers, patterns, input_shape, seed=0, weight_bits=8, name="toy"):
    """Random weights; output scales set so that outputs spread over their range."""
    rng = np.random.default_rng(seed)
    network = Network(name, input_shape, tuple(layers))
    network.shapes()
    data, in_scale = [], 1.0
    for index, (layer, pattern) in enumerate(zip(layers, patterns, strict=True)):
        wide = index == len(layers) - 1 and isinstance(layer, Linear)
        fan = layer.channels * layer.taps**2 if isinstance(layer, Conv) else layer.in_features
        spread = in_scale * 100 * np.sqrt(fan * parse(pattern).density)
        out_scale = float(spread / (8000 if wide else 90))
        data.append(toy_layer(layer, pattern, rng, weight_bits, out_scale=out_scale))
        in_scale = out_scale
    return QuantisedNetwork(network, tuple(data), weight_bits, 1.0)


def toy_lenet(seed=0, pattern="channel 1:4", weight_bits=8):
    """LeNet-5's shape at random weights."""
    return toy_network(
        [Conv("conv1", 1, 6, 5, pool=2), Conv("conv2", 6, 16, 5, pool=2),
         Linear("fc1", 256, 40), Linear("fc2", 40, 10, relu=False)],
        [pattern, pattern, "channel 1:16", "channel 1:4"], (1, 28, 28), seed, weight_bits,
    )


def toy_image(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size=shape)
