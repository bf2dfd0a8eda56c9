"""The speed command, and that what it compares computes the same."""

import json

import pytest
import torch
from torch import nn

from pruning.benchmark import main
from pruning.fftconv import FFTConv


@pytest.mark.parametrize("kernel, padding", [(3, 1), (5, 0), (1, 0)])
def test_the_fft_convolution_is_a_convolution(kernel, padding):
    torch.manual_seed(0)
    dense = nn.Conv2d(3, 4, kernel, padding=padding)
    x = torch.randn(2, 3, 9, 14)
    torch.testing.assert_close(FFTConv(dense)(x), dense(x), rtol=1e-4, atol=1e-5)


def test_the_command_measures_every_convolution(tmp_path, capsys):
    out = tmp_path / "speed.json"
    call = ["lenet5", "--batch", "8", "--repeats", "1", "--device", "cpu"]
    assert main([*call, "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert [row["layer"] for row in result["layers"]] == ["conv1", "conv2"]
    assert result["ratio"]["conv2d"] == pytest.approx(
        result["total_ms"]["spectral"] / result["total_ms"]["conv2d"], rel=1e-3)
    assert result["admm"]["update_ms"] > 0 and "times conv2d" in capsys.readouterr().out


@pytest.mark.parametrize("options, message", [
    (["alexnet"], "unknown network 'alexnet'"), (["--batch", "0"], "at least 1, not 0 and 5"),
    (["--device", "tpu"], "--device must be auto, cpu or cuda, not 'tpu'"),
])
def test_wrong_options_are_one_line(options, message, capsys):
    assert main(options) == 2
    assert message in capsys.readouterr().err
