"""`spectralise`: the same function from any module, or one clear error."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from pruning.layers import CompressedLinear, SpectralConv
from pruning.spectral import UnsupportedLayer, compressed_layers, spectralise


class Residual(nn.Module):
    """A block no chain describes: a branch, a shared layer, batch norm, dropout."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 5, padding=2), nn.ReLU(), nn.Dropout(0.5))
        self.again = self.body[0]
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.norm(self.first(x))
        x = x + self.again(self.body(x))
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("tile", [8, 16])
@pytest.mark.parametrize("size", [(32, 32), (7, 19), (2, 2)])
def test_the_function_stays_the_same(tile, size):
    torch.manual_seed(0)
    dense = Residual().eval()
    spectral = spectralise(copy.deepcopy(dense), tile)
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(spectral(x), dense(x), rtol=1e-4, atol=1e-4)
    assert [path for path, _ in compressed_layers(spectral)] == ["first", "body.0", "head"]
    assert spectral.again is spectral.body[0] and spectral.first.bias is None
    assert not spectral.body[0].training


def test_it_trains_like_the_original_at_first():
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(6 * 36, 2))
    spectral = spectralise(copy.deepcopy(dense))
    gradients = []
    for model in (dense, spectral):
        x = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
        model(x).square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_a_layer_alone_and_what_is_skipped():
    assert isinstance(spectralise(nn.Conv2d(1, 2, 3)), SpectralConv)
    assert isinstance(spectralise(nn.Linear(3, 2)), CompressedLinear)
    model = nn.Sequential(nn.Conv2d(3, 4, 7, stride=2), nn.Conv2d(4, 4, 3))
    spectralise(model, skip=["0"])
    assert isinstance(model[0], nn.Conv2d) and isinstance(model[1], SpectralConv)
    # A module's name stands for all it holds, not for others that begin like it.
    model = nn.ModuleDict({
        "body": nn.Sequential(nn.Conv2d(3, 4, 3, stride=2)), "body2": nn.Conv2d(4, 4, 3),
    })
    spectralise(model, skip=["body"])
    assert [path for path, _ in compressed_layers(model)] == ["body2"]
    with pytest.raises(ValueError, match="skip names no layer of the module: 7"):
        spectralise(nn.Sequential(nn.Linear(2, 2)), skip=["7"])


def test_frozen_parameters_stay_frozen():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(3, 2))
    model.requires_grad_(False)
    assert not any(item.requires_grad for item in spectralise(model).parameters())


def test_an_example_checks_the_swap_and_leaves_no_trace():
    torch.manual_seed(0)
    model = Residual()
    before = copy.deepcopy(model.norm.state_dict())
    spectralise(model, example=torch.randn(1, 3, 9, 9))
    assert model.training and model.body[2].training
    for name, value in model.norm.state_dict().items():
        assert torch.equal(value, before[name])
    with pytest.raises(RuntimeError):
        spectralise(Residual(), example=torch.randn(1, 4, 9, 9))


def tied():
    """Words in, words out, as language models have it."""
    pair = nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 5, bias=False))
    pair[1].weight = pair[0].weight
    return pair


@pytest.mark.parametrize("layer, message", [
    (nn.Conv2d(2, 2, 3, stride=2), r"stride \(2, 2\) has no spectral form, it needs a stride of 1"),
    (nn.Conv2d(2, 2, 3, groups=2), "2 groups"),
    (nn.Conv2d(2, 2, 3, dilation=2), r"dilation \(2, 2\)"),
    (nn.Conv2d(2, 2, (3, 1)), r"kernel \(3, 1\) has no spectral form, it needs a square kernel"),
    (nn.Conv2d(2, 2, 9), "at most the tile, 8"),
    (nn.Conv2d(2, 2, 3, padding=(1, 0)), "equal padding"),
    (nn.Conv2d(2, 2, 3, padding=3), "padding below the kernel, 3"),
    (nn.Conv2d(2, 2, 2, padding="same"), "an odd kernel"),
    (nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), "'circular'"),
    (nn.ConvTranspose2d(2, 2, 3), "ConvTranspose2d has no spectral form"),
    (nn.Conv1d(2, 2, 3), "Conv1d has no spectral form"),
    (nn.Bilinear(2, 2, 3), "Bilinear has no spectral form"),
    (nn.LazyConv2d(2, 3), "LazyConv2d has no spectral form"),
    (nn.Conv2d(2, 2, 3).half(), "weights are torch.float16; keep them in float32"),
    (nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 3)), "has parametrisations"),
    (prune.identity(nn.Conv2d(2, 2, 3), "weight"), "has hooks"),
    (tied(), "layer 1.1.1 shares its weight or bias with 1.1.0"),
])
def test_what_has_no_spectral_form_is_named(layer, message):
    model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Sequential(nn.ReLU(), layer))
    with pytest.raises(UnsupportedLayer, match=message) as error:
        spectralise(model)
    assert "layer 1.1" in str(error.value)
    assert isinstance(model[0], nn.Conv2d), "nothing is swapped after an error"
