"""ADMM: the splitting converges on a problem whose answer is known; the pruner's own rules."""

import copy

import pytest
import torch
from torch import nn

from model.network import Conv, Linear, Network
from model.patterns import ChannelPattern, KernelPattern, project
from pruning.admm import ADMMPruner, parameter_groups, projection_mask, require_finite, rho_at
from pruning.masks import free_weight, mask_of
from pruning.nets import SpatialNet, SpectralNet
from pruning.spectral import compressed_layers, spectralise

NETWORK = Network("tiny", (2, 8, 8), (
    Conv("conv", 2, 3, 3, pool=2), Linear("fc", 27, 4, relu=False),
))
PATTERNS = {"conv": KernelPattern(4), "fc": ChannelPattern(1, 4)}


def spectral():
    torch.manual_seed(0)
    return SpectralNet(NETWORK, SpatialNet(NETWORK))


def pruner(model, **more):
    return ADMMPruner(model.layers, layers=PATTERNS, **more)


def small():
    """A user's own module."""
    torch.manual_seed(0)
    return spectralise(nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * 9, 10),
    ))


def train(model, admm, steps, rate=3e-3):
    """The loop of docs/pruning.md on noise with a bright row, whose number is the class."""
    generator = torch.Generator().manual_seed(steps)
    adam = torch.optim.Adam(parameter_groups(model, rate))
    losses = []
    for _ in range(steps):
        x = torch.randn(16, 1, 10, 10, generator=generator)
        labels = torch.randint(0, 10, (16,), generator=generator)
        x[torch.arange(16), 0, labels] += 3
        loss = nn.functional.cross_entropy(model(x), labels)
        losses.append(float(loss.detach()))
        if not admm.finalised:
            loss = loss + admm.penalty()
        adam.zero_grad()
        loss.backward()
        adam.step()
        if not admm.finalised:
            admm.step()
    return losses


def test_without_a_loss_the_weights_go_to_their_projection():
    model = spectral()
    targets = {
        name: module.weight.detach() * projection_mask(module, module.weight, PATTERNS[name])
        for name, module in model.compressed()
    }
    admm = pruner(model, rho=(1.0, 1.0))
    assert float(admm.penalty().detach()) > 0
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        adam.zero_grad()
        admm.penalty().backward()
        adam.step()
    admm.update()
    for name, module in model.compressed():
        torch.testing.assert_close(module.weight.detach(), targets[name], rtol=0, atol=1e-3)
    assert max(admm.residual().values()) < 1e-3


def test_masks_obey_the_patterns():
    model = spectral()
    admm = pruner(model)
    admm.update(2e-2)
    kept = admm.finalise()
    for name, module in model.compressed():
        energy = module.word_energy(module.weight)
        chosen = torch.from_numpy(project(energy.numpy(), PATTERNS[name]))
        assert torch.equal(module.spread(chosen), mask_of(module))
        assert bool((free_weight(module)[mask_of(module) == 0] == 0).all())
        assert kept[name] == pytest.approx(admm.budgets()[name] / energy.numel(), rel=0.05)
    with pytest.raises(ValueError, match="finalised"):
        admm.update()


def test_dual_is_rescaled_when_rho_grows():
    model = spectral()
    first, second = pruner(model), pruner(model)
    first.update(2e-2)
    second.update(8e-2)
    for name in PATTERNS:
        torch.testing.assert_close(first.u[name], 4 * second.u[name])
        assert torch.equal(first.z[name], second.z[name])


def test_rho_grows_geometrically():
    assert rho_at(0, 4, 1e-3, 1e-1) == pytest.approx(1e-3)
    assert rho_at(2, 4, 1e-3, 1e-1) == pytest.approx(1e-2)
    assert rho_at(4, 4, 1e-3, 1e-1) == pytest.approx(1e-1)


def test_step_makes_the_updates_of_the_schedule():
    admm = pruner(spectral(), rho=(1e-2, 1.0), updates=2, every=3)
    assert [admm.step() for _ in range(12)] == [False, False, True] * 2 + [False] * 6
    assert admm.rho == pytest.approx(1.0)


def test_projected_weights_are_only_lent():
    model = spectral()
    admm = pruner(model)
    before = {name: module.weight.detach().clone() for name, module in model.compressed()}
    with pytest.raises(KeyboardInterrupt), admm.projected():
        zeros = [float((module.weight == 0).float().mean()) for _, module in model.compressed()]
        raise KeyboardInterrupt
    assert zeros[0] == 0.75 and 0.7 < zeros[1] < 0.8
    for name, module in model.compressed():
        assert torch.equal(module.weight, before[name])


def test_a_users_loop_prunes_and_still_learns():
    model = small()
    admm = ADMMPruner(model, "kernel", 0.25, {"6": 0.125}, updates=8, every=5)
    train(model, admm, 40)
    kept = admm.finalise()
    assert kept == pytest.approx({"0": 0.25, "3": 0.25, "6": 0.125}, rel=0.01)
    losses = train(model, admm, 60)
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    for path, layer in compressed_layers(model):
        assert float((layer.weight != 0).float().mean()) <= kept[path]


@pytest.mark.parametrize("middle", [1, 3, 5])
def test_an_interrupted_loop_goes_on_exactly(middle):
    def go(model, admm, first, last):
        for index in range(first, last):
            train(model, admm, index + 1, rate=1e-3)
            if index + 1 == 4:
                admm.finalise()

    def new():
        model = small()
        return model, ADMMPruner(model, "channel", 0.25, updates=4, every=2)

    whole, admm = new()
    go(whole, admm, 0, 6)
    first, admm = new()
    go(first, admm, 0, middle)
    saved = first.state_dict(), admm.state_dict()
    second, admm = new()
    admm.load_state_dict(saved[1])
    second.load_state_dict(saved[0])
    go(second, admm, middle, 6)
    for a, b in zip(whole.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_finalised_pruner_goes_back_to_before():
    model = small()
    admm = ADMMPruner(model, "channel", 0.25)
    train(model, admm, 3, rate=1e-3)
    saved = copy.deepcopy((model.state_dict(), admm.state_dict()))
    penalty = admm.penalty()
    admm.finalise()
    admm.load_state_dict(saved[1])
    model.load_state_dict(saved[0])
    assert set(admm.densities().values()) == {1.0}
    assert torch.equal(admm.penalty(), penalty)


def test_a_state_of_other_patterns_is_refused():
    state = ADMMPruner(small(), "channel", 0.25).state_dict()
    with pytest.raises(ValueError, match="other layers or patterns: 3"):
        ADMMPruner(small(), "channel", 0.25, {"3": "channel 1:8"}).load_state_dict(state)


def test_autocast_leaves_the_pruner_in_single_precision():
    model = small()
    admm = ADMMPruner(model)
    exact = admm.penalty()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nn.functional.cross_entropy(model(torch.randn(4, 1, 10, 10)), torch.arange(4))
        assert torch.equal(admm.penalty(), exact)
        admm.update()
    (loss + admm.penalty()).backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())
    assert all(z.dtype == torch.float32 for z in admm.z.values())


def test_broken_weights_and_losses_are_named():
    model = small()
    admm = ADMMPruner(model)
    with torch.no_grad():
        free_weight(model[3])[0, 0, 0, 0] = float("nan")
    for call in (admm.update, admm.finalise):
        with pytest.raises(FloatingPointError, match="layer 3: the weights hold NaN"):
            call()
    assert require_finite(torch.tensor(2.5), "step 1") == 2.5
    with pytest.raises(FloatingPointError, match="loss became inf in step 7"):
        require_finite(torch.tensor(float("inf")), "step 7")


@pytest.mark.parametrize("options, message", [
    ({"layers": {"nowhere": None}}, "no layer is called nowhere; there are 0, 3, 6"),
    ({"layers": {"*": None}}, "every layer stays dense"),
    ({"density": 0.0}, "layer 0: density must be above 0 and at most 1, not 0.0"),
    ({"density": 1.5}, "at most 1, not 1.5"),
    ({"density": 0.123}, "has no density 0.123"),
    # Nearest to 0/1, which once was the same as 1: everything kept.
    ({"density": 1e-9}, "layer 0: pattern channel has no density 1e-09"),
    ({"pattern": "block"}, "layer 0: unknown pattern 'block'"),
    ({"pattern": "kernel", "density": 0.75}, "use 1/n"),
    ({"rho": (0, 1)}, "rho must be positive"),
    ({"pattern": "kernel 33"}, "layer 0: pattern kernel 33 keeps none of its 8 x 1 x 32 words"),
    ({"layers": {"6": "locality 16 8x64"}}, "layer 6: pattern locality 16 8x64 keeps none"),
    ({"rho": (1, float("inf"))}, "rho must be positive and finite"),
    ({"updates": 0}, "at least 1"),
])
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ADMMPruner(small(), **options)


@pytest.mark.parametrize("pattern", ["kernel 4", KernelPattern(4)])
def test_kernel_with_its_number_is_channel_on_linear_layers(pattern):
    # One frequency: a quarter of it would be nothing, and the classifier gone.
    admm = ADMMPruner(small(), pattern)
    assert admm.patterns == {"0": KernelPattern(4), "3": KernelPattern(4),
                             "6": ChannelPattern(1, 4)}
    assert admm.finalise()["6"] == 0.25


def test_a_model_without_spectral_layers_is_refused():
    with pytest.raises(ValueError, match="call spectralise on it first"):
        ADMMPruner(nn.Sequential(nn.Linear(3, 3)))


def test_penalty_is_the_formula_and_so_is_its_gradient():
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(144, 2)
    model = spectralise(nn.Sequential(*layers))
    pruner = ADMMPruner(model, "channel", 0.5, rho=(0.3, 0.6))
    for rho in (0.3, 0.6):
        weights = [free_weight(module) for module in pruner.layers.values()]
        expected = sum(
            rho / 2 * ((weight - pruner.z[path] + pruner.u[path]).square() * module.metric).sum()
            for weight, (path, module) in zip(weights, pruner.layers.items(), strict=True)
        )
        wanted = torch.autograd.grad(expected, weights)
        penalty = pruner.penalty()
        torch.testing.assert_close(penalty, expected)
        for ours, naive in zip(torch.autograd.grad(penalty, weights), wanted, strict=True):
            torch.testing.assert_close(ours, naive)
        with torch.no_grad():
            for weight in weights:
                weight += 0.01
        pruner.update(0.6)
