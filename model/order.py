"""Order in which a block's frequencies pass through the window of the access scheduler.

With few accumulators per lane, the order decides: which lanes have much to do differs from
frequency to frequency, and only the frequencies in flight can make up for each other. The order is
free (sums over channels are finished one frequency at a time), differs from kernel block to kernel
block and travels with the block's schedule.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.access import Masks, Ports, finish_times, lane_work, run_lengths

__all__ = ["interleave", "arrange"]


def interleave(masks: Masks) -> NDArray[np.int64]:
    """Well-filled and sparse groups alternate, shape (groups,)."""
    rank = np.argsort(-np.bitwise_count(masks).sum(axis=1, dtype=np.int64), kind="stable")
    order = np.empty_like(rank)
    half = (len(rank) + 1) // 2
    order[0::2], order[1::2] = rank[:half], rank[half:][::-1]
    return order


def arrange(
    masks: Masks, ports: Ports, window: int, tries: int = 600, seed: int = 0
) -> NDArray[np.int64]:
    """Search an order of groups that a window of this depth can balance.

    Swaps and moves of groups are kept when they do not lengthen the bound of
    `model.access.finish_times`, taken for windows of 3/4 and 1/2 of the depth: at the full depth
    the bound soon reaches the fullest lane's total, while the greedy schedule still needs room.

    Parameters
    ----------
    masks : uint64 array, (groups, addresses)
        The block in natural order.
    ports : Ports
        Addresses per cycle.
    window : int
        Groups in flight.
    tries : int
        Changes to try; each takes about a third of a millisecond.
    seed : int
        Of the search.

    Returns
    -------
    int array, (groups,)
        Group at each place; schedule ``masks[order]``.
    """
    order = interleave(masks)
    if window >= len(masks):
        return order
    work = lane_work(masks).astype(np.float64)
    demand = (masks != 0).sum(axis=1) / ports.addresses
    depths = (max(1, 3 * window // 4), max(1, window // 2))

    def length(order: NDArray[np.int64]) -> float:
        lengths = run_lengths(work[:, order], demand[order])
        return sum(finish_times(lengths, depth)[-1] for depth in depths)

    rng = np.random.default_rng(seed)
    best = length(order)
    for attempt in range(tries):
        a, b = rng.integers(0, len(order), 2)
        if attempt % 2:
            other = np.insert(np.delete(order, a), b, order[a])
        else:
            other = order.copy()
            other[[a, b]] = other[[b, a]]
        if (found := length(other)) <= best:
            order, best = other, found
    return order
