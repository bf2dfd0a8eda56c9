"""Exact bytes of the full AlexNet at given densities (here of a narrow stand-in)."""

import json
from dataclasses import replace

import numpy as np
import pytest

from model.alexnet import ALEXNETS, ConvShape, LinearShape
from model.fullsize import main, random_network
from model.spatialfile import encode_spatial

NAMES = [layer.name for layer in ALEXNETS["alexnet"].layers]
DENSITIES = dict(zip(NAMES, (0.8, 0.4, 0.3, 0.3, 0.3, 0.05, 0.04, 0.2), strict=True))


def narrow(shape):
    """A tenth of the features."""
    return replace(shape, linears=tuple(
        LinearShape(item.name, item.in_features // 10, item.out_features // 10)
        for item in shape.linears))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name in ("alexnet", "alexnet-grouped"):
        monkeypatch.setitem(ALEXNETS, name, narrow(ALEXNETS[name]))


def test_as_many_weights_as_the_shares_say_and_the_same_every_time():
    shape = ALEXNETS["alexnet-grouped"]
    network = random_network(shape, DENSITIES, 3)
    for layer, stored in zip(shape.layers, network.layers, strict=True):
        assert stored.weight.shape == layer.weight_shape
        assert (stored.weight != 0).sum() == round(DENSITIES[layer.name] * stored.weight.size)
    assert encode_spatial(network)[0] == encode_spatial(random_network(shape, DENSITIES, 3))[0]
    assert encode_spatial(network)[0] != encode_spatial(random_network(shape, DENSITIES, 4))[0]


def test_sides_of_the_maps():
    for shape in (ALEXNETS["alexnet"], ALEXNETS["alexnet-grouped"]):
        sides = [shape.side]
        for conv in shape.convs:
            sides.append(conv.out_side(sides[-1]))
        assert sides[1:] == [27, 13, 13, 13, 6]
    assert ConvShape("x", 8, 4, 3, groups=2).weight_shape == (4, 4, 3, 3)


def test_command(tmp_path, capsys):
    log, out = tmp_path / "log.json", tmp_path / "out.json"
    log.write_text(json.dumps({"densities": DENSITIES}))
    assert main([str(log), "--json", str(out)]) == 0
    for result in json.loads(out.read_text())["networks"]:
        shape = ALEXNETS[result["network"]]
        assert result["parameters"] == shape.parameters
        weights = [round(DENSITIES[layer.name] * int(np.prod(layer.weight_shape)))
                   for layer in shape.layers]
        assert result["kept"] == sum(weights) + sum(item.weight_shape[0] for item in shape.layers)
        header = result["file"] - sum(row["total"] for row in result["layers"])
        assert 0 < header < 2500
    capsys.readouterr()


@pytest.mark.parametrize("content, message", [
    ({"densities": {"conv1": 0.5}}, "must be shares in (0, 1] of conv1, conv2"),
    ({"densities": DENSITIES | {"fc8": 0}}, "must be shares in (0, 1]"),
    ({"recipe": 1}, "is no log of python -m pruning.compress"),
    (None, "does not exist"),
])
def test_refusals(tmp_path, capsys, content, message):
    log = tmp_path / "log.json"
    if content is not None:
        log.write_text(json.dumps(content))
    assert main([str(log)]) == 2
    assert message in capsys.readouterr().err
