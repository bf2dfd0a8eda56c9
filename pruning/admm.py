"""ADMM pruning: alternate training towards, and projection onto, the sparsity patterns.

Minimise ``loss(W) + sum_l rho/2 * ||W_l - Z_l + U_l||**2`` over W by gradient steps, then set
``Z <- project(W + U)`` and ``U <- U + W - Z`` (Zhang et al., ECCV 2018; SPEC2).  The norm counts a
conjugate pair twice and divides by K*K, so that it is the energy of the kernel in space and one rho
fits convolutions and fully connected layers alike.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from model.patterns import Pattern, project
from pruning.layers import Compressed
from pruning.nets import SpectralNet


def projection_mask(module: Compressed, weight: Tensor, pattern: Pattern) -> Tensor:
    """Weight mask of the nearest point of `pattern` to `weight`."""
    return module.spread(project(module.word_energy(weight), pattern))


class Admm:
    """State of the splitting: Z and U of every layer.

    Parameters
    ----------
    model : SpectralNet
        Network whose weights are W.
    patterns : mapping of str to Pattern
        Pattern of each layer.
    rho : float
        First penalty.
    """

    def __init__(self, model: SpectralNet, patterns: Mapping[str, Pattern], rho: float) -> None:
        self.layers = dict(model.compressed())
        self.patterns = dict(patterns)
        self.rho = rho
        self.z: dict[str, Tensor] = {}
        self.u: dict[str, Tensor] = {}
        for name, module in self.layers.items():
            weight = module.weight.detach()
            self.z[name] = weight * projection_mask(module, weight, self.patterns[name])
            self.u[name] = torch.zeros_like(weight)

    def penalty(self) -> Tensor:
        """``sum_l rho/2 * ||W_l - Z_l + U_l||**2``, differentiable in W."""
        total = torch.zeros(())
        for name, module in self.layers.items():
            gap = module.weight - self.z[name] + self.u[name]
            total = total + (gap.square() * module.metric).sum()
        return self.rho / 2 * total

    def update(self, rho: float) -> None:
        """Z and U step, then go on with penalty `rho` (the scaled dual shrinks as rho grows)."""
        with torch.no_grad():
            for name, module in self.layers.items():
                shifted = module.weight + self.u[name]
                self.z[name] = shifted * projection_mask(module, shifted, self.patterns[name])
                self.u[name] = (shifted - self.z[name]) * (self.rho / rho)
        self.rho = rho

    def residual(self) -> dict[str, float]:
        """Relative distance ``||W - Z|| / ||W||`` of every layer."""
        result = {}
        with torch.no_grad():
            for name, module in self.layers.items():
                gap = ((module.weight - self.z[name]).square() * module.metric).sum()
                norm = (module.weight.square() * module.metric).sum().clamp_min(1e-30)
                result[name] = float((gap / norm).sqrt())
        return result

    def apply_masks(self) -> None:
        """Freeze the patterns: every layer keeps the words of ``project(W + U)``."""
        with torch.no_grad():
            for name, module in self.layers.items():
                mask = projection_mask(module, module.weight + self.u[name], self.patterns[name])
                module.mask.copy_(mask)
                module.weight.mul_(mask)

    def state_dict(self) -> dict:
        """State for a checkpoint."""
        return {"rho": self.rho, "z": self.z, "u": self.u}

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` gave."""
        self.rho, self.z, self.u = state["rho"], dict(state["z"]), dict(state["u"])


def rho_at(update: int, total: int, first: float, last: float) -> float:
    """Penalty after `update` of `total` updates, growing geometrically."""
    return first * (last / first) ** (update / max(1, total))
