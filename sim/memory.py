"""Memory behind the core's port: latency, bandwidth, gaps, random stalls, bus errors, silence.

`MemoryModel` is the Python twin of the model in ``harness.cpp``: the same options give the same
cycle count on both backends.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["BEAT", "MemoryOptions", "MemoryModel", "channel_seeds"]

_MASK32 = (1 << 32) - 1
#: Units of bandwidth that a beat takes.
BEAT = 1 << 16


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
    bandwidth : float
        Beats per cycle and direction, above 0 and at most 1. Unused bandwidth is lost.
    gaps : (int, int)
        Every so many cycles the memory does nothing for so many (the last ones of the period), as
        when it refreshes: it neither takes nor begins to give anything. A length of 0: no gaps.
    error_beat : int or None
        Number (from 0, counted from the start) of the read beat answered with a bus error.
    answer : int
        Cycles from a write to its acknowledgement, one per cycle; 0: at once, and none can fail.
    error_write : int or None
        Number of the write answered with a bus error (its data are stored).
    stop : int or None
        Transfers (of all channels and answers) after which the memory does nothing any more; it
        may be off by one or two, channels move in the same cycle.
    outstanding : int
        Read requests held before ``ar`` stops.
    """

    latency: int = 8
    stall: float = 0.0
    seed: int = 1
    bandwidth: float = 1.0
    gaps: tuple[int, int] = (1, 0)
    error_beat: int | None = None
    outstanding: int = 8
    answer: int = 0
    error_write: int | None = None
    stop: int | None = None

    def __post_init__(self) -> None:
        """Refuse what the model cannot do."""
        if self.latency < 1:
            raise ValueError(f"latency must be at least 1, not {self.latency!r}")
        if not 0 <= self.stall < 1:
            raise ValueError(f"stall must be at least 0 and below 1, not {self.stall!r}")
        if not 1 / BEAT <= self.bandwidth <= 1:
            raise ValueError("bandwidth must be above 0 (at least 1/65536) and at most 1 beat per "
                             f"cycle, not {self.bandwidth!r}")
        period, length = self.gaps
        if not 0 <= length < period <= _MASK32:
            raise ValueError("gaps must be shorter than their period, and that below 2**32, not "
                             f"{length!r} of every {period!r} cycles")
        if self.outstanding < 1:
            raise ValueError(f"outstanding must be at least 1, not {self.outstanding!r}")
        for name in ("error_beat", "error_write", "stop", "answer"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} must not be negative, not {value!r}")
        if self.error_write is not None and not self.answer:
            raise ValueError("error_write needs writes that are answered: set answer to 1 or more")

    @property
    def threshold(self) -> int:
        """A 32-bit random number below this stalls a channel."""
        return int(self.stall * (1 << 32))

    @property
    def average(self) -> float:
        """Beats a cycle that reads get at most, on average.

        After a gap a beat comes at once, however small the bandwidth.
        """
        period, length = self.gaps
        beats = int((period - length - 1) * self.bandwidth) + 1
        return min(self.bandwidth, beats / period) * (1 - self.stall)

    @property
    def rate(self) -> int:
        """Bandwidth per cycle, in units of 1/`BEAT` of a beat."""
        return round(self.bandwidth * BEAT)


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
    ar_ready, r_valid, r_payload, w_ready, w_busy, w_error : int
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
        self.w_busy = self.w_error = 0
        self.faults = 0
        self._options = options
        self._random = list(channel_seeds(options.seed))
        self._cycle = 0
        self._requests: deque[list[int]] = deque()      # [address, beats left, due cycle]
        self._tokens = [0, 0]       # bandwidth saved up: reads, writes
        self._beats = self._writes = self._transfers = 0
        self._answers: deque[tuple[int, int]] = deque()     # (due cycle, error)
        self._answering = False     # in the present cycle

    def inject(self, error_beat: int | None, error_write: int | None, stop: int | None) -> None:
        """Count errors and silence of the options from now on."""
        self._options = replace(
            self._options, error_beat=error_beat, error_write=error_write, stop=stop
        )
        self._beats = self._writes = self._transfers = 0

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
            self._transfers += 1
        if self.r_valid and r_ready:
            self.r_valid = 0
            self._transfers += 1
        if self._answering:
            self._answers.popleft()
            self._transfers += 1
        if w_valid and self.w_ready:
            self._tokens[1] -= BEAT
            self._transfers += 1
            if options.answer:
                error = int(self._writes == options.error_write)
                self._answers.append((self._cycle + options.answer, error))
            self._writes += 1
            address = w_payload & _MASK32
            if address < self._size:
                beat = (w_payload >> 32).to_bytes(8 * self._words, "little")
                self.data[self._place(address)] = np.frombuffer(beat, dtype="<u8")
            else:
                self.faults += 1
        self._cycle += 1
        # No more than the beat that is waiting and a fraction of the next is saved up.
        self._tokens = [min(tokens + options.rate, 2 * BEAT - 1) for tokens in self._tokens]
        period, length = options.gaps
        awake = self._cycle % period < period - length
        awake = awake and (options.stop is None or self._transfers < options.stop)
        stall_ar, stall_r, stall_w = (self._stall(channel) for channel in range(3))
        self.ar_ready = int(awake and not stall_ar and len(self._requests) < options.outstanding)
        self.w_ready = int(awake and not stall_w and self._tokens[1] >= BEAT)
        if (not self.r_valid and awake and not stall_r and self._tokens[0] >= BEAT
                and self._requests and self._requests[0][2] <= self._cycle):
            self._tokens[0] -= BEAT
            self._present()
        self.w_busy = int(bool(self._answers))
        self._answering = awake and self.w_busy == 1 and self._answers[0][0] <= self._cycle
        self.w_error = self._answers[0][1] if self._answering else 0

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
