"""Small random networks for the simulation tests."""

import numpy as np

from model.lower import calibrate
from model.network import Conv, Linear, Network, QuantisedLayer, QuantisedNetwork
from model.patterns import linear_energy, linear_mask, parse, project

#: Two layers, seconds on Amaranth's simulator: 4 tiles in 2 blocks, pooled, then a dot layer.
TOY = Network("toy", (1, 12, 12), (
    Conv("conv1", 1, 6, 5, pool=2), Linear("fc1", 96, 10, relu=False),
))
#: Takes digits: every mode of the array, padding, maps wider than a row, restreamed kernels.
DIGIT_TOY = Network("digit-toy", (1, 28, 28), (
    Conv("conv1", 1, 10, 5, pool=2), Conv("conv2", 10, 5, 3, padding=1),
    Linear("fc1", 720, 10, relu=False),
))


def random_network(network: Network, pattern: str, seed: int = 7) -> QuantisedNetwork:
    """Random weights under a pattern, scales that use the range of the activations."""
    rng = np.random.default_rng(seed)
    layers = []
    for layer in network.layers:
        if isinstance(layer, Conv):
            weight = rng.integers(-127, 128, (layer.out_channels, layer.in_channels, 32, 2))
            keep = project((weight**2).sum(-1).astype(float), parse(pattern))
            weight[~keep] = 0
            fan = layer.in_channels * layer.kernel**2
        else:
            weight = rng.integers(-127, 128, (layer.out_features, layer.in_features))
            keep = project(linear_energy(weight), parse("channel 1:4"))
            weight = weight * linear_mask(keep, layer.in_features)
            fan = layer.in_features
        outputs = len(weight)
        layers.append(QuantisedLayer(
            weight=weight.astype(np.int64), weight_scale=rng.uniform(0.5, 1.5, outputs) / fan / 64,
            bias=rng.normal(0, 0.1, outputs), out_scale=1 / 128, pattern=pattern,
        ))
    quantised = QuantisedNetwork(network, tuple(layers), weight_bits=8, in_scale=1 / 255)
    return calibrate(quantised, random_images(network.input_shape, 8, seed))


def random_images(shape: tuple[int, int, int], count: int, seed: int) -> np.ndarray:
    """Images with blobs, dark in between."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *shape))
    images[rng.random(images.shape) < 0.5] = 0
    return images
