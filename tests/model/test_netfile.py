"""The compact file: the very network back, every damage refused, never larger than SciPy's."""

import dataclasses
import json

import numpy as np
import pytest

from model.errors import UserError
from model.netfile import decode_network, encode_network, layer_sizes, layer_words, load_network
from model.network import NETWORKS, Conv, Linear
from model.sections import pack, unpack
from model.storage import main, scipy_bytes, storage
from model.synthetic import synthetic_network
from tests.model.toys import toy_network

PATTERNS = {
    "channel": ["channel 1:4", "channel 2:8", "channel 1:4"],
    "kernel": ["kernel 4", "kernel 16", "channel 1:8"],
}


def network(kind="channel", weight_bits=8):
    layers = [Conv("a", 3, 10, 3, pool=2), Conv("b", 10, 12, 3, padding=1),
              Linear("c", 12 * 36, 11, relu=False)]
    return toy_network(layers, PATTERNS[kind], (3, 14, 14), weight_bits=weight_bits)


def same(one, other):
    assert (one.network, one.weight_bits, one.in_scale, one.tile, one.in_signed) == (
        other.network, other.weight_bits, other.in_scale, other.tile, other.in_signed)
    for a, b in zip(one.layers, other.layers, strict=True):
        for field in ("weight", "weight_scale", "bias"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
        assert (a.out_scale, a.pattern, a.sum_shift) == (b.out_scale, b.pattern, b.sum_shift)


@pytest.mark.parametrize("kind", PATTERNS)
@pytest.mark.parametrize("weight_bits", [8, 16])
@pytest.mark.parametrize("single", [False, True])
def test_round_trip(kind, weight_bits, single, tmp_path):
    net = network(kind, weight_bits)
    if single:
        net = dataclasses.replace(net, layers=tuple(
            dataclasses.replace(layer, bias=layer.bias.astype(np.float32).astype(np.float64))
            for layer in net.layers))
    content = encode_network(net)
    same(decode_network(content), net)
    path = tmp_path / "n.spcn"
    path.write_bytes(content)
    same(load_network(path), net)
    net.save(tmp_path / "n.npz")
    same(load_network(tmp_path / "n.npz"), net)


def test_the_sizes_are_those_of_the_file():
    net = network()
    header = len(encode_network(net)) - sum(size.total for size in layer_sizes(net))
    assert 14 < header < 3000
    assert [size.code.split()[0] for size in layer_sizes(net)][2] == "grouped"


def test_never_larger_than_any_format_of_scipy():
    pytest.importorskip("scipy")
    for kind in PATTERNS:
        net = network(kind)
        for size, layer in zip(layer_sizes(net), net.layers, strict=True):
            sizes = scipy_bytes(layer_words(layer), net.weight_bits)
            assert set(sizes) == {"csr", "csc", "coo", "bsr"}
            assert size.position_bytes + size.value_bytes < min(sizes.values())


@pytest.mark.parametrize("at", [0, 5, 9, 13, 40, -1])
def test_every_changed_byte_is_refused(at, tmp_path):
    content = bytearray(encode_network(network()))
    content[at] ^= 0x10
    path = tmp_path / "n.spcn"
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"^network file .*n\.spcn cannot be used: "):
        load_network(path)


@pytest.mark.parametrize("length", [0, 3, 13, 200, -1])
def test_a_cut_file_is_refused(length, tmp_path):
    path = tmp_path / "n.spcn"
    path.write_bytes(encode_network(network())[:length])
    with pytest.raises(UserError, match="cannot be used: it"):
        load_network(path)


@pytest.mark.parametrize("key, value, message", [
    ("parts", 0, "a word has 1 or 2 parts, not 0"),
    ("pattern", "block 3", "unknown pattern 'block 3'"), ("pattern", None, "must be text"),
    ("sum_shift", "5", "layer c: sum_shift is '5', no integer"),
])
def test_a_header_with_other_values_is_refused(key, value, message, tmp_path):
    """The CRC is right: such a file was written by something else."""
    content = encode_network(network())
    header, sections = unpack(b"SPCN", 1, content)
    header["layers"][2][key] = value
    path = tmp_path / "n.spcn"
    path.write_bytes(pack(b"SPCN", 1, header, [part for layer in sections for part in layer]))
    with pytest.raises(UserError, match=message):
        load_network(path)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_network(tmp_path / "n.spcn")


def test_command(tmp_path, capsys):
    source, out, table = tmp_path / "n.npz", tmp_path / "n.spcn", tmp_path / "s.json"
    net = network()
    net.save(source)
    assert main([str(source), "--out", str(out), "--json", str(table)]) == 0
    report = json.loads(table.read_text())
    assert report["file"] == out.stat().st_size
    assert f"{report['file']} bytes" in capsys.readouterr().out
    assert report["dense_float32"] == 4 * (10 * 28 + 12 * 91 + 11 * 433)
    assert report == storage(load_network(out)) | {"pattern": "channel 1:4, channel 2:8"}
    assert main([str(source), "--out", str(tmp_path / "n.zip")]) == 2
    assert "ends in .spcn" in capsys.readouterr().err


def test_random_weights_instead_of_a_file(tmp_path, capsys):
    out, table = tmp_path / "n.spcn", tmp_path / "s.json"
    drawn = ["lenet5", "--weights", "synthetic", "--alpha", "2", "--dense-alpha", "16"]
    assert main([*drawn, "--seed", "7", "--out", str(out), "--json", str(table)]) == 0
    report = json.loads(table.read_text())
    assert report["file"] == out.stat().st_size and report["weight_bits"] == 8
    assert report["pattern"] == "channel 1:2, channel 1:16"
    same(load_network(out), synthetic_network(NETWORKS["lenet5"], weight_bits=8, alpha=2, seed=7,
                                              dense_alpha=16))
    capsys.readouterr()
    assert main(["lenet6", "--weights", "synthetic"]) == 2
    assert "unknown network 'lenet6'" in capsys.readouterr().err
