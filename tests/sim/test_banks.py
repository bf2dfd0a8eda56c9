"""Cores with several feature banks and wide ports: every word equal to the golden model."""

import dataclasses

import numpy as np
import pytest

from model import golden, photographs
from model.compile import compile_network
from model.config import PRESETS
from model.errors import UserError
from model.lower import lower
from model.network import NETWORKS, Conv, Linear, Network
from model.synthetic import synthetic_network
from sim.memory import MemoryOptions
from sim.session import open_backend, simulate_image
from tests.model.toys import toy_network

CONFIG = PRESETS["tiny-wide"]


def vgg(size, divisor, layers=13):
    """VGG16 with fewer channels on a smaller image."""
    chain = tuple(
        dataclasses.replace(layer, out_channels=layer.out_channels // divisor,
                            in_channels=max(3, layer.in_channels // divisor))
        for layer in NETWORKS["vgg16"].layers[:layers]
    )
    return Network("small", (3, size, size), chain)


def check(network, config, backend, options, seed=3):
    program = compile_network(network, config)
    shape = network.network.input_shape
    image = photographs.quantise(photographs.synthetic(1, shape, seed))[0]
    with open_backend(backend, config, options=options) as core:
        core.load(np.ascontiguousarray(program.image, dtype="<u8").tobytes())
        results = [simulate_image(core, program, image) for _ in range(2)]
    words = 0
    for trace in golden.run(program.network, image):
        words += trace.tiles.size // 2 + trace.sums.size // 2 + trace.out.size
    for result in results:
        assert not result.failure and result.comparison.exact, result.comparison.difference
        assert result.comparison.words >= words
    return results[0]


def test_two_layers_in_amaranths_simulator():
    network = synthetic_network(vgg(16, 8, layers=2), seed=1)
    check(network, CONFIG, "pysim", MemoryOptions(latency=20, stall=0.2, seed=4))


@pytest.mark.parametrize("backend", [
    "pysim", pytest.param("fast", marks=pytest.mark.slow),
])
def test_maps_that_fill_a_feature_memory_of_an_odd_size(backend):
    """Reads of the padding go below row 0 and beyond the last row."""
    network = synthetic_network(vgg(32, 8, layers=1), seed=1)
    config = dataclasses.replace(CONFIG, feature_depth=192)
    last = compile_network(network, config).layers[-1].descriptor
    assert last["out_base"] + last["out_plane"] == 192 and last["in_base"] == 0
    check(network, config, backend, MemoryOptions(latency=9))


@pytest.mark.parametrize("bandwidth", [0.15, pytest.param(0.4, marks=pytest.mark.slow)])
def test_layer_0_writes_while_its_input_still_comes(bandwidth):
    """Both use the write ports of the feature memory."""
    chain = Network("slow", (3, 22, 22), (Conv("a", 3, 8, 3, padding=1), Conv("b", 8, 8, 3)))
    check(synthetic_network(chain, seed=8), CONFIG, "pysim",
          MemoryOptions(latency=5, bandwidth=bandwidth))


@pytest.mark.slow
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_thirteen_layers(stall):
    network = synthetic_network(vgg(32, 8), seed=2)
    check(network, CONFIG, "fast", MemoryOptions(latency=60, stall=stall, seed=5))


@pytest.mark.slow
@pytest.mark.parametrize("kernel, padding, channels", [(1, 0, (3, 11, 9)), (5, 2, (9, 24, 8))])
def test_other_kernels_and_odd_channels(kernel, padding, channels):
    """Channels that fill neither banks nor groups, kernels beyond the last block of N'."""
    config = dataclasses.replace(CONFIG, name="odd", post_values=8)
    chain = (Conv("a", channels[0], channels[1], kernel, padding=padding),
             Conv("b", channels[1], channels[2], kernel, padding=padding))
    network = synthetic_network(Network("odd", (channels[0], 21, 26), chain), seed=6)
    program = compile_network(network, config)
    image = np.random.default_rng(1).integers(-128, 128, (channels[0], 21, 26))
    with open_backend("fast", config, options=MemoryOptions(stall=0.3)) as core:
        core.load(np.ascontiguousarray(program.image, dtype="<u8").tobytes())
        result = simulate_image(core, program, image)
    assert not result.failure and result.comparison.exact, result.comparison.difference


@pytest.mark.slow
def test_vgg16_on_u200():
    """The whole network at 224x224; minutes to build, a minute to run."""
    network = synthetic_network(NETWORKS["vgg16"])
    result = check(network, PRESETS["u200"], "fast", MemoryOptions(latency=100))
    assert result.run.cycles <= 600_000


def dense(*layers, patterns, shape=(3, 10, 10)):
    """A convolution of 12 channels of 5x5 and fully connected layers behind it."""
    chain = [Conv("a", shape[0], 12, 3, padding=1, pool=2), *layers]
    network = toy_network(chain, ["channel 1:2", *patterns], shape, weight_bits=16, seed=1)
    return dataclasses.replace(network, in_signed=True)


def test_fully_connected_layers_in_amaranths_simulator():
    """A map, and vectors, that end within a row, a bank and a kernel block."""
    network = dense(Linear("b", 300, 50), Linear("c", 50, 21, relu=False),
                    patterns=["channel 1:8", "channel 1:16"])
    check(network, CONFIG, "pysim", MemoryOptions(latency=9, stall=0.2, seed=4))


@pytest.mark.parametrize("dot_lanes", [2, 4])
def test_fully_connected_layers_over_several_tile_lanes(dot_lanes):
    """Rows of a vector in two or four tile lanes, and in fewer where the pattern has fewer."""
    network = dense(Linear("b", 300, 50), Linear("c", 50, 80), Linear("d", 80, 21, relu=False),
                    patterns=["channel 1:32", "channel 1:8", "channel 1:16"])
    config = dataclasses.replace(CONFIG, tile_lanes=4, dot_lanes=dot_lanes)
    result = check(network, config, "pysim", MemoryOptions(latency=9, stall=0.2, seed=4))
    spreads = [layer.descriptor["spread"] for layer in compile_network(network, config).layers]
    assert spreads == [0, dot_lanes.bit_length() - 1, 0, 1]
    steps = result.run.profile[1, 0]
    assert steps == 7 * (-(-150 // 32)) * 4 // dot_lanes


@pytest.mark.slow
def test_many_small_kernel_blocks_of_a_fully_connected_layer():
    """More than the parameter memory holds, in the first bursts; signed; longer than a round."""
    network = dataclasses.replace(toy_network(
        [Conv("a", 3, 2, 3, relu=False), Linear("b", 32, 300), Linear("c", 300, 9, relu=False)],
        ["channel 1:1", "channel 1:16", "channel 1:32"], (3, 6, 6), weight_bits=16), in_signed=True)
    result = check(network, CONFIG, "fast", MemoryOptions(latency=60, stall=0.4, seed=5))
    assert result.run.cycles < 3000


def test_what_several_banks_cannot_do():
    wide = synthetic_network(Network("wide", (3, 16, 16), (Conv("a", 3, 8, 1),)))
    with pytest.raises(UserError, match="post_values"):
        compile_network(wide, CONFIG)


def test_a_part_of_a_network_continues_where_the_rest_ends():
    network = synthetic_network(vgg(16, 16, layers=4), weight_bits=8, seed=4)
    image = photographs.quantise(photographs.synthetic(1, (3, 16, 16)))[0]
    whole = golden.run(lower(network), image)
    first = golden.run(lower(network.part(0, 2)), image)
    second = golden.run(lower(network.part(2, 4)), first[-1].out)
    for trace, part in zip(whole, [*first, *second], strict=True):
        np.testing.assert_array_equal(trace.out, part.out)
        np.testing.assert_array_equal(trace.sums, part.sums)
    assert network.part(0, 4) is network
    assert network.part(1, 2).network.name == "small[1:2]"
    with pytest.raises(ValueError, match="layers 2:5 do not lie within 0:4"):
        network.part(2, 5)
