"""What one training run does: settings, and the sparsity pattern of each layer (no torch)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from model.errors import UserError
from model.network import NETWORKS, Conv, Network
from model.patterns import ChannelPattern, KernelPattern, Pattern

# Fully connected layers always use `channel 1:m`; m per layer, in order.
LINEAR_GROUPS = {"lenet": (32, 8), "lenet5": (16, 8, 4)}
# An 8 x 8 tile has 32 words: beyond that `kernel` keeps nothing.
MOST_ALPHA = 32
#: Channels the hardware reads together (`model.config.AcceleratorConfig.banks`).
BANKS = 8


@dataclass(frozen=True)
class Recipe:
    """Settings of a run; a checkpoint resumes only under the same recipe.

    Attributes
    ----------
    network : str
        Name in `model.network.NETWORKS`.
    pattern : str
        ``"channel"`` or ``"kernel"``, for the convolutions.
    alpha : int
        Compression of the convolutions.
    weight_bits : int
        8 or 16.
    epochs_dense, epochs_admm, epochs_retrain : int
        Length of the stages.
    batch : int
        Images per step.
    rate_dense, rate_admm, rate_retrain : float
        Adam learning rates; the first and the last decay along a cosine.
    rho_first, rho_last : float
        ADMM penalty, growing geometrically over the updates.
    updates : int
        Z and U updates per epoch.
    distill : float
        Share of the loss that is the distance to the dense network's class probabilities.
    seed : int
        Seed of every random choice.
    """

    network: str
    pattern: str = "channel"
    alpha: int = 4
    weight_bits: int = 8
    epochs_dense: int = 10
    epochs_admm: int = 4
    epochs_retrain: int = 8
    batch: int = 256
    rate_dense: float = 2e-3
    rate_admm: float = 1e-3
    rate_retrain: float = 3e-3
    rho_first: float = 2e-2
    rho_last: float = 1.0
    updates: int = 4
    distill: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot run, naming the value."""
        if self.network not in NETWORKS or self.network not in LINEAR_GROUPS:
            raise UserError(
                f"unknown network {self.network!r}: known are {', '.join(sorted(LINEAR_GROUPS))}"
            )
        if self.pattern not in ("channel", "kernel"):
            raise UserError(f"unknown pattern {self.pattern!r}: channel or kernel")
        if self.weight_bits not in (8, 16):
            raise UserError(f"weight bits must be 8 or 16, not {self.weight_bits}")
        for name in ("alpha", "epochs_dense", "epochs_admm", "epochs_retrain", "batch", "updates"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.alpha > MOST_ALPHA:
            raise UserError(f"alpha must be at most {MOST_ALPHA}, not {self.alpha}")
        for name in ("rate_dense", "rate_admm", "rate_retrain", "rho_first", "rho_last"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.distill <= 1:
            raise UserError(f"distill must be 0..1, not {self.distill}")

    @property
    def title(self) -> str:
        """Short name of the result, e.g. ``lenet-channel-a4``."""
        wide = "-w16" if self.weight_bits == 16 else ""
        return f"{self.network}-{self.pattern}-a{self.alpha}{wide}"

    @property
    def net(self) -> Network:
        """The network described by `network`."""
        return NETWORKS[self.network]

    def patterns(self) -> dict[str, Pattern]:
        """Sparsity pattern of every layer by name."""
        groups = iter(LINEAR_GROUPS[self.network])
        chosen: dict[str, Pattern] = {}
        for layer in self.net.layers:
            if not isinstance(layer, Conv):
                chosen[layer.name] = ChannelPattern(1, next(groups))
            elif self.pattern == "kernel":
                chosen[layer.name] = KernelPattern(self.alpha)
            else:
                chosen[layer.name] = channel_pattern(layer.in_channels, self.alpha)
        return chosen

    def to_dict(self) -> dict:
        """Plain JSON types."""
        return dataclasses.asdict(self)


def channel_pattern(channels: int, alpha: int) -> ChannelPattern:
    """Density 1/alpha; groups of a bank row where a layer has no more channels than that.

    Two of eight leave more choice than one of four and take the array as many steps, as long as
    there is one row: LeNet-5's six channels would fall into groups of four and two.
    """
    if channels <= BANKS and BANKS % alpha == 0:
        return ChannelPattern(BANKS // alpha, BANKS)
    return ChannelPattern(1, alpha)
