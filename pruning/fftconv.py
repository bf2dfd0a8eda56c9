"""A convolution by ``torch.fft`` over the whole map, to measure the spectral layer against."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["FFTConv"]


class FFTConv(nn.Module):
    """Stride-1 convolution as a product of the spectra of whole maps.

    Parameters
    ----------
    dense : Conv2d
        Layer to take weights and padding from; zero padding, equal on all sides.
    """

    def __init__(self, dense: nn.Conv2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(dense.weight.detach().clone())
        self.bias = None if dense.bias is None else nn.Parameter(dense.bias.detach().clone())
        self.padding = int(dense.padding[0])

    def forward(self, x: Tensor) -> Tensor:
        """Convolve maps (B, C, H, W) to (B, N, H', W')."""
        kernel = self.weight.shape[-1]
        height, width = (size + 2 * self.padding for size in x.shape[2:])
        size = (height, width)
        # Padding shifts the map; correlation is a product with the conjugate.
        maps = torch.fft.rfft2(nn.functional.pad(x, (self.padding,) * 4), s=size)
        kernels = torch.fft.rfft2(self.weight, s=size)
        sums = torch.einsum("bchw,nchw->bnhw", maps, kernels.conj())
        y = torch.fft.irfft2(sums, s=size)[..., : height - kernel + 1, : width - kernel + 1]
        return y if self.bias is None else y + self.bias[:, None, None]
