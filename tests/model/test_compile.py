import dataclasses

import numpy as np
import pytest

from model import golden, layout
from model.compile import compile_network
from model.config import PRESETS
from model.cost import estimate
from model.descriptor import FIELDS, pack, unpack
from model.errors import UserError
from model.image import ProgramImage
from model.network import NETWORKS, Conv, Linear
from model.stream import unpack_layer
from tests.model.toys import toy_image, toy_lenet, toy_network

CONFIG = PRESETS["ecp5-85f"]


@pytest.mark.parametrize("pattern", ["channel 1:4", "kernel 4"])
def test_the_image_holds_every_weight_and_parameter(pattern):
    network = toy_lenet(pattern=pattern)
    program = compile_network(network, CONFIG)
    image = ProgramImage.parse(program.image.tobytes(), CONFIG)
    for index, layer in enumerate(program.layers):
        fields = image.descriptors[index]
        assert fields == layer.descriptor
        blocks = unpack_layer(
            CONFIG, image.stream(index), layer.how.select_bits, fields["kernel_blocks"],
            lanes_last=fields["lanes_last"],
        )
        params = np.concatenate([block["params"] for block in blocks])[:fields["kernels"]]
        np.testing.assert_array_equal(params[:, 0], layer.lowered.bias)
        np.testing.assert_array_equal(params[:, 1], layer.lowered.multiplier)
        # An idle lane has weight zero, so the sums of magnitudes agree.
        packed = sum(np.abs(block["weights"]).sum() for block in blocks)
        assert packed == np.abs(layer.lowered.weight).sum()


def test_maps_smaller_than_the_tile_and_a_classifier_behind_one_pixel():
    vgg = NETWORKS["vgg16-cifar-quarter"]
    patterns = ["channel 1:4"] * 13 + ["channel 1:1"]
    network = toy_network(vgg.layers, patterns, vgg.input_shape, name=vgg.name)
    program = compile_network(network, CONFIG)
    assert [layer.descriptor["dot"] for layer in program.layers] == [0] * 13 + [1]
    traces = golden.run(program.network, toy_image(vgg.input_shape))
    # 4x4 and 2x2 maps are one tile each, with zeros around the map.
    assert [len(trace.tiles) for trace in traces[7:13]] == [1] * 6
    assert traces[-1].out.shape == (10, 1, 1) and np.ptp(traces[-1].out) > 100


def test_descriptors_round_trip_and_refuse_what_does_not_fit():
    rng = np.random.default_rng(0)
    values = {name: int(rng.integers(0, 1 << bits)) for name, bits in FIELDS}
    assert unpack(pack(values)) == values
    with pytest.raises(ValueError, match="descriptor field hold = 64 does not fit 6 bits"):
        pack(values | {"hold": 64})
    with pytest.raises(ValueError, match="unknown descriptor fields"):
        pack(values | {"stride": 1})


def test_input_and_output_of_a_layer_never_overlap():
    program = compile_network(toy_lenet(), CONFIG)
    for layer in program.layers:
        fields = layer.descriptor
        shape = layer.lowered.in_shape
        source = fields["groups"] if fields["dot"] else layout.plane(shape).rows
        used = set(range(fields["in_base"], fields["in_base"] + source))
        assert fields["out_base"] not in used
        assert max(used) < CONFIG.feature_depth


def test_plane_layout_places_every_pixel():
    image = toy_image((3, 11, 13))
    region = layout.plane(image.shape)
    memory = layout.pack_plane(image, region).view(np.uint8).reshape(-1, 2, 8)
    assert len(memory) == region.rows
    for channel, y, x in np.ndindex(image.shape):
        row = channel * region.plane + ((y >> 1) << region.row_log2) + (x >> 3)
        assert memory[row, y & 1, x & 7] == image[channel, y, x]


@pytest.mark.parametrize("banks", [1, 8, 16])
@pytest.mark.parametrize("shape", [(3, 11, 13), (16, 4, 8), (21, 5, 17)])
def test_banks_hold_every_pixel_and_zero_beyond(banks, shape):
    image = toy_image(shape) | 1
    region = layout.plane(shape, banks)
    words = layout.pack_plane(image, region)
    memory = words.view(np.uint8).reshape(-1, banks, 2, 8)
    assert len(memory) == region.rows == -(-shape[0] // banks) * region.plane
    for channel, y, x in np.ndindex(image.shape):
        row = channel // banks * region.plane + ((y >> 1) << region.row_log2) + (x >> 3)
        assert memory[row, channel % banks, y & 1, x & 7] == image[channel, y, x]
    assert np.count_nonzero(memory) == image.size
    np.testing.assert_array_equal(layout.unpack_plane(words, shape, region), image)


def test_several_banks():
    config = PRESETS["tiny-wide"]
    layers = [Conv("a", 3, 20, 3, padding=1), Conv("b", 20, 11, 3, padding=1, relu=False)]
    network = toy_network(layers, ["kernel 4"] * 2, (3, 9, 12), weight_bits=16)
    program = compile_network(network, config)
    first, last = (layer.descriptor for layer in program.layers)
    # Twenty kernels are three blocks of eight; the last one's eight are all written, as zeros.
    assert (first["kernels"], first["kernel_blocks"], first["lanes_last"]) == (20, 3, 8)
    assert (first["channels"], last["channels"], last["groups"]) == (3, 20, 3)
    plane = 5 * 2
    assert (program.input_region.rows, first["in_plane"]) == (plane, plane)
    assert first["out_base"] == last["in_base"] == config.feature_depth - 3 * plane
    assert not first["out_vector"] and not last["out_vector"]
    assert (last["lanes_last"], program.output_region.rows) == (8, 2 * plane)
    values = np.random.default_rng(0).integers(-128, 128, (11, 9, 12))
    words = layout.pack_plane(values, program.output_region)
    np.testing.assert_array_equal(program.unpack_output(words), values)


def test_large_kernel_blocks_are_read_again_instead_of_replayed():
    # 560 entries with a select beat each do not fit the 512 of the select buffer.
    layers = [Conv("wide", 100, 8, 3)]
    shape = (100, 14, 20)        # six tiles: two tile blocks
    network = toy_network(layers, ["kernel 4"], shape)
    small = dataclasses.replace(
        CONFIG, tile_depth=2048, kernel_depth=4096, feature_depth=4096
    )
    program = compile_network(network, small)
    assert program.layers[0].entries > small.select_depth
    assert program.layers[0].descriptor["resident"] == 1
    assert program.layers[0].kernel_passes == 2


def refused(match, layers, patterns, shape, config=CONFIG, weight_bits=8):
    network = toy_network(layers, patterns, shape, weight_bits=weight_bits)
    with pytest.raises(UserError, match=match):
        compile_network(network, config)


def test_what_does_not_fit_names_the_layer_and_the_remedy():
    refused("8-bit weights, config ecp5-85f-w16 takes 16", [Conv("a", 1, 4, 3)], ["channel 1:1"],
            (1, 8, 8), PRESETS["ecp5-85f-w16"])
    refused("layer a: its maps need .* raise feature_depth", [Conv("a", 8, 8, 3)],
            ["channel 1:4"], (8, 200, 200))
    refused("layer a: a tile block needs 544 words", [Conv("a", 130, 4, 3)], ["channel 1:4"],
            (130, 8, 8))
    refused("layer a: a 2x2 pool straddles the 5x5 output tiles of a 4x4",
            [Conv("a", 1, 4, 4, pool=2)], ["channel 1:1"], (1, 10, 10))
    refused("layer b: a convolution cannot follow layer a",
            [Conv("c", 1, 4, 1), Linear("a", 4, 4), Conv("b", 4, 4, 1)],
            ["channel 1:1", "channel 1:1", "channel 1:1"], (1, 1, 1))
    wide = PRESETS["tiny-wide"]
    refused("layer a: its output tiles have 8 values a row, config tiny-wide requantises 6",
            [Conv("a", 1, 4, 1)], ["channel 1:1"], (1, 8, 8), wide, 16)
    refused("layer a: an even kernel size, 4, needs inverse_rows = 1, config tiny-wide2 has 2",
            [Conv("a", 1, 4, 4)], ["channel 1:1"], (1, 8, 8), PRESETS["tiny-wide2"], 16)
    refused("beyond acc_bits = 26: raise acc_bits", [Conv("a", 64, 4, 3)], ["channel 1:1"],
            (64, 8, 8), dataclasses.replace(CONFIG, acc_bits=26))
    refused("layer a: descriptor field in_width = 1030 does not fit 10 bits", [Conv("a", 1, 1, 3)],
            ["channel 1:1"], (1, 3, 1030))
    one = toy_network([Conv("a", 1, 4, 3)], ["channel 1:1"], (1, 8, 8))
    wide = dataclasses.replace(one.layers[0], weight=np.zeros((4, 1, 128, 2), int))
    with pytest.raises(UserError, match="network was pruned on 16-tiles"):
        compile_network(dataclasses.replace(one, layers=(wide,), tile=16), CONFIG)


def test_estimate_counts_every_layer():
    program = compile_network(toy_lenet(), CONFIG)
    costs = estimate(program)
    assert [cost.name for cost in costs] == [layer.name for layer in program.layers]
    assert all(cost.cycles >= max(cost.mac_cycles, cost.store_cycles) for cost in costs)


def test_the_layers_of_a_batch():
    """Copies of the convolutions on the same kernels and other maps; images of a dot layer."""
    program = compile_network(toy_lenet(), CONFIG, batch=3)
    alone = compile_network(toy_lenet(), CONFIG)
    image = ProgramImage.parse(program.image.tobytes(), CONFIG)
    assert [layer.descriptor for layer in program.layers] == list(image.descriptors)
    assert [(layer.name, layer.image) for layer in program.layers] == [
        ("conv1, 0", 0), ("conv2, 0", 0), ("conv1, 1", 1), ("conv2, 1", 1), ("conv1, 2", 2),
        ("conv2, 2", 2), ("fc1", None), ("fc2", None)]
    np.testing.assert_array_equal(
        image.kernels, ProgramImage.parse(alone.image.tobytes(), CONFIG).kernels)
    fields = image.descriptors
    assert [desc["input"] for desc in fields] == [1, 0, 1, 0, 1, 0, 0, 0]
    assert [desc["last"] for desc in fields] == [0] * 7 + [1]
    for first, second in zip(fields[:2], fields[2:4], strict=True):
        changed = {name for name in first if first[name] != second[name]}
        assert changed <= {"in_base", "out_base", "pool_base"}
    assert [desc["in_base"] for desc in fields[:6:2]] == [0, 0, 0]
    vectors = [desc["out_base"] for desc in fields[1:6:2]]
    assert np.diff(vectors).tolist() == [16, 16] and vectors[0] == fields[6]["in_base"]
    assert [(desc["tiles"], desc["out_height"], desc["out_plane"], desc["out_tile_row"])
            for desc in fields[6:]] == [(3, 3, 16, 48), (3, 3, 3, 16)]
    assert (program.input_region.rows, program.output_region.rows) == (56, 3 * 2)
    assert (image.input_rows, image.output_rows, image.batch) == (56, 3 * 2, 3)


def test_inputs_and_outputs_of_a_batch_follow_each_other():
    program = compile_network(toy_lenet(), CONFIG, batch=2)
    alone = compile_network(toy_lenet(), CONFIG)
    images = [toy_image((1, 28, 28), seed) for seed in range(2)]
    np.testing.assert_array_equal(program.pack_input(*images), np.concatenate(
        [alone.pack_input(image) for image in images]))
    outputs = np.arange(4 * program.output_region.rows // 2, dtype="<u8")
    first, second = program.unpack_outputs(outputs)
    np.testing.assert_array_equal(first, alone.unpack_output(outputs[:len(outputs) // 2]))
    np.testing.assert_array_equal(second, alone.unpack_output(outputs[len(outputs) // 2:]))
    with pytest.raises(ValueError, match="takes 2 inputs, not 1"):
        program.pack_input(images[0])
    with pytest.raises(ValueError, match="gives 2 outputs"):
        program.unpack_output(outputs)


def test_a_batch_that_the_core_cannot_take_says_why():
    with pytest.raises(UserError, match="batch of 5 images, config ecp5-85f has 4 tile lanes.*"
                       "take fewer images or raise tile_lanes"):
        compile_network(toy_lenet(), CONFIG, batch=5)
    config = dataclasses.replace(CONFIG, max_layers=9)
    with pytest.raises(UserError, match="10 layers for a batch of 4 images.*raise max_layers"):
        compile_network(toy_lenet(), config, batch=4)
    with pytest.raises(ValueError, match="batch must be at least 1"):
        compile_network(toy_lenet(), CONFIG, batch=0)


def test_the_estimate_of_a_batch_counts_weights_once():
    costs = [estimate(compile_network(toy_lenet(), CONFIG, batch=batch)) for batch in (1, 4)]
    beats = [[cost.stream_beats for cost in cost] for cost in costs]
    assert beats[1] == beats[0][:2] * 4 + beats[0][2:]
    cycles = [sum(cost.cycles for cost in cost) for cost in costs]
    assert cycles[1] < 4 * cycles[0]
