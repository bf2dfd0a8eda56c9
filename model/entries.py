"""Kernel-stream entries of a layer: what each kernel lane selects and multiplies, step by step.

Addressing modes (docs/program-image.md). Implicit, for ``channel n:m``: the issue unit walks
frequencies and groups of r channels by itself and an entry holds a select within the group.
Scatter, for irregular patterns: the select names the channel, `model.schedule` orders the entries.
With a window (`AcceleratorConfig.window`) scatter entries have an address per bank and come in the
order of `model.windowed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

from model.config import AcceleratorConfig
from model.descriptor import SELECT_BITS, WINDOW_CODE
from model.errors import UserError
from model.lower import LoweredLayer
from model.patterns import ChannelPattern, parse
from model.schedule import schedule
from model.stream import select_codes
from model.windowed import MOST_CHANNELS, window_entries

__all__ = ["Addressing", "Block", "addressing", "blocks"]

SCATTER_GROUPS = 16
LAST_FLAG = 0x80


@dataclass(frozen=True)
class Addressing:
    """How the issue unit walks a layer; field names as in `model.descriptor`."""

    scatter: bool
    entries: int
    entries_last: int
    sub_log2: int
    hold: int
    select_code: int
    spread: int

    @property
    def select_bits(self) -> int:
        """Bits of select per lane and entry."""
        return SELECT_BITS[self.select_code]

    @property
    def row(self) -> int:
        """Channels, or words of a dot layer, that a step reads: 8 of every tile lane's own."""
        return 8 << self.spread


@dataclass(frozen=True)
class Block:
    """Entries of one kernel block: weights (E, lanes, 2), selects (E, lanes), array steps.

    ``cycles`` are those of the steps and of the waits for the drain, which takes the sums of a
    frequency, or with a window of a block, no faster than `AcceleratorConfig.drain_interval`.
    ``addresses`` (E, banks) come with the entries for a window.
    """

    weights: NDArray[np.int64]
    selects: NDArray[np.int64]
    steps: int
    cycles: int
    addresses: NDArray[np.int64] | None = None


def _words(layer: LoweredLayer) -> NDArray[np.int64]:
    """Weights as (N, C, F, 2) words; a dot layer's words are pairs of inputs, F = 1."""
    if not layer.dot:
        return layer.weight
    padded = np.pad(layer.weight, ((0, 0), (0, layer.weight.shape[1] % 2)))
    return padded.reshape(len(padded), -1, 1, 2)


def addressing(layer: LoweredLayer, config: AcceleratorConfig, batch: int = 1) -> Addressing:
    """Choose the mode for a layer's pattern.

    A tile lane has the input of one image of a ``batch``, or rows of the only one.
    """
    pattern = parse(layer.pattern)
    banks = config.banks
    channels = -(-layer.weight.shape[1] // 2) if layer.dot else layer.weight.shape[1]
    if isinstance(pattern, ChannelPattern):
        n, m = pattern.n, pattern.m
        power = m & (m - 1) == 0
        if power and (n == 1 or m >= banks):
            rows = max(1, m // banks)
            shared = layer.dot and batch == 1
            spread = min(config.spread, int(log2(rows))) if shared else 0
            per_group = n if m >= banks else banks // m
            group = max(m, banks)
            rest = channels - (ceil(channels / group) - 1) * group
            last = min(n, rest) if m >= banks else ceil(rest / m)
            bits = int(log2(m))
            wide = {code: width for code, width in select_codes(config).items()
                    if width >= bits and code != WINDOW_CODE}
            if not wide:
                raise UserError(f"layer {layer.name}: pattern {pattern} needs {bits} select bits")
            sub_log2 = min(bits, 3)
            return Addressing(False, per_group, last, sub_log2, rows >> spread,
                              min(wide, key=wide.__getitem__), spread)
    windowed = config.window > 1
    if layer.dot or channels > (MOST_CHANNELS if windowed else banks * SCATTER_GROUPS):
        raise UserError(
            f"layer {layer.name}: pattern {pattern} over {channels} words cannot be scheduled; use "
            "channel 1:m with m a power of two"
        )
    return Addressing(True, 0, 0, 3, 1, WINDOW_CODE if windowed else SELECT_BITS.index(8), 0)


def blocks(layer: LoweredLayer, config: AcceleratorConfig, how: Addressing) -> list[Block]:
    """Entries of every kernel block of a layer, in stream order.

    A layer whose weights are a shape only must be addressed implicitly; so are its entries.
    """
    lanes = config.kernel_lanes
    if layer.outline:
        return _outlines(layer, config, how)
    words = _words(layer)
    out = []
    for start in range(0, len(words), lanes):
        part = words[start:start + lanes]
        part = np.pad(part, ((0, lanes - len(part)), (0, 0), (0, 0), (0, 0)))
        if how.select_code == WINDOW_CODE:
            weights, selects, addresses = window_entries(part, config)
            out.append(Block(weights, selects, len(weights),
                             _cycles(config, [len(weights)], config.words), addresses))
        else:
            out.append(_scatter(part, config) if how.scatter
                       else _implicit(part, config, how, layer))
    return out


def _implicit(
    part: NDArray[np.int64], config: AcceleratorConfig, how: Addressing, layer: LoweredLayer
) -> Block:
    lanes, channels, frequencies, _ = part.shape
    span = how.row * how.hold                       # channels of an address group
    groups = ceil(channels / span)
    sub = 1 << how.sub_log2 if how.sub_log2 < 3 else span
    kept = how.entries if sub == span else 1        # entries that share a sub-group
    padded = np.pad(part, ((0, 0), (0, groups * span - channels), (0, 0), (0, 0)))
    padded = padded.reshape(lanes, groups, span // sub, sub, frequencies, 2)
    nonzero = padded.any(axis=-1)
    counts = nonzero.sum(axis=3)
    if (counts > kept).any():
        _, _, _, f = spot = tuple(np.argwhere(counts > kept)[0])
        raise UserError(
            f"layer {layer.name}: {counts[spot]} weights in a group of {sub} channels at "
            f"frequency {f} violate pattern {layer.pattern}"
        )
    # The non-zero channels of a sub-group first, in order; the rest of the entries is idle.
    order = np.argsort(~nonzero, axis=3, kind="stable")[:, :, :, :kept]
    present = np.take_along_axis(nonzero, order, axis=3)
    chosen = np.take_along_axis(padded, order[..., None], axis=3) * present[..., None]
    # Axes to frequency, group, entry, lane.
    selects = np.moveaxis(order * present, (4, 1, 2, 3), (0, 1, 2, 3))
    weights = np.moveaxis(chosen, (4, 1, 2, 3), (0, 1, 2, 3))
    selects = selects.reshape(frequencies, groups * how.entries, lanes)
    weights = weights.reshape(frequencies, groups * how.entries, lanes, 2)
    used, steps = _walk(channels, how)
    return Block(
        weights[:, :used].reshape(-1, lanes, 2), selects[:, :used].reshape(-1, lanes),
        steps * frequencies, _cycles(config, [steps] * frequencies),
    )


def _cycles(config: AcceleratorConfig, steps: list[int], frequencies: int = 1) -> int:
    """Cycles of the array for ``steps`` after each of which so many frequencies are drained."""
    return sum(max(count, frequencies * config.drain_interval) for count in steps)


def _walk(channels: int, how: Addressing) -> tuple[int, int]:
    """Entries and steps of the implicit walk over the channels, at one frequency."""
    groups = ceil(channels / (how.row * how.hold))
    last_rows = ceil(channels / how.row) - (groups - 1) * how.hold
    return ((groups - 1) * how.entries + how.entries_last,
            (groups - 1) * how.entries * how.hold + how.entries_last * last_rows)


def _outlines(layer: LoweredLayer, config: AcceleratorConfig, how: Addressing) -> list[Block]:
    """Blocks of a layer whose weights are a shape only: arrays without values."""
    if how.scatter:
        raise UserError(f"layer {layer.name}: the steps of pattern {layer.pattern} depend on the "
                        "weights; choose channel n:m with m a power of two")
    lanes = config.kernel_lanes
    frequencies = 1 if layer.dot else layer.weight.shape[2]
    channels = -(-layer.weight.shape[1] // 2) if layer.dot else layer.weight.shape[1]
    used, steps = _walk(channels, how)
    entries = np.broadcast_to(np.int64(0), (used * frequencies, lanes, 2))
    block = Block(entries, entries[..., 0], steps * frequencies,
                  _cycles(config, [steps] * frequencies))
    return [block] * ceil(len(layer.weight) / lanes)


def _scatter(part: NDArray[np.int64], config: AcceleratorConfig) -> Block:
    lanes, _, frequencies, _ = part.shape
    weights, selects, taken_each = [], [], []
    for f in range(frequencies):
        needs = [np.flatnonzero(part[lane, :, f].any(axis=-1)).tolist() for lane in range(lanes)]
        steps = schedule(needs, config.banks) or [[None] * lanes]
        taken_each.append(len(steps))
        for index, taken in enumerate(steps):
            idle = next((channel for channel in taken if channel is not None), 0)
            channels = [idle if channel is None else channel for channel in taken]
            weight = np.zeros((lanes, 2), dtype=np.int64)
            for lane, channel in enumerate(taken):
                if channel is not None:
                    weight[lane] = part[lane, channel, f]
            select = np.array([c % config.banks | c // config.banks << 3 for c in channels])
            if index == len(steps) - 1:
                select[0] |= LAST_FLAG
            weights.append(weight)
            selects.append(select)
    return Block(np.array(weights), np.array(selects), len(weights), _cycles(config, taken_each))
