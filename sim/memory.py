"""Memory behind the core's port: latency, stalls, bandwidth gaps and bus errors.

`MemoryModel` is the Python twin of the model in ``harness.cpp``: the same options give the same
cycle count on both backends.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MemoryOptions", "MemoryModel", "channel_seeds"]

_MASK32 = (1 << 32) - 1


@dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """How the memory answers.

    Parameters
    ----------
    latency : int
        Cycles from an accepted read request to its first beat, at least 1.
    stall : float
        Probability, per cycle and channel (ar, r, w), of not being ready or valid; below 1.
    seed : int
        Seed of the stalls.
    gap : int
        Idle cycles after every read beat (0: full bandwidth).
    error_beat : int or None
        Number (from 0, counted from reset) of the read beat answered with a bus error.
    outstanding : int
        Read requests held before ``ar`` stops.
    """

    latency: int = 8
    stall: float = 0.0
    seed: int = 1
    gap: int = 0
    error_beat: int | None = None
    outstanding: int = 8

    def __post_init__(self) -> None:
        """Refuse what the model cannot do."""
        if self.latency < 1:
            raise ValueError(f"latency must be at least 1, not {self.latency!r}")
        if not 0 <= self.stall < 1:
            raise ValueError(f"stall must be at least 0 and below 1, not {self.stall!r}")
        if self.gap < 0:
            raise ValueError(f"gap must not be negative, not {self.gap!r}")
        if self.outstanding < 1:
            raise ValueError(f"outstanding must be at least 1, not {self.outstanding!r}")
        if self.error_beat is not None and self.error_beat < 0:
            raise ValueError(f"error_beat must not be negative, not {self.error_beat!r}")

    @property
    def threshold(self) -> int:
        """A 32-bit random number below this stalls a channel."""
        return int(self.stall * (1 << 32))


def channel_seeds(seed: int) -> tuple[int, int, int]:
    """Non-zero xorshift states of the channels ar, r and w."""
    states = np.random.SeedSequence(seed & _MASK32).generate_state(3)
    return int(states[0]) | 1, int(states[1]) | 1, int(states[2]) | 1


class MemoryModel:
    """State of the memory; `step` is called once per cycle with what the core drives.

    Attributes
    ----------
    data : uint64 array
        The memory, one element per 64-bit word; ``port_bits`` / 64 of them are a beat.
    ar_ready, r_valid, r_payload, w_ready : int
        What the memory drives in the present cycle.
    faults : int
        Accesses outside the memory (reads of these answer with a bus error).
    """

    def __init__(self, data: NDArray[np.uint64], options: MemoryOptions,
                 port_bits: int = 64) -> None:
        self.data = data
        self._bits, self._words = port_bits, port_bits // 64
        self._size = len(data) // self._words           # beats
        self.ar_ready = self.r_valid = self.r_payload = self.w_ready = 0
        self.faults = 0
        self._options = options
        self._random = list(channel_seeds(options.seed))
        self._cycle = 0
        self._requests: deque[list[int]] = deque()      # [address, beats left, due cycle]
        self._gap = 0
        self._beats = 0

    def _stall(self, channel: int) -> bool:
        if self._options.threshold == 0:
            return False
        state = self._random[channel]
        state ^= state << 13 & _MASK32
        state ^= state >> 17
        state ^= state << 5 & _MASK32
        self._random[channel] = state
        return state < self._options.threshold

    def step(self, ar_valid: int, ar_payload: int, r_ready: int, w_valid: int,
             w_payload: int) -> None:
        """Take the transfers of this cycle and decide what to drive in the next."""
        options = self._options
        if ar_valid and self.ar_ready:
            beats = (ar_payload >> 32) + 1
            self._requests.append([ar_payload & _MASK32, beats, self._cycle + options.latency])
        if self.r_valid and r_ready:
            self.r_valid, self._gap = 0, options.gap
        if w_valid and self.w_ready:
            address = w_payload & _MASK32
            if address < self._size:
                beat = (w_payload >> 32).to_bytes(8 * self._words, "little")
                self.data[self._place(address)] = np.frombuffer(beat, dtype="<u8")
            else:
                self.faults += 1
        self._cycle += 1
        stall_ar, stall_r, stall_w = (self._stall(channel) for channel in range(3))
        self.ar_ready = int(not stall_ar and len(self._requests) < options.outstanding)
        self.w_ready = int(not stall_w)
        if self.r_valid:
            return
        if self._gap:
            self._gap -= 1
        elif self._requests and self._requests[0][2] <= self._cycle and not stall_r:
            self._present()

    def _place(self, address: int) -> slice:
        return slice(self._words * address, self._words * (address + 1))

    def _present(self) -> None:
        request = self._requests[0]
        beat, error = 0, self._beats == self._options.error_beat
        if request[0] < self._size:
            beat = int.from_bytes(self.data[self._place(request[0])].tobytes(), "little")
        else:
            error = True
            self.faults += 1
        self._beats += 1
        request[0] += 1
        request[1] -= 1
        last = request[1] == 0
        if last:
            self._requests.popleft()
        self.r_payload = beat | last << self._bits | error << self._bits + 1
        self.r_valid = 1
