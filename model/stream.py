"""Kernel stream of a layer: packed by the compiler, taken apart by `rtl.prefetch`.

For each kernel block a header, the parameters of its kernels and its entries in chunks, one beat
of selects before the weights of as many entries as it covers (docs/program-image.md). A stream is
an array of 64-bit words, ``config.port_words`` of them a beat of the memory port.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.config import BANK_ADDRESS_BITS, AcceleratorConfig
from model.descriptor import SELECT_BITS, SPREAD_CODE, WINDOW_CODE
from model.fixed import int_range

__all__ = ["ENTRY_BITS", "chunk_entries", "entry_bits", "lane_beats", "pack_layer", "param_beats",
           "select_beats", "select_codes", "stream_beats", "unpack_layer"]

#: Width of the number of entries in a block's header.
ENTRY_BITS = 24
BIAS_BITS = 18
MULTIPLIER_BITS = 14
#: Bits of the parameters of a kernel.
PARAM_BITS = 32


def select_codes(config: AcceleratorConfig) -> dict[int, int]:
    """Bits of select per lane by ``select_code``, of the formats the config has."""
    absent = {
        code for code, here in ((WINDOW_CODE, config.window > 1), (SPREAD_CODE, config.spread))
        if not here
    }
    return {code: bits for code, bits in enumerate(SELECT_BITS) if code not in absent}


def entry_bits(config: AcceleratorConfig, select_bits: int) -> int:
    """Bits of an entry besides its weights."""
    widths = tuple(select_codes(config).values())
    if select_bits not in widths:
        raise ValueError(f"select_bits must be one of {widths}, not {select_bits!r}")
    if select_bits == SELECT_BITS[WINDOW_CODE]:
        return config.window_select_bits
    return config.kernel_lanes * select_bits


def chunk_entries(config: AcceleratorConfig, select_bits: int) -> int:
    """Entries whose selects share a beat; 0 if there are no selects."""
    bits = entry_bits(config, select_bits)
    return config.port_bits // bits if bits else 0


def select_beats(config: AcceleratorConfig, entries: int, select_bits: int) -> int:
    """Rows of the select memory that the entries of a block take."""
    per_beat = chunk_entries(config, select_bits)
    return ceil(entries / per_beat) if per_beat else 0


def param_beats(config: AcceleratorConfig) -> int:
    """Beats of the parameters of a kernel block, 32 bits a kernel."""
    return config.kernel_lanes * PARAM_BITS // config.port_bits


def lane_beats(config: AcceleratorConfig, lanes: int) -> int:
    """Beats of an entry's weights for the first ``lanes`` kernel lanes."""
    if not 1 <= lanes <= config.kernel_lanes:
        raise ValueError(f"lanes must be 1 to {config.kernel_lanes}, not {lanes!r}")
    return ceil(lanes * 2 * config.weight_bits / config.port_bits)


def stream_beats(
    config: AcceleratorConfig, entries: Sequence[int], select_bits: int, lanes_last: int
) -> int:
    """Beats of a layer's stream: header, parameters, selects and weights of every kernel block.

    ``entries``: of each kernel block; the last has ``lanes_last`` kernels.
    """
    rows = [config.row_beats] * (len(entries) - 1) + [lane_beats(config, lanes_last)]
    return sum(1 + param_beats(config) + select_beats(config, count, select_bits) + count * row
               for count, row in zip(entries, rows, strict=True))


def pack_layer(
    config: AcceleratorConfig, blocks: Sequence[Mapping[str, Any]], select_bits: int,
    lanes_last: int,
) -> NDArray[np.uint64]:
    """Pack the stream of a layer.

    Parameters
    ----------
    config : AcceleratorConfig
        N' kernel lanes and the width of the weights.
    blocks : sequence of mappings
        Per kernel block ``params`` (N', 2): bias and multiplier; ``weights`` (E, N', 2): real and
        imaginary part; ``selects`` (E, N'); for a window ``addresses`` (E, r). Missing lanes of
        the last block are zero.
    select_bits : int
        Bits of a select, one of `model.descriptor.SELECT_BITS`.
    lanes_last : int
        Kernels of the last block.

    Returns
    -------
    uint64 array
        The 64-bit words of the beats; of the last block only those that hold weights of its
        kernels.

    Raises
    ------
    ValueError
        If an array has the wrong shape or a value does not fit its field.
    """
    if not blocks:
        raise ValueError("a layer has at least one kernel block")
    entry_bits(config, select_bits)     # refuses a format that the config does not have
    checked = [_checked(config, block, index, select_bits) for index, block in enumerate(blocks)]
    beats_last = lane_beats(config, lanes_last)
    if any(part[..., lanes_last:, :].any() for part in checked[-1][:2]):
        raise ValueError(f"the last block has values beyond its {lanes_last} lanes")
    parts = []
    for index, (params, weights, selects, addresses) in enumerate(checked):
        beats = beats_last if index == len(blocks) - 1 else config.row_beats
        header = np.zeros(config.port_words, dtype=np.uint64)
        header[0] = len(weights)
        parts += [
            header,
            _pack_params(params),
            _pack_entries(config, weights, selects, addresses, select_bits, beats),
        ]
    return np.concatenate(parts)


def unpack_layer(
    config: AcceleratorConfig, words: NDArray[np.uint64], select_bits: int, kernel_blocks: int,
    lanes_last: int,
) -> list[dict[str, NDArray[np.int64]]]:
    """Inverse of `pack_layer`; `ValueError` if the stream ends early or late."""
    beats = np.asarray(words, dtype=np.uint64).reshape(-1, config.port_words)
    row_beats = [config.row_beats] * (kernel_blocks - 1) + [lane_beats(config, lanes_last)]
    per_chunk = chunk_entries(config, select_bits)
    blocks, at = [], 0

    def take(count: int) -> NDArray[np.uint64]:
        nonlocal at
        if at + count > len(beats):
            raise ValueError(f"kernel stream of {len(beats)} beats ends before beat {at + count}")
        at += count
        return beats[at - count:at]

    for row in row_beats:
        entries = int(take(1)[0, 0])
        params = take(param_beats(config))
        chunks = select_beats(config, entries, select_bits)
        part = take(chunks + entries * row)
        if chunks:
            table = np.zeros((chunks, 1 + per_chunk * row, config.port_words), dtype=np.uint64)
            table.reshape(-1)[:part.size] = part.reshape(-1)
            selects, part = table[:, 0], table[:, 1:]
        else:
            selects = np.zeros((0, config.port_words), dtype=np.uint64)
        rows = part.reshape(-1, row * config.port_words)[:entries]
        blocks.append({
            "params": _unpack_params(params.reshape(-1)),
            "weights": _unpack_weights(config, rows),
            **(_unpack_window(config, selects, entries)
               if select_bits == SELECT_BITS[WINDOW_CODE] else
               {"selects": _unpack_selects(config, selects, entries, select_bits)}),
        })
    if at != len(beats):
        raise ValueError(f"kernel stream of {len(beats)} beats should end after {at}")
    return blocks


def _checked(
    config: AcceleratorConfig, block: Mapping[str, Any], index: int, select_bits: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    lanes = config.kernel_lanes
    params, weights, selects = (
        np.asarray(block[name], dtype=np.int64) for name in ("params", "weights", "selects")
    )
    addresses = np.zeros((len(weights), config.banks), dtype=np.int64)
    if select_bits == SELECT_BITS[WINDOW_CODE]:
        addresses = np.asarray(block["addresses"], dtype=np.int64)
    entries = len(weights)
    if not 1 <= entries < 1 << ENTRY_BITS:
        raise ValueError(f"block {index} has {entries} entries, not 1 to {(1 << ENTRY_BITS) - 1}")
    shapes = ((params, (lanes, 2)), (weights, (entries, lanes, 2)), (selects, (entries, lanes)),
              (addresses, (entries, config.banks)))
    names = ("params", "weights", "selects", "addresses")
    for name, (array, shape) in zip(names, shapes, strict=True):
        if array.shape != shape:
            raise ValueError(f"{name} of block {index} must have shape {shape}, not {array.shape}")
    for name, array, (low, high) in (
        ("bias", params[:, 0], int_range(BIAS_BITS)),
        ("multiplier", params[:, 1], (0, (1 << MULTIPLIER_BITS) - 1)),
        ("weight", weights, int_range(config.weight_bits)),
        ("select", selects, (0, (1 << select_bits) - 1)),
        ("address", addresses, (0, (1 << BANK_ADDRESS_BITS) - 1)),
    ):
        if array.min() < low or array.max() > high:
            wrong = array[(array < low) | (array > high)][0]
            raise ValueError(f"{name} {wrong} in block {index} lies outside {low}..{high}")
    return params, weights, selects, addresses


def _pack_params(params: NDArray[np.int64]) -> NDArray[np.uint64]:
    words = params[:, 0] & (1 << BIAS_BITS) - 1 | params[:, 1] << BIAS_BITS
    return words.astype("<u4").view("<u8").astype(np.uint64)


def _unpack_params(stored: NDArray[np.uint64]) -> NDArray[np.int64]:
    words = stored.astype("<u8").view("<u4").astype(np.int64)
    bias = words & (1 << BIAS_BITS) - 1
    bias -= (bias >> (BIAS_BITS - 1)) << BIAS_BITS
    return np.stack([bias, words >> BIAS_BITS], axis=1)


def _pack_entries(
    config: AcceleratorConfig, weights: NDArray[np.int64], selects: NDArray[np.int64],
    addresses: NDArray[np.int64], select_bits: int, row_beats: int,
) -> NDArray[np.uint64]:
    """Select and weight beats of a block."""
    entries, lanes, _ = weights.shape
    lane_words = weights.reshape(entries, -1).astype(f"<i{config.weight_bits // 8}")
    rows = lane_words.view("<u8")[:, :row_beats * config.port_words].astype(np.uint64)
    per_chunk = chunk_entries(config, select_bits)
    if not per_chunk:
        return rows.reshape(-1)
    chunks = ceil(entries / per_chunk)
    if select_bits == SELECT_BITS[WINDOW_CODE]:
        select_words = _pack_window(config, selects, addresses)
    else:
        select_words = _pack_beats(config, _bits(selects, select_bits))
    padded = np.zeros((chunks * per_chunk, rows.shape[1]), dtype=np.uint64)
    padded[:entries] = rows
    table = np.concatenate([select_words, padded.reshape(chunks, -1)], axis=1)
    return table.reshape(-1)[:(chunks + entries * row_beats) * config.port_words]


def _bits(values: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """Bits of values (E, n), the low one first: (E, n * size)."""
    return (values[..., None] >> np.arange(size) & 1).reshape(len(values), -1).astype(np.uint8)


def _pack_beats(config: AcceleratorConfig, bits: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Beats of as many entries (E, width) as fit one: 64-bit words (beats, port_words)."""
    entries, width = bits.shape
    per_chunk = config.port_bits // width
    chunks = ceil(entries / per_chunk)
    padded = np.zeros((chunks * per_chunk, width), dtype=np.uint8)
    padded[:entries] = bits
    beats = np.zeros((chunks, config.port_bits), dtype=np.uint8)
    beats[:, :per_chunk * width] = padded.reshape(chunks, -1)
    return np.packbits(beats, axis=1, bitorder="little").view("<u8").astype(np.uint64)


def _unpack_beats(
    config: AcceleratorConfig, words: NDArray[np.uint64], entries: int, width: int
) -> NDArray[np.int64]:
    """Inverse of `_pack_beats`."""
    per_chunk = config.port_bits // width
    raw = np.ascontiguousarray(words, dtype="<u8").view(np.uint8).reshape(len(words), -1)
    bits = np.unpackbits(raw, axis=1, bitorder="little")[:, :per_chunk * width]
    return bits.reshape(-1, width)[:entries].astype(np.int64)


def _unpack_weights(
    config: AcceleratorConfig, rows: NDArray[np.uint64]
) -> NDArray[np.int64]:
    full = np.zeros((len(rows), config.row_beats * config.port_words), dtype="<u8")
    full[:, :rows.shape[1]] = rows
    parts = full.view(f"<i{config.weight_bits // 8}").astype(np.int64)
    return parts.reshape(len(rows), config.kernel_lanes, 2)


def _unpack_selects(
    config: AcceleratorConfig, words: NDArray[np.uint64], entries: int, select_bits: int
) -> NDArray[np.int64]:
    lanes = config.kernel_lanes
    if not select_bits:
        return np.zeros((entries, lanes), dtype=np.int64)
    bits = _unpack_beats(config, words, entries, lanes * select_bits)
    return (bits.reshape(entries, lanes, select_bits) << np.arange(select_bits)).sum(axis=2)


def _window_fields(config: AcceleratorConfig) -> list[tuple[int, int]]:
    """Count and bits of the parts of an entry for a window: banks of lanes, addresses, end."""
    return [(config.kernel_lanes, 3), (config.banks, BANK_ADDRESS_BITS), (1, 1)]


def _pack_window(
    config: AcceleratorConfig, selects: NDArray[np.int64], addresses: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """Select beats of a block for a window; the last entry is marked."""
    last = np.arange(len(selects))[:, None] == len(selects) - 1
    parts = [
        _bits(values, size) for values, (_, size) in zip(
            (selects, addresses, last), _window_fields(config), strict=True)
    ]
    return _pack_beats(config, np.concatenate(parts, axis=1))


def _unpack_window(
    config: AcceleratorConfig, words: NDArray[np.uint64], entries: int
) -> dict[str, NDArray[np.int64]]:
    """Inverse of `_pack_window`; `ValueError` if another entry than the last is marked."""
    bits = _unpack_beats(config, words, entries, config.window_select_bits)
    fields, at = [], 0
    for count, size in _window_fields(config):
        part = bits[:, at:at + count * size].reshape(entries, count, size)
        fields.append((part << np.arange(size)).sum(axis=2))
        at += count * size
    selects, addresses, last = fields
    if np.flatnonzero(last).tolist() != [entries - 1]:
        raise ValueError(f"of {entries} entries not only the last is marked as the last")
    return {"selects": selects, "addresses": addresses}
