"""Several images of a run: every word of every image equal to the golden model."""

import dataclasses
import json

import numpy as np
import pytest

from model import golden
from model.compile import compile_network
from model.config import PRESETS
from model.cost import estimate
from model.descriptor import SPREAD_CODE
from model.network import Conv, Linear, Pool
from model.zoo import zoo_network
from sim.faults import flip_bit
from sim.memory import MemoryOptions
from sim.run import main
from sim.session import open_backend, simulate_batch, simulate_image
from tests.model.toys import toy_image, toy_network
from tests.sim.toys import digit_toy

CONFIG = PRESETS["tiny"]
WIDE = dataclasses.replace(PRESETS["tiny-wide"], tile_lanes=4)
OPTIONS = MemoryOptions(latency=9, stall=0.3, seed=4)


def images(shape, count):
    return [toy_image(shape, seed) for seed in range(count)]


def network(*layers, shape=(1, 12, 12), weight_bits=8):
    return toy_network([*layers], ["channel 1:4"] * len(layers), shape, 7, weight_bits)


def check(quantised, config, batch, backend="pysim", options=OPTIONS):
    """Run a batch; the results, and the program."""
    program = compile_network(quantised, config, batch=batch)
    inputs = images(quantised.network.input_shape, batch)
    with open_backend(backend, config, options=options, max_cycles=60_000) as core:
        core.load(program.image.tobytes())
        results = simulate_batch(core, program, inputs)
    for result in results:
        assert not result.failure, f"{result.failure}\n{result.comparison.difference}"
        assert result.comparison.exact, str(result.comparison.difference)
    return results, program


def test_two_images_on_one_bank():
    """Two convolutions of each, then two fully connected layers of both, results of 16 bits."""
    toy = network(
        Conv("conv1", 1, 6, 5, pool=2), Conv("conv2", 6, 7, 3, padding=1), Linear("fc1", 112, 21),
        Linear("fc2", 21, 10, relu=False))
    results, program = check(toy, CONFIG, 2)
    names = [layer.name for layer in program.layers]
    assert names == ["conv1, 0", "conv2, 0", "conv1, 1", "conv2, 1", "fc1", "fc2"]
    alone = compile_network(toy, CONFIG)
    weights = sum(layer.stream_beats for layer in alone.layers if layer.lowered.dot)
    with open_backend("pysim", CONFIG) as core:
        core.load(alone.image.tobytes())
        for pixels, result in zip(images((1, 12, 12), 2), results, strict=True):
            single = simulate_image(core, alone, pixels)
            np.testing.assert_array_equal(single.scores, result.scores)
    # The weights of the fully connected layers are read once instead of twice.
    assert results[0].run.read_beats == 2 * single.run.read_beats - weights


@pytest.mark.parametrize("batch", [3, 4])
def test_several_banks(batch):
    """A map, whose channels do not fill the banks, and vectors, read image by image."""
    toy = network(
        Conv("conv1", 1, 6, 5, pool=2), Conv("conv2", 6, 7, 3, padding=1), Linear("fc1", 112, 21),
        Linear("fc2", 21, 10, relu=False), weight_bits=16)
    check(toy, WIDE, batch)


def test_a_batch_on_a_core_whose_lanes_share_an_input():
    """A lane has rows of one image, or the image of a batch; the selects have five bits in both."""
    config = dataclasses.replace(WIDE, dot_lanes=4)
    layers = [Conv("conv1", 1, 8, 5, pool=2), Linear("fc1", 128, 25), Linear("fc2", 25, 80),
              Linear("fc3", 80, 11, relu=False)]
    patterns = ["channel 1:4", "channel 1:32", "channel 1:16", "channel 1:16"]
    toy = toy_network(layers, patterns, (1, 12, 12), 7, 16)
    for batch, spreads in ((1, [2, 1, 1]), (4, [0, 0, 0])):
        _, program = check(toy, config, batch)
        dots = [layer.descriptor for layer in program.layers if layer.lowered.dot]
        assert [fields["spread"] for fields in dots] == spreads
        assert dots[0]["select_code"] == SPREAD_CODE


def test_a_batch_behind_irregular_kernels():
    """Convolutions for a window, two rows of an inverse FFT a cycle."""
    config = PRESETS["tiny-window"]
    layers = [Conv("conv1", 1, 8, 5, pool=2), Linear("fc1", 128, 25),
              Linear("fc2", 25, 9, relu=False)]
    toy = toy_network(layers, ["kernel 4", "channel 1:4", "channel 1:8"], (1, 12, 12), 7, 16)
    check(toy, config, config.tile_lanes)


@pytest.mark.parametrize("config", [
    dataclasses.replace(CONFIG, map_pool=1, feature_depth=1024),
    dataclasses.replace(WIDE, map_pool=1),
], ids=["one bank", "eight banks"])
def test_the_next_image_waits_for_the_pooling_of_a_map(config):
    """The pooling takes the read ports, which nobody else waits for here."""
    toy = network(Conv("conv1", 1, 9, 3, pooling=Pool("max", 3, 2)), Linear("fc1", 144, 9),
                  weight_bits=config.weight_bits)
    check(toy, config, 2)


@pytest.mark.parametrize("latency", [1, 40])
def test_kernels_without_room_do_not_hold_up_the_next_input(latency):
    """Else the next image's kernels would fill the port before its input can be asked for."""
    layers = [Conv("conv1", 1, 12, 5, pool=2), Conv("conv2", 12, 4, 3), Linear("fc1", 16, 3)]
    toy = toy_network(layers, ["channel 1:4", "channel 1:8", "channel 1:4"], (1, 12, 12), 7)
    config = dataclasses.replace(CONFIG, kernel_depth=128, select_depth=128)
    check(toy, config, 2, options=MemoryOptions(latency=latency))


def test_images_without_a_fully_connected_layer():
    toy = network(Conv("conv1", 1, 6, 5, pool=2), Conv("conv2", 6, 5, 3))
    check(toy, CONFIG, 3)


@pytest.mark.parametrize("seed", range(4))
def test_stalls_and_batches_in_a_row(seed):
    program = compile_network(digit_toy(), CONFIG, batch=2)
    options = MemoryOptions(stall=0.15 * seed, seed=seed, latency=1 + 13 * seed)
    with open_backend("fast", CONFIG, options=options, max_cycles=200_000) as core:
        core.load(program.image.tobytes())
        for first in (0, 2):
            inputs = [toy_image((1, 28, 28), seed) for seed in (first, first + 1)]
            for result in simulate_batch(core, program, inputs):
                assert result.comparison.exact, str(result.comparison.difference)


def test_a_difference_names_the_image():
    """A wrong bias of the fully connected layer shows in both, a wrong input in one."""
    program = compile_network(digit_toy(), CONFIG, batch=2)
    inputs = images((1, 28, 28), 2)
    bit = 64 * (program.layers[-1].descriptor["stream_offset"] + 1) + 12    # after the header beat
    wrong, _ = flip_bit(program.image, CONFIG, f"KERN:{bit}", fix_crc=True)
    with open_backend("fast", CONFIG, max_cycles=50_000) as core:
        core.load(wrong.tobytes())
        found = [result.comparison.difference for result in simulate_batch(core, program, inputs)]
        assert [(item.layer, item.where["image"]) for item in found] == [("fc1", 0), ("fc1", 1)]
        core.load(program.image.tobytes())
        traces = [golden.run(program.network, pixels) for pixels in (inputs[0], 255 - inputs[1])]
        first, second = simulate_batch(core, program, inputs, traces)
    assert first.comparison.exact and not second.comparison.exact
    assert second.comparison.difference.layer == "conv1, 1"


def test_command_line(tmp_path, capsys):
    digit_toy().save(tmp_path / "toy.npz")
    common = ["--network", str(tmp_path / "toy.npz"), "--config", "tiny", "--batch", "2"]
    assert main([*common, "--index", "0:4", "--json", str(tmp_path / "out.json")]) == 0
    out = capsys.readouterr().out
    assert out.count("for the batch, bit exact") == 4 and "cycles per batch of 2" in out
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["batch"] == 2 and len(content["cycles"]) == 2 and len(content["scores"]) == 4
    assert f"{content['cycles'][0]} cycles per batch" in out
    assert main([*common, "--index", "0:3"]) == 2
    assert "a number of images that is a multiple of it, not 3" in capsys.readouterr().err
    assert main([*common[:-1], "3", "--index", "0:3"]) == 2
    assert "a batch of 3 images, config tiny has 2 tile lanes" in capsys.readouterr().err


@pytest.mark.slow
def test_lenet_and_its_estimate():
    """Four digits take less time than three alone."""
    config = PRESETS["ecp5-85f"]
    program = compile_network(zoo_network("lenet", "channel", 4), config, batch=4)
    with open_backend("fast", config) as core:
        core.load(program.image.tobytes())
        results = simulate_batch(core, program, images((1, 28, 28), 4))
    assert all(result.comparison.exact for result in results)
    cycles = results[0].run.cycles
    assert cycles <= 16_300
    assert abs(sum(cost.cycles for cost in estimate(program)) / cycles - 1) < 0.03
