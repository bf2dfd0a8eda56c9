"""Access scheduler for irregular patterns: which channels the r banks deliver in each step.

In a step every bank delivers the word of one channel (channel c lies in bank class ``c % r``) and
every kernel lane consumes at most one of the delivered words. FPGA 2020 poses it as exact cover;
here a greedy cover serves the fullest lanes first, since the fullest lane bounds the length.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["schedule", "lower_bound"]


def lower_bound(needs: Sequence[Sequence[int]], banks: int) -> int:
    """Fewest steps any schedule can take: the fullest lane, or the busiest bank class."""
    lanes = max((len(need) for need in needs), default=0)
    wanted = {channel for need in needs for channel in need}
    per_bank = [sum(1 for channel in wanted if channel % banks == bank) for bank in range(banks)]
    return max([lanes, *per_bank])


def schedule(needs: Sequence[Sequence[int]], banks: int) -> list[list[int | None]]:
    """Schedule one frequency of one kernel block.

    Parameters
    ----------
    needs : sequence of sequences of int
        For each kernel lane the channels with a non-zero weight.
    banks : int
        r, words delivered per step.

    Returns
    -------
    list of steps
        Each a list with the channel every lane consumes, or None. Every need is met exactly once;
        the channels of one step lie in different bank classes.
    """
    if banks < 1:
        raise ValueError(f"banks must be positive, not {banks!r}")
    pending = [set(need) for need in needs]
    for lane, need in enumerate(needs):
        if len(pending[lane]) != len(need):
            raise ValueError(f"lane {lane} needs a channel twice: {list(need)!r}")
    steps = []
    while any(pending):
        steps.append(_step(pending, banks))
    return steps


def _step(pending: list[set[int]], banks: int) -> list[int | None]:
    """Take one step's worth out of ``pending``: fullest lanes first, most wanted channel next."""
    demand: dict[int, int] = {}
    for need in pending:
        for channel in need:
            # The cube prefers channels wanted by lanes with much left to do.
            demand[channel] = demand.get(channel, 0) + len(need) ** 3
    delivered: dict[int, int] = {}
    taken: list[int | None] = [None] * len(pending)
    for lane in sorted(range(len(pending)), key=lambda lane: -len(pending[lane])):
        shared = [c for c in pending[lane] if delivered.get(c % banks) == c]
        fresh = [c for c in pending[lane] if c % banks not in delivered]
        if fresh and not shared:
            choice = max(fresh, key=lambda c: (demand[c], -c))
        elif shared:
            # Of the words on offer take the one fewest others still want.
            choice = min(shared, key=lambda c: (demand[c], c))
        else:
            continue
        delivered[choice % banks] = choice
        taken[lane] = choice
        pending[lane].remove(choice)
    return taken
