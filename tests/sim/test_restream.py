"""A layer whose weights are read again for every tile block, on the simulated core."""

import dataclasses

import pytest

from model.compile import compile_network
from model.config import PRESETS
from model.network import Conv
from sim.memory import MemoryOptions
from sim.session import open_backend, simulate_image
from tests.model.toys import toy_image, toy_network


@pytest.mark.slow
def test_the_next_layer_begins_when_rows_are_complete():
    config = dataclasses.replace(
        PRESETS["tiny"], select_depth=64, feature_depth=2048, tile_depth=128
    )
    shape = 2, 44, 14
    network = toy_network(
        [Conv("a", 2, 8, 3, pool=2), Conv("b", 8, 8, 3)], ["channel 1:2", "channel 1:4"], shape,
        seed=3,
    )
    program = compile_network(network, config)
    assert [layer.descriptor["restream"] for layer in program.layers] == [1, 0]
    options = MemoryOptions(latency=3)
    with open_backend("pysim", config, options=options, max_cycles=5000) as backend:
        backend.load(program.image.astype("<u8").tobytes())
        result = simulate_image(backend, program, toy_image(shape))
    assert not result.failure and result.comparison.difference is None
    # Measured: the last write in cycle 1471; 1615 if layer b waits for the end of layer a.
    assert result.run.profile[1, 6] < 1550
