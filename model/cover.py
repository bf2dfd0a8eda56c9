"""Greedy access schedules: which r addresses serve the most lanes, cycle after cycle.

Every method but ``lowest`` chooses the addresses of a cycle one after the other, each by a score
over all open addresses with ``n`` lanes that wait for it and are still free in this cycle, and
``m`` lanes that wait for it at all:

==============  ===================================================================================
``lowest``      every lane keeps the order of its products; the r lowest addresses asked for win
``random``      any address a free lane waits for
``fullest``     the largest n: greedy set cover, the method of FPGA 2020 as published
``completing``  n less the ``m - n`` products it would leave behind, urgent products counted more
==============  ===================================================================================

Why ``completing`` wins: a schedule has r ports for 64 lanes, so on average a delivery must serve
64 / r of them. ``fullest`` skims the well-filled addresses and ends with many that serve one or two
lanes each. Addresses that are finished in one go leave no such dregs, and the wide choice among
all channels of the open groups still fills the lanes.

A product is urgent if its lane must work without a pause for its group, or a later one, to be
complete in time. The times come from `model.access.finish_times` over what is left, with room for
an imperfect packing. With all groups open there is nothing to be late for.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.access import (
    LANES,
    Masks,
    Ports,
    Schedule,
    finish_times,
    lane_work,
    run_lengths,
    unpack_lanes,
)

__all__ = ["METHODS", "cover"]

METHODS: Final = ("lowest", "random", "fullest", "completing")
#: Extra weight of an urgent product, and the slack (cycles) below which a product is urgent.
URGENT_WEIGHT: Final = 4
URGENT_SLACK: Final = 2
#: Share of the cycles in which the plan expects a lane to work.
PACE: Final = 0.95
#: Cycles between two looks at the urgency, two plans, and two clean-ups of the pool.
LOOK, REPLAN, COMPACT = 4, 32, 32
ALL_LANES: Final = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


def cover(
    masks: Masks, ports: Ports, window: int, method: str = "completing",
    banks: NDArray[np.int64] | None = None, seed: int = 0,
    opens: NDArray[np.int64] | None = None,
) -> Schedule:
    """Schedule one kernel block.

    Parameters
    ----------
    masks : uint64 array, (groups, addresses)
        Lanes that wait for each address (`model.access.pack_lanes`).
    ports : Ports
        Addresses per cycle.
    window : int
        Groups in flight.
    method : str
        One of `METHODS`.
    banks : int array, (groups, addresses), optional
        Bank of each address (`Ports.bank_of`); no two of a cycle may lie in one bank.
    seed : int
        Of the method ``random``.
    opens : int array, (groups,), optional
        First cycle in which each group may be used, ascending; not with the method ``lowest``.

    Returns
    -------
    Schedule
        Valid in the sense of `model.access.check`.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window!r}")
    if opens is not None and (method == "lowest" or np.any(np.diff(opens) < 0)):
        raise ValueError("opens must be ascending, and is not for the method 'lowest'")
    if method == "lowest":
        return _in_order(masks, ports, window, banks)
    pool = _Pool(masks, window, banks, opens)
    urgency = None
    if method == "completing" and window < len(masks):
        urgency = _Urgency(masks, window, ports.addresses)
    rng = np.random.default_rng(seed)
    addresses, lanes = [], []
    while pool.left.any():
        if urgency is not None:
            urgency.look(pool)
        chosen, served = _cycle(pool, ports.addresses, method, urgency, rng)
        addresses.append(chosen)
        lanes.append(served)
        done = np.array([address // masks.shape[1] for address in chosen if address >= 0])
        if urgency is not None:
            urgency.take(done, np.array(served[:len(done)], dtype=np.uint64))
        pool.advance()
    shape = (len(addresses), ports.addresses)
    return Schedule(np.array(addresses, dtype=np.int64).reshape(shape),
                    np.array(lanes, dtype=np.uint64).reshape(shape))


class _Pool:
    """Open addresses: ``waiting`` lanes, flat ``index`` and ``group`` of each."""

    def __init__(self, masks: Masks, window: int, banks: NDArray[np.int64] | None,
                 opens: NDArray[np.int64] | None) -> None:
        self.flat = masks.reshape(-1)
        self.opens = np.zeros(len(masks), dtype=np.int64) if opens is None else opens
        self.width = masks.shape[1]
        self.window = window
        self.flat_banks = None if banks is None else banks.reshape(-1)
        #: Products left in each group.
        self.left = np.bitwise_count(masks).sum(axis=1, dtype=np.int64)
        self.base = self.opened = self.age = 0
        self.cycle = -1
        self.waiting = np.empty(0, dtype=np.uint64)
        self.index = np.empty(0, dtype=np.int64)
        #: True after the open groups have changed.
        self.moved = False
        self.advance()

    def take(self, position: int, lanes: np.uint64, count: int) -> None:
        self.waiting[position] &= ~lanes
        self.left[self.group[position]] -= count

    def advance(self) -> None:
        """Retire complete groups in order, open the next ones, now and then drop empty entries."""
        while self.base < len(self.left) and not self.left[self.base]:
            self.base += 1
        self.cycle += 1
        open_now = int(np.searchsorted(self.opens, self.cycle, side="right"))
        last = max(self.opened, min(self.base + self.window, open_now))
        self.age += 1
        self.moved = last > self.opened
        if self.moved or self.age >= COMPACT:
            fresh = np.arange(self.opened * self.width, last * self.width)
            fresh = fresh[self.flat[fresh] != 0]
            kept = self.waiting != 0
            self.waiting = np.concatenate([self.waiting[kept], self.flat[fresh]])
            self.index = np.concatenate([self.index[kept], fresh])
            self.group = self.index // self.width
            self.bank = None if self.flat_banks is None else self.flat_banks[self.index]
            self.opened, self.age = last, 0
            self.moved = True


class _Urgency:
    """Which lanes may not pause, per group; see the module's text."""

    def __init__(self, masks: Masks, window: int, ports: int) -> None:
        self.work = lane_work(masks)
        self.demand = (masks != 0).sum(axis=1) / ports
        self.window, self.ports = window, ports
        self.now = 0
        self.lanes = np.zeros(len(masks), dtype=np.uint64)

    def look(self, pool: _Pool) -> None:
        """Refresh ``of_entry``, the urgent lanes of every pool entry."""
        first, last = pool.base, pool.opened
        if self.now % REPLAN == 0:
            entries = np.bincount(pool.group[pool.waiting != 0], minlength=last)
            self.demand[:last] = entries / self.ports
            lengths = run_lengths(self.work[:, first:] / PACE, self.demand[first:])
            times = finish_times(lengths, self.window)
            self.finish = np.concatenate([np.zeros(first), times + self.now])
        if self.now % LOOK == 0:
            backlog = self.work[:, first:last].cumsum(axis=1)
            slack = self.finish[first:last] - self.now - backlog
            # What a group needs, every group before it needs too.
            slack = np.minimum.accumulate(slack[:, ::-1], axis=1)[:, ::-1]
            bits = np.packbits(slack <= URGENT_SLACK, axis=0, bitorder="little")
            self.lanes[first:last] = np.ascontiguousarray(bits.T).view("<u8")[:, 0]
        if pool.moved or self.now % LOOK == 0:
            self.of_entry = self.lanes[pool.group]

    def take(self, groups: NDArray, served: Masks) -> None:
        """Count the products of one cycle as done."""
        for group, bits in zip(groups, unpack_lanes(served), strict=True):
            self.work[:, group] -= bits
        self.now += 1


def _cycle(
    pool: _Pool, ports: int, method: str, urgency: _Urgency | None, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Choose the addresses of one cycle and take their products out of the pool."""
    chosen, served = [-1] * ports, [0] * ports
    if not len(pool.index):
        return chosen, served       # until the next group opens
    free = ALL_LANES
    barred = None if pool.bank is None else np.zeros(len(pool.index), dtype=bool)
    if method == "random":
        rank = rng.random(len(pool.index), dtype=np.float32)
    elif method == "completing":
        # 2n - m = n - (m - n); an entry taken in this cycle has no free lane left.
        waiting = np.bitwise_count(pool.waiting).astype(np.int16)
    for port in range(ports):
        lanes = pool.waiting & free
        count = np.bitwise_count(lanes)
        if method == "random":
            score = np.where(count, rank, np.float32(-1))
        elif method == "fullest":
            score = count.astype(np.int16)
        else:
            score = 2 * count.astype(np.int16) - waiting
            if urgency is not None:
                score += URGENT_WEIGHT * np.bitwise_count(lanes & urgency.of_entry).astype(np.int16)
        if method != "random":
            score[count == 0] = -LANES - 1
        if barred is not None:
            score[barred] = -LANES - 1
        best = int(score.argmax())
        taken = lanes[best]
        if not taken or barred is not None and barred[best]:
            break
        chosen[port], served[port] = int(pool.index[best]), int(taken)
        pool.take(best, taken, int(count[best]))
        free &= ~taken
        if barred is not None and pool.bank is not None:
            barred |= pool.bank == pool.bank[best]
    return chosen, served


def _in_order(
    masks: Masks, ports: Ports, window: int, banks: NDArray[np.int64] | None
) -> Schedule:
    """Lowest index first: a lane takes its products in order and stalls until its turn comes."""
    width = masks.shape[1]
    lane, item = np.nonzero(unpack_lanes(masks.reshape(-1)).T)
    ends = np.searchsorted(lane, np.arange(LANES), side="right")
    head = np.searchsorted(lane, np.arange(LANES), side="left")
    item = np.append(item, masks.size)              # read by the lanes that have ended
    addresses, lanes = [], []
    while np.any(head < ends):
        want = np.where(head < ends, item[head], masks.size)
        # In-order lanes finish in-order groups: the oldest head names the oldest open group.
        want[want // width >= want.min() // width + window] = masks.size
        asked = np.unique(want[want < masks.size])
        if banks is not None:
            first = np.unique(banks.reshape(-1)[asked], return_index=True)[1]
            asked = asked[np.sort(first)]
        asked = asked[:ports.addresses]
        chosen, served = [-1] * ports.addresses, [0] * ports.addresses
        for port, address in enumerate(asked):
            takes = want == address
            chosen[port] = int(address)
            served[port] = sum(1 << int(index) for index in np.flatnonzero(takes))
            head[takes] += 1
        addresses.append(chosen)
        lanes.append(served)
    shape = (len(addresses), ports.addresses)
    return Schedule(np.array(addresses, dtype=np.int64).reshape(shape),
                    np.array(lanes, dtype=np.uint64).reshape(shape))
