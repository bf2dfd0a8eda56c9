"""Cycles that the units of a core take for a tile block of a layer and all kernel blocks."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from model.config import AcceleratorConfig
from model.descriptor import POOL_ADD, POOL_MAX

__all__ = ["DOT_BLOCK", "STRIP", "kernel_cycles", "load_cycles", "mac_cycles", "pool_cycles",
           "pool_windows", "row_writes", "store_cycles"]

#: Cycles of the store stage per kernel block of a dot layer, besides one per kernel and image.
DOT_BLOCK = 6

#: Cycles between the inputs of the images of a dot layer, with several feature banks.
IMAGE_GAP = 13
#: Cycles from the read of a batch's dot product until its entry of the queue behind the inverse FFT
#: is free again, and entries of that queue (`rtl.sums`).
DOT_ROUND, QUEUE = 41, 16


def mac_cycles(config: AcceleratorConfig, fields: Mapping[str, int], steps: int) -> int:
    """Count cycles of the array: ``steps``, and what the drain needs for every frequency."""
    frequencies = fields["kernel_blocks"] * (1 if fields["dot"] else config.words)
    return max(steps, frequencies * config.kernel_lanes // config.drained)


def row_writes(config: AcceleratorConfig, fields: Mapping[str, int]) -> int:
    """Count cycles in which a kernel's tile is written: a row, or two if not pooled, each."""
    return fields["out_step"] // (1 if fields["pool"] else config.inverse_rows)


def kernel_cycles(config: AcceleratorConfig, fields: Mapping[str, int]) -> float:
    """Count cycles of the store stage for a kernel and a tile block."""
    step, segments = fields["out_step"], row_writes(config, fields) * config.tile_lanes
    if fields["dot"]:
        alone = config.feature_banks == 1 or fields["tiles"] == 1
        return fields["tiles"] if alone else max(fields["tiles"], DOT_ROUND / QUEUE)
    if config.feature_banks == 1:
        return max(8, segments, step**2)
    return max(8 / config.inverse_rows, segments / config.feature_banks)


def store_cycles(config: AcceleratorConfig, fields: Mapping[str, int]) -> float:
    """Count cycles of the inverse FFT, of the writers, and of Post with one feature bank."""
    kernels = (fields["kernel_blocks"] - 1) * config.kernel_lanes + fields["lanes_last"]
    blocks = DOT_BLOCK * fields["kernel_blocks"] if fields["dot"] else 0
    return kernels * kernel_cycles(config, fields) + blocks


def load_cycles(config: AcceleratorConfig, fields: Mapping[str, int]) -> int:
    """Count cycles of the loader."""
    if fields["dot"]:
        images = fields["tiles"]
        if config.feature_banks == 1:
            return images * fields["groups"]
        if not fields["in_plane"]:
            return images * ceil(fields["channels"] / 8) + IMAGE_GAP * (images - 1)
        # Several banks: a map is read row by row, eight pixels at most a cycle.
        pixels = fields["in_height"] * fields["in_width"]
        rows = fields["in_height"] * ceil(fields["in_width"] / 8)
        return images * ceil(2 * fields["channels"] / pixels) * rows + IMAGE_GAP * (images - 1)
    steps = max(config.tile_lanes, config.feature_banks)
    return 4 * steps * ceil(fields["channels"] / config.feature_banks)


#: Columns by which strips of small maxima follow each other (`rtl.mappool`).
STRIP = 6
#: Cycles before the first and after the last step of the pooling of a map.
POOL_LATENCY = 20


def pool_windows(fields: Mapping[str, int]) -> int:
    """Windows of a finished map, or pixels of a sum, that are taken side by side."""
    small = fields["pool_size"] <= 3 and fields["pool_stride"] <= 3
    several = fields["pool_op"] in (POOL_MAX, POOL_ADD) and small
    return STRIP // fields["pool_stride"] if several else 1


def pool_cycles(config: AcceleratorConfig, fields: Mapping[str, int]) -> int:
    """Count cycles of the pooling of, or addition to, a finished map; 0 without."""
    if not fields["pool_op"]:
        return 0
    size, rows = fields["pool_size"], fields["pool_height"]
    windows = pool_windows(fields)
    if windows == STRIP // 2 and size == 3:
        steps = rows + 1
    elif fields["pool_op"] == POOL_ADD:
        steps = 2 * rows
    else:
        steps = rows * ceil(size / 2) * (2 if size > 8 else 1)
    kernels = (fields["kernel_blocks"] - 1) * config.kernel_lanes + fields["lanes_last"]
    channels = kernels // config.feature_banks
    return channels * ceil(fields["pool_width"] / windows) * steps + POOL_LATENCY
