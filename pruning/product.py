"""Overlap-save convolution as one operation of autograd, forward and backward.

The same arithmetic as a chain of torch operations with less memory traffic: patches are gathered,
and their gradients added in blocks of rows instead of pixel by pixel (`Tensor.unfold`'s backward),
channels stay innermost throughout, and everything may run in a lower precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from model.tiling import Tiling

__all__ = ["spectral_product"]


def spectral_product(
    x: Tensor, weight: Tensor, real_word: Tensor, analysis: Tensor, synthesis: Tensor,
    plan: Tiling, dtype: torch.dtype,
) -> Tensor:
    """Convolve maps with words by DFT, one matrix product per word, and inverse DFT.

    Complex words: re' = re wr - im wi, im' = im wr + re wi; words of two real bins: re' = re wr,
    im' = im wi (`model.halfplane`).

    Parameters
    ----------
    x : Tensor, shape (B, C, height, width)
        Maps; channels last is the layout that needs no copy.
    weight : Tensor, shape (N, C, F, 2)
        Real and imaginary parts of the words.
    real_word : Tensor of bool, shape (F,)
        Which words are two real bins.
    analysis, synthesis : Tensor, shape (K*K, K*K)
        `pruning.tables.transforms`.
    plan : Tiling
        Tiles of the map.
    dtype : torch.dtype
        Type of the spectra and of all products.

    Returns
    -------
    Tensor, shape (B, N, out_height, out_width)
        In channels last layout and of type `dtype`.
    """
    # Parts before words: then the spectra of either part are one block.
    tables = [table.unflatten(axis, (-1, 2)).transpose(axis, axis + 1).flatten(axis, axis + 1)
              .to(dtype) for table, axis in ((analysis, 1), (synthesis, 0))]
    return _Product.apply(x, weight, real_word, *tables, plan)  # type: ignore[no-any-return]


class _Product(torch.autograd.Function):
    """`spectral_product`; the spectra are kept for the weights' gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, real_word: Tensor, analysis: Tensor,
        synthesis: Tensor, plan: Tiling,
    ) -> Tensor:
        """DFT, products over channels, inverse DFT of the valid outputs."""
        outputs, channels, words, _ = weight.shape
        spectra = (analysis.t() @ _patches(x, plan, analysis.dtype)).view(2, words, -1, channels)
        factors = _factors(weight, real_word, analysis.dtype)
        sums = _complex_product(spectra, factors, -1)
        valid = _valid(synthesis, plan)
        tiles = valid.t() @ sums.view(2 * words, -1)
        ctx.save_for_backward(spectra, *factors, real_word, analysis, valid)
        ctx.plan, ctx.shape, ctx.dtypes = plan, x.shape, (x.dtype, weight.dtype)
        y = tiles.new_empty((len(x), plan.out_height, plan.out_width, outputs))
        view = tiles.view(plan.step, plan.step, len(x), plan.tiles_y, plan.tiles_x, outputs)
        for inside, outside in _crops(view, y, plan):
            outside.copy_(inside)
        return y.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Adjoint of every step, in reverse, in the types of the forward pass."""
        with torch.autocast(grad.device.type, enabled=False):
            return _gradients(ctx, grad)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of the arguments of `_Product`."""
    spectra, *factors, real_word, analysis, valid = ctx.saved_tensors
    plan, (words, _, outputs) = ctx.plan, factors[0].shape
    grad = grad.permute(0, 2, 3, 1).to(analysis.dtype)
    tiles = grad.new_zeros(
        (plan.step, plan.step, len(grad), plan.tiles_y, plan.tiles_x, outputs)
    )
    for inside, outside in _crops(tiles, grad, plan):
        inside.copy_(outside)
    sums = (valid @ tiles.view(plan.step**2, -1)).view(2, words, -1, outputs)
    of_weight = of_x = None
    if ctx.needs_input_grad[1]:
        of_weight = _weight_gradient(spectra, sums, real_word).to(ctx.dtypes[1])
    if ctx.needs_input_grad[0]:
        back = _complex_product(sums, [factor.mT for factor in factors], 1)
        of_x = _folded(analysis @ back.view(2 * words, -1), ctx.shape, plan).to(ctx.dtypes[0])
    return of_x, of_weight, None, None, None, None


def _factors(
    weight: Tensor, real_word: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices (F, C, N) from re to re', between the parts, and from im to im'."""
    first, cross = weight.permute(3, 2, 1, 0).to(dtype, memory_format=torch.contiguous_format)
    second = torch.where(real_word[:, None, None], cross, first)
    return first, cross.masked_fill(real_word[:, None, None], 0), second


def _complex_product(
    spectra: Tensor, factors: Sequence[Tensor], turned: int
) -> Tensor:
    """Multiply spectra (2, F, T, C) with `_factors`; (2, F, T, N).

    `turned` is the sign of the product of two imaginary parts: 1 with the conjugates of the words.
    """
    first, cross, second = factors
    product = spectra.new_empty((*spectra.shape[:3], first.shape[2]))
    re, im = spectra
    torch.bmm(re, first, out=product[0])
    torch.bmm(im, second, out=product[1])
    product[0].baddbmm_(im, cross, alpha=turned)
    product[1].baddbmm_(re, cross, alpha=-turned)
    return product


def _weight_gradient(spectra: Tensor, sums: Tensor, real_word: Tensor) -> Tensor:
    """Gradient (N, C, F, 2) from the spectra (2, F, T, C) and the gradient of the sums."""
    (re, im), (of_re, of_im) = spectra.mT, sums
    real = real_word[:, None, None]
    first, second = torch.bmm(re, of_re), torch.bmm(im, of_im)
    cross = torch.bmm(re, of_im).baddbmm_(im, of_re, alpha=-1)
    parts = torch.where(real, first, first + second), torch.where(real, second, cross)
    return torch.stack(parts).permute(3, 2, 1, 0)


def _valid(synthesis: Tensor, plan: Tiling) -> Tensor:
    """Columns (2F, t*t) of the inverse DFT that give the outputs without wrap-around."""
    grid = synthesis.view(-1, plan.tile, plan.tile)
    return grid[:, plan.kernel - 1 :, plan.kernel - 1 :].reshape(len(synthesis), -1)


def _patches(x: Tensor, plan: Tiling, dtype: torch.dtype) -> Tensor:
    """Patches of maps (B, C, height, width) as columns (K*K, B * tiles * C)."""
    (top, bottom), (left, right) = plan.pads
    padded = functional.pad(x.to(dtype).permute(0, 2, 3, 1), (0, 0, left, right, top, bottom))
    windows = padded.unfold(1, plan.tile, plan.step).unfold(2, plan.tile, plan.step)
    return windows.permute(4, 5, 0, 1, 2, 3).reshape(plan.tile**2, -1)


def _folded(columns: Tensor, shape: torch.Size, plan: Tiling) -> Tensor:
    """Add the columns of patches up to maps of `shape`; the adjoint of `_patches`."""
    count, channels, height, width = shape
    tiles_y, tiles_x, step = plan.tiles_y, plan.tiles_x, plan.step
    blocks = -(-plan.tile // step)                      # steps that a patch touches in a direction
    maps = columns.new_zeros((
        count, (tiles_y + blocks - 1) * step, (tiles_x + blocks - 1) * step, channels
    ))
    patches = columns.view(plan.tile, plan.tile, count, tiles_y, tiles_x, channels)
    for down in range(blocks):
        for right in range(blocks):
            block = patches[down * step : (down + 1) * step, right * step : (right + 1) * step]
            place = maps[:, down * step : (down + tiles_y) * step,
                         right * step : (right + tiles_x) * step]
            place = place.unflatten(2, (tiles_x, step)).unflatten(1, (tiles_y, step))
            place[:, :, : block.shape[0], :, : block.shape[1]] += block.permute(2, 3, 0, 4, 1, 5)
    (top, _), (left, _) = plan.pads
    return maps[:, top : top + height, left : left + width].permute(0, 3, 1, 2)


def _crops(tiles: Tensor, maps: Tensor, plan: Tiling) -> list[tuple[Tensor, Tensor]]:
    """Pairs of views of tiles (t, t, B, tiles_y, tiles_x, N) and of the maps they are cut to.

    Whole tiles and those that the map's lower and right border cut are up to four regions.
    """
    step, order = plan.step, (2, 3, 0, 4, 1, 5)
    rows, columns = plan.out_height // step, plan.out_width // step
    down, right = plan.out_height % step, plan.out_width % step
    pairs = []
    for first_y, count_y, height in ((0, rows, step), (rows, 1, down)):
        for first_x, count_x, width in ((0, columns, step), (columns, 1, right)):
            if not (count_y and height and count_x and width):
                continue
            inside = tiles[:height, :width, :, first_y : first_y + count_y,
                           first_x : first_x + count_x]
            outside = maps[:, first_y * step : first_y * step + count_y * height,
                           first_x * step : first_x * step + count_x * width]
            outside = outside.unflatten(2, (count_x, width)).unflatten(1, (count_y, height))
            pairs.append((inside.permute(order), outside))
    return pairs
