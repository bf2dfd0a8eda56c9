"""The rounding and saturation of `model.fixed`, as Amaranth expressions of the same names."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Mux, Value, signed

__all__ = ["round_shift", "saturate", "round_shift_dynamic"]


def round_shift(value: Value, shift: int) -> Value:
    """Constant arithmetic right shift, rounding half up.

    The sum carries one extra bit, so it never wraps; the result is ``shift - 1`` bits narrower.
    """
    if shift < 0:
        raise ValueError(f"shift must be non-negative, not {shift!r}")
    if shift == 0:
        return value
    return (value + Const(1 << (shift - 1), signed(shift + 1)))[shift:].as_signed()


def round_shift_dynamic(value: Value, shift: Value) -> Value:
    """Arithmetic right shift by a signal, rounding half up.

    Computed as ``((value << 1 >> shift) + 1) >> 1``: shifting first and adding the last bit
    shifted out equals adding half an LSB and shifting.
    """
    return (((_signed(value) << 1) >> shift) + 1)[1:].as_signed()


def saturate(value: Value, width: int, is_signed: bool = True) -> Value:
    """Clamp to the range of a ``width``-bit integer.

    The value fits if the bits above the result equal the sign, which is cheaper than comparing.
    """
    if not isinstance(width, int) or width < 1:
        raise ValueError(f"width must be a positive integer, not {width!r}")
    value = _signed(value)
    sign = value[-1]
    if is_signed:
        if len(value) <= width:
            return value
        kept, above = value[:width - 1], value[width - 1:]
        body = Mux(above.all() | ~above.any(), kept, (~sign).replicate(width - 1))
        return Cat(body, sign).as_signed()
    width = min(width, len(value) - 1)
    return Mux(value[width:].any(), (~sign).replicate(width), value[:width])


def _signed(value: Value) -> Value:
    """Return the value with its sign as the last bit, also if it is an unsigned one."""
    return value if value.shape().signed else Cat(value, Const(0, 1)).as_signed()
