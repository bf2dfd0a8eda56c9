"""A pruned start for retraining, layer by layer and without labels.

Every convolution gets the pattern and the words that best reproduce the dense layer's outputs from
the maps of the network pruned so far (`pruning.reconstruct`); batch norm follows the outputs'
changed mean and variance. Takes a minute where ADMM takes epochs, and the retraining starts from a
network that already works.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from model.network import Conv
from model.patterns import Pattern
from model.tiling import Tiling
from pruning.bins import Bins
from pruning.layers import SpectralConv
from pruning.masks import free_weight
from pruning.nets import SpatialNet, SpectralNet
from pruning.reconstruct import admm, least_squares, normal_equations
from pruning.samples import decibels
from pruning.tables import windows

__all__ = ["Effort", "warm_start"]

#: Images that go through a layer at a time.
BATCH = 500


@dataclass(frozen=True)
class Effort:
    """How much work a start takes.

    Attributes
    ----------
    images, tiles : int
        Training images that go through the network, and tiles of theirs per layer.
    steps, solve_steps : int
        ADMM iterations for a layer of 128 x 128 kernels (up to eight times as many for fewer), and
        conjugate gradient steps on the support.
    ridge : float
        Pull to the dense weights, relative to a channel's power.
    """

    images: int = 4000
    tiles: int = 24_000
    steps: int = 12
    solve_steps: int = 12
    ridge: float = 0.03

    def steps_of(self, layer: Conv) -> int:
        """ADMM iterations of a layer; those of the first ones are cheap."""
        return round(self.steps * min(8, max(1, 128**2 / (layer.in_channels * layer.out_channels))))


@torch.no_grad()
def warm_start(
    model: SpectralNet, dense: SpatialNet, patterns: Mapping[str, Pattern], images: Tensor,
    effort: Effort, tell: Callable[[str, float], None] = lambda name, share: None,
) -> list[dict]:
    """Give the convolutions of a network words of their patterns; on the CPU.

    Parameters
    ----------
    model : SpectralNet
        Made of `dense`; its free weights and the statistics of its batch norms are changed, its
        masks are not (`ADMMPruner.finalise` finds the same support).
    dense : SpatialNet
        The network to reproduce; in evaluation mode afterwards.
    patterns : mapping of str to Pattern
        By layer.
    images : Tensor, shape (B, C, H, W)
        Training images as the network reads them.
    effort : Effort
        Size of the work.
    tell : callable
        Hears the layer's name and the share of layers done.

    Returns
    -------
    list of dict
        Per convolution: layer, relative error of the reconstruction, SNR in dB of its block's maps.
    """
    device, training = next(model.parameters()).device, model.training
    generator = torch.Generator().manual_seed(0)
    modules = model.to("cpu").eval(), dense.to("cpu").eval()
    maps = wanted = images.cpu()
    report = []
    convolutions = [layer for layer in model.network.layers if isinstance(layer, Conv)]
    for index, layer in enumerate(convolutions):
        tell(layer.name, index / len(convolutions))
        error = _reconstruct(modules, layer, patterns[layer.name], (maps, wanted), effort,
                             generator)
        if layer.name in model.norms:
            _follow(modules, layer, (maps, wanted))
        maps = _in_batches(partial(model.block, layer), maps)
        wanted = _in_batches(partial(dense.block, layer), wanted)
        report.append({"layer": layer.name, "error": error, "db": decibels(wanted, maps)})
    dense.to(device)
    model.to(device).train(training)
    return report


def _reconstruct(
    modules: tuple[SpectralNet, SpatialNet], layer: Conv, pattern: Pattern,
    maps: tuple[Tensor, Tensor], effort: Effort, generator: torch.Generator,
) -> float:
    """Solve for one layer's words; relative error of its tiles' outputs."""
    module = modules[0].layers[layer.name]
    assert isinstance(module, SpectralConv)
    tiling = layer.tiling((maps[0].shape[1], maps[0].shape[2], maps[0].shape[3]), module.tile)
    bins = Bins(tiling)
    weight = free_weight(module)
    kernel = bins.weights(torch.complex(*weight.unbind(-1)))
    chosen = torch.randperm(len(maps[0]) * tiling.tiles, generator=generator)[: effort.tiles]
    spectra, outputs = (bins.spectra(_patches(values, tiling, chosen)) for values in maps)
    outputs = outputs @ kernel
    normal = normal_equations(spectra, outputs, kernel, effort.ridge)
    mask, start, _ = admm(bins, normal, pattern, kernel * normal.scale, effort.steps_of(layer))
    solution = least_squares(normal, mask, start, effort.solve_steps) / normal.scale
    weight.copy_(torch.view_as_real(bins.words(solution)))
    gap = (outputs - spectra @ solution).abs().square().sum()
    return math.sqrt(float(gap / outputs.abs().square().sum().clamp_min(1e-30)))


def _patches(maps: Tensor, tiling: Tiling, chosen: Tensor) -> Tensor:
    """Chosen patches (T, C, K, K) of all tiles of the maps."""
    image, place = chosen // tiling.tiles, chosen % tiling.tiles
    return windows(maps, tiling)[image, :, place // tiling.tiles_x, place % tiling.tiles_x]


def _follow(
    modules: tuple[SpectralNet, SpatialNet], layer: Conv, maps: tuple[Tensor, Tensor]
) -> None:
    """Move batch norm's statistics as the convolution's outputs have moved."""
    norm = modules[0].norms[layer.name]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None and norm.running_var is not None
    convolutions = (net.layers[layer.name] for net in modules)
    outputs, before = (_in_batches(convolution, values[: 4 * BATCH])
                       for convolution, values in zip(convolutions, maps, strict=True))
    norm.running_mean += outputs.mean((0, 2, 3)) - before.mean((0, 2, 3))
    norm.running_var *= outputs.var((0, 2, 3)) / before.var((0, 2, 3)).clamp_min(1e-12)


def _in_batches(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    return torch.cat([function(part) for part in values.split(BATCH)])
