"""Probe events of a run as arrays: packed payloads in, named integer fields out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth.hdl import Shape
from amaranth.lib import data
from numpy.typing import NDArray

from model.config import AcceleratorConfig
from rtl.signatures import Column, FeatureWrite, SumWrite

__all__ = ["Events", "probe_layouts", "probe_port", "decode", "pack_payloads"]

@dataclass(frozen=True)
class Events:
    """Transfers seen at one probe.

    Attributes
    ----------
    cycle : uint64 array, (events,)
        Cycle since reset in which each was seen.
    payload : uint32 array, (events, words)
        Payloads, least significant word first.
    """

    cycle: NDArray[np.uint64]
    payload: NDArray[np.uint32]

    def __len__(self) -> int:
        """Count the events."""
        return len(self.cycle)


def probe_layouts(config: AcceleratorConfig) -> dict[str, data.Layout]:
    """Layout of each probe's payload, in the data's way: ``tileB``, ``sum``, ``writeB``.

    B is a feature bank; the core's port is ``probe_tile[B]``, ``probe_sum``, ``probe_write[B]``.
    """
    banks = range(config.feature_banks)
    return {
        **{f"tile{bank}": Column(config) for bank in banks}, "sum": SumWrite(config),
        **{f"write{bank}": FeatureWrite for bank in banks},
    }


def probe_port(name: str) -> str:
    """Port of the core's Verilog that belongs to a probe: ``tile3`` is ``probe_tile__3``."""
    kind = name.rstrip("0123456789")
    return f"probe_{kind}__{name[len(kind):]}" if kind != name else f"probe_{kind}"


def pack_payloads(values: list[int], width: int) -> NDArray[np.uint32]:
    """Packed Python integers to the array form of `Events.payload`."""
    size = -(-width // 32) * 4
    raw = b"".join(value.to_bytes(size, "little") for value in values)
    return np.frombuffer(raw, dtype="<u4").reshape(len(values), size // 4)


def decode(layout: Any, payload: NDArray[np.uint32], offset: int = 0) -> Any:
    """Unpack every event at once.

    A `StructLayout` becomes a dict of its fields, an `ArrayLayout` one more axis (structs in
    arrays: dicts of arrays with that axis first after the events), a plain shape an int64 array.
    """
    if isinstance(layout, data.StructLayout):
        return {name: decode(field.shape, payload, offset + field.offset)
                for name, field in layout}
    if isinstance(layout, data.ArrayLayout):
        stride = Shape.cast(layout.elem_shape).width
        parts = [decode(layout.elem_shape, payload, offset + index * stride)
                 for index in range(layout.length)]
        return _stack(parts)
    shape = Shape.cast(layout)
    return _bits(payload, offset, shape.width, shape.signed)


def _stack(parts: list[Any]) -> Any:
    if isinstance(parts[0], dict):
        return {name: _stack([part[name] for part in parts]) for name in parts[0]}
    return np.stack(parts, axis=1)


def _bits(payload: NDArray[np.uint32], offset: int, width: int, signed: bool) -> NDArray[np.int64]:
    if width > 32:
        raise ValueError(f"fields are at most 32 bits, not {width}")
    word, shift = divmod(offset, 32)
    value = payload[:, word].astype(np.uint64) >> np.uint64(shift)
    if shift + width > 32:
        value |= payload[:, word + 1].astype(np.uint64) << np.uint64(32 - shift)
    value &= np.uint64((1 << width) - 1)
    result = value.astype(np.int64)
    if signed:
        result -= (result >> (width - 1)) << width
    return result
