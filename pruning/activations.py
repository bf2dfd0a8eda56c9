"""Fake quantisation of activations to unsigned 8 bits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class ActivationQuantiser(nn.Module):
    """Fake quantisation of an activation to unsigned 8 bits, round half up.

    Attributes
    ----------
    scale : Tensor
        Value of integer 1.
    mode : str
        ``"off"`` passes through, ``"observe"`` records, ``"on"`` quantises.
    """

    scale: Tensor
    LEVELS = 255

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.mode = "off"
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Quantise; the gradient is one below the ceiling and zero above."""
        if self.mode == "off":
            return x
        if self.mode == "observe":
            self.seen.append(x.detach().flatten()[::7].clone())
            return x
        clipped = x.clamp(torch.zeros_like(self.scale), self.LEVELS * self.scale)
        integers = torch.floor(clipped / self.scale + 0.5)
        return clipped + (integers * self.scale - clipped).detach()

    def calibrate(self) -> None:
        """Set the scale with the least squared error over what was observed."""
        if not self.seen:
            raise ValueError("no activation was observed")
        values = torch.cat(self.seen)
        self.seen = []
        values = values[values > 0]
        ceiling = float(values.max()) if len(values) else 1.0
        errors = []
        candidates = [ceiling * step / 40 / self.LEVELS for step in range(12, 41)]
        for scale in candidates:
            rounded = torch.floor(values / scale + 0.5).clamp(max=self.LEVELS) * scale
            errors.append(float((rounded - values).square().mean()))
        self.scale.fill_(candidates[int(np.argmin(errors))])
