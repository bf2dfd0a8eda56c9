"""Small random networks for the simulation tests."""

from model.network import Conv, Linear
from tests.model.toys import toy_network


def two_layers(pattern="channel 1:4"):
    """Seconds on Amaranth's simulator: 4 tiles in 2 blocks, pooled, then a dot layer."""
    return toy_network(
        [Conv("conv1", 1, 6, 5, pool=2), Linear("fc1", 96, 10, relu=False)],
        [pattern, "channel 1:4"], (1, 12, 12), seed=7,
    )


def digit_toy(pattern="channel 1:4"):
    """Takes digits: pool, padding, odd sizes, several address groups, a partial kernel block."""
    return toy_network(
        [Conv("conv1", 1, 10, 5, pool=2), Conv("conv2", 10, 5, 3, padding=1),
         Linear("fc1", 720, 10, relu=False)],
        [pattern, pattern, "channel 1:8"], (1, 28, 28), seed=7,
    )
