"""The choices behind `model.patterns.project`: which words keep the most energy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["largest", "project_balanced", "project_channel", "project_groups"]


def project_channel(energy: NDArray, n: int, m: int, most: int) -> NDArray[np.bool_]:
    """Top n of each m channels, then the largest winners of the layer up to its budget `most`.

    The two rules form a truncated partition matroid, on which greedy choice is optimal.
    """
    outputs, channels, words = energy.shape
    groups = -(-channels // m)
    missing = groups * m - channels
    padded = energy
    if missing:
        padded = np.pad(energy, ((0, 0), (0, missing), (0, 0)), constant_values=-1)
    grouped = padded.reshape(outputs, groups, m, words)
    winners = largest(grouped, n, axis=2)
    winners = winners.reshape(outputs, groups * m, words)[:, :channels]
    if np.count_nonzero(winners) <= most:
        return winners
    ranked = np.where(winners, energy, -1).reshape(-1)
    return largest(ranked, most).reshape(energy.shape) & winners


def project_balanced(energy: NDArray, row: int) -> NDArray[np.bool_]:
    """Choose the row lengths with the most energy, then the largest words of each row.

    Every output keeps `row` words.
    The energy of all outputs' k-th largest words at a frequency falls with k, so taking the largest
    of these gains is optimal.
    """
    outputs, channels, words = energy.shape
    rank = np.argsort(-energy, axis=1, kind="stable")
    gains = np.take_along_axis(energy, rank, axis=1).sum(axis=0)            # (C, F)
    chosen = largest(gains.T.reshape(-1), row)
    lengths = chosen.reshape(words, channels).sum(axis=1)
    kept = np.zeros(energy.shape, dtype=bool)
    np.put_along_axis(kept, rank, np.arange(channels)[None, :, None] < lengths, axis=1)
    return kept


def largest(values: NDArray, count: int, axis: int = -1) -> NDArray[np.bool_]:
    """Mask of the `count` largest entries along an axis, ties to the lowest index."""
    length = values.shape[axis]
    if count >= length:
        return np.ones(values.shape, dtype=bool)
    if count == 0:
        return np.zeros(values.shape, dtype=bool)
    # Selection is much faster than sorting; only lines with equal values at the limit need order.
    if count == 1:
        limit = values.max(axis=axis, keepdims=True)
    else:
        parted = np.partition(values, length - count, axis=axis)
        limit = np.take(parted, [length - count], axis=axis)
    mask = values >= limit
    tied = np.count_nonzero(mask, axis=axis) > count
    if tied.any():
        rows = np.moveaxis(values, axis, -1)[tied]
        order = np.argsort(-rows, axis=-1, kind="stable")[..., :count]
        exact = np.zeros(rows.shape, dtype=bool)
        np.put_along_axis(exact, order, True, axis=-1)
        np.moveaxis(mask, axis, -1)[tied] = exact
    return mask


def project_groups(
    energy: NDArray, lanes: int, rows: int, count: int
) -> NDArray[np.bool_]:
    """Keep the `count` groups of `lanes` outputs x `rows` channels x 1 frequency with most energy.

    A group is kept as a whole, so the energy lost is that of the groups left out.
    """
    outputs, channels, words = energy.shape
    padded = np.pad(energy, ((0, -outputs % lanes), (0, -channels % rows), (0, 0)))
    blocks = padded.reshape(-1, lanes, padded.shape[1] // rows, rows, words)
    sums = blocks.sum(axis=(1, 3))
    chosen = largest(sums.reshape(-1), count).reshape(sums.shape)
    mask = np.broadcast_to(chosen[:, None, :, None], blocks.shape).reshape(padded.shape)
    return mask[:outputs, :channels]
