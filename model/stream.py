"""The kernel stream of one layer: packing and unpacking (docs/program-image.md).

Beats are 64 bits, little endian. A block is the entries of one block of N' kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from model.config import AcceleratorConfig
from model.descriptor import SELECT_BITS
from model.fixed import check_range

__all__ = ["StreamBlock", "pack_layer", "unpack_layer", "COUNT_BITS"]

COUNT_BITS = 24
BIAS_BITS = 18
MULTIPLIER_BITS = 14


class StreamBlock(TypedDict):
    """One kernel block.

    ``params`` (N', 2): bias and multiplier per lane. ``weights`` (E, N', 2): real and imaginary
    part per entry and lane. ``selects`` (E, N').
    """

    params: NDArray[np.int64]
    weights: NDArray[np.int64]
    selects: NDArray[np.int64]


def _row_beats(config: AcceleratorConfig, lanes: int) -> int:
    return ceil(lanes * 2 * config.weight_bits / config.port_bits)


def pack_layer(
    config: AcceleratorConfig, blocks: Sequence[StreamBlock], select_bits: int, lanes_last: int
) -> NDArray[np.uint64]:
    """Pack the blocks of a layer; the last one stores only the beats of ``lanes_last`` lanes."""
    if select_bits not in SELECT_BITS:
        raise ValueError(f"select_bits must be one of {SELECT_BITS}, not {select_bits!r}")
    if not 1 <= lanes_last <= config.kernel_lanes:
        raise ValueError(f"lanes_last must be 1..{config.kernel_lanes}, not {lanes_last!r}")
    parts = []
    for index, block in enumerate(blocks):
        lanes = lanes_last if index == len(blocks) - 1 else config.kernel_lanes
        parts.append(_pack_block(config, block, select_bits, _row_beats(config, lanes)))
    return np.concatenate(parts)


def _pack_block(
    config: AcceleratorConfig, block: StreamBlock, select_bits: int, row_beats: int
) -> NDArray[np.uint64]:
    count = len(block["weights"])
    if not 0 < count < 1 << COUNT_BITS:
        raise ValueError(f"a block has 1..{(1 << COUNT_BITS) - 1} entries, not {count}")
    params = _pack_params(block["params"])
    weights = check_range(block["weights"], config.weight_bits, "weight")
    dtype = "<i1" if config.weight_bits == 8 else "<i2"
    rows = np.ascontiguousarray(weights.reshape(count, -1).astype(dtype)).view("<u8")
    rows = rows[:, :row_beats]
    header = np.array([count], dtype="<u8")
    if select_bits == 0:
        return np.concatenate([header, params, rows.reshape(-1)])
    selects = check_range(block["selects"], select_bits, "select", signed=False)
    per_chunk = config.port_bits // (config.kernel_lanes * select_bits)
    padded = np.zeros((ceil(count / per_chunk) * per_chunk, config.kernel_lanes), dtype=np.uint64)
    padded[:count] = selects
    shifts = np.arange(per_chunk * config.kernel_lanes, dtype=np.uint64) * np.uint64(select_bits)
    beats = (padded.reshape(-1, len(shifts)) << shifts).sum(axis=1, dtype=np.uint64)
    body: list[NDArray[np.uint64]] = []
    for chunk, beat in enumerate(beats):
        body.append(np.array([beat], dtype="<u8"))
        body.append(rows[chunk * per_chunk:(chunk + 1) * per_chunk].reshape(-1))
    return np.concatenate([header, params, *body])


def _pack_params(params: NDArray[np.int64]) -> NDArray[np.uint64]:
    bias = check_range(params[:, 0], BIAS_BITS, "bias")
    multiplier = check_range(params[:, 1], MULTIPLIER_BITS, "multiplier", signed=False)
    words = (bias & (1 << BIAS_BITS) - 1) | multiplier << BIAS_BITS
    return np.ascontiguousarray(words.astype("<u4")).view("<u8")


def unpack_layer(
    config: AcceleratorConfig, stream: NDArray[np.uint64], blocks: int, select_bits: int,
    lanes_last: int,
) -> list[StreamBlock]:
    """Inverse of `pack_layer`; weights of lanes that are not stored come back as zero."""
    position, out = 0, []
    for index in range(blocks):
        lanes = lanes_last if index == blocks - 1 else config.kernel_lanes
        row_beats = _row_beats(config, lanes)
        count = int(stream[position])
        position += 1
        words = np.ascontiguousarray(stream[position:position + config.kernel_lanes // 2])
        position += config.kernel_lanes // 2
        halves = words.view("<u4").astype(np.int64)
        bias = (halves & (1 << BIAS_BITS) - 1 ^ 1 << BIAS_BITS - 1) - (1 << BIAS_BITS - 1)
        rows = np.zeros((count, config.row_beats), dtype="<u8")
        selects = np.zeros((count, config.kernel_lanes), dtype=np.int64)
        per_chunk = config.port_bits // (config.kernel_lanes * select_bits) if select_bits else 1
        for entry in range(count):
            if select_bits and entry % per_chunk == 0:
                beat = int(stream[position])
                position += 1
            rows[entry, :row_beats] = stream[position:position + row_beats]
            position += row_beats
            for lane in range(config.kernel_lanes if select_bits else 0):
                place = (entry % per_chunk * config.kernel_lanes + lane) * select_bits
                selects[entry, lane] = beat >> place & (1 << select_bits) - 1
        dtype = "<i1" if config.weight_bits == 8 else "<i2"
        weights = rows.view(dtype).reshape(count, config.kernel_lanes, 2).astype(np.int64)
        out.append(StreamBlock(
            params=np.stack([bias, halves >> BIAS_BITS], axis=1), weights=weights, selects=selects
        ))
    if position != len(stream):
        raise ValueError(f"the stream has {len(stream)} beats, its blocks take {position}")
    return out
