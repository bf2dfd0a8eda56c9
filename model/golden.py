"""The bit-exact golden executor: every word the RTL computes, in NumPy integers.

Order of the arithmetic (docs/number-formats.md): forward FFT, complex products summed over the
input channels, rounded and saturated sums, inverse FFT, crop, bias, ReLU, requantisation, pool.
The RTL pools before the bias; both are monotone, so the results are equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model import fft
from model.config import POST_SHIFT
from model.fixed import int_range, round_shift, saturate
from model.halfplane import is_real_word
from model.lower import RESULT_BITS, SUM_BITS, LoweredLayer, LoweredNetwork
from model.mapadd import add_maps
from model.mappool import pool_maps
from model.network import Conv

__all__ = [
    "LayerTrace", "run", "outputs", "scores", "added", "layer_maps", "layer_peaks",
    "accumulator_peaks",
]

Ints = NDArray[np.int64]

#: Spectral words (of the wider side of a layer) computed at a time: 64 MiB as 64-bit pairs.
CHUNK_WORDS = 1 << 22


@dataclass(frozen=True)
class LayerTrace:
    """Every word of one layer for one image.

    Attributes
    ----------
    tiles : int array
        Convolution: (T, C, K²/2, 2) forward words; dot: (ceil(L/2), 2) input words.
    sums : int array
        (T, N, K²/2, 2) rounded sums; dot: (1, N, 1, 2), the scalar in [..., 0].
    map : int array, (N, H, W)
        The map written by the store stage.
    out : int array, (N, H, W)
        The same after the layer's pooling or addition, if it has one.
    """

    tiles: Ints
    sums: Ints
    map: Ints
    out: Ints


def _check_images(layer: LoweredLayer, images: NDArray) -> Ints:
    if images.ndim != 4 or images.shape[1:] != layer.source_shape:
        raise ValueError(f"images must have shape (B, {layer.source_shape}), not {images.shape}")
    if not np.issubdtype(images.dtype, np.integer):
        raise TypeError(f"images must be integers, not {images.dtype}")
    low, high = int_range(8, layer.in_signed)
    if images.size and (images.min() < low or images.max() > high):
        raise ValueError(f"pixels must be {low}..{high}, not {images.min()}..{images.max()}")
    return layer.fold(images.astype(np.int64))


def _forward_words(layer: LoweredLayer, maps: Ints, tile: int) -> Ints:
    """(B, C, H, W) -> (B, T, C, F, 2)."""
    assert isinstance(layer.layer, Conv)
    patches = layer.layer.tiling(layer.in_shape, tile).extract(maps)
    patches = patches.reshape(*maps.shape[:2], -1, tile, tile)
    return np.swapaxes(fft.forward(patches), 1, 2)


def _accumulate(layer: LoweredLayer, words: Ints) -> Ints:
    """(B, T, C, F, 2) x (N, C, F, 2) -> exact sums (B, T, N, F, 2), group by group."""
    assert isinstance(layer.layer, Conv)
    parts = zip(np.split(words, layer.layer.groups, axis=2),
                np.split(layer.weight, layer.layer.groups), strict=True)
    return np.concatenate([_products(*part) for part in parts], axis=2)


def _products(words: Ints, weight: Ints) -> Ints:
    """(B, T, C, F, 2) x (N, C, F, 2) -> exact sums (B, T, N, F, 2).

    Float64 matrix products: every partial sum is an integer below 2**53, hence exact.
    """
    batch, tiles, channels, count, _ = words.shape
    x = np.moveaxis(words, 3, 0).reshape(count, batch * tiles, channels, 2).astype(np.float64)
    w = np.moveaxis(weight, 2, 0).astype(np.float64)                # (F, N, C, 2)
    w = np.swapaxes(w, 1, 2)                                        # (F, C, N, 2)
    rr, ii = x[..., 0] @ w[..., 0], x[..., 1] @ w[..., 1]
    ri, ir = x[..., 0] @ w[..., 1], x[..., 1] @ w[..., 0]
    real = is_real_word(int(round((2 * count) ** 0.5)))[:, None, None]
    out = np.stack([np.where(real, rr, rr - ii), np.where(real, ii, ri + ir)], axis=-1)
    out = out.reshape(count, batch, tiles, -1, 2)
    return np.moveaxis(out, 0, 3).astype(np.int64)


def _requantise(layer: LoweredLayer, result: Ints) -> Ints:
    """18-bit results (..., N, H, W) to output integers: bias, ReLU, multiply, shift, saturate."""
    result = saturate(result + layer.bias[:, None, None], RESULT_BITS)
    if layer.map_relu:
        result = np.maximum(result, 0)
    result = round_shift(result * layer.multiplier[:, None, None], layer.requant_shift)
    return saturate(result, layer.out_bits, layer.map_signed)


def _pool(maps: Ints, size: int) -> Ints:
    if size == 1:
        return maps
    height, width = maps.shape[-2] // size * size, maps.shape[-1] // size * size
    cut = maps[..., :height, :width]
    shape = (*maps.shape[:-2], height // size, size, width // size, size)
    return cut.reshape(shape).max(axis=(-3, -1))


def _layer(layer: LoweredLayer, maps: Ints, tile: int) -> tuple[Ints, Ints, Ints, Ints]:
    """(words, accumulators, sums, maps before the pooling) of a batch."""
    if isinstance(layer.layer, Conv):
        words = _forward_words(layer, maps, tile)
        acc = _accumulate(layer, words)
        sums = saturate(round_shift(acc, layer.sum_shift), SUM_BITS)
        result = saturate(round_shift(fft.inverse(sums), POST_SHIFT), RESULT_BITS)
        crop = layer.layer.kernel - 1
        valid = np.swapaxes(result, 1, 2)[..., crop:, crop:]        # (B, N, T, t, t)
        full = layer.layer.tiling(layer.in_shape, tile).assemble(valid)
        return words, acc, sums, _pool(_requantise(layer, full), layer.layer.pool)
    flat = maps.reshape(len(maps), -1)
    flat = np.pad(flat, ((0, 0), (0, flat.shape[1] % 2)))
    words = flat.reshape(len(maps), -1, 2)
    dense = layer.weight.astype(np.float64)
    acc = (maps.reshape(len(maps), -1).astype(np.float64) @ dense.T).astype(np.int64)
    scalar = saturate(round_shift(acc, layer.sum_shift), SUM_BITS)
    sums = np.stack([scalar, np.zeros_like(scalar)], axis=-1)[:, None, :, None, :]
    return words, acc, sums, _requantise(layer, scalar[:, :, None, None])


def added(layer: LoweredLayer, outputs: Sequence[Ints]) -> Ints | None:
    """Choose from the outputs of the layers before what ``layer`` adds to its own."""
    return None if layer.addition is None else outputs[layer.addition.index]


def _finished(layer: LoweredLayer, maps: Ints, other: Ints | None) -> Ints:
    """Output maps of a batch: pooled, or with ``other`` maps added."""
    if layer.addition is not None:
        if other is None:
            raise ValueError(f"layer {layer.name} needs the maps that it adds")
        return add_maps(maps, other, layer.addition.shift, layer.layer.relu)
    if isinstance(layer.layer, Conv) and layer.layer.pooling is not None:
        return pool_maps(layer.layer.pooling, maps, layer.out_signed)
    return maps


def _batches(layer: LoweredLayer, maps: Ints, tile: int) -> Iterator[Ints]:
    """Cut the images into batches whose spectra are of bounded size."""
    words = 1
    if isinstance(layer.layer, Conv):
        tiles = layer.layer.tiling(layer.in_shape, tile).tiles
        words = tiles * max(layer.weight.shape[:2]) * layer.weight.shape[2]
    count = max(1, CHUNK_WORDS // words)
    for start in range(0, len(maps), count):
        yield maps[start:start + count]


def layer_maps(
    layer: LoweredLayer, maps: NDArray, tile: int, other: Ints | None = None
) -> Ints:
    """Output maps (B, N, H, W) of one layer for integer input maps (B, C, H, W).

    ``other`` are the maps that the layer adds to its own, if it does.
    """
    maps = _check_images(layer, np.asarray(maps))
    made = [_layer(layer, part, tile)[3] for part in _batches(layer, maps, tile)]
    return _finished(layer, np.concatenate(made), other)


def layer_peaks(layer: LoweredLayer, maps: NDArray, tile: int) -> tuple[int, int]:
    """Largest magnitudes of one layer's accumulators and of its results before they saturate."""
    maps = _check_images(layer, np.asarray(maps))
    accumulator = result = 0
    for part in _batches(layer, maps, tile):
        _, acc, sums, _ = _layer(layer, part, tile)
        accumulator = max(accumulator, int(np.abs(acc).max(initial=0)))
        if isinstance(layer.layer, Conv):
            crop = layer.layer.kernel - 1
            pixels = fft.inverse(sums)[..., crop:, crop:]
            result = max(result, int(np.abs(round_shift(pixels, POST_SHIFT)).max(initial=0)))
    return accumulator, result


def run(network: LoweredNetwork, image: NDArray) -> list[LayerTrace]:
    """Execute one image (C, H, W), keeping every word of every layer."""
    maps = np.asarray(image)[None]
    traces: list[LayerTrace] = []
    for layer in network.layers:
        words, _, sums, made = _layer(layer, _check_images(layer, maps), network.tile)
        maps = _finished(layer, made, added(layer, [trace.out[None] for trace in traces]))
        traces.append(LayerTrace(words[0], sums[0], made[0], maps[0]))
    return traces


def outputs(network: LoweredNetwork, images: NDArray) -> Ints:
    """Compute the last layer's maps (B, N, H, W) for images (B, C, H, W)."""
    return _outputs(network, images, len(network.layers))


def _outputs(network: LoweredNetwork, images: NDArray, count: int) -> Ints:
    """Output maps of the first ``count`` layers; for none, the images."""
    maps = np.asarray(images)
    kept: list[Ints] = []
    wanted = {layer.addition.index for layer in network.layers if layer.addition is not None}
    for index, layer in enumerate(network.layers[:count]):
        maps = layer_maps(layer, maps, network.tile, added(layer, kept))
        kept.append(maps if index in wanted else maps[:0])
    return maps


def scores(network: LoweredNetwork, images: NDArray, batch: int = 64) -> Ints:
    """Compute the outputs of the last layer, flattened (B, N), for images (B, C, H, W)."""
    parts = [outputs(network, images[start:start + batch])
             for start in range(0, len(images), batch)]
    return np.concatenate(parts).reshape(len(images), -1)


def accumulator_peaks(network: LoweredNetwork, images: NDArray, index: int) -> int:
    """Largest accumulator magnitude of layer ``index`` over the images."""
    maps = _outputs(network, images, index)
    return layer_peaks(network.layers[index], maps, network.tile)[0]
