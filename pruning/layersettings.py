"""Settings of a layer-wise pruning run (no torch)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from model.errors import UserError
from model.network import NETWORKS, Conv
from model.patterns import KernelPattern, Pattern
from pruning.selection import channel_pattern

__all__ = ["Settings", "TILE"]

TILE = 8


@dataclass(frozen=True)
class Settings:
    """What a run does; it resumes only under the same settings.

    Attributes
    ----------
    network : str
        Name in `model.network.NETWORKS`.
    pattern : str
        ``"channel"`` or ``"kernel"``.
    alpha : int
        Compression.
    weight_bits : int
        8 or 16.
    weights : str
        Where the dense weights come from.
    images, held_out : int
        Photographs to calibrate on, and others to measure on.
    tiles : int
        Tiles per layer on which the error is measured and minimised.
    admm_steps, solve_steps : int
        Iterations of ADMM (see `steps_of`) and of the least squares on the support.
    ridge : float
        Pull to the dense weights, relative to a channel's power.
    seed : int
        Seed of the choice of photographs and tiles.
    """

    network: str = "vgg16"
    pattern: str = "channel"
    alpha: int = 4
    weight_bits: int = 16
    weights: str = "hed"
    images: int = 32
    held_out: int = 4
    tiles: int = 4096
    admm_steps: int = 12
    solve_steps: int = 8
    ridge: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot run, naming the value."""
        if self.network not in NETWORKS:
            raise UserError(f"unknown network {self.network!r}: known are "
                            f"{', '.join(sorted(NETWORKS))}")
        if any(not isinstance(layer, Conv) for layer in NETWORKS[self.network].layers):
            raise UserError(f"network {self.network} has fully connected layers: layer-wise "
                            "pruning takes convolutions, pruning.train the others")
        if self.pattern not in ("channel", "kernel"):
            raise UserError(f"unknown pattern {self.pattern!r}: channel or kernel")
        if self.weight_bits not in (8, 16):
            raise UserError(f"weight bits must be 8 or 16, not {self.weight_bits}")
        for name in ("images", "held_out", "tiles", "admm_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.solve_steps < 0:
            raise UserError(f"solve_steps must not be negative, not {self.solve_steps}")
        if not 1 <= self.alpha <= TILE * TILE // 2:
            raise UserError(f"alpha must be 1..{TILE * TILE // 2}, not {self.alpha}")
        if not self.ridge > 0:
            raise UserError(f"ridge must be positive, not {self.ridge}")

    @property
    def title(self) -> str:
        """Short name of the result, e.g. ``vgg16-channel-a4-w16``."""
        return f"{self.network}-{self.pattern}-a{self.alpha}-w{self.weight_bits}"

    def pattern_of(self, layer: Conv) -> Pattern:
        """Pattern of a layer."""
        if self.pattern == "kernel":
            return KernelPattern(self.alpha)
        return channel_pattern(layer.in_channels, self.alpha)

    def steps_of(self, layer: Conv) -> int:
        """ADMM iterations: `admm_steps` for 512 x 512 kernels, up to eight times that for fewer.

        The first layers are cheap, and what they lose no later layer can restore.
        """
        share = min(8.0, max(1.0, 512 * 512 / (layer.in_channels * layer.out_channels)))
        return round(self.admm_steps * share)

    def to_dict(self) -> dict:
        """Plain JSON types."""
        return dataclasses.asdict(self)
