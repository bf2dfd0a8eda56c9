"""ADMM: the splitting converges on a problem whose answer is known."""

import pytest
import torch

from model.network import Conv, Linear, Network
from model.patterns import ChannelPattern, KernelPattern, project
from pruning.admm import Admm, projection_mask, rho_at
from pruning.nets import SpatialNet, SpectralNet

NETWORK = Network("tiny", (2, 8, 8), (
    Conv("conv", 2, 3, 3, pool=2), Linear("fc", 27, 4, relu=False),
))
PATTERNS = {"conv": KernelPattern(4), "fc": ChannelPattern(1, 4)}


def spectral():
    torch.manual_seed(0)
    return SpectralNet(NETWORK, SpatialNet(NETWORK))


def test_without_a_loss_the_weights_go_to_their_projection():
    model = spectral()
    targets = {
        name: module.weight.detach() * projection_mask(module, module.weight, PATTERNS[name])
        for name, module in model.compressed()
    }
    admm = Admm(model, PATTERNS, 1.0)
    assert float(admm.penalty().detach()) > 0
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        adam.zero_grad()
        admm.penalty().backward()
        adam.step()
    admm.update(1.0)
    for name, module in model.compressed():
        torch.testing.assert_close(module.weight.detach(), targets[name], rtol=0, atol=1e-3)
    assert max(admm.residual().values()) < 1e-3


def test_masks_obey_the_patterns():
    model = spectral()
    admm = Admm(model, PATTERNS, 1e-2)
    admm.update(2e-2)
    admm.apply_masks()
    for name, module in model.compressed():
        energy = module.word_energy(module.weight)
        kept = project(energy, PATTERNS[name])
        assert torch.equal(module.spread(kept), module.mask)
        assert bool((module.weight[module.mask == 0] == 0).all())


def test_dual_is_rescaled_when_rho_grows():
    model = spectral()
    first, second = Admm(model, PATTERNS, 1e-2), Admm(model, PATTERNS, 1e-2)
    first.update(1e-2)
    second.update(4e-2)
    for name in PATTERNS:
        torch.testing.assert_close(first.u[name], 4 * second.u[name])
        assert torch.equal(first.z[name], second.z[name])


def test_state_round_trip():
    model = spectral()
    admm = Admm(model, PATTERNS, 1e-2)
    admm.update(3e-2)
    other = Admm(model, PATTERNS, 1.0)
    other.load_state_dict(admm.state_dict())
    assert torch.equal(other.penalty(), admm.penalty())


def test_rho_grows_geometrically():
    assert rho_at(0, 4, 1e-3, 1e-1) == pytest.approx(1e-3)
    assert rho_at(2, 4, 1e-3, 1e-1) == pytest.approx(1e-2)
    assert rho_at(4, 4, 1e-3, 1e-1) == pytest.approx(1e-1)
