"""The cost model against RTL: random small networks behind memories of any speed."""

import dataclasses
import random
from math import prod

import numpy as np
import pytest

from model.compile import compile_network
from model.config import PRESETS
from model.cost import estimate
from model.errors import UserError
from model.network import Conv, Linear, Pool
from sim.memory import MemoryOptions
from sim.session import layer_figures, open_backend, simulate_image
from tests.model.toys import toy_image, toy_network
from tests.sim.test_operators import NARROW, WIDE

#: Cycles that a layer may be off, besides a share of them.
CYCLES, SHARE = 40, 0.02


def draw(rng, config):
    """Two to five layers; a network that does not fit is drawn again."""
    while True:
        channels = [rng.randint(1, 6), *(rng.choice((8, 12, 16, 24))
                                         for _ in range(rng.randint(1, 4)))]
        shape = channels[0], rng.randint(12, 30), rng.randint(12, 30)
        layers = []
        for index, (inputs, outputs) in enumerate(zip(channels, channels[1:], strict=False)):
            kernel, after = rng.choice((3, 3, 5)), rng.random()
            layers.append(Conv(
                f"c{index}", inputs, outputs, kernel, padding=rng.choice((0, kernel // 2)),
                pool=2 if after < 0.25 and kernel == 3 else 1,
                pooling=Pool(rng.choice(("max", "average")), rng.choice((2, 3)), 2)
                if config.map_pool and 0.25 < after < 0.45 else None,
            ))
        patterns = [rng.choice(("channel 1:4", "channel 1:2", "kernel 4", "kernel 8"))
                    for _ in layers]
        try:
            network = toy_network(layers, patterns, shape, weight_bits=config.weight_bits)
            if rng.random() < 0.5:
                values = prod(network.network.shapes()[-1])
                layers += [Linear("f", values, 20), Linear("g", 20, 7, relu=False)]
                network = toy_network(layers, [*patterns, "channel 1:4", "channel 1:2"], shape,
                                      weight_bits=config.weight_bits)
            return compile_network(network, config), shape
        except (UserError, ValueError):
            continue


@pytest.mark.slow
@pytest.mark.parametrize("bandwidth", [1, 0.35])
@pytest.mark.parametrize("config", [NARROW, WIDE, PRESETS["tiny-window"]],
                         ids=lambda config: config.name)
def test_random_networks(config, bandwidth):
    rng = random.Random(f"{config.name} {bandwidth}")
    options = MemoryOptions(latency=rng.randint(1, 40), bandwidth=bandwidth)
    with open_backend("fast", config, options=options, max_cycles=200_000) as core:
        for _ in range(12):
            program, shape = draw(rng, config)
            core.load(np.ascontiguousarray(program.image, dtype="<u8").tobytes())
            result = simulate_image(core, program, toy_image(shape))
            assert not result.failure and result.comparison.exact
            costs = estimate(program, options.average, options.latency)
            for cost, layer in zip(costs, layer_figures(program, result.run), strict=True):
                off = abs(cost.cycles - layer.cycles)
                assert off <= CYCLES + SHARE * layer.cycles, layer


def test_draws_hold_every_kind_of_layer():
    rng = random.Random(1)
    kinds = set()
    for _ in range(20):
        for layer in draw(rng, dataclasses.replace(WIDE, name="any"))[0].layers:
            fields = layer.descriptor
            kinds |= {name for name in ("dot", "pool", "pool_op", "scatter") if fields[name]}
            if fields["resident"] < fields["tile_blocks"]:
                kinds.add("groups")
    assert kinds == {"dot", "pool", "pool_op", "scatter", "groups"}
