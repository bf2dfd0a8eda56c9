"""Places of the maps: what a layer reads is there, however many images a run has."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import PRESETS
from model.errors import UserError
from model.lower import lower
from model.maps import Step, place_maps, steps
from model.network import Conv, Linear, Pool
from tests.model.toys import toy_network

NARROW = dataclasses.replace(PRESETS["tiny"], map_pool=1)
WIDE = dataclasses.replace(PRESETS["tiny-wide"], tile_lanes=8, map_pool=1)


def follow(network, config, batch):
    """Let every step read its maps and write its own, in rows that know what they hold."""
    placement = place_maps(network, config, batch)
    order = steps(network, batch)
    rows = np.full(config.feature_depth, -1)
    of_step = {step: number for number, step in enumerate(order)}

    def part(region):
        assert 0 <= region.base and region.base + region.rows <= config.feature_depth
        return rows[region.base:region.base + region.rows]

    convs = sum(not layer.dot for layer in network.layers)
    part(placement.source)[:] = -2
    for step, maps in zip(order, placement.maps, strict=True):
        images = [step.image] if step.image is not None else range(batch)
        for number, image in enumerate(images):
            source = dataclasses.replace(
                maps.source, base=maps.source.base + number * maps.source.rows)
            wanted = -2 - image
            if step.layer:
                before = Step(step.layer - 1, image if step.layer <= convs else None)
                wanted = of_step[before]
            assert (part(source) == wanted).all(), f"{step}: its input is gone"
            written = dataclasses.replace(maps.map, base=maps.map.base + number * maps.map.rows)
            part(written)[:] = of_step[step]
            # The input is read while the map is written.
            assert (part(source) == wanted).all(), f"{step}: writes over its input"
            if step.layer == convs - 1 and image < batch - 1:
                # Meanwhile the next input is loaded, over the one before.
                part(placement.source)[:] = -3 - image
                assert (part(maps.map) == of_step[step]).all(), f"{step}: the input goes over it"
        if maps.added is not None:
            other = of_step[Step(network.layers[step.layer].addition.index, step.image)]
            assert (part(maps.added) == other).all(), f"{step}: what it adds is gone"
        if maps.out != maps.map:
            assert (part(maps.map) == of_step[step]).all()
            part(maps.out)[:] = of_step[step]
            assert (part(maps.map) == of_step[step]).all(), f"{step}: pools over its map"
    last = {number for step, number in of_step.items() if step.layer == len(network.layers) - 1}
    assert set(part(placement.out)) == last and placement.out.rows % batch == 0


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.lists(st.sampled_from(["plain", "pool", "map pool", "add"]),
                                   min_size=1, max_size=4), st.booleans(), st.booleans())
def test_every_map_is_there_when_it_is_read(batch, kinds, classifier, several):
    layers = [Conv("first", 2, 8, 3, padding=1)]
    edge = 16
    for number, kind in enumerate(kinds):
        name = f"layer{number}"
        if kind == "add":
            layers.append(Conv(name, 8, 8, 3, padding=1, add=layers[-1].name))
        elif kind == "pool" and edge % 2 == 0:
            layers.append(Conv(name, 8, 8, 3, padding=1, pool=2))
            edge //= 2
        elif kind == "map pool" and edge > 4:
            layers.append(Conv(name, 8, 8, 3, padding=1, pooling=Pool("max", 3, 2)))
            edge = (edge - 3) // 2 + 1
        else:
            layers.append(Conv(name, 8, 8, 3, padding=1))
    config = dataclasses.replace(WIDE if several else NARROW, feature_depth=4096)
    if classifier and (several or layers[-1].add is None):
        layers += [Linear("fc1", 8 * edge * edge, 33), Linear("fc2", 33, 5, relu=False)]
    network = toy_network(layers, ["channel 1:2"] * len(layers), (2, 16, 16),
                          weight_bits=config.weight_bits)
    scales = [dataclasses.replace(layer, out_scale=1.0) for layer in network.layers]
    network = dataclasses.replace(network, layers=tuple(scales))
    follow(lower(network), config, batch)


def test_a_batch_that_does_not_fit_says_what_to_change():
    layers = [Conv("a", 2, 8, 3, padding=1), Linear("b", 8 * 256, 5)]
    network = lower(toy_network(layers, ["channel 1:2"] * 2, (2, 16, 16)))
    config = dataclasses.replace(PRESETS["tiny"], feature_depth=192)
    place_maps(network, config)
    with pytest.raises(UserError, match="raise feature_depth or take fewer than 4 images"):
        place_maps(network, config, 4)
