"""Projections onto the sparsity patterns for torch tensors, on whatever device they are.

`model.patterns.project` is the definition.  On the CPU it is also the fastest (it selects where
torch would sort); on a GPU the same choice is made with sorts that do not leave the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.patterns import (
    BalancedPattern,
    ChannelPattern,
    KernelPattern,
    LocalityPattern,
    Pattern,
    UnstructuredPattern,
    budget,
    project,
)

__all__ = ["project_on_device", "project_words"]


def project_words(energy: Tensor, pattern: Pattern) -> Tensor:
    """Choose the words to keep; arguments and result as in `model.patterns.project`.

    Parameters
    ----------
    energy : Tensor, shape (N, C, F)
        Non-negative energy of every word.
    pattern : Pattern
        The constraint.

    Returns
    -------
    Tensor of bool, shape (N, C, F)
        True where the word is kept, on the device of `energy`.
    """
    if energy.device.type == "cpu":
        return torch.from_numpy(project(energy.numpy(), pattern))
    return project_on_device(energy, pattern)


def project_on_device(energy: Tensor, pattern: Pattern) -> Tensor:
    """`project_words` with torch operations alone."""
    shape = (energy.shape[0], energy.shape[1], energy.shape[2])
    if isinstance(pattern, KernelPattern):
        kept = _largest(energy, shape[2] // pattern.alpha)
    elif isinstance(pattern, ChannelPattern):
        kept = _channel(energy, pattern, budget(shape, pattern))
    elif isinstance(pattern, BalancedPattern):
        kept = _balanced(energy, pattern)
    elif isinstance(pattern, UnstructuredPattern):
        kept = _largest(energy.reshape(-1), budget(shape, pattern)).reshape(shape)
    elif isinstance(pattern, LocalityPattern):
        kept = _locality(energy, pattern)
    else:
        raise TypeError(f"no projection for {pattern!r}")
    return kept & (energy > 0)


def _largest(values: Tensor, count: int) -> Tensor:
    """Mask of the `count` largest entries along the last axis, ties to the lowest index."""
    order = torch.sort(values, dim=-1, descending=True, stable=True).indices[..., :count]
    return torch.zeros_like(values, dtype=torch.bool).scatter_(-1, order, True)


def _channel(energy: Tensor, pattern: ChannelPattern, most: int) -> Tensor:
    """Top n of each group, then the largest winners of the layer up to its budget."""
    outputs, channels, words = energy.shape
    missing = -channels % pattern.m
    padded = torch.nn.functional.pad(energy, (0, 0, 0, missing), value=-1.0)
    grouped = padded.view(outputs, -1, pattern.m, words).transpose(2, 3)
    winners = _largest(grouped.contiguous(), pattern.n).transpose(2, 3)
    winners = winners.reshape(outputs, -1, words)[:, :channels]
    if int(winners.sum()) <= most:
        return winners
    ranked = torch.where(winners, energy, -1.0).reshape(-1)
    return _largest(ranked, most).view(energy.shape) & winners


def _balanced(energy: Tensor, pattern: BalancedPattern) -> Tensor:
    """Row lengths with the most energy, then the largest words of each row."""
    channels, words = energy.shape[1:]
    ranked = torch.sort(energy, dim=1, descending=True, stable=True)
    gains = ranked.values.sum(0)
    chosen = _largest(gains.T.reshape(-1), channels * words // pattern.alpha)
    lengths = chosen.view(words, channels).sum(1)
    rank = torch.arange(channels, device=energy.device)[None, :, None]
    kept = torch.zeros_like(energy, dtype=torch.bool)
    return kept.scatter_(1, ranked.indices, (rank < lengths).expand_as(energy).contiguous())


def _locality(energy: Tensor, pattern: LocalityPattern) -> Tensor:
    """Keep the groups with the most energy."""
    outputs, channels, words = energy.shape
    lanes, rows = pattern.lanes, pattern.channels
    padded = torch.nn.functional.pad(energy, (0, 0, 0, -channels % rows, 0, -outputs % lanes))
    blocks = padded.view(-1, lanes, padded.shape[1] // rows, rows, words)
    chosen = _largest(blocks.sum((1, 3)).reshape(-1), pattern.groups((outputs, channels, words)))
    mask = chosen.view(len(blocks), 1, -1, 1, words).expand_as(blocks)
    return mask.reshape(padded.shape)[:outputs, :channels]
