"""The cost model on networks without weights; against RTL: tests/sim/test_recorded.py."""

import dataclasses

import pytest

from model.compile import compile_network
from model.config import PRESETS
from model.cost import estimate
from model.network import NETWORKS, Conv, Linear, Network, Pool
from model.outline import compile_outline, outline
from tests.model.toys import toy_network

ALEXNET = PRESETS["zcu104-alexnet"]


def whole(config=ALEXNET, network="alexnet", linear="channel 1:16"):
    return compile_outline(outline(NETWORKS[network], "channel 1:4", config.weight_bits, linear),
                           config)


def cycles(program, *memory):
    return sum(cost.cycles for cost in estimate(program, *memory))


@pytest.mark.parametrize("config", ["alexnet-144", "zcu104-alexnet", "zc706-alexnet"])
def test_a_network_is_no_faster_than_its_slowest_unit(config):
    program = whole(PRESETS[config])
    costs = estimate(program)
    for unit in ("mac_cycles", "store_cycles", "load_cycles", "stream_beats"):
        assert sum(cost.cycles for cost in costs) > sum(getattr(cost, unit) for cost in costs)
    assert [cost.bytes_read for cost in costs[1:]] == [
        cost.stream_beats * PRESETS[config].port_bits // 8 for cost in costs[1:]]


def test_a_slow_memory_costs_what_it_must():
    program = whole()
    beats = sum(cost.bytes_read for cost in estimate(program)) * 8 // ALEXNET.port_bits
    quick, half, slow = (cycles(program, rate) for rate in (1, 0.5, 0.1))
    assert quick < half < slow
    # Nearly all of the time the port is at work.
    assert beats / 0.1 < slow < 1.05 * beats / 0.1
    assert 100 <= cycles(program, 1, 108) - quick <= 200
    for rate in (0, 2):
        with pytest.raises(ValueError, match=f"at most 1 beat a cycle, not {rate}"):
            estimate(program, rate)


def test_kernels_run_ahead_no_further_than_the_buffer():
    program = whole()
    fc6 = program.layers[5]
    assert fc6.name == "fc6" and fc6.stream_beats > fc6.steps       # bound by the port
    large, small = (cycles(whole(dataclasses.replace(ALEXNET, kernel_depth=depth)))
                    for depth in (8192, 4096))
    assert large < small
    # Parameters of sixteen kernel blocks are kept: more rows than these have are of no use.
    assert cycles(whole(dataclasses.replace(ALEXNET, kernel_depth=16384))) == large


def test_a_kernel_block_that_does_not_fit_comes_while_it_is_used():
    network = Network("one", (64, 13, 13), (Conv("a", 64, 64, 3, padding=1),))
    config = dataclasses.replace(PRESETS["tiny-wide"], tile_depth=1024, feature_depth=1024)
    lowered = outline(network, "channel 1:2", 16)
    large, small = (compile_outline(lowered, dataclasses.replace(config, kernel_depth=depth))
                    for depth in (2048, 512))
    assert small.layers[0].blocks[0].entries > 512
    assert small.layers[0].kernel_passes > 1 == large.layers[0].kernel_passes
    assert cycles(small) > cycles(large)
    assert cycles(small) > sum(cost.stream_beats for cost in estimate(small))


def test_a_layer_waits_for_the_whole_map_before_it_only_where_it_must():
    layers = [Conv("a", 16, 16, 3, padding=1), Conv("b", 16, 16, 3, padding=1)]
    config = dataclasses.replace(PRESETS["ecp5-85f"], map_pool=1, feature_depth=8192)

    def second(**first):
        changed = dataclasses.replace(layers[0], **first)
        network = Network("two", (16, 48, 48), (changed, layers[1]))
        return estimate(compile_outline(outline(network, "channel 1:4", 8), config))[1].cycles

    pooled, plain = second(pooling=Pool("max", 3, 1, padding=1)), second()
    # Its first tile blocks are loaded, and multiplied, while the layer before is written.
    assert pooled > plain + 300


def test_the_store_stage_bounds_short_fully_connected_layers():
    network = Network("dots", (64, 1, 1), (Conv("c", 64, 64, 3, padding=1),
                                           Linear("a", 64, 640, relu=False)))
    program = compile_outline(outline(network, "channel 1:16", 16), PRESETS["tiny-wide"])
    cost = estimate(program)[1]
    assert cost.mac_cycles < cost.stream_beats < cost.store_cycles < cost.cycles


def test_irregular_patterns_wait_for_the_drain_at_every_frequency():
    network = toy_network([Conv("a", 8, 64, 3, padding=1)], ["kernel 8"], (8, 12, 12))
    config = dataclasses.replace(PRESETS["ecp5-85f"], kernel_lanes=8)
    layer = compile_network(network, config).layers[0]
    steps, array = layer.steps, sum(block.cycles for block in layer.blocks)
    # Some frequencies have a step only, and the drain takes two cycles for each.
    assert array > max(steps, len(layer.blocks) * config.words * config.drain_interval)
