"""The command: a whole small run, exact resumption, and one clear line for every mistake."""

import json
import sys

import numpy as np
import pytest
import torch

from model.errors import UserError
from model.network import QuantisedNetwork
from model.patterns import linear_energy, parse, project
from pruning import checkpoint, report
from pruning.recipe import Recipe
from pruning.train import main

SMALL = ["--epochs-dense", "2", "--epochs-admm", "2", "--epochs-retrain", "2", "--batch", "64"]


def train(digits_dir, out, *more):
    return main(["lenet5", "--data", str(digits_dir), "--out", str(out), *SMALL, *more])


@pytest.fixture(scope="module")
def finished(digits_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    assert train(digits_dir, out) == 0
    return out


def test_result_files(finished):
    log = json.loads((finished / "log.json").read_text())
    assert [e["stage"] for e in log["epochs"]] == ["dense"] * 2 + ["admm"] * 2 + ["retrain"] * 2
    assert log["result"]["zeros_conv_percent"] >= 75
    assert log["result"]["zeros_linear_percent"] >= 90
    assert log["epochs"][3]["rho"] > log["epochs"][2]["rho"]
    assert (finished / "convergence.png").read_bytes().startswith(b"\x89PNG")
    assert not list(finished.glob("*.part"))


def test_exported_network_obeys_its_patterns(finished):
    saved = QuantisedNetwork.load(finished / "lenet5-channel-a4.npz")
    assert saved.weight_bits == 8 and saved.in_scale == 1 / 255
    for data in saved.layers:
        if data.weight.ndim == 4:
            energy = (data.weight.astype(float) ** 2).sum(-1)
        else:
            energy = linear_energy(data.weight.astype(float))
        kept = project(energy, parse(data.pattern))
        np.testing.assert_array_equal(energy > 0, kept)


def test_interrupted_run_resumes_exactly(digits_dir, finished, tmp_path, monkeypatch, capsys):
    real, calls = checkpoint.save, []

    def save(path, state):
        real(path, state)
        calls.append(path.name)
        if len(calls) in (1, 4, 6):
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save)
    assert train(digits_dir, tmp_path) == 130
    for expected in (130, 130, 0):
        assert train(digits_dir, tmp_path, "--resume") == expected
    first, second = (
        QuantisedNetwork.load(folder / "lenet5-channel-a4.npz") for folder in (finished, tmp_path)
    )
    for a, b in zip(first.layers, second.layers, strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
        assert a.out_scale == b.out_scale
    assert train(digits_dir, tmp_path, "--resume", "--seed", "5") == 2
    assert capsys.readouterr().err.endswith("made with other settings: seed\n")


def test_dense_network_is_reused(digits_dir, finished, tmp_path, capsys):
    dense = str(finished / "dense.pt")
    more = ("--dense", dense, "--pattern", "kernel", "--distill", "0.5", "--weight-bits", "16")
    assert train(digits_dir, tmp_path, *more) == 0
    log = json.loads((tmp_path / "log.json").read_text())
    assert [e["stage"] for e in log["epochs"]] == ["admm"] * 2 + ["retrain"] * 2
    assert log["patterns"]["conv2"] == "kernel 4"
    assert QuantisedNetwork.load(tmp_path / "lenet5-kernel-a4-w16.npz").weight_bits == 16
    assert main(["lenet", "--data", str(digits_dir), "--out", str(tmp_path), "--dense", dense,
                 "--batch", "64"]) == 2
    assert "is a dense lenet5, not lenet" in capsys.readouterr().err


def one_error_line(capsys):
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    return err


def test_missing_torch_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["lenet"]) == 2
    assert "pip install -e '.[prune]'" in one_error_line(capsys)


@pytest.mark.parametrize("options, message", [
    (["resnet"], "unknown network 'resnet': known are lenet, lenet5"),
    (["lenet", "--pattern", "block"], "unknown pattern 'block'"),
    (["lenet", "--weight-bits", "4"], "weight bits must be 8 or 16, not 4"),
    (["lenet", "--alpha", "0"], "alpha must be at least 1, not 0"),
    (["lenet", "--alpha", "33"], "alpha must be at most 32, not 33"),
    (["lenet", "--threads", "0"], "--threads must be at least 1, not 0"),
    (["lenet", "--rho-first", "-1"], "rho_first must be positive, not -1.0"),
    (["lenet", "--data", "no/such/folder"], "no/such/folder does not exist"),
])
def test_wrong_options_are_one_line(options, message, capsys):
    assert main(options) == 2
    assert message in one_error_line(capsys)


def test_targets_are_checked_before_the_training(digits_dir, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise AssertionError("trained")

    monkeypatch.setattr("pruning.stages.Run.execute", fail)
    (tmp_path / "file").write_text("")
    (tmp_path / "out").mkdir()
    for name in ("lenet5-channel-a4.npz", "convergence.png", "log.json", "checkpoint.pt"):
        (tmp_path / "out" / name).mkdir()
        assert train(digits_dir, tmp_path / "out") == 2
        assert f"{name} is a folder, not a file" in one_error_line(capsys)
        (tmp_path / "out" / name).rmdir()
    assert train(digits_dir, tmp_path / "file" / "out") == 2
    assert "out: Not a directory; choose another with --out" in one_error_line(capsys)
    for target, message in (("none/log.json", "none does not exist"), ("out", "is a folder")):
        assert train(digits_dir, tmp_path / "out", "--json", str(tmp_path / target)) == 2
        assert message in one_error_line(capsys)


def test_report_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("model.files.os.replace", full)
    history = [{"stage": "dense", "loss": 1.0, "accuracy": 99.0}]
    for name, write in (("log.json", lambda path: report.write_json(path, {"a": 1})),
                        ("plot.png", lambda path: report.plot(path, history, "title"))):
        (tmp_path / name).write_text("old")
        with pytest.raises(UserError, match=f"cannot write .*{name}: No space left on device"):
            write(tmp_path / name)
        assert (tmp_path / name).read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_bad_checkpoints_are_one_line(digits_dir, tmp_path, capsys):
    assert train(digits_dir, tmp_path, "--resume") == 2
    assert "checkpoint.pt does not exist" in one_error_line(capsys)
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 cut short")
    assert train(digits_dir, tmp_path, "--resume") == 2
    assert "is corrupt or no checkpoint" in one_error_line(capsys)
    torch.save({"format": 1, "kind": "dense"}, tmp_path / "checkpoint.pt")
    assert train(digits_dir, tmp_path, "--resume") == 2
    assert "is not a run checkpoint" in one_error_line(capsys)


def test_diverging_loss_stops_and_keeps_the_last_good_state(digits_dir, tmp_path, capsys):
    assert train(digits_dir, tmp_path, "--rate-admm", "1e30") == 2
    err = one_error_line(capsys)
    assert "loss became" in err and "stage admm" in err and "checkpoint.pt" in err
    assert checkpoint.load(tmp_path / "checkpoint.pt", "run")["stage"] == "dense"


def test_checkpoint_write_is_atomic(tmp_path, monkeypatch):
    target = tmp_path / "a.pt"
    checkpoint.save(target, {"kind": "dense", "value": 1})

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(UserError, match="disk full"):
        checkpoint.save(target, {"kind": "dense", "value": 2})
    monkeypatch.undo()
    assert checkpoint.load(target, "dense")["value"] == 1


def test_recipe_prunes_ninety_percent_of_the_linear_weights():
    for name in ("lenet", "lenet5"):
        recipe = Recipe(name)
        linear = [layer for layer in recipe.net.layers if hasattr(layer, "in_features")]
        patterns = recipe.patterns()
        sizes = [layer.in_features * layer.out_features for layer in linear]
        kept = sum(
            n * patterns[layer.name].density for n, layer in zip(sizes, linear, strict=True)
        )
        assert kept <= 0.1 * sum(sizes)


def test_layers_of_one_bank_row_choose_two_of_eight():
    patterns = Recipe(network="lenet5", pattern="channel", alpha=4).patterns()
    assert str(patterns["conv2"]) == "channel 2:8"
    patterns = Recipe(network="lenet", pattern="channel", alpha=4).patterns()
    assert str(patterns["conv2"]) == "channel 1:4"
    patterns = Recipe(network="lenet5", pattern="channel", alpha=16).patterns()
    assert str(patterns["conv2"]) == "channel 1:16"
