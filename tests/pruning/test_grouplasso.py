"""Group lasso: the proximal step against its definition, the survivors, the pruner's own rules."""

import pytest
import torch
from torch import nn

from model.patterns import ChannelPattern, LocalityPattern
from pruning.admm import ADMMPruner, parameter_groups
from pruning.grouplasso import GroupLasso, group_norms, shrinkage, spread_groups
from pruning.masks import free_weight, mask_of
from pruning.spectral import compressed_layers, spectralise

SHAPE = (10, 3, 32)


def small():
    """A user's own module: outputs 8 and 10, so that the groups of 4 outputs have an odd one."""
    torch.manual_seed(0)
    return spectralise(nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 10, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(10 * 9, 10),
    ))


def lasso(model, **more):
    settings = {"lanes": 4, "density": 0.25, "layers": {"6": "channel 1:4"}, "updates": 4,
                "every": 10}
    return GroupLasso(model, **(settings | more))


def train(model, pruner, steps):
    """The loop of docs/pruning.md on noise with a bright row, whose number is the class."""
    generator = torch.Generator().manual_seed(steps)
    adam = torch.optim.Adam(parameter_groups(model, 3e-3))
    for _ in range(steps):
        x = torch.randn(16, 1, 10, 10, generator=generator)
        labels = torch.randint(0, 10, (16,), generator=generator)
        x[torch.arange(16), 0, labels] += 3
        loss = nn.functional.cross_entropy(model(x), labels) + pruner.penalty()
        adam.zero_grad()
        loss.backward()
        adam.step()
        pruner.step()


def test_norms_are_those_of_the_blocks():
    energy = torch.rand(SHAPE, dtype=torch.float64)
    pattern = LocalityPattern(4, 4, 2)
    norms = group_norms(energy, pattern)
    assert norms.shape == (3, 2, 32)
    # The last blocks have 2 outputs and 1 channel.
    for row, column in ((0, 0), (2, 0), (0, 1), (2, 1)):
        block = energy[4 * row:4 * row + 4, 2 * column:2 * column + 2, 7]
        torch.testing.assert_close(norms[row, column, 7], block.mean().sqrt())
        spread = spread_groups(norms, SHAPE, pattern)
        assert torch.all(spread[4 * row:4 * row + 4, 2 * column:2 * column + 2, 7]
                         == norms[row, column, 7])


@pytest.mark.parametrize("threshold", [0.0, 0.3, 2.0, 100.0])
def test_shrinkage_is_the_proximal_operator(threshold):
    """No other point has a smaller ``||x - w||^2 / 2 + threshold ||x||``."""
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(6, generator=generator, dtype=torch.float64)
    x = w * shrinkage(w.norm(), threshold)

    def value(point):
        return (point - w).square().sum(-1) / 2 + threshold * point.norm(dim=-1)

    for size in (1e-4, 1e-2, 1.0):
        others = x + size * torch.randn(500, 6, generator=generator, dtype=torch.float64)
        assert torch.all(value(others) >= value(x))
    if threshold > float(w.norm()):
        assert torch.count_nonzero(x) == 0


def test_shrinkage_of_nothing_is_nothing():
    assert torch.equal(shrinkage(torch.zeros(2), 0.0) * 0, torch.zeros(2))
    assert torch.isfinite(shrinkage(torch.zeros(2), 1.0)).all()


def test_training_kills_groups_and_keeps_the_budget():
    model = small()
    pruner = lasso(model, strength=(1e-2, 0.5))
    assert pruner.groups()["3"] == (3 * 8 * 32, 10 * 8 * 32 // 4 // 4)
    train(model, pruner, 40)
    for alive, allowed in pruner.groups().values():
        assert alive == allowed                     # exact zeros, and never fewer than allowed
    before = {path: free_weight(module).clone() for path, module in compressed_layers(model)}
    pruner.finalise()
    for path, module in compressed_layers(model):
        mask = mask_of(module)
        if path == "6":
            pairs = mask.view(10, 45, 2)[..., 0]
            pairs = nn.functional.pad(pairs, (0, 3)).view(10, 12, 4)
            assert int(pairs.sum(2).max()) <= 1
            continue
        # The cut takes nothing away: what is masked was zero already.
        assert torch.equal(before[path], module.weight)
        words = mask[..., 0].bool()
        groups = nn.functional.pad(words, (0, 0, 0, 0, 0, -len(words) % 4))
        groups = groups.view(-1, 4, *words.shape[1:])
        size = torch.full((len(groups), 1, 1), 4)
        size[-1] = (len(words) - 1) % 4 + 1
        assert torch.all((groups.sum(1) == 0) | (groups.sum(1) == size))
        assert int((groups.sum(1) > 0).sum()) == pruner.groups()[path][1]


def test_the_scale_of_a_layer_does_not_matter():
    """Without a loss a layer ten times as large loses the same share of every group."""
    kept = []
    for factor in (1.0, 10.0):
        model = small()
        with torch.no_grad():
            free_weight(model[3]).mul_(factor)
        pruner = lasso(model, strength=(0.05, 0.05))
        for _ in range(10):
            pruner.shrink()
        kept.append(free_weight(model[3]).detach() / factor)
    torch.testing.assert_close(kept[0], kept[1])
    assert pruner.groups()["3"][0] < 3 * 8 * 32


def test_a_layer_of_another_pattern_goes_the_way_of_admm():
    model, other = small(), small()
    pruner = lasso(model)
    admm = ADMMPruner(other, layers={"0": None, "3": None, "6": "channel 1:4"})
    assert pruner.patterns["6"] == ChannelPattern(1, 4)
    torch.testing.assert_close(pruner.penalty(), admm.penalty())
    assert set(pruner.z) == {"6"} and set(pruner.scale) == {"0", "3"}
    assert pruner.residual()["6"] == admm.residual()["6"]


def test_broken_weights_are_named():
    model = small()
    pruner = lasso(model)
    with torch.no_grad():
        free_weight(model[3])[0, 0, 0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="layer 3: the weights hold NaN"):
        pruner.finalise()


def test_a_checkpoint_goes_on_exactly():
    model = small()
    pruner = lasso(model, strength=(1e-2, 0.5))
    train(model, pruner, 12)
    again = small()
    copy = lasso(again, strength=(1e-2, 0.5))
    copy.load_state_dict(pruner.state_dict())
    again.load_state_dict(model.state_dict())
    for each in (pruner, copy):
        each.shrink()
    assert torch.equal(free_weight(model[3]), free_weight(again[3]))
    admm = ADMMPruner(small(), layers={path: str(p) for path, p in pruner.patterns.items()})
    with pytest.raises(ValueError, match="of ADMMPruner"):
        copy.load_state_dict(admm.state_dict())


@pytest.mark.parametrize(("options", "message"), [
    ({"strength": (0.0, 1.0)}, "strength must be positive"),
    ({"density": 0.0}, "density must be above 0"),
    ({"lanes": 0}, "lanes must be at least 1"),
    ({"layers": {"*": "channel 1:4"}}, "no layer has the pattern locality"),
])
def test_wrong_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        lasso(small(), **options)
