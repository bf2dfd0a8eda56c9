"""Layer descriptor: one table of fields from which the compiler packs and the RTL unpacks.

A descriptor is `BEATS` 64-bit words; fields are packed LSB first in the order of `FIELDS`.
"""

from __future__ import annotations

from collections.abc import Mapping

from model.config import ROW_BITS

__all__ = ["FIELDS", "BEATS", "POOL_ADD", "POOL_AVERAGE", "POOL_MAX", "SELECT_BITS",
           "SPREAD_CODE", "WINDOW_CODE", "pack", "unpack"]

BEATS = 8

#: Bits of select per kernel lane and entry, by ``select_code``. With `WINDOW_CODE` an entry has an
#: address per bank too; `SPREAD_CODE` needs ``dot_lanes`` > 1.
SELECT_BITS = (0, 1, 2, 4, 8, 3, 5)
WINDOW_CODE, SPREAD_CODE = 5, 6

#: Values of ``pool_op``; 0: the written map is the layer's output.
POOL_MAX, POOL_AVERAGE, POOL_ADD = 1, 2, 3

#: (name, bits). Meaning of each field: docs/program-image.md.
FIELDS: tuple[tuple[str, int], ...] = (
    ("dot", 1), ("scatter", 1), ("pool", 1), ("relu", 1),
    ("in_signed", 1), ("out_signed", 1), ("out_wide", 1), ("out_vector", 1), ("last", 1),
    ("input", 1),
    ("channels", 13), ("groups", 10),
    ("kernels", 13), ("kernel_blocks", 13), ("lanes_last", 7),
    ("tiles", 16), ("tile_blocks", 16), ("resident", 16), ("tiles_x", 10),
    ("step", 5), ("crop", 5), ("pad", 4),
    ("in_base", ROW_BITS), ("in_plane", ROW_BITS), ("in_row_log2", 4),
    ("in_height", 10), ("in_width", 10),
    ("entries", 6), ("entries_last", 6), ("sub_log2", 3), ("hold", 6), ("select_code", 3),
    ("row_beats_last", 8), ("stream_offset", 28), ("stream_beats", 28),
    ("sum_shift", 6), ("requant_shift", 6),
    ("out_base", ROW_BITS), ("out_plane", ROW_BITS), ("out_row_log2", 4), ("out_height", 10),
    ("out_width", 10), ("out_step", 5), ("out_tile_row", 16), ("out_map", 16),
    ("pad_left", 4), ("part_blocks", 13), ("part_groups", 10),
    ("pool_op", 2), ("pool_size", 4), ("pool_stride", 3), ("pool_pad", 3), ("pool_base", ROW_BITS),
    ("pool_row_log2", 4), ("pool_height", 10), ("pool_width", 10), ("pool_vector", 1),
    ("pool_multiplier", 12), ("pool_shift", 5), ("spread", 3),
)

assert sum(bits for _, bits in FIELDS) <= 64 * BEATS


def pack(values: Mapping[str, int]) -> list[int]:
    """Pack field values into `BEATS` words; a missing, unknown or too large field raises."""
    if unknown := set(values) - {name for name, _ in FIELDS}:
        raise ValueError(f"unknown descriptor fields {sorted(unknown)}")
    word, shift = 0, 0
    for name, bits in FIELDS:
        value = int(values[name])
        if not 0 <= value < 1 << bits:
            raise ValueError(f"descriptor field {name} = {value} does not fit {bits} bits")
        word |= value << shift
        shift += bits
    return [word >> (64 * beat) & (1 << 64) - 1 for beat in range(BEATS)]


def unpack(beats: list[int]) -> dict[str, int]:
    """Inverse of `pack`."""
    word = sum(int(beat) << (64 * index) for index, beat in enumerate(beats))
    values = {}
    for name, bits in FIELDS:
        values[name] = word & (1 << bits) - 1
        word >>= bits
    return values
