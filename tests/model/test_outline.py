"""Networks without weights: the compiler decides the same as for any weights of the pattern."""

import dataclasses

import pytest

from model.compile import compile_network
from model.config import PRESETS
from model.cost import estimate
from model.errors import UserError
from model.lower import lower, worst_accumulator
from model.network import NETWORKS, Conv, Linear, Network, Pool
from model.outline import acc_bits, compile_outline, feature_rows, outline, part
from model.stream import stream_beats
from model.synthetic import synthetic_network

#: A bit of everything: stride on phases, odd channels, both poolings, groups, a sum, dots.
MIXED = Network("mixed", (3, 33, 33), (
    Conv("a", 3, 16, 7, stride=2, padding=3, pooling=Pool("max", 3, 2)),
    Conv("b", 16, 32, 3, padding=1, groups=2),
    Conv("c", 32, 32, 3, padding=1, relu=False),
    Conv("d", 32, 32, 3, padding=1, add="b"),
    Conv("e", 32, 24, 5, padding=2),
    Linear("f", 24 * 8 * 8, 30), Linear("g", 30, 7, relu=False),
))
SINGLE = dataclasses.replace(PRESETS["ecp5-85f"], map_pool=1, feature_depth=4096)
WIDE = dataclasses.replace(PRESETS["tiny-wide"], map_pool=1, tile_depth=2048, feature_depth=4096)
CASES = [
    (NETWORKS["lenet"], PRESETS["ecp5-85f"], 4),
    (NETWORKS["lenet"], dataclasses.replace(PRESETS["tiny"], tile_depth=256), 16),
    (NETWORKS["lenet5"], PRESETS["ecp5-85f-w16"], 1),
    (NETWORKS["vgg16-cifar-quarter"], PRESETS["ecp5-85f"], 4),
    (part(NETWORKS["vgg16-cifar-quarter"], 0, 13), WIDE, 8),
    (MIXED, SINGLE, 2), (MIXED, SINGLE, 64),
    (part(MIXED, 0, 5), WIDE, 4),
]


@pytest.mark.parametrize("network, config, alpha", CASES)
def test_the_compiler_decides_the_same_without_weights(network, config, alpha):
    real = compile_network(synthetic_network(
        network, weight_bits=config.weight_bits, alpha=alpha), config)
    bare = compile_outline(outline(network, f"channel 1:{alpha}", config.weight_bits), config)
    assert estimate(bare) == estimate(real)
    assert bare.input_region == real.input_region and bare.output_region == real.output_region
    for with_weights, without in zip(real.layers, bare.layers, strict=True):
        assert (with_weights.demand, with_weights.steps, with_weights.entries,
                with_weights.stream_beats) == (
                    without.demand, without.steps, without.entries, without.stream_beats)
        depends = {"sum_shift", "requant_shift", "in_signed", "stream_offset", "stream_beats",
                   "pool_multiplier", "pool_shift"}
        assert {name: value for name, value in with_weights.descriptor.items()
                if name not in depends} == {
                    name: value for name, value in without.descriptor.items()
                    if name not in depends}


@pytest.mark.slow
def test_whole_alexnet_is_the_same_without_weights():
    config = PRESETS["alexnet-144"]
    real = compile_network(synthetic_network(NETWORKS["alexnet"], weight_bits=8, alpha=4), config)
    assert estimate(compile_outline(outline(NETWORKS["alexnet"], "channel 1:4", 8), config)) \
        == estimate(real)


def test_beats_of_a_stream_are_those_that_are_packed():
    config = PRESETS["tiny"]
    program = compile_network(synthetic_network(NETWORKS["lenet5"], weight_bits=8), config)
    for layer in program.layers:
        assert layer.descriptor["stream_beats"] == layer.stream_beats
    entries = [layer.entries for layer in program.layers]
    assert stream_beats(config, entries[:1], 0, 4) == 1 + 2 + entries[0]


def test_linear_layers_may_have_a_pattern_of_their_own():
    lowered = outline(NETWORKS["lenet"], "channel 1:4", 8, "channel 1:32")
    assert [layer.pattern for layer in lowered.layers] == ["channel 1:4"] * 2 + ["channel 1:32"] * 2


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("network, alpha", [(NETWORKS["lenet"], 4), (MIXED, 2)])
def test_accumulators_suffice_for_any_weights(network, bits, alpha):
    needed = acc_bits(outline(network, f"channel 1:{alpha}", bits))
    drawn = lower(synthetic_network(network, weight_bits=bits, alpha=alpha))
    worst = max(worst_accumulator(layer.layer, layer.weight) for layer in drawn.layers)
    assert worst < 1 << (needed - 1) and needed <= 48


@pytest.mark.parametrize("network, config, alpha", CASES)
def test_least_feature_memory(network, config, alpha):
    lowered = outline(network, "channel 1:4", config.weight_bits)
    rows = feature_rows(lowered, config)
    assert rows % 64 == 0
    compile_outline(lowered, dataclasses.replace(config, feature_depth=rows))
    if rows > 64:
        with pytest.raises(UserError, match="feature memory"):
            compile_outline(lowered, dataclasses.replace(config, feature_depth=rows - 64))


@pytest.mark.parametrize("pattern, message", [
    ("kernel 4", "the steps of an irregular pattern depend on the weights"),
    ("channel 4", "unknown pattern 'channel 4'"),
])
def test_refuses_patterns_that_weights_decide(pattern, message):
    with pytest.raises(UserError, match=message):
        outline(NETWORKS["lenet"], pattern, 8)


def test_refuses_what_the_compiler_would_have_to_schedule():
    lowered = outline(NETWORKS["lenet"], "channel 2:6", 8)
    with pytest.raises(UserError, match="power of two|cannot be scheduled"):
        compile_outline(lowered, PRESETS["ecp5-85f"])


def test_parts_keep_their_additions():
    with pytest.raises(UserError, match="do not lie within"):
        part(NETWORKS["lenet"], 2, 9)
    with pytest.raises(UserError, match="do not hold a layer that one of them adds"):
        part(MIXED, 2, 5)
