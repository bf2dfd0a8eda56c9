import dataclasses
import json
import zipfile

import numpy as np
import pytest

from model.errors import UserError
from model.lower import lower
from model.network import NETWORKS, Conv, Linear, Network, QuantisedNetwork
from tests.model.toys import toy_lenet


def test_shapes_of_the_lenets():
    assert NETWORKS["lenet"].shapes()[1:3] == [(20, 12, 12), (50, 4, 4)]
    assert NETWORKS["lenet5"].shapes()[-1] == (10, 1, 1)


def test_vgg16_is_configuration_d():
    vgg = NETWORKS["vgg16"]
    assert vgg.shapes()[-1] == (512, 7, 7) and len(vgg.layers) == 13
    macs = sum(9 * layer.in_channels * layer.out_channels * height * width
               for layer, (_, height, width) in zip(vgg.layers, vgg.shapes(), strict=False))
    assert macs == 15_346_630_656


def test_vgg16_for_small_images_ends_in_one_pixel():
    for name, divisor in (("vgg16-cifar", 1), ("vgg16-cifar-quarter", 4)):
        small = NETWORKS[name]
        assert [layer.out_channels * divisor for layer in small.layers[:-1]] == [
            layer.out_channels for layer in NETWORKS["vgg16"].layers]
        assert small.shapes()[-2:] == [(512 // divisor, 1, 1), (10, 1, 1)]


@pytest.mark.parametrize("signed", [False, True])
def test_save_and_load(tmp_path, signed):
    network = dataclasses.replace(toy_lenet(), in_signed=signed)
    network.save(tmp_path / "n.npz")
    back = QuantisedNetwork.load(tmp_path / "n.npz")
    assert back.network == network.network and back.in_scale == network.in_scale
    assert back.in_signed == signed
    for ours, theirs in zip(network.layers, back.layers, strict=True):
        np.testing.assert_array_equal(ours.weight, theirs.weight)
        np.testing.assert_array_equal(ours.bias, theirs.bias)
        assert (ours.pattern, ours.out_scale, ours.sum_shift) == (
            theirs.pattern, theirs.out_scale, theirs.sum_shift)
    assert [path.name for path in tmp_path.iterdir()] == ["n.npz"]


def corrupt(path, change):
    data = dict(np.load(path))
    change(data)
    np.savez(path, **data)


@pytest.mark.parametrize("change, match", [
    (lambda d: d.update({"conv1.weight": np.full((6, 1, 32, 2), np.nan)}), "NaN"),
    (lambda d: d.update({"conv1.weight": np.zeros((6, 1, 32, 2))}), "float64, not integers"),
    (lambda d: d.update({"conv1.weight": np.zeros((5, 1, 32, 2), np.int8)}), "weight shape"),
    (lambda d: d.update({"conv1.bias": np.full(6, np.nan)}), "layer conv1: bias holds NaN"),
    (lambda d: d.pop("fc1.weight"), "fc1.weight"),
    (lambda d: d.update(meta=np.frombuffer(b"{}", np.uint8)), "format"),
    (lambda d: d.update({"fc1.weight": np.full((40, 256), -128, np.int8)}), "does not fit 8 bits"),
    (lambda d: d.update({"fc1.weight_scale": np.zeros(40)}), "scales must be positive"),
])
def test_broken_files_are_one_clear_error(change, match, tmp_path):
    toy_lenet().save(tmp_path / "n.npz")
    corrupt(tmp_path / "n.npz", change)
    with pytest.raises(UserError, match=match):
        QuantisedNetwork.load(tmp_path / "n.npz")


def test_truncated_and_missing_files(tmp_path):
    toy_lenet().save(tmp_path / "n.npz")
    raw = (tmp_path / "n.npz").read_bytes()
    (tmp_path / "n.npz").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(UserError, match="cannot be used"):
        QuantisedNetwork.load(tmp_path / "n.npz")
    with pytest.raises(UserError, match="does not exist"):
        QuantisedNetwork.load(tmp_path / "none.npz")


def _plain_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def _foreign_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")


def _meta_is_text(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("meta", "hello")


def _damaged_member(path):
    toy_lenet().save(path)
    raw = bytearray(path.read_bytes())
    raw[80:200] = bytes(0xFF ^ byte for byte in raw[80:200])
    path.write_bytes(raw)


def _cut(path):
    toy_lenet().save(path)
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(("make", "message"), [
    (_plain_array, "it is no .npz archive, or the end of one is missing"),
    (_cut, "it is no .npz archive, or the end of one is missing"),
    (lambda path: path.write_bytes(b""), "it is no .npz archive"),
    (_foreign_zip, "it is an .npz archive but no network"),
    (lambda path: np.savez(path, images=np.zeros(3)), "but no network .it holds no 'meta'.; py"),
    (lambda path: np.savez(path, meta=np.frombuffer(b"[1]", np.uint8)), "no JSON object but list"),
    (lambda path: np.savez(path, meta=np.frombuffer(b"{}", np.uint8)), "it holds no 'format'"),
    (_meta_is_text, "Expecting value"),
    (_damaged_member, "cannot be used: "),
], ids=lambda value: getattr(value, "__name__", None))
def test_files_that_are_no_network_are_one_line(tmp_path, make, message):
    path = tmp_path / "n.npz"
    make(path)
    with pytest.raises(UserError, match=message) as caught:
        QuantisedNetwork.load(path)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"network file {path} cannot be used: ")


@pytest.mark.parametrize(("field", "value", "message"), [
    ("in_scale", float("nan"), "in_scale must be positive"),
    ("in_scale", -1.0, "in_scale must be positive"),
    ("in_scale", "x", "cannot be used"),
    ("patterns", "nonsense", "unknown pattern 'nonsense'"),
    ("sum_shifts", "a", "sum_shift is 'a', no integer"),
])
def test_wrong_values_in_a_file(tmp_path, field, value, message):
    toy_lenet().save(tmp_path / "n.npz")
    with np.load(tmp_path / "n.npz") as data:
        arrays = dict(data)
    meta = json.loads(bytes(arrays["meta"]))
    meta[field] = [value] * len(meta[field]) if isinstance(meta[field], list) else value
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    np.savez(tmp_path / "n.npz", **arrays)
    with pytest.raises(UserError, match=message):
        QuantisedNetwork.load(tmp_path / "n.npz")


def test_unknown_operator_is_named():
    data = NETWORKS["lenet"].to_dict()
    data["layers"][1]["type"] = "Deconv"
    with pytest.raises(ValueError, match="layer 'conv2': unknown operator 'Deconv'"):
        Network.from_dict(data)


def test_chain_that_does_not_fit():
    network = Network("n", (3, 8, 8), (Conv("a", 4, 2, 3), Linear("b", 3, 2)))
    with pytest.raises(ValueError, match="layer a expects 4 channels, its input has 3"):
        network.shapes()
    network = Network("n", (4, 8, 8), (Conv("a", 4, 2, 3), Linear("b", 3, 2)))
    with pytest.raises(ValueError, match="layer b expects 3 features, its input has 72"):
        network.shapes()


def test_bias_beyond_its_field_halves_the_weights_of_that_output_only():
    network = toy_lenet()
    layer = network.layers[0]
    bias = layer.bias.copy()
    bias[2] = 1e5
    scale = layer.weight_scale.copy()
    scale[2] = 1e-4
    changed = dataclasses.replace(layer, bias=bias, weight_scale=scale)
    plain = lower(network).layers[0]
    lowered = lower(dataclasses.replace(network, layers=(changed, *network.layers[1:]))).layers[0]
    assert np.abs(lowered.bias).max() < 1 << 17
    assert np.abs(lowered.weight[2]).max() < np.abs(plain.weight[2]).max()
    np.testing.assert_array_equal(np.delete(lowered.weight, 2, 0), np.delete(plain.weight, 2, 0))
