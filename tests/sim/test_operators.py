"""Every operator through the simulated core, word by word, at random back-pressure."""

import contextlib
import dataclasses

import numpy as np
import pytest

from model import golden
from model.compile import compile_network
from model.config import PRESETS
from model.cost import estimate
from model.errors import UserError
from model.network import Conv, Linear, Pool
from sim.memory import MemoryOptions
from sim.session import open_backend, simulate_image
from tests.model.toys import toy_image, toy_network

NARROW = dataclasses.replace(PRESETS["tiny"], name="tiny-ops", tile_depth=256, map_pool=1)
WIDE = dataclasses.replace(PRESETS["tiny-wide2"], name="wide-ops", map_pool=1)
LAST = Linear("last", 8, 4, relu=False)
MEMORY = MemoryOptions(latency=7, stall=0.2, seed=3)


@pytest.fixture(scope="module")
def cores():
    """Simulators by config; building one takes much longer than a run."""
    with contextlib.ExitStack() as stack:
        found = {}

        def core(config):
            if config.name not in found:
                found[config.name] = stack.enter_context(open_backend(
                    "fast", config, options=MEMORY, max_cycles=60_000,
                ))
            return found[config.name]

        yield core


def check(cores, config, layers, shape, patterns="channel 1:4", seed=3, runs=1, network=None):
    """Run a network of random weights and compare everything."""
    if isinstance(patterns, str):
        patterns = [patterns] * len(layers)
    if network is None:
        network = toy_network(layers, patterns, shape, seed=seed, weight_bits=config.weight_bits)
    program = compile_network(network, config)
    image = toy_image(shape, seed)
    expected = golden.run(program.network, image)
    assert len(np.unique(expected[-1].out)) > 3
    core = cores(config)
    core.load(np.ascontiguousarray(program.image, dtype="<u8").tobytes())
    for _ in range(runs):
        result = simulate_image(core, program, image)
        assert not result.failure and result.comparison.exact, result.comparison.difference
        np.testing.assert_array_equal(result.scores, expected[-1].out.reshape(-1))
    return program, result.run


def test_alexnet_in_small(cores):
    """Strided, 5x5, grouped, 3x3/2 pools in planes and into a vector, fully connected."""
    pool = Pool("max", 3, 2)
    layers = [
        Conv("conv1", 1, 4, 11, padding=2, stride=4, pooling=pool),
        Conv("conv2", 4, 16, 5, padding=2, pooling=pool),
        Conv("conv3", 16, 8, 3, padding=1, groups=2, pooling=Pool("max", 2, 1)),
        LAST,
    ]
    program, run = check(cores, NARROW, layers, (1, 62, 62), runs=2)
    assert [layer.lowered.out_shape for layer in program.layers] == [
        (4, 6, 6), (16, 2, 2), (8, 1, 1), (4, 1, 1)]
    costs = estimate(program, MEMORY.average, MEMORY.latency)
    assert sum(cost.cycles for cost in costs) == pytest.approx(run.cycles, rel=0.03)


@pytest.mark.slow
def test_alexnet_in_small_in_several_banks(cores):
    """Pooled in planes, which fully connected layers read as a vector; vectors between these."""
    pool = Pool("max", 3, 2)
    layers = [
        Conv("conv1", 1, 8, 11, padding=2, stride=4, pooling=pool),
        Conv("conv2", 8, 24, 5, padding=2, pooling=pool),
        Conv("conv3", 24, 21, 3, padding=1, pooling=Pool("max", 2, 1, 1)),
        Linear("fc6", 189, 70), Linear("fc7", 70, 140), Linear("fc8", 140, 11, relu=False),
    ]
    patterns = ["channel 1:4"] * 3 + ["channel 1:16", "channel 1:8", "channel 1:4"]
    program, run = check(cores, WIDE, layers, (1, 62, 62), patterns, runs=2)
    assert program.layers[3].descriptor["in_plane"] and not program.layers[4].descriptor["in_plane"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [(2, 19), (5, 9), (1, 1)])
def test_fully_connected_after_a_sum_or_a_wide_map(cores, size):
    """Rows of up to three reads; a sum of maps, signed."""
    shape = (2, *size)
    layers = [
        Conv("a", 2, 8, 3, padding=1), Conv("b", 8, 8, 3, padding=1, relu=False, add="a"),
        Linear("c", 8 * int(np.prod(size)), 20, relu=False),
    ]
    network = residual(toy_network(layers, ["channel 1:4"] * 3, shape, weight_bits=16))
    check(cores, WIDE, layers, shape, network=network)


@pytest.mark.slow
def test_pooling_in_several_banks(cores):
    """Planes of all banks at a time, signed maps, a pooled last layer."""
    layers = [
        Conv("a", 3, 16, 3, padding=1, relu=False, pooling=Pool("max", 3, 2, 1)),
        Conv("b", 16, 16, 3, padding=(1, 0, 2, 1), groups=2, pooling=Pool("max", 3, 2)),
        Conv("c", 16, 9, 3, padding=1, pooling=Pool("average", 2, 2)),
    ]
    check(cores, WIDE, layers, (3, 19, 22), runs=2)


def test_a_wrong_pooled_value_is_located(cores):
    """What the golden model says of the pooled map is compared, segment by segment."""
    layers = [Conv("a", 2, 8, 3, pooling=Pool("max", 3, 2)), Conv("b", 8, 4, 3)]
    program = compile_network(toy_network(layers, ["channel 1:2"] * 2, (2, 13, 15)), NARROW)
    image = toy_image((2, 13, 15))
    traces = golden.run(program.network, image)
    wrong = traces[0].out.copy()
    wrong[5, 2, 4] += 1
    core = cores(NARROW)
    core.load(np.ascontiguousarray(program.image, dtype="<u8").tobytes())
    result = simulate_image(core, program, image,
                            [dataclasses.replace(traces[0], out=wrong), traces[1]])
    difference = result.comparison.difference
    assert difference.layer == "a" and difference.stage == "pooled output"
    assert {name: difference.where[name] for name in ("kernel", "y", "x")} == {
        "kernel": 5, "y": 2, "x": 4}
    assert difference.expected[0] == difference.got[0] + 1


POOLED = {
    "average": (Pool("average", 3, 2, 1), (2, 13, 12)),
    "global average": (Pool("average", 0), (2, 8, 8)),
    "global maximum": (Pool("max", 0), (2, 11, 11)),
    "every other pixel": (Pool("max", 1, 2), (2, 9, 12)),
}


@pytest.mark.parametrize("name", POOLED)
def test_pooling(cores, name):
    pool, shape = POOLED[name]
    layers = [Conv("a", 2, 8, 3, relu="average" in name, pooling=pool)]
    features = int(np.prod(layers[0].out_shape(shape)))
    layers.append(dataclasses.replace(LAST, in_features=features))
    check(cores, NARROW, layers, shape, "channel 1:2")


def residual(network):
    """Give every map that is added a unit of a power of two of the sum's."""
    layers = list(network.layers)
    for index in range(len(layers)):
        added = network.network.added(index)
        if added is not None:
            ratio = layers[index].out_scale / layers[added].out_scale
            layers[index] = dataclasses.replace(
                layers[index],
                out_scale=layers[added].out_scale * 2.0 ** max(-3, min(3, round(np.log2(ratio)))),
            )
    return dataclasses.replace(network, layers=tuple(layers))


RESIDUAL = {
    "one feature bank": NARROW, "several": WIDE,
}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.slow) if config is WIDE else name
    for name, config in RESIDUAL.items()
])
def test_residual_additions(cores, name):
    """Over two layers and over one, of a signed and of a pooled map, at the end of a network."""
    config = RESIDUAL[name]
    layers = [
        Conv("a", 3, 8, 3, padding=1, pooling=Pool("max", 3, 2, 1)),
        Conv("b", 8, 8, 3, padding=1),
        Conv("c", 8, 8, 3, padding=1, add="a"),
        Conv("d", 8, 8, 3, padding=1, relu=False),
        Conv("e", 8, 8, 3, padding=1, relu=False, add="d"),
        Conv("f", 8, 8, 3, padding=1, add="c"),
    ]
    network = residual(toy_network(layers, ["channel 1:4"] * 6, (3, 21, 14), seed=6,
                                   weight_bits=config.weight_bits))
    program = compile_network(network, config)
    kept = [layer.descriptor for layer in program.layers]
    assert kept[5]["pool_base"] == kept[2]["out_base"] != kept[5]["out_base"]
    check(cores, config, layers, (3, 21, 14), network=network)


STRIDED = {
    "odd kernel": (Conv("a", 2, 4, 5, stride=2, padding=1), (2, 13, 16)),
    "as AlexNet's": (Conv("a", 1, 4, 11, stride=4, padding=2), (1, 32, 28)),
    "pixels that no window needs": (Conv("a", 1, 4, 3, stride=3), (1, 20, 22)),
}


@pytest.mark.parametrize("name", STRIDED)
def test_a_strided_first_layer(cores, name):
    layer, shape = STRIDED[name]
    check(cores, NARROW, [layer, Conv("b", 4, 5, 3)], shape, ["channel 1:4", "channel 1:2"])


@pytest.mark.parametrize("padding", [(2, 0, 1, 2), (0, 2, 2, 0)])
def test_padding_of_each_side(cores, padding):
    check(cores, NARROW, [Conv("a", 2, 3, 3, padding=padding),
                          Conv("b", 3, 4, 5, padding=(3, 2, 0, 4), pool=2)], (2, 7, 9),
          "channel 1:2")


def test_five_by_five_kernels_with_padding(cores):
    check(cores, NARROW, [Conv("a", 2, 4, 5, padding=2), Conv("b", 4, 3, 5, padding=2, pool=2)],
          (2, 9, 10), "channel 1:2")


GROUPED = {
    # Parts of whole rows of channels and whole kernel blocks; what is left is block diagonal.
    "parts": (NARROW, (16, 8), 2, "channel 1:4", True),
    "four parts": (NARROW, (32, 16), 4, "channel 1:8", True),
    "held entries": (NARROW, (32, 8), 2, "channel 1:16", True),
    "narrow": (NARROW, (6, 8), 2, "channel 1:2", False),
    "depthwise": (NARROW, (8, 8), 8, "channel 1:1", False),
    "scattered": (NARROW, (16, 8), 2, "kernel 4", False),
    "parts in banks": (WIDE, (16, 16), 2, "channel 1:4", True),
}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.slow) if GROUPED[name][0] is WIDE else name
    for name in GROUPED
])
def test_grouped_convolution(cores, name):
    config, (inputs, outputs), groups, pattern, parts = GROUPED[name]
    layers = [Conv("a", 2, inputs, 3), Conv("b", inputs, outputs, 3, padding=1, groups=groups)]
    program, _ = check(cores, config, layers, (2, 9, 8), ["channel 1:2", pattern])
    assert (program.layers[1].descriptor["part_blocks"] > 0) == parts


def test_parts_cost_as_many_steps_as_their_weights():
    """A grouped layer of two parts takes half the steps of the same layer without."""
    layers = [Conv("a", 2, 32, 3), Conv("b", 32, 8, 3), Linear("c", 8 * 25, 4, relu=False)]
    whole = compile_network(toy_network(layers, ["channel 1:4"] * 3, (2, 9, 9)), NARROW)
    layers[1] = dataclasses.replace(layers[1], groups=2)
    parts = compile_network(toy_network(layers, ["channel 1:4"] * 3, (2, 9, 9)), NARROW)
    assert 2 * parts.layers[1].steps == whole.layers[1].steps
    assert parts.layers[1].stream_beats < 0.6 * whole.layers[1].stream_beats


def test_what_is_refused():
    def compiled(layers, config=NARROW):
        return compile_network(toy_network(layers, ["channel 1:2"] * len(layers), (2, 12, 12)),
                               config)

    with pytest.raises(UserError, match="layer b: only the first layer may have a stride"):
        compiled([Conv("a", 2, 4, 3), Conv("b", 4, 4, 3, stride=2)])
    with pytest.raises(UserError, match="layer a: its pooling needs map_pool = 1, config tiny"):
        compiled([Conv("a", 2, 4, 3, pooling=Pool("max", 3, 2))], PRESETS["tiny"])
    layers = [Conv("a", 2, 4, 3), Conv("b", 4, 4, 3, padding=1, add="a")]
    with pytest.raises(UserError, match="layer b: the out_scale of a, which it adds, is .* times"):
        compiled(layers)
    network = residual(toy_network([*layers, Linear("c", 400, 3)], ["channel 1:2"] * 3,
                                   (2, 12, 12)))
    with pytest.raises(UserError, match="layer b: a fully connected layer cannot follow a sum"):
        compile_network(network, NARROW)
    network = residual(toy_network(layers, ["channel 1:2"] * 2, (2, 12, 12)))
    with pytest.raises(UserError, match="layer b: its addition needs map_pool = 1"):
        compile_network(network, PRESETS["tiny"])
    with pytest.raises(UserError, match="layers 1:2 do not hold layer a, which layer b adds"):
        network.part(1, 2)
