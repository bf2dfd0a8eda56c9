"""Whole networks on the compiled core: modes, stalls, planted faults, the command line."""

import json

import numpy as np
import pytest
from PIL import Image

from model.compile import compile_network
from model.config import PRESETS
from sim.backend import CoreError
from sim.faults import flip_bit, sections
from sim.memory import MemoryOptions
from sim.run import main
from sim.session import open_backend, simulate_image
from tests.model.toys import toy_image
from tests.sim.toys import digit_toy, two_layers

CONFIG = PRESETS["tiny"]
IMAGE = toy_image((1, 12, 12))


@pytest.fixture(scope="module")
def program():
    return compile_network(two_layers(), CONFIG)


def simulate(program, image, **options):
    with open_backend("fast", CONFIG, options=MemoryOptions(**options),
                      max_cycles=200_000) as backend:
        backend.load(program.image.tobytes())
        result = simulate_image(backend, program, image)
    assert not result.failure, f"{result.failure}\n{result.comparison.difference}"
    assert result.comparison.exact, str(result.comparison.difference)
    return result


def test_backends_agree(program):
    fast = simulate(program, IMAGE)
    with open_backend("pysim", CONFIG, max_cycles=20_000) as backend:
        backend.load(program.image.tobytes())
        slow = simulate_image(backend, program, IMAGE)
    assert slow.comparison.exact
    assert slow.run.cycles == fast.run.cycles
    np.testing.assert_array_equal(slow.run.profile, fast.run.profile)


@pytest.mark.parametrize("pattern", ["channel 1:4", "channel 2:8", "kernel 4"])
def test_patterns(pattern):
    program = compile_network(digit_toy(pattern), CONFIG)
    simulate(program, toy_image((1, 28, 28), 3))


@pytest.mark.parametrize("seed", range(4))
def test_stalls_change_cycles_only(program, seed):
    still = simulate(program, IMAGE)
    stalled = simulate(program, IMAGE, stall=0.6, seed=seed, latency=1 + 13 * seed, gap=seed % 2)
    np.testing.assert_array_equal(still.scores, stalled.scores)
    assert stalled.run.cycles > still.run.cycles


def test_images_in_a_row(program):
    with open_backend("fast", CONFIG) as backend:
        backend.load(program.image.tobytes())
        for seed in range(5):
            result = simulate_image(backend, program, toy_image((1, 12, 12), seed))
            assert result.comparison.exact, str(result.comparison.difference)


@pytest.mark.parametrize("during", ["load", "run"])
def test_bus_error_is_reported(program, during):
    beat = 20 if during == "load" else len(program.image) + 10
    with open_backend("fast", CONFIG, options=MemoryOptions(error_beat=beat),
                      max_cycles=20_000) as backend:
        if during == "load":
            with pytest.raises(CoreError, match="error 8 BUS"):
                backend.load(program.image.tobytes())
            return
        backend.load(program.image.tobytes())
        result = simulate_image(backend, program, IMAGE)
        assert result.run is None and "error 8 BUS" in result.failure


@pytest.mark.parametrize(("where", "check"), [
    ("0", "MAGIC"), ("400", "HEADER_CRC"), ("DESC:77", "DESCRIPTOR_CRC"),
    ("KERN:999", "KERNEL_CRC"),
])
def test_core_refuses_a_flipped_bit(program, where, check):
    image, _ = flip_bit(program.image, program.config, where)
    with open_backend("fast", CONFIG, max_cycles=20_000) as backend:
        with pytest.raises(CoreError, match=check):
            backend.load(image.tobytes())
        backend.load(program.image.tobytes())       # and takes a good image afterwards
        assert simulate_image(backend, program, IMAGE).comparison.exact


def test_flipped_weight_is_located(program):
    # The second layer's last block: its first weight row lies after header and parameters.
    part = sections(program.image, program.config)["KERN"]
    offset = program.layers[0].descriptor["stream_offset"]
    assert part.start + offset < part.stop
    found = []
    for bit in range(64 * (offset + 4), 64 * (offset + 10), 17):
        image, _ = flip_bit(program.image, program.config, f"KERN:{bit}", fix_crc=True)
        with open_backend("fast", CONFIG, max_cycles=20_000) as backend:
            backend.load(image.tobytes())
            result = simulate_image(backend, program, IMAGE)
        if not result.comparison.exact:
            found.append(result.comparison.difference)
    assert found
    for difference in found:
        assert difference.layer == "conv1" and difference.stage == "sum"
        assert "frequency" in difference.where and "kernel" in difference.where


def test_command_line(tmp_path, capsys):
    digit_toy().save(tmp_path / "toy.npz")
    Image.fromarray(toy_image((28, 28)).astype(np.uint8)).save(tmp_path / "digit.png")
    common = ["--network", str(tmp_path / "toy.npz"), "--config", "tiny"]
    arguments = [*common, "--images", str(tmp_path / "digit.png"), "--stall", "0.2",
                 "--json", str(tmp_path / "out.json")]
    assert main(arguments) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    assert "bit exact" in out and "conv2" in out and "ms at 100 MHz" in out
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["bit_exact"] and content["words_compared"] > 10_000
    assert [item["name"] for item in content["layers"]] == ["conv1", "conv2", "fc1"]
    assert set(content["layers"][0]["stalls"]) == {"tiles", "weights", "sums"}
    assert sum(item["cycles"] for item in content["layers"]) <= content["cycles"][0]

    assert main([*common, "--index", "0:3"]) == 0
    assert "#2: class" in capsys.readouterr().out
    assert main([*common, "--flip-bit", "KERN:5"]) == 1
    assert "section KERN is corrupt" in capsys.readouterr().err
    assert main([*common, "--max-cycles", "300"]) == 1
    captured = capsys.readouterr()
    assert "watchdog" in captured.out + captured.err


