"""Groups of resident tile blocks on the simulated core: bit exact, read as often as promised."""

import dataclasses
import random
from math import ceil

import pytest

from model.compile import compile_network
from model.config import PRESETS
from model.cost import estimate
from model.network import Conv
from sim.memory import MemoryOptions
from sim.session import open_backend, simulate_image
from tests.model.toys import toy_image, toy_network

TINY = dataclasses.replace(
    PRESETS["tiny"], select_depth=64, feature_depth=2048, tile_depth=128
)
WIDE = dataclasses.replace(PRESETS["tiny-wide2"], feature_depth=1024)


def run(config, program, shape, name="fast", **options):
    options = MemoryOptions(**{"latency": 3, **options})
    with open_backend(name, config, options=options, max_cycles=50000) as backend:
        backend.load(program.image.astype("<u8").tobytes())
        result = simulate_image(backend, program, toy_image(shape))
    assert not result.failure and result.comparison.difference is None, result.comparison
    beats = sum(layer.stream_beats * layer.kernel_passes for layer in program.layers)
    assert result.run.read_beats == beats + config.map_row_beats * program.input_region.rows
    return result.run


@pytest.mark.slow
@pytest.mark.parametrize("resident, blocks, cycles", [
    (1, [(1, 7), (1, 2)], 1550), (None, [(4, 7), (2, 2)], 1550),
])
def test_the_next_layer_begins_when_rows_are_complete(resident, blocks, cycles):
    shape = 2, 44, 14
    network = toy_network(
        [Conv("a", 2, 8, 3, pool=2), Conv("b", 8, 8, 3)], ["channel 1:2", "channel 1:4"], shape,
        seed=3,
    )
    program = compile_network(network, TINY, resident=resident)
    fields = [layer.descriptor for layer in program.layers]
    assert [(each["resident"], each["tile_blocks"]) for each in fields] == blocks
    # Groups of one: 1615 if layer b waits for the end of layer a.
    assert run(TINY, program, shape).profile[1, 6] < cycles


@pytest.mark.parametrize("seed", [
    0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 16))
])
def test_random_layers_and_groups(seed):
    """Any sizes, also a last group that is smaller, under random stalls."""
    rng = random.Random(seed)
    config = rng.choice((TINY, WIDE)) if seed else TINY
    banks = config.feature_banks
    size = (rng.randint(14, 20), rng.randint(10, 16)) if seed else (14, 9)
    channels = [rng.randint(1, 5), 4 * rng.randint(2, 3), 4 * rng.randint(2, 3), rng.randint(4, 9)]
    if banks > 1:
        channels = [3, *(rng.choice((8, 13, 16)) for _ in range(3))]
    layers = [
        Conv(f"conv{i}", a, b, 3, padding=1, pool=2 if i == 1 else 1)
        for i, (a, b) in enumerate(zip(channels, channels[1:], strict=False))
    ][:None if seed else 2]
    patterns = [rng.choice(("channel 1:4", "kernel 4")) for _ in layers]
    shape = channels[0], *size
    network = toy_network(layers, patterns, shape, seed=seed, weight_bits=config.weight_bits)
    blocks = ceil(ceil(size[0] / 6) * ceil(size[1] / 6) / config.tile_lanes)
    program = compile_network(network, config, resident=rng.randint(1, blocks - 1))
    assert any(1 < layer.kernel_passes for layer in program.layers)
    run(config, program, shape, "fast" if seed else "pysim", latency=rng.randint(1, 40),
        stall=rng.choice((0, 0.2)), seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("resident", [None, 1, 2, 3])
def test_the_estimate_holds_for_groups(resident):
    shape = 4, 26, 20
    network = toy_network(
        [Conv("a", 4, 16, 3, padding=1), Conv("b", 16, 12, 3)], ["channel 1:2", "channel 1:2"],
        shape, seed=3,
    )
    program = compile_network(network, TINY, resident=resident)
    ends = run(TINY, program, shape).profile[:2, 6].tolist()
    first, second = (cost.cycles for cost in estimate(program, latency=3))
    assert first == pytest.approx(ends[0], rel=0.02)
    assert second == pytest.approx(ends[1] - ends[0], rel=0.02)
