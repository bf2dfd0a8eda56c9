"""When kernels and the input come: the memory port, the kernel buffer, the parameter memory.

The port gives ``rate`` beats a cycle in one order (`rtl.core`, `rtl.prefetch`): a burst or two of
kernels, the input, the other kernels, layer after layer. A beat without room waits on the port. The
array makes room for a row of weights when it takes the row ``kernel_depth`` before for the last
time, and likewise for selects; the store stage for the parameters of a kernel block when it is done
with the block `PARAM_BLOCKS` before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from math import ceil

from model.compile import CompiledLayer
from model.config import AcceleratorConfig
from model.descriptor import SELECT_BITS
from model.kernels import KernelBlock
from model.memories import PARAM_BLOCKS
from model.stream import chunk_entries

__all__ = ["Feed"]

#: Cycles from the start of a run to the first beat, besides the latency of the memory: the
#: sequencer has handed out the first descriptor.
FIRST_BEAT = 22
#: Cycles from the last beat of an entry to its step.
ENTRY = 8
#: Cycles from the last use of parameters or of a row to their room, seen at the port.
ROOM = 3


def first_beats(config: AcceleratorConfig, layers: Sequence[CompiledLayer]) -> int:
    """Beats of kernels that are read before the input: a burst, or two (`rtl.core.first_bursts`).

    A burst ends with the pass of a layer's kernels; that of a fully connected layer waits.
    """
    burst = 16 if config.port_bits == 64 else 64
    two = config.port_bits > 64 and config.feature_banks > 1 and config.kernel_depth >= 2 * burst
    passes = (layer.stream_beats for layer in layers[:2] if not layer.descriptor["dot"]
              for _ in range(layer.kernel_passes))
    bursts = (min(burst, beats - begin) for beats in passes for begin in range(0, beats, burst))
    return sum(islice(bursts, 2 if two else 1))


class _Ring:
    """Rows of a memory of the kernel buffer: taken as beats come, free when the array has passed.

    Parameters
    ----------
    depth : int
        Rows.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._taken, self._noted = 0.0, 0.0
        #: Rows passed for the last time and when, at the ends of blocks; between, evenly.
        self._passed: deque[tuple[float, float]] = deque([(0, 0.0)])

    def take(self, rows: float, end: float, each: float) -> float:
        """Cycle at which so many more rows are there.

        ``end`` if nothing was waited for; the port needs ``each`` cycles for a row.
        """
        self._taken += rows
        target, passed = self._taken - self._depth, self._passed
        while len(passed) > 1 and passed[1][0] <= target:
            row, time = passed[1]
            end = max(end, time + ROOM + (target - row) * each)
            passed.popleft()
        if passed[0][0] < target and len(passed) > 1:
            (row, time), (after, later) = passed[0], passed[1]
            end = max(end, time + (later - time) * (target - row) / (after - row) + ROOM)
        return end

    def passes(self, rows: float, start: float, end: float) -> None:
        """Note that the array passes so many rows between two cycles for the last time."""
        self._passed.append((self._noted, start))
        self._noted += rows
        self._passed.append((self._noted, end))

    def beyond(self, rows: float) -> float:
        """Rows that do not fit beside each other."""
        return max(0.0, rows - self._depth)


class Feed:
    """Arrival of the kernel blocks, in stream order, and of the rows of the input.

    Parameters
    ----------
    config : AcceleratorConfig
        Port and buffers.
    layers : sequence of CompiledLayer
        Their kernels.
    input_rows : int
        Rows of the feature memory that the input takes.
    rate : float
        Beats a cycle.
    latency : int
        Cycles of the memory.
    """

    def __init__(self, config: AcceleratorConfig, layers: Sequence[CompiledLayer],
                 input_rows: int, rate: float, latency: int) -> None:
        self._config, self._rate = config, rate
        self._latency = latency
        self._now: float = FIRST_BEAT + latency
        self._before = first_beats(config, layers)  # kernel beats left that come before the input
        self._behind = False                    # the input has been read
        self._row = config.map_row_beats / rate
        self._input: float = self._now + self._before / rate
        self._input_beats = config.map_row_beats * input_rows
        self._slow_from, self._slow = 0.0, 1.0
        #: Cycle at which the input has come.
        self.input_end = self._input + self._input_beats / rate
        self._weights, self._selects = _Ring(config.kernel_depth), _Ring(config.select_depth)
        self._per_beat = 0                      # entries whose selects share a beat
        self._late = 0.0                        # cycles of the port after the first step
        self._stored: deque[float] = deque([0.0] * PARAM_BLOCKS)

    def next_input(self, asked: float) -> None:
        """Read the input of another image, behind the kernels of the one before."""
        self._now = max(self._now, asked + self._latency)
        self._input, self._slow_from, self._slow = self._now, 0.0, 1.0
        self.input_end = self._now = self._now + self._input_beats / self._rate

    def input_at(self, rows: int) -> float:
        """Cycle at which so many rows of the input are in the feature memory."""
        plain = self._input + rows * self._row
        return plain + max(0.0, plain - self._slow_from) * (self._slow - 1)

    def share(self, start: float, busy: float) -> None:
        """From ``start`` on the writers of layer 0 hold the input off for a share of the cycles.

        A row takes one write of every bank, or two with one bank and a port of 64 bits.
        """
        config = self._config
        writes = 1.0 if config.feature_banks == 1 else 1 / config.map_row_beats
        need = writes * self._rate              # of the write ports' cycles
        free = max(1 - busy, 0.01)
        if need > free and self.input_end > start:
            before = self.input_end
            self._slow_from, self._slow = start, need / free
            self.input_end = before + (before - start) * (self._slow - 1)
            if self._behind:
                self._now += self.input_end - before

    def layer(self, layer: CompiledLayer) -> None:
        """Look at another layer, whose selects have another format."""
        bits = SELECT_BITS[layer.descriptor["select_code"]]
        self._per_beat = chunk_entries(self._config, bits)

    def _send(self, beats: int) -> None:
        early = min(beats, self._before)
        self._before -= early
        self._now += early / self._rate
        if beats > early:
            if not self._behind:
                self._behind, self._now = True, max(self._now, self.input_end)
            self._now += (beats - early) / self._rate

    def block(self, block: KernelBlock) -> tuple[float, float]:
        """Cycle of the last entry of the next block; cycles of the port after its first step.

        The second is not 0 for a block that the buffer cannot hold: what is left of it comes when
        the array has begun to take its entries.
        """
        self._now = max(self._now, self._stored.popleft() + ROOM)
        self._send(block.beats)
        each = (block.beats - block.head) / block.entries / self._rate
        end = self._weights.take(block.entries, self._now, each)
        self._late = self._weights.beyond(block.entries) * each
        if per_beat := self._per_beat:
            rows = ceil(block.entries / per_beat)
            end = self._selects.take(rows, end, each * per_beat)
            self._late = max(self._late, self._selects.beyond(rows) * per_beat * each)
        self._now = end
        return end + ENTRY, self._late

    def used(self, block: KernelBlock, start: float, end: float) -> None:
        """Note the last pass of a block through the array."""
        self._weights.passes(block.entries, start, end)
        rows = ceil(block.entries / self._per_beat) if self._per_beat else 0
        self._selects.passes(rows, start, end)
        if self._late:
            self._now = max(self._now, start + self._late)

    def stored(self, end: float) -> None:
        """Note that the store stage is done with a kernel block."""
        self._stored.append(end)
