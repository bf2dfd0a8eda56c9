"""Cycles that the units of a core take for a tile block of a layer and all kernel blocks."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from model.config import AcceleratorConfig

__all__ = ["DOT_BLOCK", "load_cycles", "mac_cycles", "row_writes", "store_cycles"]

#: Cycles of the store stage per kernel block of a dot layer, besides one per kernel.
DOT_BLOCK = 6


def mac_cycles(config: AcceleratorConfig, fields: Mapping[str, int], steps: int) -> int:
    """Count cycles of the array: ``steps``, and what the drain needs for every frequency."""
    frequencies = fields["kernel_blocks"] * (1 if fields["dot"] else config.words)
    return max(steps, frequencies * config.kernel_lanes // config.drained)


def row_writes(config: AcceleratorConfig, fields: Mapping[str, int]) -> int:
    """Count cycles in which a kernel's tile is written: a row, or two if not pooled, each."""
    return fields["out_step"] // (1 if fields["pool"] else config.inverse_rows)


def store_cycles(config: AcceleratorConfig, fields: Mapping[str, int]) -> float:
    """Count cycles of the inverse FFT, of the writers, and of Post with one feature bank."""
    step, segments = fields["out_step"], row_writes(config, fields) * config.tile_lanes
    if config.feature_banks == 1:
        if fields["dot"]:
            return fields["kernels"] + DOT_BLOCK * fields["kernel_blocks"]
        return fields["kernels"] * max(8, segments, step**2)
    kernels = (fields["kernel_blocks"] - 1) * config.kernel_lanes + fields["lanes_last"]
    return kernels * max(8 / config.inverse_rows, segments / config.feature_banks)


def load_cycles(config: AcceleratorConfig, fields: Mapping[str, int]) -> int:
    """Count cycles of the loader."""
    if fields["dot"]:
        return fields["groups"]
    steps = max(config.tile_lanes, config.feature_banks)
    return 4 * steps * ceil(fields["channels"] / config.feature_banks)
