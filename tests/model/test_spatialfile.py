"""Weights that are not transformed: the very integers back, damage refused, SciPy beaten."""

import json

import numpy as np
import pytest

from model.errors import UserError
from model.sections import kept_words
from model.spatialfile import (
    SpatialLayer,
    SpatialNetwork,
    decode_spatial,
    encode_spatial,
    load_spatial,
    spatial_words,
)
from model.storage import csr_bytes, fixed_bytes, main, scipy_bytes, storage

DENSITIES = (1.0, 0.6, 0.3, 0.08, 0.02)


def network(seed=0):
    rng = np.random.default_rng(seed)
    layers = []
    shapes = ((8, 3, 5, 5), (12, 8, 3, 3), (300, 90), (200, 300), (40, 200))
    for index, (shape, density) in enumerate(zip(shapes, DENSITIES, strict=True)):
        weight = rng.integers(1, 128, shape) * rng.choice([-1, 1], shape)
        weight *= rng.random(shape) < density
        scale = rng.random(shape[0]).astype(np.float32).astype(np.float64)
        layers.append(SpatialLayer(f"l{index}", weight, scale, rng.normal(size=shape[0]),
                                   None if index == 4 else 0.25))
    return SpatialNetwork("toy", 1 / 255, tuple(layers))


def test_round_trip(tmp_path):
    net = network()
    content, sizes = encode_spatial(net)
    (tmp_path / "n.spcs").write_bytes(content)
    back = load_spatial(tmp_path / "n.spcs")
    assert (back.name, back.in_scale) == ("toy", 1 / 255)
    for one, other in zip(net.layers, back.layers, strict=True):
        assert (one.name, one.out_scale) == (other.name, other.out_scale)
        for field in ("weight", "weight_scale", "bias"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    assert 14 < len(content) - sum(size.total for size in sizes) < 1500
    # A relative index of one bit is a bitmap that ends with the last kept word.
    assert [size.code for size in sizes][:2] == ["dense", "relative 1"]
    assert all(size.code.startswith("rice") for size in sizes[2:])
    assert [size.words for size in sizes] == [layer.weight.size for layer in net.layers]


def test_a_network_with_an_empty_layer():
    layer = SpatialLayer("x", np.zeros((4, 6), np.int64), np.ones(4), np.zeros(4), None)
    back = decode_spatial(encode_spatial(SpatialNetwork("toy", 1.0, (layer,)))[0])
    assert not back.layers[0].weight.any() and back.layers[0].weight.shape == (4, 6)


def test_sizes_beside_other_formats():
    pytest.importorskip("scipy")
    net = network()
    for size, layer in zip(encode_spatial(net)[1], net.layers, strict=True):
        words = spatial_words(layer)
        ours = size.position_bytes + size.value_bytes
        others = scipy_bytes(words, 8)
        assert set(others) == {"csr", "csc", "coo", "bsr"}
        assert ours <= fixed_bytes(words, 8) + (size.code == "dense") * words.size
        assert ours < csr_bytes(words, 8) < others["csr"]
        assert ours < min(others.values())


def test_csr_by_hand():
    words = np.zeros((3, 300, 1, 1), np.int64)
    words[0, 5], words[2, 299] = 1, -1
    # Two values, two 2-byte columns, four 1-byte row pointers.
    assert csr_bytes(words, 8) == 2 + 4 + 4 and kept_words(words).sum() == 2
    # A bitmap takes 113 bytes; relative indices of 9 bits: 5, then 893 as an escape and 382.
    assert fixed_bytes(words, 8) == 2 + 3


@pytest.mark.parametrize("change", [0, 5, 9, 13, 40, -1])
def test_damage_is_one_line(tmp_path, change):
    content = bytearray(encode_spatial(network())[0])
    content[change] ^= 0x10
    path = tmp_path / "n.spcs"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"^weights .*n\.spcs cannot be used: "):
        load_spatial(path)
    path.write_bytes(content[:200])
    with pytest.raises(UserError, match="cannot be used"):
        load_spatial(path)
    with pytest.raises(UserError, match="No such file"):
        load_spatial(tmp_path / "none.spcs")


def test_command(tmp_path, capsys):
    path, table = tmp_path / "n.spcs", tmp_path / "s.json"
    path.write_bytes(encode_spatial(network())[0])
    assert main([str(path), "--json", str(table)]) == 0
    report = json.loads(table.read_text())
    assert report == storage(network()) and report["file"] == path.stat().st_size
    assert report["dense_float32"] == 4 * (600 + 864 + 27000 + 60000 + 8000 + 560)
    assert f"{report['file']} bytes" in capsys.readouterr().out
    assert main([str(path), "--out", str(tmp_path / "o.spcn")]) == 2
    assert "is a compact file already" in capsys.readouterr().err
