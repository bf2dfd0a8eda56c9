import json
from itertools import product

import pytest

from model.dataflow import (
    STREAM_ACTIVATIONS,
    STREAM_KERNELS,
    Platform,
    choose,
    convolutions,
    fixed,
    main,
    plans,
)
from model.errors import UserError
from model.network import NETWORKS, Conv, Network

SMALL = Network("small", (3, 20, 20), (
    Conv("a", 3, 8, 3, padding=1), Conv("b", 8, 12, 3, padding=1, pool=2), Conv("c", 12, 6, 3),
))
LAYERS = convolutions(SMALL)


def platform(**changes):
    sizes = {"tile_lanes": 2, "kernel_lanes": 4, "tile_words": 12 * 12 * 32, "kernel_bytes": 2600,
             "port_bytes": 8, "weight_bits": 8, "forward_ffts": 1}
    return Platform(**(sizes | changes))


def walk(layer, plan, chip):
    """Execute the loop nest with sets of what is resident; count transfers, check the buffers."""
    word = layer.channels * chip.tile**2 // 2
    size = layer.kernel_size(chip)
    resident_tiles, resident_kernels = set(), set()
    counted = {"kernels": 0, "in": 0, "loads": 0}
    pairs = set()

    def need_tile(tile):
        if tile not in resident_tiles:
            resident_tiles.add(tile)
            counted["in"] += layer.pixels[tile] * layer.channels
            counted["loads"] += 1
        assert len(resident_tiles) * word <= chip.tile_words

    def need_kernel(kernel):
        if kernel not in resident_kernels:
            resident_kernels.add(kernel)
            counted["kernels"] += size

    def blocks(items, step):
        return [items[start:start + step] for start in range(0, len(items), step)]

    tiles, kernels = list(range(layer.tiles)), list(range(layer.kernels))
    if plan.order == STREAM_KERNELS:
        for group in blocks(tiles, plan.tiles):
            resident_tiles.clear()
            for tile in group:
                need_tile(tile)
            for block in blocks(kernels, chip.kernel_lanes):
                for kernel in block:
                    need_kernel(kernel)
                if len(group) > chip.tile_lanes:        # the block is replayed
                    assert len(resident_kernels) * size <= chip.kernel_bytes
                pairs |= set(product(group, block))
                resident_kernels.intersection_update(range(plan.kernels))
    else:
        for group in blocks(kernels, plan.kernels):
            resident_kernels.clear()
            for kernel in group:
                need_kernel(kernel)
            assert len(resident_kernels) * size <= chip.kernel_bytes
            for block in blocks(tiles, chip.tile_lanes):
                for tile in block:
                    need_tile(tile)
                pairs |= set(product(block, group))
                resident_tiles.intersection_update(range(plan.tiles))
    assert len(pairs) == layer.tiles * layer.kernels
    return counted


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_formulas_equal_the_loops_walked(layer):
    chip = platform()
    orders = set()
    for plan in plans(layer, chip):
        counted = walk(layer, plan, chip)
        assert (plan.kernel_bytes, plan.in_bytes) == (counted["kernels"], counted["in"]), plan
        assert plan.cycles >= counted["loads"] * layer.channels * 4
        orders.add((plan.order, plan.tiles == layer.tiles, plan.kernels == layer.kernels))
    assert len(orders) >= 3


def test_maps_are_counted_whole():
    assert [layer.in_bytes for layer in LAYERS] == [3 * 400, 8 * 400, 12 * 100]
    assert [layer.out_bytes for layer in LAYERS] == [8 * 400, 12 * 100, 6 * 64]
    plan = next(plans(LAYERS[0], platform()))
    assert plan.out_bytes == 8 * 400
    assert plan.in_bytes == 3 * 400


@pytest.mark.parametrize("features", [0, 1300, 3300, 4500, 10_000])
def test_choice_is_the_best_of_everything(features):
    chip = platform(feature_bytes=features)
    best = None
    inner = range(len(LAYERS) - 1)
    for held in product((False, True), repeat=len(inner)):
        on_chip = (False, *held, False)
        cost = [0, 0]
        for index, layer in enumerate(LAYERS):
            ends = on_chip[index], on_chip[index + 1]
            if ends[0] * layer.in_bytes + ends[1] * layer.out_bytes > features:
                break
            plan = min(plans(layer, chip, ends), key=lambda plan: (plan.bytes, plan.cycles))
            cost = [cost[0] + plan.bytes, cost[1] + plan.cycles]
        else:
            best = cost if best is None else min(best, cost)
    chosen = choose(LAYERS, chip)
    assert [sum(plan.bytes for plan in chosen), sum(plan.cycles for plan in chosen)] == best


def test_feature_memory_saves_bytes():
    sizes = [sum(plan.bytes for plan in choose(LAYERS, platform(feature_bytes=size)))
             for size in (0, 3300, 10_000)]
    assert sizes[0] > sizes[1] > sizes[2]


@pytest.mark.parametrize("order", [STREAM_KERNELS, STREAM_ACTIVATIONS])
def test_choice_beats_a_fixed_flow(order):
    layers = convolutions(NETWORKS["vgg16"])
    flow = fixed(layers, Platform(), order)
    assert all(plan.order == order for plan in flow)
    assert all((plan.kernels if order == STREAM_KERNELS else plan.tiles) == 0 for plan in flow)
    assert sum(plan.bytes for plan in flow) > sum(plan.bytes for plan in choose(layers, Platform()))


def test_vgg16_moves_each_weight_and_pixel_at_least_once():
    layers = convolutions(NETWORKS["vgg16"])
    assert [layer.tiles for layer in layers[::4]] == [1444, 100, 25, 9]
    chip = Platform()
    least = sum(layer.kernels * layer.kernel_size(chip) + layer.in_bytes + layer.out_bytes
                for layer in layers)
    assert sum(plan.bytes for plan in choose(layers, chip)) >= least
    roomy = Platform(tile_words=1 << 24, kernel_bytes=1 << 25)
    assert sum(plan.bytes for plan in choose(layers, roomy)) == least


def test_too_small_buffers_and_bad_numbers_are_named(capsys):
    with pytest.raises(UserError, match="layer a: no dataflow fits; enlarge the tile buffer"):
        choose(LAYERS, platform(tile_words=10))
    with pytest.raises(ValueError, match="port_bytes must be positive, not 0"):
        platform(port_bytes=0)
    with pytest.raises(TypeError, match="alpha must be an integer"):
        platform(alpha=2.0)
    assert main(["vgg16", "--tile-words", "100"]) == 2
    assert capsys.readouterr().err.startswith("error: layer conv1_1: no dataflow")


def test_command_prints_and_writes_the_reduction(tmp_path, capsys):
    path = tmp_path / "flow.json"
    assert main(["vgg16", "--json", str(path)]) == 0
    assert "bytes against 'stream kernels': -" in capsys.readouterr().out
    data = json.loads(path.read_text())
    flow = data["flows"]["chosen"]
    assert flow["bytes"] == sum(layer["bytes"] for layer in flow["layers"])
    assert len(flow["layers"]) == 13
