import numpy as np
import pytest

from model.benchmark_schedule import WEIGHTS
from model.network import Conv, QuantisedNetwork
from model.oneshot import main
from model.patterns import budget, parse
from tests.model.toys import toy_network


@pytest.fixture
def files(tmp_path):
    network = toy_network([Conv("a", 3, 8, 3), Conv("b", 8, 4, 5)], ["channel 1:2"] * 2,
                          (3, 16, 16), weight_bits=16)
    network.save(tmp_path / "in.npz")
    rng = np.random.default_rng(1)
    (tmp_path / WEIGHTS).parent.mkdir()
    dense = {"a.w": rng.normal(size=(8, 3, 3, 3)), "b.w": rng.normal(size=(4, 8, 5, 5))}
    np.savez(tmp_path / WEIGHTS, **dense)
    return tmp_path, network, dense


def call(folder, *extra):
    return main(["--network", str(folder / "in.npz"), "--data", str(folder),
                 "--out", str(folder / "out.npz"), *extra])


def test_keeps_the_pattern_and_everything_but_the_weights(files):
    folder, network, _ = files
    assert call(folder, "--pattern", "kernel 8") == 0
    out = QuantisedNetwork.load(folder / "out.npz")
    for before, after in zip(network.layers, out.layers, strict=True):
        kept = after.weight.any(axis=-1)
        assert after.pattern == "kernel 8"
        assert (kept.sum(axis=-1) <= 4).all()
        assert 0.9 * kept.size / 8 < kept.sum() <= budget(kept.shape, parse("kernel 8"))
        assert (np.abs(after.weight).reshape(len(kept), -1).max(axis=1) == 32767).all()
        np.testing.assert_array_equal(before.bias, after.bias)
        assert before.out_scale == after.out_scale


@pytest.mark.parametrize("extra, message", [
    (("--pattern", "cube 3"), "unknown pattern 'cube 3'"),
    (("--data", "nowhere"), "cannot be used"),
])
def test_bad_input_is_one_line(files, extra, message, capsys):
    folder, *_ = files
    assert call(folder, *extra) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_other_shapes_are_refused(files, capsys):
    folder, _, dense = files
    np.savez(folder / WEIGHTS, **dense | {"b.w": dense["b.w"][:, :7]})
    assert call(folder) == 2
    assert "for a layer of 4 kernels and 8 channels" in capsys.readouterr().err
