"""ADMM pruning: alternate training towards, and projection onto, the sparsity patterns.

Minimise ``loss(W) + sum_l rho/2 * ||W_l - Z_l + U_l||**2`` over W by gradient steps, then set
``Z <- project(W + U)`` and ``U <- U + W - Z`` (Zhang et al., ECCV 2018; SPEC2).  The norm counts a
conjugate pair twice and divides by K*K, so that it is the energy of the kernel in space and one rho
fits convolutions and fully connected layers alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model.patterns import Pattern, budget
from pruning.layers import Compressed
from pruning.masks import free_weight, mask_of, set_mask
from pruning.projection import project_words
from pruning.selection import Choice, choose, require_words
from pruning.spectral import compressed_layers

__all__ = ["ADMMPruner", "parameter_groups", "projection_mask", "require_finite", "rho_at"]


class ADMMPruner:
    """Prunes the compressible layers of a module while the user's own loop trains it.

    Per step: add `penalty` to the loss, then call `step` after the optimiser's step.  At the end
    call `finalise`, and train on with the masks.

    Parameters
    ----------
    model : Module
        What `pruning.spectral.spectralise` returned, or a `DistributedDataParallel` of it.
    pattern : str or Pattern
        ``"channel"``, ``"kernel"``, ``"balanced"``, ``"unstructured"`` or ``"locality"`` at
        `density`, or a pattern with its numbers, as ``"channel 1:4"``.
    density : float
        Share of the words to keep, for a pattern without numbers.
    layers : mapping of str to str, float, Pattern or None
        Other choices for single layers, by path or by a pattern of paths (``"fc*"``): a pattern,
        a density, or None to leave the layer dense.  The last that fits counts.
    rho : pair of float
        Penalty at the first and after the last update; it grows geometrically.
    updates : int
        Updates of Z and U that `step` shall make in all.
    every : int
        Steps between two updates that `step` makes.

    Raises
    ------
    ValueError
        The model has no compressible layer, `layers` names none, a number is out of range, or a
        layer would keep nothing.
    """

    def __init__(
        self, model: nn.Module, pattern: str | Pattern = "channel", density: float = 0.25,
        layers: Mapping[str, Choice] | None = None, *, rho: tuple[float, float] = (2e-2, 1.0),
        updates: int = 16, every: int = 100,
    ) -> None:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        if not all(0 < value < float("inf") for value in rho):
            raise ValueError(f"rho must be positive and finite, not {rho}")
        if updates < 1 or every < 1:
            raise ValueError(f"updates and every must be at least 1, not {updates} and {every}")
        found = dict(compressed_layers(model))
        if not found:
            raise ValueError("the model has no layer to prune: call spectralise on it first")
        chosen = choose(found, pattern, density, layers or {})
        for path, item in chosen.items():
            require_words(path, _shape(found[path]), item)
        self.layers = {path: found[path] for path in chosen}
        self.patterns = chosen
        self.first, self.last = rho
        self.updates, self.every = updates, every
        self.rho = self.first
        self.steps = 0
        self.finalised = False
        self.z: dict[str, Tensor] = {}
        self.u: dict[str, Tensor] = {}
        self._targets: dict[str, Tensor] = {}               # Z - U, until they change
        with torch.no_grad():
            for path, module in self.layers.items():
                if self._splits(path):
                    weight = free_weight(module).detach()
                    self.z[path] = weight * self._mask(path, weight)
                    self.u[path] = torch.zeros_like(weight)

    def penalty(self) -> Tensor:
        """``sum_l rho/2 * ||W_l - Z_l + U_l||**2``, differentiable in W; in single precision."""
        self._require_open()
        device = free_weight(next(iter(self.layers.values()))).device
        total = torch.zeros((), device=device)
        with torch.autocast(device.type, enabled=False):
            for path, z in self.z.items():
                module = self.layers[path]
                target = self._targets.get(path)
                if target is None:
                    target = self._targets[path] = z - self.u[path]
                total = total + _Distance.apply(free_weight(module), target, module.metric)
            return self.rho / 2 * total

    def step(self) -> bool:
        """Count a step of the optimiser; every `every` of them, `update`.  True if it did."""
        self._require_open()
        self.steps += 1
        index, rest = divmod(self.steps, self.every)
        if rest or index > self.updates:
            return False
        self.update(rho_at(index, self.updates, self.first, self.last))
        return True

    @torch.no_grad()
    def update(self, rho: float | None = None) -> None:
        """Z and U step, then go on with penalty `rho` (the scaled dual shrinks as rho grows)."""
        self._require_open()
        rho = self.rho if rho is None else rho
        for path in self.z:
            shifted = free_weight(self.layers[path]) + self.u[path]
            self.z[path] = shifted * self._mask(path, shifted)
            self.u[path] = (shifted - self.z[path]) * (self.rho / rho)
        self.rho, self._targets = rho, {}

    @torch.no_grad()
    def residual(self) -> dict[str, float]:
        """Relative distance ``||W - Z|| / ||W||`` of every layer."""
        result = {}
        for path, module in self.layers.items():
            weight = free_weight(module)
            near = self.z[path] if path in self.z else weight * self._mask(path, weight)
            gap = ((weight - near).square() * module.metric).sum()
            norm = (weight.square() * module.metric).sum().clamp_min(1e-30)
            result[path] = float((gap / norm).sqrt())
        return result

    @contextmanager
    def projected(self) -> Iterator[None]:
        """Within the block every layer computes with the nearest point of its pattern."""
        self._require_open()
        kept = {path: free_weight(module).detach().clone() for path, module in self.layers.items()}
        try:
            with torch.no_grad():
                for path, module in self.layers.items():
                    free_weight(module).mul_(self._mask(path, kept[path]))
            yield
        finally:
            with torch.no_grad():
                for path, module in self.layers.items():
                    free_weight(module).copy_(kept[path])

    @torch.no_grad()
    def finalise(self) -> dict[str, float]:
        """Freeze the patterns: every layer keeps the words of ``project(W + U)``.

        From now on ``module.weight`` is masked (`pruning.masks.Mask`); Z and U are given back.

        Returns
        -------
        dict of str to float
            Share of the weights each layer keeps.
        """
        self._require_open()
        for path, module in self.layers.items():
            weight = free_weight(module)
            mask = self._mask(path, weight + self.u[path] if path in self.u else weight)
            weight.mul_(mask)
            set_mask(module, mask)
        self.finalised, self.z, self.u, self._targets = True, {}, {}, {}
        return self.densities()

    def densities(self) -> dict[str, float]:
        """Share of the weights each layer may use; 1 before `finalise`."""
        masks = {path: mask_of(module) for path, module in self.layers.items()}
        return {path: 1.0 if mask is None else float(mask.mean()) for path, mask in masks.items()}

    def budgets(self) -> dict[str, int]:
        """Most words each layer may keep."""
        return {path: budget(_shape(module), self.patterns[path])
                for path, module in self.layers.items()}

    def state_dict(self) -> dict:
        """State for a checkpoint; the weights and the masks are in the model's own."""
        return {
            "rho": self.rho, "steps": self.steps, "finalised": self.finalised,
            "patterns": {path: str(pattern) for path, pattern in self.patterns.items()},
            "z": dict(self.z), "u": dict(self.u),
        }

    def load_state_dict(self, state: Mapping) -> None:
        """Restore what `state_dict` gave; load the model's state afterwards.

        If that was after `finalise`, the layers get masks, which the model's state then fills; if
        it was before, they lose those of this pruner's own `finalise`.
        """
        patterns = {path: str(pattern) for path, pattern in self.patterns.items()}
        if state["patterns"] != patterns:
            wrong = [path for path in patterns | state["patterns"]
                     if patterns.get(path) != state["patterns"].get(path)]
            raise ValueError(f"the state is of other layers or patterns: {', '.join(wrong)}")
        before, self.finalised = self.finalised, state["finalised"]
        self.rho, self.steps, self._targets = state["rho"], state["steps"], {}
        for name in ("z", "u"):
            setattr(self, name, {
                path: value.to(free_weight(self.layers[path]).device, copy=True)
                for path, value in state[name].items()
            })
        if before or self.finalised:
            for module in self.layers.values():
                set_mask(module, torch.ones_like(free_weight(module)) if self.finalised else None)

    def _mask(self, path: str, weight: Tensor) -> Tensor:
        """Mask of the nearest point of a layer's pattern."""
        self._require_finite(path, weight)
        return projection_mask(self.layers[path], weight, self.patterns[path])

    def _require_finite(self, path: str, weight: Tensor) -> None:
        """Raise on weights that are no numbers, of which no projection means anything."""
        if not bool(torch.isfinite(weight).all()):
            raise FloatingPointError(f"layer {path}: the weights hold NaN or infinity; go back to "
                                     "the last checkpoint with a lower learning rate")

    def _splits(self, path: str) -> bool:
        """Whether a layer has Z and U."""
        return True

    def _require_open(self) -> None:
        """Raise after `finalise`."""
        if self.finalised:
            raise ValueError("the pruner is finalised: train on with the masks, without it")


class _Distance(torch.autograd.Function):
    """Squared distance of a weight from its target in the energy norm, with its own gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, target: Tensor, metric: Tensor) -> Tensor:
        """``sum(metric * (weight - target)**2)``."""
        gap = weight - target
        scaled = gap * metric
        ctx.save_for_backward(scaled)
        return torch.dot(gap.flatten(), scaled.flatten())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """``2 * metric * (weight - target)``."""
        (scaled,) = ctx.saved_tensors
        return scaled * (2 * grad), None, None


def projection_mask(module: Compressed, weight: Tensor, pattern: Pattern) -> Tensor:
    """Weight mask of the nearest point of `pattern` to `weight`."""
    return module.spread(project_words(module.word_energy(weight), pattern))


def require_finite(loss: Tensor, where: str) -> float:
    """Value of a loss; `FloatingPointError` that says `where` if it is NaN or infinite."""
    value = float(loss.detach())
    if value != value or value in (float("inf"), float("-inf")):
        raise FloatingPointError(f"loss became {value} in {where}")
    return value


def rho_at(update: int, total: int, first: float, last: float) -> float:
    """Penalty after `update` of `total` updates, growing geometrically."""
    return first * (last / first) ** (update / max(1, total))


def parameter_groups(model: nn.Module, rate: float) -> list[dict]:
    """Optimiser groups of a module with spectral layers, each with its ``gain`` on `rate`.

    A word of a k x k kernel is a sum of k*k weights, about k times as large as one of them, so
    spectral weights should step k times as far as the others where steps do not grow with the
    gradient (Adam).
    """
    gains = {id(free_weight(module)): module.gain for _, module in compressed_layers(model)}
    return [
        {"params": [parameter], "lr": rate * gains.get(id(parameter), 1),
         "gain": gains.get(id(parameter), 1)}
        for parameter in model.parameters()
    ]


def _shape(module: Compressed) -> tuple[int, int, int]:
    """Words (N, C, F) of a layer."""
    shape = free_weight(module).shape
    if len(shape) == 4:
        return shape[0], shape[1], shape[2]
    return shape[0], -(-shape[1] // 2), 1
