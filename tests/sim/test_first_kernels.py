"""The first kernels, read before the input, never wait for room that only the input would make."""

import pytest

from model.compile import compile_network
from model.config import PRESETS, AcceleratorConfig
from model.entries import addressing, blocks
from model.lower import lower
from model.network import Conv, Linear
from model.stream import param_beats, select_beats
from rtl.core import first_bursts
from rtl.parameters import ParamMemory
from rtl.prefetch import burst_beats
from sim.memory import MemoryOptions
from sim.session import open_backend, simulate_image
from tests.model.toys import toy_image, toy_network

SMALL = {"tile_depth": 64, "kernel_depth": 256, "select_depth": 64, "feature_depth": 128}


def run(config, layers, patterns, shape):
    network = toy_network(layers, patterns, shape, weight_bits=config.weight_bits, seed=1)
    program = compile_network(network, config)
    options = MemoryOptions(latency=3)
    with open_backend("pysim", config, options=options, max_cycles=3000) as core:
        core.load(program.image.astype("<u8").tobytes())
        result = simulate_image(core, program, toy_image(shape))
    assert not result.failure and result.comparison.exact, result.failure
    return program


def test_a_dot_layer_of_many_small_kernel_blocks():
    """A burst of it holds more kernel blocks than the parameter memory."""
    config = AcceleratorConfig(name="small", tile_lanes=1, kernel_lanes=4, weight_bits=16,
                               acc_bits=40, port_bits=128, **SMALL)
    layers = [Conv("a", 1, 1, 3), Linear("b", 16, 80, relu=False)]
    program = run(config, layers, ["channel 1:1", "channel 1:8"], (1, 6, 6))
    assert program.layers[1].descriptor["kernel_blocks"] > 16


@pytest.mark.slow
def test_several_blocks_in_the_smallest_kernel_buffer():
    config = AcceleratorConfig(name="small", tile_lanes=2, kernel_lanes=8, port_bits=128,
                               **SMALL | {"kernel_depth": 64})
    program = run(config, [Conv("a", 1, 24, 3)], ["channel 1:1"], (1, 8, 8))
    assert program.layers[0].entries > 64


@pytest.mark.parametrize("config, bursts", [
    ("tiny", 1), ("ecp5-85f", 1), ("tiny-wide", 2), ("u200", 2),
])
def test_presets_read_as_many_as_they_hold(config, bursts):
    assert first_bursts(PRESETS[config]) == bursts


@pytest.mark.parametrize("name", ["tiny", "tiny-wide2", "tiny-window", "u200-window"])
def test_blocks_without_weights_fit_the_parameter_memory(name):
    config = PRESETS[name]
    network = toy_network([Conv("a", 4, 2 * config.kernel_lanes, 3)], ["kernel 4"], (4, 6, 6))
    layer, = lower(network).layers
    layer.weight[:] = 0
    how = addressing(layer, config)
    beats = [
        1 + param_beats(config) + select_beats(config, len(block.weights), how.select_bits)
        + len(block.weights) * config.row_beats for block in blocks(layer, config, how)
    ]
    assert first_bursts(config) * burst_beats(config) <= ParamMemory.BLOCKS * min(beats)
