"""Layer-wise pruning: ADMM on a layer's reconstruction error, then least squares on its support.

For spectra X of the pruned network's input and dense outputs Y, minimise ``||Y - X V||**2`` in
each frequency bin subject to a pattern of `model.patterns` (ADMM for layer-wise pruning: Meng et
al., "ALPS", NeurIPS 2024; aiming at the dense network's outputs from the pruned network's inputs:
He et al., ICCV 2017).  Outputs of a whole tile are counted, wrap-around included: only then the
bins are independent.

Channels are scaled to unit power in each bin: the diagonal of every Gram matrix is then one, one
penalty fits all, and the energy of a scaled word is what it contributes to the output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.patterns import Pattern, project
from pruning.bins import Bins

__all__ = ["Normal", "admm", "least_squares", "normal_equations", "project_bins"]

RHO_FIRST, RHO_LAST = 0.03, 3.0
#: ADMM iterations with one penalty, for which one inverse serves.
PER_RHO = 4


@dataclass
class Normal:
    """Normal equations ``gram @ V = right`` of every bin, in scaled channels.

    Attributes
    ----------
    gram : Tensor, complex (bins, C, C)
        Unit diagonal plus the ridge.
    right : Tensor, complex (bins, C, N)
        Right-hand sides.
    scale : Tensor, (bins, C, 1)
        Root of each channel's power; V in scaled channels is ``scale * weights``.
    """

    gram: Tensor
    right: Tensor
    scale: Tensor


def normal_equations(spectra: Tensor, dense: Tensor, kernel: Tensor, ridge: float) -> Normal:
    """Set up the minimum of ``||dense - spectra V||**2 / T + ridge * ||scale * (V - kernel)||**2``.

    Parameters
    ----------
    spectra : Tensor, complex (bins, T, C)
        Inputs.
    dense : Tensor, complex (bins, T, N)
        Outputs to reproduce.
    kernel : Tensor, complex (bins, C, N)
        Dense weights, to which the ridge pulls.
    ridge : float
        Weight of the pull, relative to a channel's power.
    """
    count, tiles, channels = spectra.shape
    gram = torch.empty((count, channels, channels), dtype=spectra.dtype)
    right = torch.empty((count, channels, dense.shape[2]), dtype=spectra.dtype)
    scale = torch.empty((count, channels, 1))
    for index in range(count):
        x = spectra[index]
        power = x.abs().square().mean(0)
        # A channel that is silent on the calibration images keeps a little power.
        root = power.clamp_min(float(1e-4 * power.mean()) + 1e-20).sqrt()
        x = x / root
        gram[index] = x.mH @ x / tiles
        scale[index] = root[:, None]
        right[index] = x.mH @ dense[index] / tiles + ridge * kernel[index] * root[:, None]
    gram.diagonal(dim1=1, dim2=2).add_(ridge)
    return Normal(gram, right, scale)


def project_bins(bins: Bins, weights: Tensor, pattern: Pattern) -> Tensor:
    """Mask (bins, C, N) of the nearest point of `pattern` to weights (bins, C, N)."""
    squared = weights.real.square() + weights.imag.square()
    energy = torch.zeros((bins.tile**2 // 2, *weights.shape[1:]))
    energy.index_add_(0, bins.word, squared * bins.share[:, None, None])
    words = project(energy.permute(2, 1, 0).contiguous().numpy(), pattern)
    return bins.spread(torch.from_numpy(words))


def admm(
    bins: Bins, normal: Normal, pattern: Pattern, start: Tensor, steps: int
) -> tuple[Tensor, Tensor, float]:
    """Search a support: alternate ridge solves and projections.

    Parameters
    ----------
    start : Tensor, complex (bins, C, N)
        First V in scaled channels: the dense weights.
    steps : int
        Iterations.

    Returns
    -------
    mask : Tensor of bool, (bins, C, N)
        The support.
    weights : Tensor, complex (bins, C, N)
        Z in scaled channels, zero outside the support.
    residual : float
        ``||V - Z|| / ||V||`` at the end.
    """
    v = start
    mask = project_bins(bins, v, pattern)
    z = v * mask
    u = v - z
    rounds = max(1, -(-steps // PER_RHO))
    before = RHO_FIRST
    for index in range(rounds):
        rho = RHO_FIRST * (RHO_LAST / RHO_FIRST) ** (index / max(1, rounds - 1))
        shifted = normal.gram.clone()
        shifted.diagonal(dim1=1, dim2=2).add_(rho)
        factor = torch.cholesky_inverse(torch.linalg.cholesky(shifted))
        u *= before / rho
        before = rho
        for _ in range(min(PER_RHO, steps - index * PER_RHO)):
            v = factor @ (normal.right + rho * (z - u))
            u += v
            mask = project_bins(bins, u, pattern)
            z = u * mask
            u -= z
    gap = (v - z).abs().square().sum() / v.abs().square().sum().clamp_min(1e-30)
    return mask, z, float(gap.sqrt())


def least_squares(normal: Normal, mask: Tensor, start: Tensor, steps: int) -> Tensor:
    """Solve the normal equations on a support by conjugate gradients, each output by itself.

    The diagonal is constant, so Jacobi preconditioning would change nothing.
    """
    v = start * mask
    residual = (normal.right - normal.gram @ v) * mask
    direction = residual.clone()
    power = residual.abs().square().sum(1, keepdim=True)
    for _ in range(steps):
        image = (normal.gram @ direction) * mask
        curvature = (direction.conj() * image).real.sum(1, keepdim=True)
        rate = power / curvature.clamp_min(1e-30)
        v += rate * direction
        residual -= rate * image
        following = residual.abs().square().sum(1, keepdim=True)
        direction = residual + following / power.clamp_min(1e-30) * direction
        power = following
    return v
