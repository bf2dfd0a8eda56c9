"""Masks on the weights of any torch module, as parametrisations.

The free weights stay the parameter that the optimiser sees; what the layer computes with is their
product with a mask, so masked weights get no gradient and stay zero in the layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["Mask", "finalise", "largest", "mask_of", "prunable", "set_mask"]


class Mask(nn.Module):
    """Parametrisation that multiplies with a mask.

    Attributes
    ----------
    mask : Tensor
        1 where a weight may be non-zero; of the weight's shape.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """Masked weights."""
        return weight * self.mask


def prunable(model: nn.Module, kinds: Iterable[type[nn.Module]] = (nn.Conv2d, nn.Linear)
             ) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of every layer with a weight to prune, in the order of definition."""
    wanted = tuple(kinds)
    for name, module in model.named_modules():
        if isinstance(module, wanted):
            yield name, module


def _find(module: nn.Module) -> Mask | None:
    if not parametrize.is_parametrized(module, "weight"):
        return None
    chain = module.parametrizations["weight"]  # type: ignore[index]
    return next((part for part in chain if isinstance(part, Mask)), None)


def mask_of(module: nn.Module) -> Tensor:
    """Mask of a layer's weight; all ones if it has none."""
    found = _find(module)
    weight = module.weight
    assert isinstance(weight, Tensor)
    return torch.ones_like(weight) if found is None else found.mask


def set_mask(module: nn.Module, mask: Tensor) -> None:
    """Put a mask on a layer's weight, in place of the one it has."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    if mask.shape != weight.shape:
        raise ValueError(f"mask has shape {tuple(mask.shape)}, the weight {tuple(weight.shape)}")
    mask = mask.to(device=weight.device, dtype=weight.dtype)
    found = _find(module)
    if found is None:
        parametrize.register_parametrization(module, "weight", Mask(mask))
    else:
        found.mask.copy_(mask)


def largest(weight: Tensor, density: float) -> Tensor:
    """Mask of the ``round(density * size)`` weights of largest magnitude; the first of equals."""
    if not 0 < density <= 1:
        raise ValueError(f"density must lie in (0, 1], not {density!r}")
    kept = round(density * weight.numel())
    order = torch.sort(weight.detach().abs().flatten(), descending=True, stable=True).indices
    mask = torch.zeros(weight.numel(), device=weight.device)
    mask[order[:kept]] = 1
    return mask.view_as(weight)


def finalise(model: nn.Module) -> None:
    """Write the masked weights into the parameters and remove the masks."""
    for _, module in prunable(model):
        if _find(module) is not None:
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
