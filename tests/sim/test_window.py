"""Cores with a file of accumulators: every word equal to the golden model."""

import dataclasses

import numpy as np
import pytest

from model.compile import compile_network
from model.config import PRESETS
from model.network import Conv
from sim.memory import MemoryOptions
from sim.session import layer_figures, open_backend, simulate_image
from tests.model.toys import toy_image, toy_network
from tests.model.wide import CONFIGS
from tests.sim.test_banks import vgg
from tests.sim.toys import digit_toy, two_layers

CONFIG = PRESETS["tiny-window"]
#: One feature bank, so that dot layers are possible.
ONE_BANK = dataclasses.replace(CONFIGS["port-128"], name="window-128", window=32)


def run(network, config, backend, options):
    program = compile_network(network, config)
    image = toy_image(network.network.input_shape, seed=3)
    with open_backend(backend, config, options=options) as core:
        core.load(np.ascontiguousarray(program.image, dtype="<u8").tobytes())
        results = [simulate_image(core, program, image) for _ in range(2)]
    for result in results:
        assert not result.failure and result.comparison.exact, result.comparison.difference
    return program, results[0].run


def convolutions(layers, patterns, shape):
    return toy_network(layers, patterns, shape, weight_bits=16)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["kernel 4", "balanced 4"])
def test_two_layers_in_amaranths_simulator(pattern):
    network = convolutions([Conv("a", 3, 8, 3, padding=1), Conv("b", 8, 16, 3, padding=1, pool=2)],
                           [pattern, "kernel 8"], (3, 6, 12))
    config = dataclasses.replace(CONFIG, tile_lanes=2)
    program, _ = run(network, config, "pysim", MemoryOptions(latency=20, stall=0.2, seed=4))
    assert all(layer.how.select_bits == 3 for layer in program.layers)


def test_convolution_and_dot_layer_in_amaranths_simulator():
    config = dataclasses.replace(ONE_BANK, tile_lanes=2, feature_depth=256)
    run(two_layers("kernel 4"), config, "pysim", MemoryOptions(latency=5, stall=0.2, seed=2))


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["kernel 4", "balanced 4", "channel 1:4"])
def test_thirteen_layers(pattern):
    """Tile blocks replayed and read again, 64 channels; implicit and irregular layers mixed."""
    chain = vgg(32, 8)
    patterns = [pattern if index % 3 else "kernel 4" for index in range(13)]
    network = convolutions(chain.layers, patterns, chain.input_shape)
    run(network, CONFIG, "fast", MemoryOptions(latency=60, stall=0.4, seed=5))


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["kernel 8", "balanced 4", "channel 2:8"])
def test_digits_with_one_feature_bank(pattern):
    config = dataclasses.replace(ONE_BANK, feature_depth=1024, tile_depth=256)
    run(digit_toy(pattern), config, "fast", MemoryOptions(latency=9, stall=0.3, seed=6))


@pytest.mark.slow
def test_lanes_stay_busy():
    """One layer of 64 channels whose tiles fill the lanes."""
    network = convolutions([Conv("a", 64, 16, 3)], ["kernel 4"], (64, 14, 38))
    config = dataclasses.replace(CONFIG, tile_depth=4096, kernel_depth=2048, feature_depth=2048,
                                 select_depth=512)
    program, run_ = run(network, config, "fast", MemoryOptions(latency=10))
    layer, = layer_figures(program, run_)
    assert program.layers[0].descriptor["tiles"] % config.tile_lanes == 0
    assert layer.lanes_filled > 0.95
    assert layer.stalls["sums"] == 0
