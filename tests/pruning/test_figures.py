"""Pictures of logs, and what is in them."""

import json

import numpy as np
import pytest
import torch

from model import halfplane
from model.network import Conv, Linear, Network
from pruning.admm import ADMMPruner
from pruning.figures import main, tile_map
from pruning.maps import kept_maps, layer_density
from pruning.nets import SpatialNet, SpectralNet

NETWORK = Network("tiny", (2, 8, 8), (
    Conv("conv", 2, 4, 3, pool=2), Linear("fc", 36, 4, relu=False),
))


def pruned():
    torch.manual_seed(0)
    dense = SpatialNet(NETWORK)
    model = SpectralNet(NETWORK, dense)
    ADMMPruner(model.layers, "kernel", 0.25).finalise()
    return dense, model


def test_maps_count_words_and_energy():
    dense, model = pruned()
    (name, maps), = kept_maps(model, dense).items()
    assert name == "conv" and np.mean(maps["words"]) == pytest.approx(0.25)
    assert sum(maps["spectrum"]) == pytest.approx(1, abs=1e-3)
    # ADMM has not moved the weights: what it keeps is the largest, hence more than its share.
    energy = halfplane.energy(halfplane.from_spatial(
        dense.layers["conv"].weight.detach().double().numpy(), 8))
    best = np.sort(energy, axis=-1)[..., 24:].sum() / energy.sum()
    assert np.dot(maps["energy"], maps["spectrum"]) == pytest.approx(best, abs=1e-3)
    assert layer_density(model) == pytest.approx({"conv": 0.25, "fc": 0.25}, abs=0.01)


def test_the_map_of_a_tile_is_symmetric():
    words = np.arange(1, 33).astype(float)
    picture = np.fft.ifftshift(tile_map(words))
    mirror = -np.arange(8) % 8
    np.testing.assert_array_equal(picture, picture[mirror][:, mirror])
    assert picture[0, 0] == picture[4, 0] == 1 and picture[3, 2] == 8 * 2 + 3 + 1
    assert picture.min() >= 1


def test_pictures_are_written(tmp_path, capsys):
    dense, model = pruned()
    for alpha in (4, 8):
        log = {
            "recipe": {"network": "tiny", "pattern": "kernel"},
            "result": {"zeros_conv_percent": 100 - 100 / alpha, "integer_accuracy": 90 - alpha,
                       "dense_accuracy": 91.0},
            "density": layer_density(model), "kept": kept_maps(model, dense),
        }
        (tmp_path / f"a{alpha}.json").write_text(json.dumps(log))
    out = tmp_path / "out"
    assert main([str(tmp_path / "a4.json"), str(tmp_path / "a8.json"), "--out", str(out)]) == 0
    names = ["a4-density.png", "a4-kept.png", "a8-density.png", "a8-kept.png", "accuracy.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in out.iterdir())
    # Runs of `pruning.train` are told apart by their folders.
    for folder in ("run", "other", "deep/run"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "log.json").write_text(json.dumps(log))
    files = [str(tmp_path / folder / "log.json") for folder in ("run", "other", "deep/run")]
    assert main([*files, "--out", str(tmp_path / "runs")]) == 0
    names = [f"{run}-{kind}.png" for run in ("other", "run-2", "run")
             for kind in ("density", "kept")]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["accuracy.png", *names]
    capsys.readouterr()
    for part, content in (("density", 3), ("density", {"conv": "a"}), ("result", {}),
                          ("kept", {"conv": {"energy": [1, 2], "words": [1]}}),
                          ("kept", {"conv": {"energy": [0] * 32}})):
        (tmp_path / "no.json").write_text(json.dumps(log | {part: content}))
        assert main([str(tmp_path / "no.json"), "--out", str(tmp_path / "none")]) == 2
        assert "no.json is no log of" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    (tmp_path / "no.json").write_text("{}")
    assert main([str(tmp_path / "no.json")]) == 2
    assert "no.json is no log of" in capsys.readouterr().err
    assert main([str(tmp_path / "none.json")]) == 2
    assert "cannot be read" in capsys.readouterr().err
