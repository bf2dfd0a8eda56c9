"""Entries of irregular kernels for a lane that has an accumulator for every frequency.

All frequencies of a kernel block are in flight and its products come in any order; the sums leave
after its last step, a frequency every ``drain_interval`` cycles, while the next block is on. So a
block may use frequency f from its step f * ``drain_interval`` on (`rtl.readout`), which costs
little, because the block can still even out everything until its end.

An entry presents one word of each bank: ``addresses`` holds, for each bank, the place of its word
in the block's ring, ``(channel // 8) * 32 + frequency``; ``selects`` the bank of each lane. An idle
lane has a zero weight, an unused bank address 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.access import LANES, Ports, Schedule, check, pack_lanes, unpack_lanes
from model.config import BANK_ADDRESS_BITS, AcceleratorConfig
from model.cover import cover

__all__ = ["MOST_CHANNELS", "opens", "schedule_block", "window_entries"]

#: Channels an address reaches.
MOST_CHANNELS = (1 << BANK_ADDRESS_BITS) // 32 * 8


def opens(config: AcceleratorConfig) -> NDArray[np.int64]:
    """First step of a block in which each frequency may be used, shape (words,)."""
    return np.arange(config.words) * config.drain_interval


def schedule_block(kept: NDArray[np.bool_], config: AcceleratorConfig) -> Schedule:
    """Schedule the words (lanes, C, F) of a kernel block; checked.

    Its addresses are ``frequency * C + channel``.
    """
    masks = pack_lanes(kept)
    ports = Ports(config.banks, config.banks)
    banks = ports.bank_of((masks.shape[0], masks.shape[1]), True)
    schedule = cover(masks, ports, len(masks), "completing", banks, opens=opens(config))
    check(schedule, masks, ports, len(masks), banks, opens(config))
    return schedule


def window_entries(
    part: NDArray[np.int64], config: AcceleratorConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Entries of one kernel block.

    Parameters
    ----------
    part : int array, (lanes, C, F, 2)
        Weights, real and imaginary part.
    config : AcceleratorConfig
        Banks and the pace of the drain.

    Returns
    -------
    tuple of int arrays
        Weights (E, lanes, 2), selects (E, lanes) and addresses (E, banks); an entry per frequency
        at least, as in every other convolution: `rtl.core.first_bursts` counts on it. That costs
        nothing, because the sums of the block before take longer to leave.
    """
    lanes, channels = part.shape[:2]
    schedule = schedule_block(np.asarray(part.any(axis=-1)), config)
    used = schedule.addresses >= 0
    frequency, channel = np.divmod(np.where(used, schedule.addresses, 0), channels)
    bank = (channel + frequency) % config.banks
    entries = max(config.words, schedule.cycles)
    addresses = np.zeros((entries, config.banks), dtype=np.int64)
    cycle, port = np.nonzero(used)
    addresses[cycle, bank[cycle, port]] = (
        channel[cycle, port] // config.banks * config.words + frequency[cycle, port]
    )
    takes = unpack_lanes(schedule.lanes.reshape(-1)).reshape(*used.shape, LANES)[..., :lanes]
    weights = np.zeros((entries, lanes, 2), dtype=np.int64)
    selects = np.zeros((entries, lanes), dtype=np.int64)
    cycle, port, lane = np.nonzero(takes)
    weights[cycle, lane] = part[lane, channel[cycle, port], frequency[cycle, port]]
    selects[cycle, lane] = bank[cycle, port]
    return weights, selects, addresses
