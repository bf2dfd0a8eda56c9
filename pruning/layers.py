"""Torch layers with masks and fake-quantised weights: spectral convolution, linear.

The convolution is `model.tiling` and `model.halfplane` written with torch operations: the same
patches, the same words, the same crop.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from model import halfplane
from model.network import Conv, Linear
from model.patterns import linear_energy, linear_mask
from model.tiling import Tiling

# Up to this many input channels one dense matrix product over patches is faster on a CPU than one
# product per frequency (batch 256: 30 against 297 ms for 1->20, 100 against 65 ms for 20->50).
DIRECT_CHANNELS = 8


class Compressed(nn.Module):
    """A layer whose weights are masked words and may be fake-quantised.

    Attributes
    ----------
    weight : Parameter, shape (N, ...)
        Free weights, one output channel per row.
    bias : Parameter, shape (N,)
        Bias.
    mask : Tensor, same shape as `weight`
        1 where a weight may be non-zero.
    weight_bits : int or None
        Width of the fake-quantised weights, None for float.
    """

    weight: nn.Parameter
    bias: nn.Parameter
    mask: Tensor
    metric: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, metric: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)
        self.register_buffer("mask", torch.ones_like(weight))
        self.register_buffer("metric", metric, persistent=False)
        self.weight_bits: int | None = None

    def integers(self) -> tuple[Tensor, Tensor]:
        """Integer weights in +-(2**(bits-1) - 1) and their scale per output channel, (N,)."""
        if self.weight_bits is None:
            raise ValueError("this layer is not quantised: weight_bits is None")
        limit = float(2 ** (self.weight_bits - 1) - 1)
        with torch.no_grad():
            masked = self.weight * self.mask
            scale = masked.abs().flatten(1).amax(1).clamp_min(1e-9) / limit
            shape = (-1,) + (1,) * (masked.ndim - 1)
            return torch.round(masked / scale.view(shape)).clamp(-limit, limit), scale

    def effective(self) -> Tensor:
        """Weights the layer computes with; gradients pass the rounding straight through."""
        masked = self.weight * self.mask
        if self.weight_bits is None:
            return masked
        integers, scale = self.integers()
        shape = (-1,) + (1,) * (masked.ndim - 1)
        return masked + (integers * scale.view(shape) - masked).detach()

    def word_energy(self, weight: Tensor) -> np.ndarray:
        """Energy of every word of `weight`, (N, C, F), for `model.patterns.project`."""
        raise NotImplementedError

    def spread(self, words: np.ndarray) -> Tensor:
        """Turn a word mask (N, C, F) into a weight mask."""
        raise NotImplementedError


class SpectralConv(Compressed):
    """Overlap-save convolution whose parameters are half-plane words.

    ``y = valid(ifft2(sum_c X_c * H_c))``, see `model.tiling`.

    Parameters
    ----------
    layer : Conv
        Shape of the layer.
    tiling : Tiling
        Tiling of its input map.
    weight : Tensor, shape (N, C, k, k)
        Spatial kernel (torch's correlation) to start from.
    bias : Tensor, shape (N,)
        Bias.
    """

    analysis: Tensor
    synthesis: Tensor
    circulant: Tensor
    real_word: Tensor

    def __init__(self, layer: Conv, tiling: Tiling, weight: Tensor, bias: Tensor) -> None:
        tile = tiling.tile
        spectrum = halfplane.from_spatial(weight.detach().double().numpy(), tile)
        # One over K*K: the metric is then the energy of the K x K kernel in space (Parseval).
        share = halfplane.multiplicity(tile) / tile**2
        super().__init__(_split(spectrum), bias.detach().clone(), _float(share[:, None]))
        self.layer = layer
        self.tiling = tiling
        pixels = np.eye(tile * tile).reshape(-1, tile, tile)
        forward = _split(halfplane.pack(np.fft.fft2(pixels))).flatten(1)
        units = np.eye(tile * tile).reshape(-1, tile * tile // 2, 2)
        inverse = np.fft.ifft2(halfplane.unpack(units[..., 0] + 1j * units[..., 1])).real
        self.register_buffer("analysis", forward, persistent=False)
        self.register_buffer("synthesis", _float(inverse.reshape(len(units), -1)), persistent=False)
        self.register_buffer("circulant", _circulant(tiling), persistent=False)
        self.register_buffer(
            "real_word", torch.tensor(halfplane.is_real_word(tile)), persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, max-pool and add the bias (pooling first: the bias then meets a smaller map).

        Maps (B, C, height, width) to (B, N, out_height // pool, out_width // pool).
        """
        plan, outputs = self.tiling, self.layer.out_channels
        (top, bottom), (left, right) = plan.pads
        if any((top, bottom, left, right)):
            x = functional.pad(x, (left, right, top, bottom))
        patches = x.unfold(2, plan.tile, plan.step).unfold(3, plan.tile, plan.step)
        direct = self.layer.in_channels <= DIRECT_CHANNELS
        tiles = self._direct(patches) if direct else self._by_frequency(patches)
        full = tiles.permute(0, 1, 3, 2, 4, 5).reshape(
            len(x), plan.tiles_y * plan.step, plan.tiles_x * plan.step, outputs
        )
        y = full[:, : plan.out_height, : plan.out_width].permute(0, 3, 1, 2)
        if self.layer.pool > 1:
            y = functional.max_pool2d(y, self.layer.pool)
        return y + self.bias[:, None, None]

    def _direct(self, patches: Tensor) -> Tensor:
        """One matrix product with the block-circulant matrix of the kernels' inverse DFT.

        Maps patches (B, C, tiles_y, tiles_x, K, K) to tiles (B, tiles_y, tiles_x, t, t, N).
        """
        outputs, channels = self.weight.shape[:2]
        plan, pixels = self.tiling, self.tiling.tile**2
        spatial = self.effective().flatten(2) @ self.synthesis
        matrix = spatial[:, :, self.circulant].view(outputs, channels, -1, pixels)
        matrix = matrix.permute(1, 3, 2, 0).reshape(channels * pixels, -1)
        rows = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, channels * pixels)
        return (rows @ matrix).view(
            -1, plan.tiles_y, plan.tiles_x, plan.step, plan.step, outputs
        )

    def _by_frequency(self, patches: Tensor) -> Tensor:
        """DFT, one product over channels per word, inverse DFT of the valid outputs.

        Maps patches (B, C, tiles_y, tiles_x, K, K) to tiles (B, tiles_y, tiles_x, t, t, N).
        Channels stay innermost, so every change of layout moves whole rows.
        """
        outputs, channels, words, _ = self.weight.shape
        plan = self.tiling
        columns = patches.permute(4, 5, 0, 2, 3, 1).reshape(plan.tile**2, -1)
        spectra = (self.analysis.t() @ columns).view(words, 2, -1, channels)
        same, swapped = self._word_products()
        crossed = torch.bmm(spectra.flip(1).flatten(0, 1), swapped)
        sums = torch.baddbmm(crossed, spectra.flatten(0, 1), same).view(2 * words, -1)
        grid = self.synthesis.view(-1, plan.tile, plan.tile)
        valid = grid[:, plan.kernel - 1 :, plan.kernel - 1 :].reshape(2 * words, -1)
        tiles = (valid.t() @ sums).view(
            plan.step, plan.step, -1, plan.tiles_y, plan.tiles_x, outputs
        )
        return tiles.permute(2, 3, 4, 0, 1, 5)

    def _word_products(self) -> tuple[Tensor, Tensor]:
        """Real matrices (2F, C, N) of the word products, for spectra as they are and re/im swapped.

        Complex: re' = re wr - im wi, im' = im wr + re wi.  Real bins: re' = re wr, im' = im wi.
        """
        re, im = self.effective().permute(2, 1, 0, 3).unbind(-1)
        real = self.real_word[:, None, None]
        cross = im.masked_fill(real, 0.0)
        same = torch.stack([re, torch.where(real, im, re)], 1)
        return same.flatten(0, 1), torch.stack([-cross, cross], 1).flatten(0, 1)

    def word_energy(self, weight: Tensor) -> np.ndarray:
        """Energy of every word, (N, C, K*K/2)."""
        parts = weight.detach().double().numpy()
        return halfplane.energy(parts[..., 0] + 1j * parts[..., 1])

    def spread(self, words: np.ndarray) -> Tensor:
        """Mask of the real and imaginary parts, (N, C, K*K/2, 2)."""
        return _float(np.repeat(words[..., None], 2, axis=-1))


class CompressedLinear(Compressed):
    """Fully connected layer whose words are two adjacent inputs.

    Parameters
    ----------
    layer : Linear
        Shape of the layer.
    weight : Tensor, shape (N, L)
        Weights to start from.
    bias : Tensor, shape (N,)
        Bias.
    """

    def __init__(self, layer: Linear, weight: Tensor, bias: Tensor) -> None:
        super().__init__(weight.detach().clone(), bias.detach().clone(), torch.ones(1))
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer; (B, L) to (B, N)."""
        return functional.linear(x, self.effective(), self.bias)

    def word_energy(self, weight: Tensor) -> np.ndarray:
        """Energy of every word, (N, ceil(L/2), 1)."""
        return linear_energy(weight.detach().double().numpy())

    def spread(self, words: np.ndarray) -> Tensor:
        """Mask of the inputs, (N, L)."""
        return _float(linear_mask(words, self.layer.in_features))


def _float(values: np.ndarray) -> Tensor:
    """Single-precision tensor of an array."""
    return torch.tensor(values, dtype=torch.float32)


def _split(words: np.ndarray) -> Tensor:
    """Complex words as (..., 2) real and imaginary parts."""
    return _float(np.stack([words.real, words.imag], axis=-1))


def _circulant(tiling: Tiling) -> Tensor:
    """Kernel pixel that joins each valid output to each patch pixel, flat (t*t*K*K,)."""
    outputs = np.arange(tiling.kernel - 1, tiling.tile)
    distance = (outputs[:, None] - np.arange(tiling.tile)) % tiling.tile
    index = distance[:, None, :, None] * tiling.tile + distance[None, :, None, :]
    return cast(Tensor, torch.tensor(index.reshape(-1)))
