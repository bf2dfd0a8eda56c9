"""Compressing AlexNet: folding, the stored network, both orders, resume, and what is refused."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.alexnet import ALEXNETS
from model.errors import UserError
from model.spatialfile import decode_spatial, encode_spatial, load_spatial
from pruning import compresstrain
from pruning.alexnet import AlexNet, export, restore
from pruning.compress import main
from pruning.compression import CompressRun
from pruning.compressrecipe import CompressRecipe
from pruning.compresstrain import as_samples, split
from pruning.figures import main as figures
from pruning.loop import evaluate
from pruning.magnitude import densities, kept, largest, layerwise, mask_weight, prunable
from pruning.tinyimagenet import load_tiny_imagenet

SMALL = replace(
    ALEXNETS["alexnet-tiny"],
    convs=tuple(replace(conv, in_channels=3 if index == 0 else 6, out_channels=6)
                for index, conv in enumerate(ALEXNETS["alexnet-tiny"].convs)),
    linears=tuple(replace(linear, in_features=54 if index == 0 else 24,
                          out_features=200 if index == 2 else 24)
                  for index, linear in enumerate(ALEXNETS["alexnet-tiny"].linears)),
)
FAST = ["--batch", "24", "--epochs-dense", "1", "--epochs-masked", "1", "--epochs-retrain", "1",
        "--epochs-layer", "0.25", "--epochs-peak", "0.25", "--precision", "float32"]
LAYERS = [layer.name for layer in SMALL.layers]


@pytest.fixture(autouse=True, scope="module")
def small(tmp_path_factory):
    """The same shape with a few channels, and a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ALEXNETS, "alexnet-tiny", SMALL)
        patch.setenv("SPECTRALCNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_parameters_of_the_shapes():
    assert ALEXNETS["alexnet"].parameters == 61_100_840
    assert ALEXNETS["alexnet-grouped"].parameters == 60_965_224
    assert ALEXNETS["alexnet"].linears[0].in_features == 256 * 36
    assert ALEXNETS["alexnet-grouped"].linears[0].in_features == 256 * 36


def trained():
    """A network whose batch norm has seen something."""
    torch.manual_seed(3)
    model, images = AlexNet(SMALL), torch.rand(16, 3, 64, 64)
    for norm in model.norms.values():
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.uniform_(norm.bias, -0.5, 0.5)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(images)
    return model.eval(), images


def test_folding_batch_norm_changes_nothing():
    model, images = trained()
    with torch.no_grad():
        before = model(images)
        model.fold()
        torch.testing.assert_close(model(images), before, rtol=1e-3, atol=1e-4)
    assert not model.norms


def test_dropout_follows_the_share_of_kept_weights():
    model, images = trained()
    mask_weight(model.layers["fc7"], largest(model.layers["fc7"].weight, 0.25))
    model.adjust_dropout()
    assert model.dropout == {"fc6": 0.5, "fc7": 0.25}
    mask_weight(model.layers["fc7"], torch.zeros(24, 24))
    model.train().adjust_dropout()
    inputs = []
    model.layers["fc7"].register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    model.layers["fc6"].register_forward_hook(lambda module, args, out: inputs.append(args[0]))
    model(images)
    # Nothing is dropped before a layer that has nothing left; half before a whole one.
    assert (inputs[0] == 0).float().mean() > 0.4
    before = torch.relu(model.norms["fc6"](model.layers["fc6"](inputs[0])))
    torch.testing.assert_close(inputs[1], before)


def test_the_file_holds_the_rounded_network():
    model, images = trained()
    for name, module in prunable(model):
        mask_weight(module, largest(module.weight, 0.9 if "conv" in name else 0.2))
    with pytest.raises(ValueError, match="layer conv1 is not rounded yet"):
        export(model)
    model.quantise(images)
    content, _ = encode_spatial(export(model))
    stored = decode_spatial(content)
    back = restore(stored)
    with torch.no_grad():
        torch.testing.assert_close(back(images), model(images), rtol=1e-4, atol=1e-4)
    for layer, (_, module) in zip(stored.layers, prunable(model), strict=True):
        assert np.abs(layer.weight).max() == 127
        assert not layer.weight[~kept(module).bool().numpy()].any()
    scales = [layer.out_scale for layer in stored.layers]
    assert scales[-1] is None and all(scale > 0 for scale in scales[:-1])


def test_procedures_go_on_after_the_layers_that_are_done():
    model = torch.nn.Sequential(*(torch.nn.Linear(6, 6) for _ in range(3)))
    done = []
    layerwise(model, lambda net: None, lambda net: 50.0, targets={"0": 0.5, "1": 0.5},
              skip=["1"], after=lambda name, step: done.append((name, step and step.density)))
    assert done == [("2", None), ("0", 0.5)] and densities(model) == {"0": 0.5, "1": 1, "2": 1}


def command(folder, out, *options):
    return ["alexnet-tiny", "--data", str(folder), "--out", str(out), *FAST, *options]


def test_one_run_from_pixels_to_bytes(tiny_imagenet_dir, tmp_path, capsys):
    out, shares = tmp_path / "run", tmp_path / "shares.json"
    shares.write_text(json.dumps({name: 0.5 if name < "f" else 0.2 for name in LAYERS}))
    argv = command(tiny_imagenet_dir, out, "--densities", str(shares), "--peak", "histogram")
    assert main(argv) == 0
    said = capsys.readouterr().out
    log = json.loads((out / "log.json").read_text())
    result, target = log["result"], out / "alexnet-tiny-reversed-histogram.spcs"
    assert result["file"] == target.stat().st_size == log["storage"]["file"]
    assert f"{result['fewer_parameters']:.1f} times fewer parameters" in said
    assert log["data"] == {"name": "Tiny ImageNet, 100 images a class", "train": 108,
                           "held_out": 12, "test": 40}
    assert [step["layer"] for step in log["steps"]] == 2 * LAYERS[::-1]
    assert [step["stage"] for step in log["steps"]] == 8 * ["layers"] + 8 * ["peak"]
    assert result["epochs_after_dense"] == 16 * 0.25 + 2
    stored = load_spatial(target)
    for layer in stored.layers:
        share = log["densities"][layer.name]
        assert share < (0.5 if layer.name < "f" else 0.2)
        assert (layer.weight != 0).sum() <= round(share * layer.weight.size)
    test = as_samples(load_tiny_imagenet(tiny_imagenet_dir, "val"))
    assert evaluate(restore(stored), test) == result["accuracy"]
    assert (out / "orders.png").read_bytes().startswith(b"\x89PNG")
    assert figures([str(out / "log.json"), "--out", str(tmp_path / "f")]) == 0
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["orders.png"]


def runs(folder):
    train, held = split(load_tiny_imagenet(folder, "train"))
    return train, held, as_samples(load_tiny_imagenet(folder, "val"))


RECIPE = CompressRecipe(
    "alexnet-tiny", peak="accuracy", drop=30.0, epochs_dense=2, epochs_layer=0.25, epochs_peak=0.25,
    epochs_masked=2, epochs_retrain=2, batch=24, precision="float32")


@pytest.fixture(scope="module")
def whole(tiny_imagenet_dir, tmp_path_factory):
    """A run without interruption: its images, itself, its folder."""
    data, out = runs(tiny_imagenet_dir), tmp_path_factory.mktemp("whole")
    run = CompressRun(RECIPE, *data, out)
    run.execute()
    return data, run, out


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("after", [1, 5, 11, 25])
def test_an_interrupted_run_ends_the_same(whole, tmp_path, monkeypatch, after):
    data, expected, _ = whole
    out, count = tmp_path / "cut", iter(range(1000))
    original = compresstrain.train_epoch

    def cut(*arguments):
        if next(count) == after:
            raise Interrupted
        return original(*arguments)

    monkeypatch.setattr(compresstrain, "train_epoch", cut)
    with pytest.raises(Interrupted):
        CompressRun(RECIPE, *data, out).execute()
    monkeypatch.setattr(compresstrain, "train_epoch", original)
    run = CompressRun(RECIPE, *data, out)
    run.execute(resume=True)
    assert run.steps == expected.steps
    assert encode_spatial(export(run.model)) == encode_spatial(export(expected.model))
    assert run.dense_accuracy == expected.dense_accuracy


def test_a_run_from_files_of_another_ends_the_same(whole, tmp_path):
    data, expected, folder = whole
    content = encode_spatial(export(expected.model))[0]
    for name in ("dense", "pruned"):
        run = CompressRun(RECIPE, *data, tmp_path / name)
        run.execute(**{name: folder / f"{name}.pt"})
        assert encode_spatial(export(run.model))[0] == content
    with pytest.raises(UserError, match="was made with other settings: seed"):
        CompressRun(replace(RECIPE, seed=1), *data, tmp_path).execute(folder / "dense.pt")


def test_the_control_trains_as_long_and_prunes_nothing(tiny_imagenet_dir, tmp_path):
    recipe = replace(RECIPE, order="none", peak="none")
    run = CompressRun(recipe, *runs(tiny_imagenet_dir), tmp_path)
    run.execute()
    assert not run.steps and run.spent() == 8 * 0.25 + 4
    assert set(densities(run.model).values()) == {1.0}


def test_a_loss_that_is_no_number_ends_the_run(tiny_imagenet_dir, tmp_path, capsys):
    argv = command(tiny_imagenet_dir, tmp_path / "run", "--rate-layer", "1e30")
    assert main([*argv, "--densities", str(tmp_path / "none.json")]) == 2
    assert "none.json cannot be read" in capsys.readouterr().err
    assert main([*argv, "--drop", "99"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "stage layers" in line
    assert "last good state in" in line and "lower --rate-layer" in line
    assert (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.parametrize("options, message", [
    (["--order", "sideways"], "unknown order 'sideways': known are reversed, forward, none"),
    (["--peak", "high"], "unknown peak 'high'"),
    (["--order", "none", "--peak", "accuracy"], "order none prunes nothing"),
    (["--epochs-layer", "0"], "epochs_layer must be positive and finite, not 0.0"),
    (["--factor", "1"], "factor must lie between 0 and 1, not 1.0"),
    (["--batch", "4000"], "batch 4000 exceeds the 108 training images"),
    (["--dense", "none.pt"], "checkpoint none.pt does not exist"),
    (["--resume"], "checkpoint.pt does not exist"),
    (["--data", "nowhere"], "data directory nowhere does not exist"),
])
def test_refusals_are_one_line(tiny_imagenet_dir, tmp_path, capsys, options, message):
    assert main(command(tiny_imagenet_dir, tmp_path / "run", *options)) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1 and message in line


@pytest.mark.parametrize("shares, message", [
    ({"conv9": 0.5}, "densities name layer 'conv9'; alexnet-tiny has conv1, "),
    ({"conv1": 0}, r"density of conv1 must lie in (0, 1], not 0"),
    ([1], "hold no shares by layer"),
])
def test_densities_are_checked(tiny_imagenet_dir, tmp_path, capsys, shares, message):
    path = tmp_path / "d.json"
    path.write_text(json.dumps(shares))
    argv = command(tiny_imagenet_dir, tmp_path / "run", "--densities", str(path))
    assert main(argv) == 2
    assert message in capsys.readouterr().err


def test_recipes_of_unknown_networks():
    with pytest.raises(UserError, match="unknown network 'vgg'"):
        CompressRecipe("vgg")
    assert copy.copy(RECIPE).title == "alexnet-tiny-reversed-accuracy"
    assert CompressRecipe("alexnet-tiny", "none").title == "alexnet-tiny-dense"
