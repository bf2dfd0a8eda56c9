"""Sum of two maps before a ReLU: a residual connection, in integers; `rtl.mappool` mirrors.

The map that a convolution has just written is signed and in twice the unit of the sum, so that it
has the range of what it is added to; the other map's unit is a power of two of the sum's. One
rounding takes both: ``(16·map + other·2**shift) / 8``, where ``shift`` 3 means the same unit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.fixed import round_shift, saturate

__all__ = ["MAP_SHIFT", "MAP_UNIT", "SUM_SHIFT", "add_maps"]

#: Unit of the convolution's map in that of the sum.
MAP_UNIT = 2
#: Bits by which the convolution's map is shifted up, and the sum down.
MAP_SHIFT, SUM_SHIFT = 4, 3


def add_maps(
    maps: NDArray[np.int64], other: NDArray[np.int64], shift: int, relu: bool
) -> NDArray[np.int64]:
    """Add ``other`` to ``maps``, both of 8-bit integers; unsigned after a ReLU, else signed."""
    total = round_shift((maps << MAP_SHIFT) + (other << shift), SUM_SHIFT)
    return saturate(total, 8, signed=not relu)
