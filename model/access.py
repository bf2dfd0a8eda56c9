"""Access schedules of irregular kernels: the problem, what a schedule is, its check and its bound.

A kernel block of up to 64 lanes is an array of lane masks, shape (groups, addresses): bit l of
``masks[g, a]`` says that lane l multiplies the input word at address a of group g. In a cycle at
most ``Ports.addresses`` input words are presented to all lanes, and a lane takes at most one of
them. Groups are finished in order; only ``window`` of them may be in flight.

Two layouts of the same block:

* frequency-major (this accelerator): a group is a frequency, its addresses are the channels;
  ``window`` is the depth of the accumulator file of a lane;
* channel-major (FPGA 2020, "Reuse Kernels or Activations?"): a group is an input channel, its
  addresses the frequencies; a lane then needs an accumulator for every frequency.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LANES", "Ports", "Schedule", "pack_lanes", "lane_work", "run_lengths", "finish_times",
           "lower_bound", "check"]

#: Lanes of a kernel block: the bits of one machine word.
LANES = 64
Masks = NDArray[np.uint64]


@dataclass(frozen=True)
class Ports:
    """What the input memory delivers per cycle.

    Parameters
    ----------
    addresses : int
        r, words presented per cycle.
    banks : int
        0: any r addresses (r read ports, or r copies of the data as in FPGA 2020). Otherwise at
        most one address per bank, channel c of frequency f lying in bank
        ``(c + f mod 8) mod banks`` (docs/architecture.md, "Banks and the skew").
    """

    addresses: int
    banks: int = 0

    def __post_init__(self) -> None:
        for name, least in (("addresses", 1), ("banks", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise TypeError(f"{name} must be an integer, not {value!r}")
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        if self.banks and self.banks < self.addresses:
            raise ValueError(
                f"{self.banks} banks cannot deliver {self.addresses} addresses in a cycle"
            )

    def bank_of(self, shape: tuple[int, int], frequency_major: bool,
                order: NDArray[np.int64] | None = None) -> NDArray[np.int64] | None:
        """Bank of every address, shape ``shape``; None where any addresses may be combined.

        ``order`` names the frequency of each group of a frequency-major block, by default group g
        is frequency g.
        """
        if not self.banks:
            return None
        group, address = np.indices(shape)
        frequency, channel = (group, address) if frequency_major else (address, group)
        if order is not None:
            frequency = np.asarray(order)[frequency]
        return (channel + frequency % 8) % self.banks


@dataclass(frozen=True)
class Schedule:
    """What is presented in each cycle and which lanes take it.

    Attributes
    ----------
    addresses : int array, (cycles, r)
        Flat index ``g * A + a`` into the masks, -1 for an unused port.
    lanes : uint64 array, (cycles, r)
        Lanes that multiply the word of that port.
    """

    addresses: NDArray[np.int64]
    lanes: Masks

    @property
    def cycles(self) -> int:
        """Length of the schedule."""
        return len(self.addresses)

    @property
    def products(self) -> int:
        """Products of all lanes."""
        return int(np.bitwise_count(self.lanes).sum())

    def finished(self, shape: tuple[int, int]) -> NDArray[np.int64]:
        """Cycle after which each group and all groups before it are complete, shape (groups,)."""
        cycle, port = np.nonzero(self.addresses >= 0)
        last = np.zeros(shape[0], dtype=np.int64)
        np.maximum.at(last, self.addresses[cycle, port] // shape[1], cycle + 1)
        return np.maximum.accumulate(last)


def pack_lanes(kept: NDArray) -> Masks:
    """Lane masks of a kernel block in frequency-major layout.

    Parameters
    ----------
    kept : ndarray of bool, shape (lanes, C, F)
        Non-zero words of at most 64 kernels; missing lanes are idle.

    Returns
    -------
    ndarray of uint64, shape (F, C)
        Transpose it for the channel-major layout.
    """
    kept = np.asarray(kept, dtype=bool)
    if kept.ndim != 3 or kept.shape[0] > LANES:
        raise ValueError(f"expected at most {LANES} kernels (lanes, C, F), not shape {kept.shape}")
    full = np.zeros((kept.shape[2], kept.shape[1], LANES), dtype=bool)
    full[..., :kept.shape[0]] = kept.T
    return np.packbits(full, axis=-1, bitorder="little").view("<u8")[..., 0].astype(np.uint64)


def unpack_lanes(masks: NDArray) -> NDArray[np.uint8]:
    """Bits of lane masks, shape (..., 64)."""
    masks = np.ascontiguousarray(masks, dtype="<u8")
    return np.unpackbits(masks[..., None].view(np.uint8), axis=-1, bitorder="little")


def lane_work(masks: Masks) -> NDArray[np.int64]:
    """Products of every lane in every group, shape (64, groups)."""
    return unpack_lanes(masks).sum(axis=1, dtype=np.int64).T


def run_lengths(work: NDArray, addresses: NDArray) -> NDArray[np.float64]:
    """Cycles that each run of groups needs at least, shape (groups + 1, groups + 1).

    Entry [end, start] is for the groups start ... end - 1: a cycle per product of the fullest lane,
    and per ``r`` addresses.

    Parameters
    ----------
    work : ndarray, shape (lanes, groups)
        Cycles every lane needs for each group.
    addresses : ndarray, shape (groups,)
        Cycles the ports need for each group.
    """
    sums = np.zeros((work.shape[1] + 1, work.shape[0] + 1))
    np.cumsum(work.T, axis=0, out=sums[1:, :-1])
    np.cumsum(addresses, out=sums[1:, -1])
    return (sums[:, None] - sums[None]).max(axis=-1)


def finish_times(lengths: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Earliest time at which each group can be complete, shape (groups,).

    A run of groups may start when the group ``window`` before its first is complete.

    Parameters
    ----------
    lengths : ndarray, (groups + 1, groups + 1)
        Of `run_lengths`.
    window : int
        Groups in flight.
    """
    count = len(lengths)
    times = np.zeros(count)
    # starts[g]: when group g may start; known once the group `window` before it is complete.
    starts = np.zeros(count + window)
    for end in range(1, count):
        times[end] = max(times[end - 1], (starts[:end] + lengths[end, :end]).max())
        starts[end + window - 1] = times[end]
    return times[1:]


def lower_bound(masks: Masks, ports: Ports, window: int) -> int:
    """Fewest cycles of any schedule: fullest lane and address count over every run of groups."""
    demand = (masks != 0).sum(axis=1) / ports.addresses
    return int(np.ceil(finish_times(run_lengths(lane_work(masks), demand), window)[-1] - 1e-6))


def check(schedule: Schedule, masks: Masks, ports: Ports, window: int,
          banks: NDArray[np.int64] | None = None, opens: NDArray[np.int64] | None = None) -> None:
    """Raise `ValueError` unless ``schedule`` is valid and complete.

    Never more than r different addresses in a cycle, no two in one bank, a lane takes one word at
    most, every product exactly once, no group used before the group ``window`` before it and all
    its predecessors are complete, nor before its cycle of ``opens``.
    """
    addresses, lanes = schedule.addresses, schedule.lanes
    if addresses.shape != lanes.shape or addresses.shape[1] > ports.addresses:
        raise ValueError(f"{addresses.shape} addresses a cycle exceed r = {ports.addresses}")
    used = addresses >= 0
    if np.any(lanes[~used]) or np.any(lanes[used] == 0):
        raise ValueError("a port without lanes, or lanes without a port")
    ordered = np.sort(np.where(used, addresses, -1 - np.arange(addresses.shape[1])), axis=1)
    if np.any(ordered[:, 1:] == ordered[:, :-1]):
        raise ValueError("an address is presented twice in a cycle")
    if banks is not None:
        bank = np.where(used, banks.reshape(-1)[addresses], -1 - np.arange(addresses.shape[1]))
        bank = np.sort(bank, axis=1)
        if np.any(bank[:, 1:] == bank[:, :-1]):
            raise ValueError("two addresses of one bank in a cycle")
    either = np.bitwise_or.reduce(lanes, axis=1)
    if np.bitwise_count(either).sum() != np.bitwise_count(lanes).sum():
        raise ValueError("a lane takes two words in a cycle")
    done = np.zeros(masks.size, dtype=np.uint64)
    np.bitwise_or.at(done, addresses[used], lanes[used])
    if not np.array_equal(done.reshape(masks.shape), masks):
        raise ValueError("a product is missing or was never asked for")
    if schedule.products != np.bitwise_count(masks).sum():
        raise ValueError("a product is done twice")
    complete = schedule.finished(masks.shape)
    allowed = np.concatenate([np.zeros(window, dtype=np.int64), complete])[:len(complete)]
    cycle, port = np.nonzero(used)
    group = addresses[cycle, port] // masks.shape[1]
    if np.any(allowed[group] > cycle):
        raise ValueError(f"more than {window} groups in flight")
    if opens is not None and np.any(opens[group] > cycle):
        raise ValueError("a group is used before it opens")
