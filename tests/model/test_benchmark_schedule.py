import json
from pathlib import Path

import numpy as np
import pytest

from model.benchmark_schedule import METHODS, Layer, Method, main, measure

ZOO = Path(__file__).resolve().parents[2] / "model" / "zoo"


def layer(kernels=200, channels=8, frequencies=32):
    kept = np.random.default_rng(2).random((kernels, channels, frequencies)) < 0.25
    return Layer("toy", kept, 9, None)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_every_method_does_every_product(method):
    toy = layer(kernels=70, channels=2, frequencies=8)
    result = measure(toy, method, 8)
    assert result["products"] == toy.kept.sum()
    assert 0 < result["utilisation"] <= 1
    assert result["utilisation"] == pytest.approx(result["products"] / result["cycles"] / 64)


def test_a_sample_of_blocks_stands_for_the_layer():
    whole = measure(layer(256), Method("completing", 32), 8)
    part = measure(layer(256), Method("completing", 32), 8, blocks=2)
    assert part["utilisation"] == pytest.approx(whole["utilisation"], abs=0.03)
    assert part["products"] == pytest.approx(whole["products"], rel=0.05)


def test_command_measures_a_pruned_network(tmp_path, capsys):
    target = tmp_path / "schedule.json"
    assert main(["--network", str(ZOO / "lenet-kernel-a4.npz"), "--addresses", "4,8",
                 "--methods", "completing, window 32", "--json", str(target)]) == 0
    assert "completing, window 32" in capsys.readouterr().out
    data = json.loads(target.read_text())
    assert data["pattern"] == "kernel 4"
    runs = {(run["label"], run["addresses"]): run["utilisation"] for run in data["runs"]}
    assert runs["completing, window 32", 8] > runs["completing, window 32", 4] > 0.3


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "give --data DIR"),
    (["--data", "nowhere"], "does not exist: give --data the folder"),
    (["--network", "x.npz", "--addresses", "a"], "--addresses must be numbers"),
    (["--network", "x.npz", "--addresses", "0"], "--addresses must be 1 to 64"),
    (["--network", "x.npz", "--methods", "best"], "no method contains 'best'"),
    (["--network", "x.npz", "--blocks", "-1"], "--blocks must not be negative"),
    (["--network", "x.npz"], "does not exist"),
    (["--data", ".", "--pattern", "cube 3"], "unknown pattern 'cube 3'"),
])
def test_bad_input_is_one_line(arguments, message, capsys, monkeypatch):
    monkeypatch.delenv("SPECTRAL_DATA", raising=False)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
