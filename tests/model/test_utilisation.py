import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from model.compile import compile_network
from model.config import PRESETS
from model.lower import lower
from model.network import Conv
from model.utilisation import layer_utilisation, main, utilisation
from tests.model.toys import toy_network

ZOO = Path(__file__).resolve().parents[2] / "model" / "zoo"
SMALL = PRESETS["ecp5-85f"]


def layer(pattern, outputs=12, channels=16):
    network = toy_network([Conv("conv", channels, outputs, 3)], [pattern], (channels, 10, 10))
    return lower(network).layers[0]


def with_words(kept):
    """Make a layer whose non-zero words are ``kept``, (N, C, 32)."""
    base = layer("unstructured 1", *kept.shape[:2])
    weight = np.where(kept[..., None], np.maximum(np.abs(base.weight), 1), 0)
    return dataclasses.replace(base, weight=weight)


@pytest.mark.parametrize("config", ["ecp5-85f", "u200"])
def test_groups_of_all_lanes_fill_every_step(config):
    core = PRESETS[config]
    lanes = core.kernel_lanes
    found = layer_utilisation(layer(f"locality 4 {lanes}x1", 2 * lanes), core)
    # A few of the kept words are rounded to zero.
    assert 0.999 < found["scheduler"] <= 1
    assert found["offered"] == 2 * lanes * 16 * 32 // 4


def test_the_rest_of_a_layer_counts_the_lanes_it_has():
    kept = np.zeros((12, 16, 32), bool)
    kept[:, :3] = True                              # 8 + 4 outputs, 3 steps per frequency
    found = layer_utilisation(with_words(kept), SMALL)
    assert (found["products"], found["offered"]) == (12 * 3 * 32, 12 * 3 * 32)
    assert found["scheduler"] == found["core"] == 1.0


def test_the_fullest_lane_and_empty_frequencies_are_paid_for():
    kept = np.zeros((8, 16, 32), bool)
    kept[0, :4, 0] = True                           # 4 steps of one lane
    kept[1:, 0, 0] = True
    found = layer_utilisation(with_words(kept), SMALL)
    assert found["products"] == 11
    assert found["offered"] == 4 * 8 and found["core_offered"] == (4 + 31) * 8


def test_a_window_evens_out_what_one_frequency_cannot():
    toy = layer("kernel 4", 64, 64)
    narrow, wide = (layer_utilisation(toy, PRESETS[name]) for name in ("u200", "u200-window"))
    assert narrow["products"] == wide["products"]
    assert wide["scheduler"] > narrow["scheduler"] + 0.2
    assert wide["core"] <= wide["scheduler"]


def test_the_core_count_is_that_of_the_compiler():
    network = toy_network([Conv("a", 3, 24, 3), Conv("b", 24, 16, 3)], ["unstructured 5"] * 2,
                          (3, 12, 12))
    compiled = compile_network(network, SMALL).layers
    for found, expected in zip(utilisation(network, SMALL)["layers"], compiled, strict=True):
        assert found["core_offered"] == expected.steps * 8
        assert found["tiles"] == 4


def test_command_writes_what_it_prints(tmp_path, capsys):
    target = tmp_path / "utilisation.json"
    files = [str(ZOO / f"lenet5-{name}-a4.npz") for name in ("kernel", "channel")]
    assert main([*files, "--config", "ecp5-85f", "--json", str(target)]) == 0
    printed = capsys.readouterr().out
    kernel, channel = json.loads(target.read_text())
    for entry in (kernel, channel):
        assert f"{100 * entry['configs'][0]['scheduler']:.1f}" in printed
    assert channel["configs"][0]["scheduler"] > kernel["configs"][0]["scheduler"]


def test_an_unknown_config_is_one_line(capsys):
    assert main([str(ZOO / "lenet5-kernel-a4.npz"), "--config", "u9"]) == 2
    assert "unknown config u9: known are " in capsys.readouterr().err
