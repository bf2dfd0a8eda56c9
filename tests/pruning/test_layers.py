"""Torch layers against NumPy's definition, dense networks, and quantisation rules."""

import numpy as np
import pytest
import torch

from model import halfplane
from model.network import NETWORKS, Conv, Linear, Network
from pruning import layers, tables
from pruning.activations import ActivationQuantiser
from pruning.layers import SpectralConv
from pruning.masks import set_mask
from pruning.nets import SpatialNet, SpectralNet


def build(channels=3, outputs=4, kernel=5, padding=2, size=(13, 9), tile=8):
    torch.manual_seed(0)
    layer = Conv("conv", channels, outputs, kernel, padding)
    weight = torch.randn(outputs, channels, kernel, kernel)
    return SpectralConv(layer, tile, weight, torch.randn(outputs)), weight


def reference(module, x):
    """The layer in NumPy, from `model` alone."""
    parts = module.weight.detach().double().numpy()
    words = parts[..., 0] + 1j * parts[..., 1]
    plan = module.layer.tiling(x.shape[1:], module.tile)
    spectra = halfplane.pack(np.fft.fft2(plan.extract(x)))
    sums = halfplane.multiply(spectra[:, None], words[None, :, :, None]).sum(axis=2)
    tiles = plan.valid(np.fft.ifft2(halfplane.unpack(sums)).real)
    return plan.assemble(tiles) + module.bias.detach().numpy()[:, None, None]


@pytest.mark.parametrize("direct", [0, 99])
@pytest.mark.parametrize("shape", [
    {}, {"padding": 0}, {"kernel": 3, "padding": 1, "size": (14, 14)},
    {"tile": 16, "size": (20, 12)}, {"kernel": 1, "padding": 0}, {"channels": 1},
    # Maps within one tile; the last three small enough for one product.
    {"kernel": 3, "padding": 1, "size": (4, 4)}, {"kernel": 3, "padding": 1, "size": (2, 2)},
    {"kernel": 3, "padding": 1, "size": (1, 1)}, {"kernel": 2, "padding": 1, "size": (1, 3)},
])
def test_pruned_convolution_is_the_models(monkeypatch, direct, shape):
    monkeypatch.setattr(layers, "DIRECT_CHANNELS", direct)
    module, weight = build(**shape)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, module.layer.in_channels, *shape.get("size", (13, 9))))
    single = torch.tensor(x, dtype=torch.float32)
    dense = torch.nn.functional.conv2d(single, weight, module.bias, padding=module.layer.padding)
    torch.testing.assert_close(module(single), dense, rtol=1e-4, atol=1e-4)
    kept = torch.tensor(rng.random(module.weight.shape[:-1]) < 0.3)
    set_mask(module, module.spread(kept))
    np.testing.assert_allclose(
        module(single).detach().numpy(), reference(module, x), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("size", [(2, 2), (1, 1), (2, 4)])
def test_one_product_and_frequencies_agree_with_gradients(monkeypatch, size):
    gradients = []
    for pairs in (64, 0):
        monkeypatch.setattr(layers, "DIRECT_PAIRS", pairs)
        module, _ = build(channels=12, kernel=3, padding=1)
        x = torch.randn(2, 12, *size, generator=torch.Generator().manual_seed(3)).requires_grad_()
        module(x).square().sum().backward()
        gradients.append((x.grad, module.weight.grad, module.bias.grad))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_one_layer_takes_maps_of_any_size():
    module, weight = build()
    for size in ((13, 9), (30, 8), (5, 5)):
        x = torch.randn(2, 3, *size)
        dense = torch.nn.functional.conv2d(x, weight, module.bias, padding=2)
        torch.testing.assert_close(module(x), dense, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"layer conv expects maps \(B, 3, height, width\)"):
        module(torch.randn(2, 4, 9, 9))


@pytest.mark.parametrize("channels", [3, 12])
def test_autocast_computes_in_low_precision(channels):
    module, _ = build(channels=channels, kernel=3, padding=1)
    x = torch.randn(2, channels, 14, 14)
    exact = module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = module(x.bfloat16())
    assert low.dtype == torch.float32
    assert 1e-4 < float(((low - exact).norm() / exact.norm()).detach()) < 2e-2
    low.sum().backward()
    assert module.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("channels, size", [(2, 20), (12, 2), (12, 20)])
def test_training_after_an_evaluation_in_inference_mode(channels, size):
    """The tables kept from the first call serve the gradients of later ones."""
    tables.circulant.cache_clear()
    tables.joins.cache_clear()
    module, _ = build(channels=channels, kernel=3, padding=1)
    x = torch.randn(2, channels, size, size)
    with torch.inference_mode():
        before = module(x)
    module(x).sum().backward()
    torch.testing.assert_close(module(x).detach(), before.clone())
    assert bool(module.weight.grad.ne(0).any())


def test_both_convolution_paths_have_the_same_gradient(monkeypatch):
    gradients = []
    for direct in (0, 99):
        monkeypatch.setattr(layers, "DIRECT_CHANNELS", direct)
        module, _ = build()
        x = torch.randn(2, 3, 13, 9, generator=torch.Generator().manual_seed(3)).requires_grad_()
        module(x).square().sum().backward()
        gradients.append((x.grad, module.weight.grad, module.bias.grad))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-2)


def test_metric_is_the_energy_of_the_kernel_in_space():
    module, weight = build()
    total = (module.weight.square() * module.metric).sum()
    torch.testing.assert_close(total.detach(), weight.square().sum())


@pytest.mark.parametrize("name", ["lenet", "lenet5"])
def test_the_swap_to_spectral_layers_is_exact(name):
    torch.manual_seed(1)
    network = NETWORKS[name]
    dense = SpatialNet(network)
    x = torch.rand(3, *network.input_shape)
    torch.testing.assert_close(SpectralNet(network, dense)(x), dense(x), rtol=1e-4, atol=1e-5)


def test_double_precision_stays_double():
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    module = SpectralConv(Conv("conv", 3, 4, 3, 1), 8, weight, None)
    x = torch.randn(2, 3, 14, 14, dtype=torch.float64)
    dense = torch.nn.functional.conv2d(x, weight, padding=1)
    torch.testing.assert_close(module(x), dense, rtol=1e-10, atol=1e-10)


def test_activations_round_half_up_and_saturate():
    quantiser = ActivationQuantiser()
    x = torch.tensor([0.0, 0.49, 0.5, 1.5, 254.5, 300.0], requires_grad=True)
    assert quantiser(x) is x
    quantiser.mode = "on"
    y = quantiser(x)
    assert y.tolist() == [0, 0, 1, 2, 255, 255]
    y.sum().backward()
    assert x.grad.tolist() == [1, 1, 1, 1, 1, 0]


def test_calibration_covers_the_observed_range():
    quantiser = ActivationQuantiser()
    quantiser.mode = "observe"
    quantiser(torch.linspace(0, 10.2, 10_000))
    quantiser.calibrate()
    assert float(quantiser.scale) == pytest.approx(10.2 / 255, rel=0.05)
    with pytest.raises(ValueError, match="no activation"):
        quantiser.calibrate()


def test_hidden_layers_need_their_relu():
    network = Network("bad", (1, 4, 4), (
        Linear("a", 16, 4, relu=False), Linear("b", 4, 2, relu=False),
    ))
    with pytest.raises(ValueError, match="layer a"):
        SpectralNet(network, SpatialNet(network))
