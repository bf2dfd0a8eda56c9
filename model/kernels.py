"""What the kernel blocks of a layer ask of the core, for `model.cost`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.config import AcceleratorConfig
from model.entries import Block
from model.stream import param_beats, stream_beats

__all__ = ["KernelBlock", "kernel_blocks"]


@dataclass(frozen=True)
class KernelBlock:
    """A kernel block as the units between memory and array see it.

    Attributes
    ----------
    beats : int
        Beats of the kernel stream.
    head : int
        Those of them that come before the first entry.
    entries : int
        Entries, a row of the kernel buffer each.
    cycles : int
        Cycles of the array for a tile block, see `model.entries.Block`.
    """

    beats: int
    head: int
    entries: int
    cycles: int


def kernel_blocks(config: AcceleratorConfig, parts: Sequence[Block], select_bits: int,
                  lanes_last: int) -> tuple[KernelBlock, ...]:
    """Sizes of every kernel block; the last one has ``lanes_last`` kernels."""
    lanes = [config.kernel_lanes] * (len(parts) - 1) + [lanes_last]
    return tuple(
        KernelBlock(stream_beats(config, [len(part.weights)], select_bits, kernels),
                    1 + param_beats(config), len(part.weights), part.cycles)
        for part, kernels in zip(parts, lanes, strict=True)
    )
