"""Parametrisations of a weight: what is pruned is zero, what is kept may be rounded.

`torch.nn.utils.parametrize` keeps the free weights; ``module.weight`` is what they become.  Layers
are made with their mask still open: `DistributedDataParallel` would lose sight of a weight whose
first parametrisation came after it was wrapped.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = [
    "Mask", "Rounding", "free_weight", "mask_of", "masked_weight", "open_mask", "rounding_of",
    "set_mask", "set_rounding",
]


class Mask(nn.Module):
    """Sets weights to zero, and their gradients with them.

    Attributes
    ----------
    mask : Tensor or None
        1 where a weight may be non-zero, in the shape of the weight; None: everywhere.
    """

    mask: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", None)

    def forward(self, weight: Tensor) -> Tensor:
        """Apply the mask."""
        return weight if self.mask is None else weight * self.mask


class Rounding(nn.Module):
    """Rounds weights (N, ...) to symmetric integers with a scale per output channel.

    Parameters
    ----------
    bits : int
        Width of the integers, which lie in +-(2**(bits-1) - 1).
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def integers(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Integers in the shape of the weight and the scale of every output channel, (N,)."""
        limit = float(2 ** (self.bits - 1) - 1)
        with torch.no_grad():
            scale = weight.abs().flatten(1).amax(1).clamp_min(1e-9) / limit
            rounded = torch.round(weight / _column(scale, weight)).clamp(-limit, limit)
        return rounded, scale

    def forward(self, weight: Tensor) -> Tensor:
        """Round the weight; gradients pass straight through."""
        integers, scale = self.integers(weight)
        return weight + (integers * _column(scale, weight) - weight).detach()


def free_weight(module: nn.Module) -> nn.Parameter:
    """Return the parameter behind ``module.weight``, which the optimiser moves."""
    return cast(nn.Parameter, _chain(module).original)


def mask_of(module: nn.Module) -> Tensor | None:
    """Find the mask of a module's weight, None if it is open."""
    return _first(module).mask


def rounding_of(module: nn.Module) -> Rounding | None:
    """Find the rounding of a module's weight, None if it has none."""
    return next((item for item in _chain(module).children() if isinstance(item, Rounding)), None)


def open_mask(module: nn.Module) -> None:
    """Give a module's weight a mask that is open, which `set_mask` may close."""
    parametrize.register_parametrization(module, "weight", Mask())


def set_mask(module: nn.Module, mask: Tensor | None) -> None:
    """Mask a module's weight from now on, or with another mask; None opens it again."""
    if mask is None:
        _first(module).mask = None
        return
    weight = free_weight(module)
    if mask.shape != weight.shape:
        raise ValueError(f"a mask of shape {tuple(mask.shape)} does not fit a weight of shape "
                         f"{tuple(weight.shape)}")
    _first(module).mask = mask.detach().to(weight.device, weight.dtype, copy=True)


def set_rounding(module: nn.Module, bits: int) -> None:
    """Round a module's weight from now on, after its mask."""
    current = rounding_of(module)
    if current is None:
        parametrize.register_parametrization(module, "weight", Rounding(bits))
    else:
        current.bits = bits


def masked_weight(module: nn.Module) -> Tensor:
    """Weight before it is rounded."""
    mask = mask_of(module)
    return free_weight(module) if mask is None else free_weight(module) * mask


def _chain(module: nn.Module) -> nn.Module:
    """Parametrisations of ``module.weight`` in order."""
    return cast(nn.ModuleDict, module.parametrizations)["weight"]


def _first(module: nn.Module) -> Mask:
    """Mask of ``module.weight``, which comes before all else."""
    return cast(Mask, cast(nn.ModuleList, _chain(module))[0])


def _column(scale: Tensor, weight: Tensor) -> Tensor:
    """Scale (N,) in as many dimensions as the weight."""
    return scale.view((-1,) + (1,) * (weight.ndim - 1))
