"""Torch layers whose parameters are the accelerator's words: spectral convolution, linear.

The convolution is `model.tiling` and `model.halfplane` written with torch operations: the same
patches, the same words, the same crop.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model import halfplane
from model.network import Conv, Linear
from model.tiling import Tiling
from pruning.masks import masked_weight, open_mask, rounding_of
from pruning.product import spectral_product
from pruning.tables import circulant, joins, split, tiling_of, transforms, windows

__all__ = ["Compressed", "CompressedLinear", "SpectralConv"]

# Up to this many input channels one dense matrix product over patches is faster on a CPU than one
# product per frequency (batch 256: 30 against 297 ms for 1->20, 100 against 65 ms for 20->50).
DIRECT_CHANNELS = 8
# The same where the map is one tile and so small that pixels x outputs are at most this many
# (128 -> 128 channels on 2 x 2, batch 128: see docs/pruning.md).
DIRECT_PAIRS = 64


class Compressed(nn.Module):
    """A layer whose weights are words of a sparsity pattern.

    Attributes
    ----------
    weight : Tensor, shape (N, ...)
        Weights the layer computes with, one output channel per row: the free weights, masked and
        rounded as `pruning.masks` says.
    bias : Parameter, shape (N,), or None
        Bias.
    metric : Tensor
        Factor of each squared weight in the energy of the kernel, broadcast against `weight`.
    gain : int
        How much larger a weight is than one of the same layer in space; optimisers of the Adam
        kind should step as much further (`pruning.admm.parameter_groups`).
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    metric: Tensor
    layer: Conv | Linear
    gain = 1

    def __init__(self, weight: Tensor, bias: Tensor | None, metric: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.register_buffer("metric", metric, persistent=False)
        open_mask(self)

    def integers(self) -> tuple[Tensor, Tensor]:
        """Integer weights and their scale per output channel, (N,), of `pruning.masks.Rounding`."""
        rounding = rounding_of(self)
        if rounding is None:
            raise ValueError("this layer is not quantised: it has no rounding")
        with torch.no_grad():
            return rounding.integers(masked_weight(self))

    def word_energy(self, weight: Tensor) -> Tensor:
        """Energy of every word of `weight`, (N, C, F), in double precision on its device."""
        raise NotImplementedError

    def spread(self, words: Tensor) -> Tensor:
        """Turn a word mask (N, C, F) into a weight mask of the weight's type."""
        raise NotImplementedError


class SpectralConv(Compressed):
    """Overlap-save convolution whose parameters are half-plane words.

    ``y = valid(ifft2(sum_c X_c * H_c))``, see `model.tiling`.  The map may have any size, which
    need not be known before it comes: tiles start at its padded corner.

    Parameters
    ----------
    layer : Conv
        Shape of the layer.
    tile : int
        Edge K of the transform.
    weight : Tensor, shape (N, C, k, k)
        Spatial kernel (torch's correlation) to start from.
    bias : Tensor, shape (N,), or None
        Bias.

    Notes
    -----
    Under autocast the transforms and products are computed in the lower type, the kernels' inverse
    DFT of the paths for few channels and for small maps in the weights'.
    """

    layer: Conv
    analysis: Tensor
    synthesis: Tensor
    real_word: Tensor

    def __init__(self, layer: Conv, tile: int, weight: Tensor, bias: Tensor | None) -> None:
        if not layer.plain:
            raise ValueError(f"layer {layer.name}: stride, groups, pooling of the finished map and "
                             "padding that differs from side to side have no spectral layer here")
        spectrum = halfplane.from_spatial(weight.detach().cpu().double().numpy(), tile)
        # One over K*K: the metric is then the energy of the K x K kernel in space (Parseval).
        share = halfplane.multiplicity(tile) / tile**2
        super().__init__(split(spectrum), bias, torch.tensor(share[:, None]))
        self.layer = layer
        self.tile = tile
        self.gain = layer.kernel
        analysis, synthesis = transforms(tile)
        self.register_buffer("analysis", analysis, persistent=False)
        self.register_buffer("synthesis", synthesis, persistent=False)
        self.register_buffer(
            "real_word", torch.tensor(halfplane.is_real_word(tile)), persistent=False
        )
        self.to(weight.device, weight.dtype)        # the tables came in double precision

    def extra_repr(self) -> str:
        """Shape, as `print` of a module shows it."""
        layer = self.layer
        return (f"{layer.in_channels}, {layer.out_channels}, kernel={layer.kernel}, "
                f"padding={layer.padding}, pool={layer.pool}, tile={self.tile}")

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, max-pool and add the bias (pooling first: the bias then meets a smaller map).

        Maps (B, C, height, width) to (B, N, out_height // pool, out_width // pool).
        """
        if x.ndim != 4 or x.shape[1] != self.layer.in_channels:
            raise ValueError(f"layer {self.layer.name} expects maps (B, {self.layer.in_channels}, "
                             f"height, width), not shape {tuple(x.shape)}")
        plan = tiling_of(self.layer, x.shape[2], x.shape[3], self.tile)
        device = x.device.type
        lower = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if lower else self.analysis.dtype
        with torch.autocast(device, enabled=False):
            y = self._convolve(x.to(dtype), plan)
        if self.layer.pool > 1:
            y = functional.max_pool2d(y, self.layer.pool)
        return y if self.bias is None else y + self.bias[:, None, None]

    def _convolve(self, x: Tensor, plan: Tiling) -> Tensor:
        """Convolve maps (B, C, height, width) to (B, N, out_height, out_width) in their type."""
        outputs = self.layer.out_channels
        pairs = x.shape[2] * x.shape[3] * plan.out_height * plan.out_width
        if plan.tiles == 1 and pairs <= DIRECT_PAIRS:
            return self._one_product(x, plan)
        if self.layer.in_channels > DIRECT_CHANNELS:
            return spectral_product(x, self.weight, self.real_word, self.analysis,
                                    self.synthesis, plan, x.dtype)
        full = self._direct(windows(x, plan), plan).permute(0, 1, 3, 2, 4, 5).reshape(
            len(x), plan.tiles_y * plan.step, plan.tiles_x * plan.step, outputs
        )
        return full[:, : plan.out_height, : plan.out_width].permute(0, 3, 1, 2)

    def _one_product(self, x: Tensor, plan: Tiling) -> Tensor:
        """One matrix product for a map of a few pixels, all in one tile."""
        weight = self.weight
        outputs, channels = weight.shape[:2]
        pixels = x.shape[2] * x.shape[3]
        # Kernel pixels that join the map's pixels to the outputs: of K*K only a few.
        used, index = joins(plan, str(x.device))
        spatial = weight.flatten(2) @ self.synthesis[:, used]
        matrix = spatial[:, :, index].view(outputs, channels, -1, pixels)
        matrix = matrix.permute(1, 3, 2, 0).reshape(channels * pixels, -1).to(x.dtype)
        rows = x.flatten(1) @ matrix
        return rows.view(len(x), plan.out_height, plan.out_width, outputs).permute(0, 3, 1, 2)

    def _direct(self, patches: Tensor, plan: Tiling) -> Tensor:
        """One matrix product with the block-circulant matrix of the kernels' inverse DFT.

        Maps patches (B, C, tiles_y, tiles_x, K, K) to tiles (B, tiles_y, tiles_x, t, t, N).
        """
        weight, pixels = self.weight, plan.tile**2
        outputs, channels = weight.shape[:2]
        spatial = weight.flatten(2) @ self.synthesis
        index = circulant(plan.kernel, plan.tile, str(patches.device))
        matrix = spatial[:, :, index].view(outputs, channels, -1, pixels)
        matrix = matrix.permute(1, 3, 2, 0).reshape(channels * pixels, -1).to(patches.dtype)
        rows = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, channels * pixels)
        return (rows @ matrix).view(
            -1, plan.tiles_y, plan.tiles_x, plan.step, plan.step, outputs
        )

    def word_energy(self, weight: Tensor) -> Tensor:
        """Energy of every word as `model.halfplane.energy` counts it, (N, C, K*K/2)."""
        parts = weight.detach().double()
        squared = parts[..., 0].square() + parts[..., 1].square()
        return torch.where(self.real_word, squared, 2 * squared)

    def spread(self, words: Tensor) -> Tensor:
        """Mask of the real and imaginary parts, (N, C, K*K/2, 2)."""
        return words[..., None].expand(*words.shape, 2).to(self.metric.dtype)


class CompressedLinear(Compressed):
    """Fully connected layer whose words are two adjacent inputs.

    Parameters
    ----------
    layer : Linear
        Shape of the layer.
    weight : Tensor, shape (N, L)
        Weights to start from.
    bias : Tensor, shape (N,), or None
        Bias.
    """

    layer: Linear

    def __init__(self, layer: Linear, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(
            weight.detach().clone(), bias, torch.ones(1, dtype=weight.dtype, device=weight.device)
        )
        self.layer = layer

    def extra_repr(self) -> str:
        """Shape, as `print` of a module shows it."""
        return f"{self.layer.in_features}, {self.layer.out_features}"

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer; (..., L) to (..., N)."""
        return functional.linear(x, self.weight, self.bias)

    def word_energy(self, weight: Tensor) -> Tensor:
        """Energy of every word as `model.patterns.linear_energy` counts it, (N, ceil(L/2), 1)."""
        squared = weight.detach().double().square()
        squared = functional.pad(squared, (0, squared.shape[1] % 2))
        return squared.view(len(squared), -1, 2).sum(-1)[..., None]

    def spread(self, words: Tensor) -> Tensor:
        """Mask of the inputs, (N, L)."""
        both = words.expand(*words.shape[:2], 2).flatten(1)
        return both[:, : self.layer.in_features].to(self.metric.dtype)
