"""Where a pruned network keeps its words: shares per layer and per frequency."""

from __future__ import annotations

import torch

from pruning.layers import SpectralConv
from pruning.masks import mask_of, masked_weight
from pruning.nets import SpatialNet, SpectralNet
from pruning.spectral import convert

__all__ = ["kept_maps", "layer_density"]


@torch.no_grad()
def layer_density(model: SpectralNet) -> dict[str, float]:
    """Share of non-zero words (convolutions) or weights (fully connected) of every layer."""
    result = {}
    for name, module in model.compressed():
        kept = masked_weight(module).ne(0)
        if isinstance(module, SpectralConv):
            kept = kept.any(-1)
        result[name] = float(kept.float().mean())
    return result


@torch.no_grad()
def kept_maps(model: SpectralNet, dense: SpatialNet) -> dict[str, dict[str, list[float]]]:
    """For every convolution and each of its K*K/2 frequencies, what the mask keeps.

    Returns
    -------
    dict
        By layer: ``"words"``, share of the words kept at a frequency; ``"energy"``, share of the
        dense network's energy at a frequency that lies in these words; ``"spectrum"``, share of
        the dense network's energy that lies at a frequency.
    """
    result = {}
    for name, module in model.compressed():
        if not isinstance(module, SpectralConv):
            continue
        original = convert(dense.layers[name], name, model.tile)
        energy = original.word_energy(masked_weight(original))
        mask = mask_of(module)
        kept = torch.ones_like(energy) if mask is None else mask[..., 0].double()
        whole = energy.sum((0, 1))
        result[name] = {
            "words": [round(value, 5) for value in kept.mean((0, 1)).tolist()],
            "energy": [round(value, 5) for value in
                       ((energy * kept).sum((0, 1)) / whole.clamp_min(1e-30)).tolist()],
            "spectrum": [round(value, 5) for value in (whole / whole.sum()).tolist()],
        }
    return result
