"""Magnitude pruning in both orders, both readings of peak-pruning, and the masks below them."""

import copy

import pytest
import torch
from torch import nn

from pruning.magnitude import (
    accuracy_peak,
    densities,
    density_of,
    finalise,
    histogram_peak,
    kept,
    largest,
    layerwise,
    mask_weight,
    peak_magnitude,
    prunable,
    sensitive_density,
)
from pruning.threads import use_threads


@pytest.fixture(scope="module")
def task():
    """Eight classes in sixteen dimensions, a trained network, how to retrain and to measure it."""
    use_threads(1)
    generator = torch.Generator().manual_seed(1)
    centres = 1.1 * torch.randn(8, 16, generator=generator)
    labels = torch.randint(8, (3000,), generator=generator)
    points = centres[labels] + torch.randn(3000, 16, generator=generator)

    def retrain(model, steps=60):
        adam = torch.optim.Adam(model.parameters(), 5e-3)
        for _ in range(steps):
            adam.zero_grad()
            nn.functional.cross_entropy(model(points[:2000]), labels[:2000]).backward()
            adam.step()

    def accuracy(model):
        with torch.no_grad():
            return 100 * float((model(points[2000:]).argmax(1) == labels[2000:]).float().mean())

    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(),
                          nn.Linear(32, 8))
    retrain(model, 200)
    assert accuracy(model) > 80
    return model, retrain, accuracy


def test_largest_keeps_exactly_the_budget():
    weight = torch.tensor([[3.0, -1.0, 0.5], [-4.0, 1.0, 0.0]])
    assert largest(weight, 0.5).tolist() == [[1, 1, 0], [1, 0, 0]]
    assert largest(weight, 1.0).sum() == 6
    with pytest.raises(ValueError, match=r"density must lie in \(0, 1\], not 0"):
        largest(weight, 0)


@pytest.mark.parametrize("reverse", [True, False])
def test_layers_are_pruned_in_order_and_stay_pruned(task, reverse):
    model, retrain, accuracy = copy.deepcopy(task[0]), *task[1:]
    seen = []

    def watched(net):
        seen.append({name for name, share in densities(net).items() if share < 1})
        retrain(net)

    targets = {"0": 0.25, "2": 0.2, "4": 0.5}
    steps = layerwise(model, watched, accuracy, reverse=reverse, targets=targets)
    order = ["4", "2", "0"] if reverse else ["0", "2", "4"]
    assert [step.layer for step in steps] == order
    assert seen == [set(order[:1]), set(order[:2]), set(order)]
    for name, module in prunable(model):
        count = int(kept(module).sum())
        assert count == round(targets[name] * module.weight.numel())
        assert int((module.weight != 0).sum()) == count
    assert steps[-1].retrained > accuracy(task[0]) - 6
    before = accuracy(model)
    finalise(model)
    assert accuracy(model) == before
    assert isinstance(model[0].weight, nn.Parameter)
    assert density_of(model) == 1 and int((model[2].weight == 0).sum()) == 48 * 32 - 307


def test_sensitivity_chooses_what_costs_no_more_than_allowed(task):
    model, _, accuracy = copy.deepcopy(task[0]), *task[1:]
    choices = (0.8, 0.5, 0.2, 0.05, 0.01)
    chosen = sensitive_density(model, model[2], accuracy, 2.0, choices=choices)
    assert chosen in (*choices, 1.0) and density_of(model) == 1
    bar = accuracy(model) - 2
    results = {}
    for density in choices:
        trial = copy.deepcopy(model)
        mask_weight(trial[2], largest(trial[2].weight, density))
        results[density] = accuracy(trial)
    assert results[chosen] >= bar
    assert all(results[d] >= bar for d in choices if d > chosen)
    below = [d for d in choices if d < chosen]
    assert below and results[max(below)] < bar


def test_sensitivity_drives_the_densities_by_default(task):
    model, retrain, accuracy = copy.deepcopy(task[0]), *task[1:]
    steps = layerwise(model, retrain, accuracy, drop=3.0)
    assert [step.layer for step in steps] == ["4", "2", "0"]
    assert density_of(model) < 0.6 and steps[-1].retrained > accuracy(task[0]) - 5


def test_histogram_peak_removes_what_lies_up_to_the_peaks(task):
    model, retrain, accuracy = copy.deepcopy(task[0]), *task[1:]
    layerwise(model, retrain, accuracy, targets={"0": 0.5, "2": 0.3})
    before = densities(model)
    expected = {}
    for name, module in prunable(model):
        mask = kept(module)
        peak = peak_magnitude(module.weight, mask)
        expected[name] = float((mask * (module.weight.abs() > peak)).mean())
    steps = histogram_peak(model, lambda net: None, accuracy)
    assert [step.layer for step in steps] == ["2", "0"]         # layer 4 is whole: no such peak
    after = densities(model)
    assert after["4"] == 1
    for name in ("0", "2"):
        assert 0 < after[name] < before[name] and after[name] == expected[name]


def test_peak_of_a_known_histogram():
    peaks = [torch.full((50,), 0.4), torch.full((40,), -0.4)]
    values = torch.cat([*peaks, torch.linspace(0.2, 1, 30)])
    assert peak_magnitude(values, torch.ones_like(values)) == pytest.approx(0.4, abs=0.01)
    assert peak_magnitude(values, torch.zeros_like(values)) == 0


def test_accuracy_peak_goes_back_to_the_best(task):
    model, retrain, accuracy = copy.deepcopy(task[0]), *task[1:]
    start = accuracy(model)
    steps = accuracy_peak(model, retrain, accuracy, factor=0.5)
    assert steps and accuracy(model) == steps[-1].retrained >= start
    shares = densities(model)
    for step in steps:
        assert shares[step.layer] == step.density < 1


def test_accuracy_peak_leaves_a_network_that_only_falls(task):
    model, counter = copy.deepcopy(task[0]), iter(range(1000))
    assert accuracy_peak(model, lambda net: None, lambda net: -float(next(counter))) == []
    assert density_of(model) == 1


@pytest.mark.parametrize("call, message", [
    (lambda m: layerwise(m, None, None, targets={"9": 0.5}), "no layer '9'; layers"),
    (lambda m: accuracy_peak(m, None, None, factor=1.0), r"factor must lie in \(0, 1\), not 1.0"),
    (lambda m: mask_weight(m[0], torch.ones(2)), r"shape \(2,\) does not fit a weight of shape"),
])
def test_refusals(task, call, message):
    with pytest.raises(ValueError, match=message):
        call(copy.deepcopy(task[0]))
