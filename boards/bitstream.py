"""What a build of a bitstream comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Bitstream"]


@dataclass(frozen=True)
class Bitstream:
    """A built bitstream.

    Attributes
    ----------
    path : Path
        The ``.bit`` file.
    size : int
        Its bytes.
    clock_hz, fmax_hz : int, float
        Clock it runs at, and fastest one that the timing analysis allows.
    built : bool
        False if it was there already.
    resources : dict
        Of LUT4, FF, MULT18X18D, DP16KD: used and available. Empty where the tool's own report says
        it (Vivado).
    """

    path: Path
    size: int
    clock_hz: int
    fmax_hz: float
    built: bool
    resources: dict[str, dict[str, int]] = field(default_factory=dict)
