"""K = 8 beside K = 16: words, kernel bytes, cycles and adders per layer, computed.

A larger tile needs fewer words per output pixel (K*K/2 for t*t pixels, t = K-k+1), but a kernel
has K*K/2 words too, so its bytes grow fourfold; and fewer, larger tiles fill the tile lanes less.
"""

from __future__ import annotations

from functools import cache
from math import ceil
from typing import Any

from model.config import AcceleratorConfig
from model.dataflow import Layer, convolutions
from model.network import NETWORKS, Network

__all__ = ["SIZES", "Adders", "compare", "fft_adders", "layer_figures"]

SIZES = (8, 16)
#: Bits that select one of four channels.
SELECT_BITS = 2
Adders = tuple[int, int]


@cache
def _complex(points: int) -> Adders:
    """Real additions and constant multiplications of a radix-2 FFT of complex values."""
    if points == 1:
        return 0, 0
    additions, constants = (2 * count for count in _complex(points // 2))
    for index in range(points // 2):
        more = _twiddle(index, points)
        additions, constants = additions + 4 + more[0], constants + more[1]
    return additions, constants


def _twiddle(index: int, points: int) -> Adders:
    """Cost of a complex product with exp(-2j*pi*index/points)."""
    if 4 * index % points == 0:
        return 0, 0
    return (2, 2) if 8 * index % points == 0 else (2, 4)


@cache
def _real(points: int) -> Adders:
    """Work of the half of the outputs that the other half follows from, of real values."""
    if points == 2:
        return 2, 0
    additions, constants = (2 * count for count in _real(points // 2))
    additions += 2
    for index in range(1, points // 4):
        more = _twiddle(index, points)
        additions, constants = additions + 4 + more[0], constants + more[1]
    return additions, constants


def fft_adders(tile: int) -> Adders:
    """Real additions and constant multiplications of a 2-D FFT of a real tile, half plane.

    ``tile`` real rows, two real columns (bins 0 and K/2 of the rows) and K/2 - 1 complex ones.
    """
    parts = ((tile + 2, _real(tile)), (tile // 2 - 1, _complex(tile)))
    return (sum(count * work[0] for count, work in parts),
            sum(count * work[1] for count, work in parts))


def layer_figures(layer: Layer, tile: int, config: AcceleratorConfig, alpha: int
                  ) -> dict[str, Any]:
    """One layer with one tile size.

    Parameters
    ----------
    layer : Layer
        Sizes, with the tiles of this tile size.
    tile : int
        K.
    config : AcceleratorConfig
        Lanes, weights and port; its kernels are read once per image.
    alpha : int
        One word of ``alpha`` is kept.

    Returns
    -------
    dict
        ``cycles``: the slower of the array and the port; ``cycles_96``: the same with 96 bytes a
        cycle; forward and inverse transforms are left out.
    """
    words = tile * tile // 2
    blocks = ceil(layer.tiles / config.tile_lanes)
    kernel_blocks = ceil(layer.kernels / config.kernel_lanes)
    array = blocks * kernel_blocks * words * ceil(layer.channels / alpha)
    bits = 2 * config.weight_bits + SELECT_BITS
    kernel_bytes = ceil(layer.kernels * layer.channels / alpha * words * bits / 8)
    additions, constants = fft_adders(tile)
    pixels = sum(layer.pixels)
    transforms = layer.tiles * (layer.channels + layer.kernels)
    return {
        "tiles": layer.tiles, "lanes_filled": layer.tiles / (blocks * config.tile_lanes),
        "words_per_pixel": layer.tiles * words / pixels,
        "products": layer.tiles * words * layer.kernels * layer.channels // alpha,
        "kernel_bytes": kernel_bytes, "array_cycles": array,
        "cycles": max(array, ceil(8 * kernel_bytes / config.port_bits)),
        "cycles_96": max(array, ceil(kernel_bytes / 96)),
        "fft_additions": transforms * additions, "fft_constants": transforms * constants,
    }


def compare(config: AcceleratorConfig, alpha: int = 4, network: Network = NETWORKS["vgg16"]
            ) -> dict[str, Any]:
    """Every layer with both tile sizes on a config's lanes."""
    rows: dict[str, dict[str, Any]] = {layer.name: {} for layer in network.layers}
    for tile in SIZES:
        for layer in convolutions(network, tile):
            rows[layer.name][str(tile)] = layer_figures(layer, tile, config, alpha)
    return {
        "config": config.name, "tile_lanes": config.tile_lanes,
        "kernel_lanes": config.kernel_lanes, "alpha": alpha,
        "port_bytes": config.port_bits // 8,
        "fft": {str(tile): dict(zip(("additions", "constants"), fft_adders(tile), strict=True))
                for tile in SIZES},
        "layers": [{"name": name} | row for name, row in rows.items()],
    }
