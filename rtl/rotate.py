"""Rotation of a short list of values by a signal: the skew of banks and of byte columns."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Mux, Value

__all__ = ["rotate"]


def rotate(values: Sequence[Value], amount: Value) -> list[Value]:
    """Return ``values[(i + amount) % len(values)]`` for every i, as log2 levels of 2:1 muxes.

    A power-of-two number of values, and exactly enough bits of ``amount`` (unsigned). Rotate the
    other way with ``(-amount)`` cut to the same width.
    """
    count = len(values)
    if count == 0 or count & (count - 1):
        raise ValueError(f"the number of values must be a power of two, not {count!r}")
    if 1 << len(amount) != count:
        raise ValueError(f"{count} values need {count.bit_length() - 1} bits, not {len(amount)}")
    rotated = list(values)
    for level in range(len(amount)):
        rotated = [
            Mux(amount[level], rotated[(i + (1 << level)) % count], rotated[i])
            for i in range(count)
        ]
    return rotated
