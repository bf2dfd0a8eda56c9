"""The choice of how many tile blocks stay, against all sizes and a walk cycle by cycle."""

import dataclasses
import random

import pytest

from model.config import PRESETS
from model.network import NETWORKS
from model.residency import Demand, choose, groups, kernel_passes, timeline
from model.synthetic import synthetic_network

BASE = Demand(tile_blocks=26, kernel_blocks=2, room=16, replayable=True, load=512, compute=1024,
              stream_beats=2180)


def walk(demand, resident):
    """Cycle by cycle: a loader, a ring, an array. Cycle in which the last block ends."""
    order = [(block, number == demand.kernel_blocks - 1)
             for group in groups(demand.tile_blocks, resident)
             for number in range(demand.kernel_blocks) for block in group]
    held = loaded = loading = computing = cycle = 0
    current = None
    while order or current:
        if current and computing == demand.compute:
            held, current = held - current[1], None
        if loading == demand.load:
            loaded, loading = loaded + 1, 0
        if not loading and loaded < demand.tile_blocks and held < demand.room:
            held, loading = held + 1, 1
        elif loading:
            loading += 1
        if current:
            computing += 1
        elif order and order[0][0] < loaded:
            current, computing = order.pop(0), 1
        cycle += 1
    return cycle - 1


@pytest.mark.parametrize("seed", range(30))
def test_the_timeline_is_that_of_a_walk(seed):
    rng = random.Random(seed)
    demand = Demand(
        tile_blocks=rng.randint(1, 9), kernel_blocks=rng.randint(1, 3), room=rng.randint(1, 5),
        replayable=True, load=rng.randint(1, 12), compute=rng.randint(1, 12), stream_beats=1,
    )
    for resident in range(1, min(demand.room, demand.tile_blocks) + 1):
        assert timeline(demand, resident) == walk(demand, resident)


@pytest.mark.parametrize("seed", range(30))
def test_no_size_is_faster_and_none_as_fast_reads_less(seed):
    rng = random.Random(100 + seed)
    demand = Demand(
        tile_blocks=rng.randint(6, 40), kernel_blocks=rng.randint(2, 4), room=rng.randint(1, 5),
        replayable=True, load=rng.randint(1, 20), compute=rng.randint(1, 20),
        stream_beats=rng.randint(1, 200),
    )

    def cost(resident):
        passes = kernel_passes(demand.tile_blocks, resident)
        return max(timeline(demand, resident), passes * demand.stream_beats), passes

    chosen = choose(demand)
    assert 1 <= chosen <= demand.room
    best = min(map(cost, range(1, demand.room + 1)))
    # Of the sizes with as many passes the smallest is tried, which leaves the most room.
    assert cost(chosen)[0] <= best[0] and cost(chosen) <= best


def test_what_fits_stays_and_what_cannot_be_replayed_does_not():
    assert choose(BASE) == 13
    assert choose(dataclasses.replace(BASE, room=26)) == 26
    assert choose(dataclasses.replace(BASE, kernel_blocks=1, room=1)) == 26
    assert choose(dataclasses.replace(BASE, replayable=False)) == 1
    # Bound by the port: as few reads as the ring allows, though loading then waits.
    slow = dataclasses.replace(BASE, room=2, load=1500)
    assert choose(dataclasses.replace(slow, stream_beats=50_000)) == 2
    assert choose(slow) == 1


def test_vgg16_on_u200_reads_one_layer_twice():
    from model.compile import compile_network

    config, network = PRESETS["u200"], synthetic_network(NETWORKS["vgg16"])
    passes = {layer.name: layer.kernel_passes
              for layer in compile_network(network.part(0, 5), config).layers}
    assert passes == {"conv1_1": 1, "conv1_2": 1, "conv2_1": 1, "conv2_2": 2, "conv3_1": 1}
