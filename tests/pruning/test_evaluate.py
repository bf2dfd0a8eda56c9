"""Integer accuracy from files, on the data set that fits the network."""

import json

import numpy as np
import pytest

from model import golden
from model.lower import lower
from model.network import Conv, Linear
from pruning.cifar import BINARY
from pruning.evaluate import layer_density, load_tests, main, sparsity
from tests.model.toys import toy_lenet, toy_network


def colour_network():
    return toy_network(
        [Conv("conv1", 3, 4, 3, padding=1, pool=2), Linear("fc", 4 * 256, 10, relu=False)],
        ["channel 1:4", "channel 1:8"], (3, 32, 32),
    )


@pytest.fixture
def colours(tmp_path):
    """CIFAR-10 binary files in which the network's own answers are right for every third image."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 3, 32, 32))
    labels = golden.scores(lower(colour_network()), images).argmax(1)
    labels[np.arange(30) % 3 > 0] = (labels[np.arange(30) % 3 > 0] + 1) % 10
    records = np.concatenate([labels[:, None], images.reshape(30, -1)], axis=1).astype(np.uint8)
    for name in [*BINARY["train"], "test_batch.bin"]:
        (tmp_path / name).write_bytes(records.tobytes())
    return tmp_path


def test_each_network_gets_its_data(colours, digits_dir, capsys):
    for path in digits_dir.glob("t10k*"):
        (colours / path.name).write_bytes(path.read_bytes())
    colour_network().save(colours / "a.npz")
    toy_lenet().save(colours / "b.npz")
    out = colours / "out.json"
    assert main([str(colours / "a.npz"), str(colours / "b.npz"), "--data", str(colours),
                 "--json", str(out)]) == 0
    first, second = json.loads(out.read_text())
    assert first["accuracy"] == pytest.approx(100 / 3) and first["images"] == 30
    assert (first["data"], second["data"], second["images"]) == ("CIFAR-10", "MNIST", 128)
    assert "a.npz: 33.33 % of 30 images of CIFAR-10" in capsys.readouterr().out


def test_digits_are_centred(digits_dir):
    images, labels, _ = load_tests(digits_dir, (1, 32, 33))
    assert images.shape == (128, 1, 32, 33) and len(labels) == 128
    assert images[:, :, 2:30, 2:30].sum() == images.sum() > 0


def test_other_inputs_are_one_line(tmp_path, digits_dir, capsys):
    network = toy_network([Conv("conv1", 2, 4, 3)], ["channel 1:2"], (2, 9, 9))
    network.save(tmp_path / "n.npz")
    assert main([str(tmp_path / "n.npz"), "--data", str(digits_dir)]) == 2
    assert "no test images for an input of shape (2, 9, 9)" in capsys.readouterr().err


def test_density_of_the_layers():
    network = colour_network()
    density = layer_density(network)
    assert density["conv1"] == pytest.approx(1 / 4, rel=0.1)
    assert density["fc"] == pytest.approx(1 / 8, rel=0.1)
    assert sparsity(network)["conv"] == pytest.approx(100 * (1 - density["conv1"]))
