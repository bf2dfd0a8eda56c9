"""The command: a whole small run, exact resumption, and one clear line for every mistake."""

import json
import sys

import numpy as np
import pytest
import torch

from model.errors import UserError
from model.network import NETWORKS, Conv, Linear, Network, QuantisedNetwork
from model.patterns import linear_energy, parse, project
from pruning import batches, checkpoint, report, stages
from pruning import recipe as recipe_module
from pruning.cifar import BINARY
from pruning.data import load_digits
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
    for picture in ("convergence.png", "density.png", "kept.png"):
        assert (finished / picture).read_bytes().startswith(b"\x89PNG")
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


def test_a_new_run_spares_the_checkpoint_of_the_last_one(digits_dir, tmp_path, capsys):
    assert train(digits_dir, tmp_path, "--dense-only") == 0
    before = {name: (tmp_path / name).read_bytes() for name in ("checkpoint.pt", "dense.pt")}
    assert capsys.readouterr().err == ""
    assert train(digits_dir, tmp_path, "--dense-only", "--seed", "1") == 0
    errors = capsys.readouterr().err
    for name, content in before.items():
        assert (tmp_path / f"{name}.old").read_bytes() == content
        assert (tmp_path / name).read_bytes() != content
        assert errors.count(f"{name} of an earlier run is now") == 1
    assert train(digits_dir, tmp_path, "--dense-only", "--seed", "1", "--resume") == 0
    assert (tmp_path / "checkpoint.pt.old").read_bytes() == before["checkpoint.pt"]


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
    stages = [epoch["stage"] for epoch in log["epochs"]]
    assert set(stages[:-4]) == {"dense"}, "the dense network's history is kept"
    assert stages[-4:] == ["admm"] * 2 + ["retrain"] * 2
    assert log["patterns"]["conv2"] == "kernel 4"
    assert QuantisedNetwork.load(tmp_path / "lenet5-kernel-a4-w16.npz").weight_bits == 16
    assert main(["lenet", "--data", str(digits_dir), "--out", str(tmp_path), "--dense", dense,
                 "--batch", "64"]) == 2
    assert "is a dense lenet5, not lenet" in capsys.readouterr().err


def test_choices_can_be_made_on_images_held_out(
    digits_dir, finished, tmp_path, monkeypatch, capsys
):
    """Epochs see neither training nor test images; those held out are never trained on."""
    whole = json.loads((finished / "log.json").read_text())["data"]
    measured, trained = [], []
    real, epoch = stages.evaluate, stages.train_epoch
    monkeypatch.setattr(stages, "evaluate", lambda model, data: (
        measured.append(data) or real(model, data)))
    monkeypatch.setattr(stages, "train_epoch", lambda data, *rest: (
        trained.append(data) or epoch(data, *rest)))
    assert train(digits_dir, tmp_path, "--hold-out", "4") == 0
    out = capsys.readouterr().out
    assert out.count("held-out") == 6 and "  test" not in out
    data = json.loads((tmp_path / "log.json").read_text())["data"]
    assert data["held_out"] == whole["train"] // 4
    assert data["train"] == whole["train"] - data["held_out"]
    counts = [len(item.labels) for item in measured]
    assert counts.count(data["test"]) == 1, "the dense network, once"
    assert set(counts) == {data["test"], data["held_out"]}
    assert {len(item.labels) for item in trained} == {data["train"]}
    held = next(item for item in measured if len(item.labels) == data["held_out"])
    every = batches.samples(load_digits(digits_dir, "train"), NETWORKS["lenet5"]).images
    apart = np.arange(len(every)) % 4 == 3
    assert torch.equal(held.images, every[apart])
    assert torch.equal(trained[0].images, every[~apart])
    # A dense network that was trained on those images would know them.
    dense = str(finished / "dense.pt")
    assert train(digits_dir, tmp_path / "b", "--hold-out", "4", "--dense", dense) == 2
    assert "was trained with hold_out 0, so it may know the images" in one_error_line(capsys)
    dense = str(tmp_path / "dense.pt")
    assert train(digits_dir, tmp_path / "b", "--hold-out", "4", "--dense", dense) == 0


def test_layerwise_start_takes_the_place_of_admm(digits_dir, finished, tmp_path):
    dense = str(finished / "dense.pt")
    assert train(digits_dir, tmp_path, "--dense", dense, "--method", "layerwise") == 0
    log = json.loads((tmp_path / "log.json").read_text())
    stages = [epoch["stage"] for epoch in log["epochs"]]
    assert stages[-3:] == ["layerwise"] + ["retrain"] * 2 and "admm" not in stages
    assert [layer["layer"] for layer in log["epochs"][-3]["layers"]] == ["conv1", "conv2"]
    assert log["result"]["zeros_conv_percent"] >= 75


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
    (["lenet", "--rho-first", "-1"], "rho_first must be positive and finite, not -1.0"),
    (["lenet", "--rate-dense", "inf"], "rate_dense must be positive and finite, not inf"),
    (["lenet", "--save-seconds", "nan"], "--save-seconds must not be negative, not nan"),
    (["lenet", "--data", "no/such/folder"], "no/such/folder does not exist"),
    (["lenet", "--precision", "float16"], "unknown precision 'float16'"),
    (["lenet", "--decay", "-1"], "decay must be finite and not negative, not -1.0"),
    (["lenet", "--epochs-masked", "-1"], "epochs_masked must not be negative, not -1"),
    (["lenet", "--optimiser-dense", "lion"], "unknown optimiser 'lion'"),
    (["lenet", "--layer", "conv2"], "--layer must be NAME=CHOICE, as conv2=0.1, not 'conv2'"),
    (["lenet", "--layer", "conv9=0.1"], "no layer is called conv9; there are conv1, conv2, fc1"),
    (["lenet", "--layer", "conv2=1.5"], "layer conv2: density must be above 0 and at most 1"),
    (["lenet", "--layer", "conv2=1e-9"], "layer conv2: pattern channel has no density 1e-09"),
    (["lenet", "--layer", "conv2=block 3"], "layer conv2: unknown pattern 'block 3'"),
    (["lenet", "--layer", "conv1=kernel 40"], "layer conv1: pattern kernel 40 keeps none of its"),
    (["lenet", "--layer", "fc2=locality 32 8x64"], "8x64 keeps none of its 10 x 250 x 1 words"),
    (["lenet", "--tag", "a/b"], "tag must be letters, digits"),
    (["lenet", "--hold-out", "1"], "hold_out must be 0 (no images) or at least 2"),
    (["lenet", "--lanes", "0"], "lanes must be at least 1, not 0"),
    (["lenet", "--method", "greedy"], "unknown method 'greedy': known are admm, lasso"),
    (["lenet", "--method", "lasso"], "method lasso is for the pattern locality, which no layer"),
    (["lenet", "--strength-last", "0"], "strength_last must be positive and finite, not 0.0"),
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


def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path):
    target = tmp_path / "a.pt"
    checkpoint.save(target, {"kind": "run", "value": torch.arange(4096.0)})
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 1
    target.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.pt is corrupt: bad CRC-32 of"):
        checkpoint.load(target, "run")


@pytest.mark.parametrize("change, message", [
    ({"model": None, "pruner": None, "dense": {}}, "Missing key"),
    ({"recipe": None}, "NoneType"),
    ({"stage": "sleep"}, "unknown stage 'sleep'"),
    ({"epoch": "x"}, "invalid literal"),
    ({"pruner": {}}, "no entry 'patterns'"),
    ({"optimiser": {}}, "no entry 'param_groups'"),
    ({"history": None}, "NoneType"),
])
def test_an_incomplete_checkpoint_is_one_line(
    digits_dir, finished, tmp_path, change, message, capsys
):
    state = checkpoint.load(finished / "checkpoint.pt", "run")
    checkpoint.save(tmp_path / "checkpoint.pt", state | change)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    assert train(digits_dir, tmp_path, "--resume") == 2
    err = one_error_line(capsys)
    assert "checkpoint.pt is damaged or of another version: " in err and message in err
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_dense_network_that_diverged_is_no_start(digits_dir, finished, tmp_path, capsys):
    state = checkpoint.load(finished / "dense.pt", "dense")
    name = next(iter(state["model"]))
    state["model"][name].fill_(float("nan"))
    checkpoint.save(tmp_path / "dense.pt", state)
    assert train(digits_dir, tmp_path, "--dense", str(tmp_path / "dense.pt")) == 2
    assert "dense.pt holds NaN or infinity" in one_error_line(capsys)
    checkpoint.save(tmp_path / "dense.pt", state | {"model": {}})
    assert train(digits_dir, tmp_path, "--dense", str(tmp_path / "dense.pt")) == 2
    assert "dense.pt is damaged or of another version: " in one_error_line(capsys)


def test_diverging_loss_stops_and_keeps_the_last_good_state(digits_dir, tmp_path, capsys):
    assert train(digits_dir, tmp_path, "--rate-admm", "1e30") == 2
    err = one_error_line(capsys)
    assert "loss became" in err and "stage admm" in err
    assert "checkpoint.pt: go on with --resume and a lower --rate-admm" in err
    assert checkpoint.load(tmp_path / "checkpoint.pt", "run")["stage"] == "dense"


def test_checkpoint_write_is_atomic(tmp_path, monkeypatch):
    target = tmp_path / "a.pt"
    checkpoint.save(target, {"kind": "dense", "value": 1})

    # Torch's own writer says RuntimeError.
    for kind in (OSError, RuntimeError):
        def fail(state, file, kind=kind):
            file.write_bytes(b"half")
            raise kind("disk full")

        monkeypatch.setattr(torch, "save", fail)
        with pytest.raises(UserError, match="disk full"):
            checkpoint.save(target, {"kind": "dense", "value": 2})
        monkeypatch.undo()
    assert checkpoint.load(target, "dense")["value"] == 1
    assert list(tmp_path.iterdir()) == [target]


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


def test_single_layers_have_densities_and_patterns_of_their_own():
    recipe = Recipe("lenet", pattern="unstructured", alpha=8, tag="x", layers={
        "conv1": "dense", "conv2": 0.1, "fc1": "channel 1:16", "fc2": 0.25,
    })
    assert recipe.title == "lenet-unstructured-a8-x"
    assert {name: str(pattern) for name, pattern in recipe.patterns().items()} == {
        "conv1": "channel 1:1", "conv2": "unstructured 10", "fc1": "channel 1:16",
        "fc2": "channel 1:4",
    }
    recipe = Recipe("lenet", pattern="locality", lanes=64, banks=2, layers={"conv1": 0.5})
    assert str(recipe.patterns()["conv1"]) == "locality 2 64x2"
    assert str(recipe.patterns()["conv2"]) == "locality 4 64x2"


def test_a_run_with_group_lasso_resumes_exactly(digits_dir, finished, tmp_path, monkeypatch):
    options = ["--dense", str(finished / "dense.pt"), "--pattern", "locality", "--method", "lasso",
               "--layer", "conv1=dense"]
    assert train(digits_dir, tmp_path / "a", *options) == 0
    log = json.loads((tmp_path / "a" / "log.json").read_text())
    assert [entry["groups"]["conv2"][1] for entry in log["epochs"] if "groups" in entry] == [96] * 2
    real, calls = checkpoint.save, []

    def save(path, state):
        real(path, state)
        calls.append(path.name)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save)
    assert train(digits_dir, tmp_path / "b", *options) == 130
    assert train(digits_dir, tmp_path / "b", *options, "--resume") == 0
    first, second = (QuantisedNetwork.load(tmp_path / folder / "lenet5-locality-a4.npz").layers[1]
                     for folder in "ab")
    np.testing.assert_array_equal(first.weight, second.weight)
    # Two groups of eight outputs for every channel and frequency.
    words = first.weight.any(axis=-1).reshape(2, 8, 6, 32).any(axis=1)
    assert 0 < np.count_nonzero(words) <= 96


TOY = Network("toycifar", (3, 32, 32), (
    Conv("conv1", 3, 8, 3, padding=1, pool=2), Conv("conv2", 8, 8, 3, padding=1, pool=2),
    Conv("conv3", 8, 16, 3, padding=1, pool=2), Linear("fc", 16 * 16, 10, relu=False),
))


@pytest.fixture
def toycifar(monkeypatch, tmp_path):
    """A small network with batch norm, and images whose class is their colour, as binary files."""
    monkeypatch.setitem(NETWORKS, "toycifar", TOY)
    monkeypatch.setitem(recipe_module.LINEAR_GROUPS, "toycifar", (1,))
    monkeypatch.setitem(recipe_module.PRESETS, "toycifar", recipe_module.PRESETS["vgg16-cifar"] | {
        "epochs_dense": 3, "epochs_admm": 2, "epochs_masked": 4, "epochs_retrain": 1, "batch": 15,
    })
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (10, 3, 1, 1))
    for name in [*BINARY["train"], "test_batch.bin"]:
        labels = rng.integers(0, 10, 60)
        images = (colours[labels] + rng.integers(-20, 20, (60, 3, 32, 32))).clip(0, 255)
        records = np.concatenate([labels[:, None], images.reshape(60, -1)], axis=1)
        (tmp_path / name).write_bytes(records.astype(np.uint8).tobytes())
    return tmp_path


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("options", [
    [], ["--precision", "bfloat16", "--pattern", "locality"],
    pytest.param(["--device", "cuda"], marks=GPU),
    pytest.param(["--device", "cuda", "--precision", "bfloat16", "--pattern", "locality"],
                 marks=GPU),
])
def test_batch_norm_lives_until_the_weights_are_rounded(toycifar, options):
    out = toycifar / "out"
    call = ["toycifar", "--data", str(toycifar), "--out", str(out), "--device", "cpu"]
    assert main([*call, *options]) == 0
    log = json.loads((out / "log.json").read_text())
    stages = [entry["stage"] for entry in log["epochs"]]
    assert stages == ["dense"] * 3 + ["admm"] * 2 + ["masked"] * 4 + ["retrain"]
    result = log["result"]
    assert result["dense_accuracy"] > 60 and result["integer_accuracy"] > 60
    assert abs(result["integer_accuracy"] - result["fake_quantised_accuracy"]) < 3
    assert result["zeros_conv_percent"] >= 75 and result["zeros_linear_percent"] < 1
    (path,) = out.glob("toycifar-*.npz")
    assert [layer.pattern for layer in QuantisedNetwork.load(path).layers][1:3] == (
        ["locality 4 8x1"] * 2 if "locality" in options else ["channel 2:8"] * 2
    )


def test_a_run_with_batch_norm_resumes_exactly(toycifar, monkeypatch):
    call = ["toycifar", "--data", str(toycifar), "--epochs-dense", "1", "--epochs-masked", "1",
            "--batch", "30", "--out"]
    assert main([*call, str(toycifar / "whole")]) == 0
    real, calls = checkpoint.save, []

    def save(path, state):
        real(path, state)
        calls.append(path.name)
        if len(calls) in (4, 5, 6):
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save)
    assert main([*call, str(toycifar / "parts")]) == 130
    for expected in (130, 130, 0):
        assert main([*call, str(toycifar / "parts"), "--resume"]) == expected
    first, second = (QuantisedNetwork.load(toycifar / name / "toycifar-channel-a4.npz")
                     for name in ("whole", "parts"))
    for a, b in zip(first.layers, second.layers, strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
        np.testing.assert_array_equal(a.bias, b.bias)


def test_a_run_that_takes_too_long_goes_on_with_fewer_epochs(toycifar):
    call = ["toycifar", "--data", str(toycifar), "--out", str(toycifar / "out")]
    assert main([*call, "--dense-only", "--epochs-dense", "2", "--save-seconds", "999"]) == 0
    assert main([*call, "--dense-only", "--resume", "--epochs-dense", "4"]) == 0
    state = checkpoint.load(toycifar / "out" / "dense.pt", "dense")
    assert [entry["epoch"] for entry in state["history"]] == [1, 2, 3, 4]
    assert state["history"][2]["rate"] > state["history"][1]["rate"]


def test_the_data_must_fit_the_network(toycifar, digits_dir, capsys):
    assert main(["toycifar", "--data", str(digits_dir), "--out", str(toycifar / "o")]) == 2
    assert "no CIFAR-10 in" in one_error_line(capsys)


def test_a_dense_file_of_another_kind_is_refused(toycifar, monkeypatch, capsys):
    call = ["toycifar", "--data", str(toycifar), "--out", str(toycifar / "out")]
    assert main([*call, "--dense-only", "--epochs-dense", "1"]) == 0
    monkeypatch.setitem(recipe_module.PRESETS, "toycifar", {})
    capsys.readouterr()
    assert main([*call, "--dense", str(toycifar / "out" / "dense.pt")]) == 2
    assert "differs from the recipe in batch norm" in one_error_line(capsys)


def test_a_log_is_a_config(digits_dir, finished, tmp_path, capsys):
    call = ["lenet5", "--data", str(digits_dir), "--out", str(tmp_path / "out"), "--config"]
    assert main([*call, str(finished / "log.json"), "--epochs-retrain", "1"]) == 0
    first, second = (json.loads((folder / "log.json").read_text())
                     for folder in (finished, tmp_path / "out"))
    assert second["recipe"] == first["recipe"] | {"epochs_retrain": 1}
    assert second["epochs"][3]["loss"] == first["epochs"][3]["loss"]
    capsys.readouterr()
    config = tmp_path / "config.json"
    for content, message in (
        ("[1]", "holds no settings"), ("{}", "names no network"), ("{", "holds no settings"),
        ('{"network": "lenet5", "colour": 1}', "unknown settings: colour"),
        ('{"network": "lenet"}', "is of another network than lenet5"),
        ('{"network": "lenet5", "alpha": "4"}', "alpha must be int, not '4'"),
        ('{"network": "lenet5", "alpha": true}', "alpha must be int, not True"),
    ):
        config.write_text(content)
        assert main([*call, str(config)]) == 2
        assert message in one_error_line(capsys)
    assert main([*call, str(tmp_path / "none.json")]) == 2
    assert "none.json cannot be read" in one_error_line(capsys)
