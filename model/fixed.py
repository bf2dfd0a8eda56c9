"""Fixed-point rules shared by the golden model and the RTL: one rounding, one saturation.

Rounding is round-half-up everywhere (add half an LSB, shift arithmetically): one adder in
hardware, a bias of at most half an LSB. Saturation happens only where a block says so.
Values are raw integers in ``int64`` arrays. `rtl.fixed` mirrors these functions by name.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["int_range", "round_shift", "saturate", "check_range"]

Ints = NDArray[np.int64]


def int_range(width: int, signed: bool = True) -> tuple[int, int]:
    """Smallest and largest value of a ``width``-bit integer."""
    if not isinstance(width, int) or width < 1:
        raise ValueError(f"width must be a positive integer, not {width!r}")
    return (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)


def round_shift(value: Ints, shift: int) -> Ints:
    """Divide by ``2**shift``, rounding half up (towards plus infinity)."""
    if shift < 0:
        raise ValueError(f"shift must be non-negative, not {shift!r}")
    value = np.asarray(value, dtype=np.int64)
    return value if shift == 0 else (value + (1 << (shift - 1))) >> shift


def saturate(value: Ints, width: int, signed: bool = True) -> Ints:
    """Clamp to the range of a ``width``-bit integer."""
    low, high = int_range(width, signed)
    return np.clip(np.asarray(value, dtype=np.int64), low, high)


def check_range(value: Ints, width: int, what: str, signed: bool = True) -> Ints:
    """Return ``value`` unchanged, or raise if any element does not fit ``width`` bits."""
    value = np.asarray(value, dtype=np.int64)
    low, high = int_range(width, signed)
    if value.size and (value.min() < low or value.max() > high):
        raise ValueError(
            f"{what} spans {value.min()}..{value.max()}, outside the {width}-bit range "
            f"{low}..{high}"
        )
    return value
