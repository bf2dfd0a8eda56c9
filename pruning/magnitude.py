"""Magnitude pruning layer by layer: forward, reversed, and two readings of peak-pruning.

Zhang et al., "Optimized Compression for Implementing Convolutional Neural Networks on FPGA",
Electronics 2019, 8(3), 295, prune AlexNet from the last layer back to the first and retrain as they
go ("reversed-pruning"), where Han et al. (NIPS 2015) go forward; then "peak-pruning" removes more.
The text of the second step is not to be had; both plausible readings are here under names that say
what they do:

* `histogram_peak`: the weights that one pass leaves have a histogram with a peak on each side of
  zero; what lies between zero and the peaks is removed too.
* `accuracy_peak`: each layer is pruned on to the density at which the retrained accuracy is highest
  before it falls.

The caller trains: every procedure takes ``retrain``, called after each change of the masks, and
``accuracy``, in percent on images the caller sets aside (not the test set).  Every procedure can
be interrupted between two layers: ``after`` is called when a layer is done, and layers named in
``skip`` count as done.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pruning.masks import mask_of, open_mask, set_mask

__all__ = ["Step", "accuracy_peak", "density_of", "densities", "finalise", "histogram_peak",
           "kept", "largest", "layerwise", "mask_weight", "peak_magnitude", "prunable",
           "sensitive_density"]

Retrain = Callable[[nn.Module], None]
Accuracy = Callable[[nn.Module], float]
#: Called with the path of a layer and its step, None if the layer stays as it was.
After = Callable[[str, "Step | None"], None]


@dataclass(frozen=True)
class Step:
    """One step of a procedure: accuracies are those right after pruning and after retraining."""

    layer: str
    density: float
    pruned: float
    retrained: float

    def to_dict(self) -> dict:
        """Plain JSON types."""
        return asdict(self)


def prunable(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Path and module of every convolution and fully connected layer, in order of definition."""
    for path, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            yield path, module


def mask_weight(module: nn.Module, mask: Tensor) -> None:
    """Put a mask on the weight of any layer, in place of the one it has."""
    if not parametrize.is_parametrized(module, "weight"):
        open_mask(module)
    set_mask(module, mask)


def kept(module: nn.Module) -> Tensor:
    """Mask of a layer's weight; all ones if it has none."""
    mask = mask_of(module) if parametrize.is_parametrized(module, "weight") else None
    return torch.ones_like(_weight(module)) if mask is None else mask


def largest(weight: Tensor, density: float) -> Tensor:
    """Mask of the ``round(density * size)`` weights of largest magnitude; the first of equals."""
    if not 0 < density <= 1:
        raise ValueError(f"density must lie in (0, 1], not {density!r}")
    count = round(density * weight.numel())
    order = torch.sort(weight.detach().abs().flatten(), descending=True, stable=True).indices
    mask = torch.zeros(weight.numel(), device=weight.device)
    mask[order[:count]] = 1
    return mask.view_as(weight)


def finalise(model: nn.Module) -> None:
    """Write the masked weights into the parameters and remove the masks."""
    for _, module in prunable(model):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


def densities(model: nn.Module) -> dict[str, float]:
    """Share of kept weights of every layer."""
    return {name: float(kept(module).mean()) for name, module in prunable(model)}


def density_of(model: nn.Module) -> float:
    """Share of kept weights of all layers together."""
    masks = [kept(module) for _, module in prunable(model)]
    return sum(float(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.detach()


def _prune(module: nn.Module, density: float) -> None:
    """Keep the largest weights; those already masked are zero and stay out."""
    mask_weight(module, largest(_weight(module), density) * kept(module))


def _left(
    model: nn.Module, reverse: bool, skip: Collection[str]
) -> list[tuple[str, nn.Module]]:
    """Layers that are not done, in the order they are pruned in."""
    layers = list(prunable(model))
    return [item for item in (reversed(layers) if reverse else layers) if item[0] not in skip]


def _no_more(name: str, step: Step | None) -> None:
    """Do nothing after a layer."""


def _retrained(
    model: nn.Module, name: str, module: nn.Module, retrain: Retrain, accuracy: Accuracy
) -> Step:
    """Retrain a network whose layer ``name`` has just got another mask."""
    pruned = accuracy(model)
    retrain(model)
    return Step(name, float(kept(module).mean()), pruned, accuracy(model))


def sensitive_density(
    model: nn.Module, module: nn.Module, accuracy: Accuracy, drop: float, *,
    choices: Sequence[float],
) -> float:
    """Smallest of ``choices`` at which a layer, not retrained, costs at most ``drop`` points.

    Parameters
    ----------
    model, module : nn.Module
        The network and its layer; the layer's mask is as before afterwards.
    accuracy : callable
        Percent of right answers of a network.
    drop : float
        Percentage points that one layer may cost before retraining.
    choices : sequence of float
        Densities to try, every one in (0, 1].

    Returns
    -------
    float
        1.0 if even the largest choice costs more.
    """
    before = kept(module).clone()
    bar = accuracy(model) - drop
    chosen = 1.0
    for density in sorted(choices, reverse=True):
        mask_weight(module, largest(_weight(module), density) * before)
        fell = accuracy(model) < bar
        mask_weight(module, before)
        if fell:
            break
        chosen = density
    return chosen


def layerwise(
    model: nn.Module, retrain: Retrain, accuracy: Accuracy, *, reverse: bool = True,
    targets: dict[str, float] | None = None, drop: float = 1.0,
    choices: Sequence[float] = (0.5, 0.35, 0.25, 0.18, 0.12, 0.09, 0.06, 0.04, 0.03, 0.02),
    skip: Collection[str] = (), after: After = _no_more,
) -> list[Step]:
    """Prune one layer after the other, retraining after each.

    Parameters
    ----------
    model : nn.Module
        Trained network; gets masks.
    retrain, accuracy : callable
        See the module.
    reverse : bool
        From the last layer to the first (reversed-pruning), else forward.
    targets : dict of str to float, optional
        Density by layer; by default `sensitive_density` with ``drop`` and ``choices`` chooses it
        when its turn has come, so that earlier steps are taken into account.
    skip, after
        See the module.

    Returns
    -------
    list of Step
        One per layer, in the order pruned.
    """
    names = [name for name, _ in prunable(model)]
    if targets is not None and (unknown := set(targets) - set(names)):
        raise ValueError(f"no layer {sorted(unknown)[0]!r}; layers: {names}")
    steps = []
    for name, module in _left(model, reverse, skip):
        density = (
            targets.get(name, 1.0) if targets is not None
            else sensitive_density(model, module, accuracy, drop, choices=choices)
        )
        if density >= float(kept(module).mean()):
            after(name, None)
            continue
        _prune(module, density)
        steps.append(_retrained(model, name, module, retrain, accuracy))
        after(name, steps[-1])
    return steps


def peak_magnitude(weight: Tensor, mask: Tensor, bins: int = 100) -> float:
    """Magnitude at the peak of the histogram of the kept weights' magnitudes."""
    values = weight.detach().abs()[mask.bool()]
    if not values.numel():
        return 0.0
    low, high = float(values.min()), float(values.max())
    counts = torch.histc(values, bins=bins, min=low, max=high)
    return low + (int(counts.argmax()) + 0.5) * (high - low) / bins


def histogram_peak(
    model: nn.Module, retrain: Retrain, accuracy: Accuracy, *, reverse: bool = True,
    skip: Collection[str] = (), after: After = _no_more,
) -> list[Step]:
    """First reading of peak-pruning: remove what lies up to the histogram's peaks; one pass."""
    steps = []
    for name, module in _left(model, reverse, skip):
        weight, mask = _weight(module), kept(module)
        beyond = mask * (weight.abs() > peak_magnitude(weight, mask))
        # A layer that no pass has been over has no second peak.
        if bool(mask.all()) or not beyond.any():
            after(name, None)
            continue
        mask_weight(module, beyond)
        steps.append(_retrained(model, name, module, retrain, accuracy))
        after(name, steps[-1])
    return steps


def accuracy_peak(
    model: nn.Module, retrain: Retrain, accuracy: Accuracy, *, reverse: bool = True,
    factor: float = 0.8, patience: int = 1, floor: float = 0.005,
    skip: Collection[str] = (), after: After = _no_more,
) -> list[Step]:
    """Second reading: go on pruning a layer while its retrained accuracy has not fallen.

    Each try multiplies the layer's density by ``factor``. A try below the best so far counts
    against ``patience``; the network then goes back to the best one (equal counts as best, being
    sparser). No layer goes below a density of ``floor``.
    """
    if not 0 < factor < 1:
        raise ValueError(f"factor must lie in (0, 1), not {factor!r}")
    steps = []
    for name, module in _left(model, reverse, skip):
        mask_weight(module, kept(module))       # so that the state has a place for it
        best, state, misses = accuracy(model), copy.deepcopy(model.state_dict()), 0
        density, found = float(kept(module).mean()), None
        while misses <= patience and density * factor >= floor:
            density *= factor
            _prune(module, density)
            step = _retrained(model, name, module, retrain, accuracy)
            if step.retrained >= best:
                best, state, misses = step.retrained, copy.deepcopy(model.state_dict()), 0
                found = step
            else:
                misses += 1
        model.load_state_dict(state)
        if found is not None:
            steps.append(found)
        after(name, found)
    return steps
