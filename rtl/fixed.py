"""The rounding and saturation of `model.fixed`, as Amaranth expressions of the same names."""

from __future__ import annotations

from amaranth.hdl import Const, Mux, Value, signed, unsigned

__all__ = ["round_shift", "saturate", "round_shift_dynamic"]


def round_shift(value: Value, shift: int) -> Value:
    """Constant arithmetic right shift, rounding half up; the result is ``shift`` bits narrower.

    The sum carries one extra bit, so it never wraps.
    """
    if shift < 0:
        raise ValueError(f"shift must be non-negative, not {shift!r}")
    return value if shift == 0 else (value + Const(1 << (shift - 1), signed(shift + 1))) >> shift


def round_shift_dynamic(value: Value, shift: Value) -> Value:
    """Arithmetic right shift by a signal, rounding half up.

    Computed as ``((value << 1 >> shift) + 1) >> 1``: shifting first and adding the last bit
    shifted out equals adding half an LSB and shifting.
    """
    width = len(value) + 1
    doubled = Value.cast(value << 1).as_signed()
    shifted = (doubled >> shift)[:width].as_signed()
    return (shifted + 1) >> 1


def saturate(value: Value, width: int, is_signed: bool = True) -> Value:
    """Clamp to the range of a ``width``-bit integer."""
    low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if is_signed else (0, (1 << width) - 1)
    shape = signed(width) if is_signed else unsigned(width)
    inside = value[:width].as_signed() if is_signed else value[:width]
    return Mux(value > high, Const(high, shape), Mux(value < low, Const(low, shape), inside))
