"""Residency: how many tile blocks of a layer stay in the tile ring while its kernels pass.

The tile blocks of a layer are taken in groups of ``resident``. For each group the kernel blocks
pass, each replayed for every tile block of the group, so the kernel stream is read once per group
(FPGA 2020, "Reuse Kernels or Activations?": between reuse of activations, groups of one, and reuse
of kernels, one group). A larger group reads fewer kernels, but leaves less of the ring to load the
next group while this one is multiplied.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Demand", "choose", "groups", "kernel_passes", "timeline"]


@dataclass(frozen=True)
class Demand:
    """What a layer asks of the core, in blocks.

    Attributes
    ----------
    tile_blocks, kernel_blocks : int
        Blocks of P' tiles and of N' kernels.
    room : int
        Tile blocks the ring holds.
    replayable : bool
        A kernel block fits the kernel buffer, so that it can be replayed.
    load : int
        Cycles to load a tile block.
    compute : int
        Cycles of the array or of the store stage, whichever is slower, for a tile block and a
        kernel block.
    stream_beats : int
        Beats of the kernel stream.
    """

    tile_blocks: int
    kernel_blocks: int
    room: int
    replayable: bool
    load: int
    compute: int
    stream_beats: int


def groups(tile_blocks: int, resident: int) -> list[range]:
    """Tile blocks of each group."""
    return [range(first, min(first + resident, tile_blocks))
            for first in range(0, tile_blocks, resident)]


def kernel_passes(tile_blocks: int, resident: int) -> int:
    """How many times the kernel stream is read."""
    return -(-tile_blocks // resident)


@functools.lru_cache(maxsize=4096)      # a search asks for many configs that differ elsewhere
def timeline(demand: Demand, resident: int) -> int:
    """Cycles from the first load to the last block, if kernels are always there.

    Tile blocks are loaded one after the other as soon as the ring has room; one gives its room
    back after its last kernel block.
    """
    loaded: list[int] = []
    freed: list[int] = []
    now = 0
    for group in groups(demand.tile_blocks, resident):
        for kernel_block in range(demand.kernel_blocks):
            for block in group:
                if kernel_block == 0:
                    room_at = freed[block - demand.room] if block >= demand.room else 0
                    before = loaded[-1] if loaded else 0
                    loaded.append(max(before, room_at) + demand.load)
                    now = max(now, loaded[-1])
                now += demand.compute
                if kernel_block == demand.kernel_blocks - 1:
                    freed.append(now)
    return now


def _candidates(demand: Demand) -> Iterator[int]:
    """For each number of passes the smallest group that needs no more of them."""
    passes = 0
    for resident in range(min(demand.room, demand.tile_blocks), 0, -1):
        if kernel_passes(demand.tile_blocks, resident) != passes:
            passes = kernel_passes(demand.tile_blocks, resident)
            yield -(-demand.tile_blocks // passes)


def choose(demand: Demand) -> int:
    """Tile blocks per group: all if they fit, so that the kernels are read once.

    Else as many as take the fewest cycles, and then the fewest reads of the kernel stream. Cycles
    are those of the slower of `timeline` and the memory port, which takes a beat per cycle: a
    layer bound by the port has its kernels read as few times as the ring allows, and no layer gets
    slower for the sake of fewer reads.
    """
    if not demand.replayable:
        return 1
    # With one kernel block a tile block is used once, and its room is free after that.
    if demand.kernel_blocks == 1 or demand.tile_blocks <= demand.room:
        return demand.tile_blocks

    def cost(resident: int) -> tuple[int, int]:
        passes = kernel_passes(demand.tile_blocks, resident)
        return max(timeline(demand, resident), passes * demand.stream_beats), passes

    return min(_candidates(demand), key=cost)
