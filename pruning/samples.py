"""Tiles of calibration images, spectra and targets, for one layer's reconstruction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.network import Conv
from model.tiling import Tiling
from pruning.bins import Bins

__all__ = [
    "Places", "TileSet", "collect", "convolve", "decibels", "signal_to_noise", "some_places",
]

#: Tiles that `convolve` computes at a time.
CHUNK_TILES = 1500


@dataclass(frozen=True)
class Places:
    """Where patches lie: input row and column of each, (count, 2), per image."""

    origins: tuple[NDArray[np.int64], ...]


def some_places(tiling: Tiling, images: int, count: int, seed: int) -> Places:
    """About `count` tiles in all: the real ones first, then those of the shifted grids.

    A shifted grid (origins moved up and left by less than a step) shows the layer other parts of
    the map, as deep layers have only a few tiles per image.
    """
    rng = np.random.default_rng(seed)
    per_image = -(-count // images)
    step = tiling.step
    shifts = [(y, x) for y in range(step) for x in range(step) if y or x]
    chosen = []
    for _ in range(images):
        origins = rng.permutation(tiling.origins)
        for index in rng.permutation(len(shifts)):
            if len(origins) >= per_image:
                break
            rows = np.arange(-shifts[index][0], tiling.out_height, step) - tiling.edges[0]
            cols = np.arange(-shifts[index][1], tiling.out_width, step) - tiling.edges[1]
            grid = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
            origins = np.concatenate([origins, rng.permutation(grid)])
        chosen.append(origins[:per_image])
    return Places(tuple(chosen))


@dataclass
class TileSet:
    """What a layer sees and should give on a set of tiles.

    Attributes
    ----------
    spectra : Tensor, complex (bins, T, C)
        Inputs of the pruned network.
    dense : Tensor, complex (bins, T, N)
        Full circular outputs of the dense kernels on the dense network's inputs, without bias.
    target : Tensor, (t*t, T, N)
        The dense layer's outputs before the activation, bias included.
    kept : Tensor, (t*t, T, 1)
        1 where the pixel lies inside the output map.
    """

    spectra: Tensor
    dense: Tensor
    target: Tensor
    kept: Tensor


def collect(
    layer: Conv, tiling: Tiling, bins: Bins, maps: Tensor, dense_maps: Tensor, kernel: Tensor,
    bias: Tensor, places: Places,
) -> TileSet:
    """Cut the tiles at `places` and compute what the dense layer makes of them.

    Parameters
    ----------
    maps, dense_maps : Tensor, (B, C, H, W)
        Real values of the pruned and of the dense network's maps.
    kernel : Tensor, complex (bins, C, N)
        The dense layer's weights.
    bias : Tensor, (N,)
        Its bias.
    """
    spectra = bins.spectra(_patches(tiling, maps, places))
    dense = bins.spectra(_patches(tiling, dense_maps, places)) @ kernel
    target = bins.valid(dense) + bias
    origins = torch.tensor(np.concatenate(places.origins)) + tiling.edges[0]
    pixels = origins[:, :, None] + torch.arange(tiling.step)            # (T, 2, t)
    inside = (pixels >= 0) & (pixels < torch.tensor([[tiling.out_height], [tiling.out_width]]))
    kept = (inside[:, 0, :, None] & inside[:, 1, None, :]).flatten(1).T[..., None].float()
    return TileSet(spectra, dense, target, kept)


def _patches(tiling: Tiling, maps: Tensor, places: Places) -> Tensor:
    """Patches (T, C, K, K) at the places, zero outside the maps."""
    margin = tiling.tile + tiling.edges[0]
    parts = []
    for image, origins in zip(maps, places.origins, strict=True):
        padded = functional.pad(image.float(), (margin,) * 4)
        windows = padded.unfold(1, tiling.tile, 1).unfold(2, tiling.tile, 1)
        rows, cols = (torch.tensor(origins) + margin).unbind(1)
        parts.append(windows[:, rows, cols].transpose(0, 1))
    return torch.cat(parts)


def convolve(
    layer: Conv, tiling: Tiling, bins: Bins, maps: Tensor, weights: Tensor, bias: Tensor
) -> Tensor:
    """Compute the layer on whole maps, up to the activation and the pool.

    Parameters
    ----------
    maps : Tensor, (B, C, H, W)
        Input maps.
    weights : Tensor, complex (bins, C, N)
        Weights.
    bias : Tensor, (N,)
        Bias.

    Returns
    -------
    Tensor, (B, N, H', W')
        Output maps.
    """
    results = []
    for part in maps.split(max(1, CHUNK_TILES // tiling.tiles)):
        places = Places((tiling.origins,) * len(part))
        pixels = bins.valid(bins.spectra(_patches(tiling, part, places)) @ weights) + bias
        grid = pixels.view(tiling.step, tiling.step, len(part), tiling.tiles_y, tiling.tiles_x, -1)
        full = grid.permute(2, 5, 3, 0, 4, 1).reshape(
            len(part), -1, tiling.tiles_y * tiling.step, tiling.tiles_x * tiling.step
        )[..., :tiling.out_height, :tiling.out_width]
        full = full.clamp_min(0) if layer.relu else full
        results.append(functional.max_pool2d(full, layer.pool) if layer.pool > 1 else full)
    return torch.cat(results)


def signal_to_noise(
    bins: Bins, tiles: TileSet, weights: Tensor, bias: Tensor, relu: bool
) -> float:
    """SNR in dB of a layer's kept outputs after the activation; the dense network is the signal.

    Parameters
    ----------
    weights : Tensor, complex (bins, C, N)
        Weights to judge.
    bias : Tensor, (N,)
        Their bias.
    relu : bool
        Whether a ReLU follows.
    """
    result = bins.valid(tiles.spectra @ weights) + bias
    target = tiles.target
    if relu:
        result, target = result.clamp_min(0), target.clamp_min(0)
    return decibels(target * tiles.kept, result * tiles.kept)


def decibels(signal: Tensor, noisy: Tensor) -> float:
    """SNR in dB of `noisy` as a version of `signal`; at most 200."""
    noise = (noisy - signal).double().square().sum()
    power = signal.double().square().sum()
    return float(10 * torch.log10(power / noise.clamp_min(1e-20 * float(power) + 1e-300)))
