"""Rounding with scales of several granularities, and the command that compares them."""

import json

import pytest
import torch

from pruning import train
from pruning.scales import GRANULARITIES, main, round_words


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_every_slice_uses_its_whole_range(granularity):
    weight = torch.randn(4, 3, 32, 2, generator=torch.Generator().manual_seed(0))
    reach = GRANULARITIES[granularity]
    rounded = round_words(weight, 5, reach)
    scale = weight.abs().amax(reach, keepdim=True) / 15
    integers = rounded / scale
    torch.testing.assert_close(integers, integers.round(), rtol=0, atol=1e-4)
    torch.testing.assert_close(integers.abs().amax(reach), torch.full_like(scale, 15).amax(reach))
    assert torch.all((rounded - weight).abs() <= scale * 0.5001)


def test_finer_scales_are_never_worse():
    weight = torch.randn(4, 3, 32, 2, generator=torch.Generator().manual_seed(0))
    errors = {name: float((round_words(weight, 6, reach) - weight).square().sum())
              for name, reach in GRANULARITIES.items()}
    assert errors["output x frequency"] < errors["output"] < errors["layer"]
    assert torch.equal(round_words(torch.zeros(1, 1, 4, 2), 8, (1, 2, 3)), torch.zeros(1, 1, 4, 2))


def test_command_compares_them_on_a_finished_run(digits_dir, tmp_path, capsys):
    options = ["--data", str(digits_dir), "--out", str(tmp_path), "--batch", "64"]
    short = [f"--epochs-{stage}=1" for stage in ("dense", "admm", "retrain")]
    assert train.main(["lenet5", *options, *short]) == 0
    target = tmp_path / "scales.json"
    file = str(tmp_path / "checkpoint.pt")
    assert main([file, "--data", str(digits_dir), "--bits", "8,2", "--json", str(target)]) == 0
    result = json.loads(target.read_text())
    log = json.loads((tmp_path / "log.json").read_text())
    assert result["trained"] == log["result"]["fake_quantised_accuracy"]
    rows = {(row["scale"], row["bits"]): row for row in result["rows"]}
    assert len(rows) == 2 * len(GRANULARITIES)
    # The hardware's own scales give back what the run gave.
    assert rows["output", 8]["accuracy"] == result["trained"]
    assert rows["output", 8]["snr_db"] > rows["output", 2]["snr_db"] + 20
    assert main([file, "--data", str(digits_dir), "--bits", "1"]) == 2
    assert "--bits must be 2 to 16, not 1" in capsys.readouterr().err
