"""SQNR per layer on a toy network: figures that can be known, and errors."""

import dataclasses
import json

import numpy as np
import pytest

from model.network import NETWORKS, Conv, Network, QuantisedNetwork
from pruning.layerwise import main as prune
from pruning.sqnr import main

TOY = Network("toyvgg", (3, 20, 20), (
    Conv("conv1", 3, 8, 3, padding=1), Conv("conv2", 8, 8, 3, padding=1, pool=2),
))
IMAGES = ["--images", "4", "--held-out", "2"]


@pytest.fixture
def pruned(tmp_path, monkeypatch):
    monkeypatch.setitem(NETWORKS, "toyvgg", TOY)
    monkeypatch.delenv("SPECTRAL_DATA", raising=False)
    assert prune(["toyvgg", "--weights", "synthetic", "--out", str(tmp_path), *IMAGES, "--tiles",
                  "60", "--admm-steps", "3"]) == 0
    return tmp_path / "toyvgg-channel-a4-w16.npz"


def measure(network, target, *more):
    assert main(["--network", str(network), "--weights", "synthetic", *IMAGES, "--json",
                 str(target), *more]) == 0
    return json.loads(target.read_text())["layers"]


def test_losses_add_up_and_fewer_weight_bits_cost_precision(pruned, tmp_path):
    report = measure(pruned, tmp_path / "sqnr.json")
    log = json.loads(pruned.with_suffix(".json").read_text())
    for entry, other in zip(report, log["layers"], strict=True):
        assert entry["layer"] == other["layer"]
        # The same photographs, networks and quantity as the pruning run's own log.
        assert entry["total_db"] == pytest.approx(other["network_db"], abs=0.01)
        assert entry["layer_db"] >= entry["integer_db"] - 0.5 > entry["pruned_db"]
    first = report[0]
    # A layer of 16-bit weights loses what rounding its 8-bit outputs costs, hardly more.
    assert 30 < first["layer_db"] < 60
    whole = QuantisedNetwork.load(pruned)
    coarse = tuple(dataclasses.replace(
        data, weight=np.rint(data.weight / 256 / 4).astype(int), sum_shift=None,
        weight_scale=data.weight_scale * 256 * 4) for data in whole.layers)
    dataclasses.replace(whole, layers=coarse, weight_bits=8).save(tmp_path / "w8.npz")
    eight = measure(tmp_path / "w8.npz", tmp_path / "w8.json", "--pruned", str(pruned))
    assert eight[0]["layer_db"] < first["layer_db"] - 3
    assert eight[0]["pruned_db"] == first["pruned_db"]


def test_mistakes_are_one_line(pruned, tmp_path, capsys):
    other = QuantisedNetwork.load(pruned).part(0, 1)
    other.save(tmp_path / "other.npz")
    for arguments, message in (
        (["--network", str(tmp_path / "none.npz")], "none.npz does not exist"),
        (["--network", str(pruned), "--pruned", str(tmp_path / "other.npz")], "another network"),
        (["--network", str(pruned), "--held-out", "0"], "give at least 0 and 1"),
        (["--network", str(pruned), "--json", str(tmp_path / "no" / "x.json")], "does not exist"),
    ):
        capsys.readouterr()
        assert main([*arguments, "--weights", "synthetic"]) == 2
        text = capsys.readouterr().err
        assert message in text and text.count("\n") == 1
