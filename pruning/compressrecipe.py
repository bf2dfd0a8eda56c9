"""Settings of `pruning.compress` (no torch)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import inf

from model.alexnet import ALEXNETS
from model.errors import UserError

__all__ = ["CompressRecipe", "ORDERS", "PEAKS", "TRAINABLE"]

#: The order layers are pruned in; ``none`` prunes nothing and trains as long, for comparison.
ORDERS = ("reversed", "forward", "none")
#: Readings of peak-pruning (`pruning.magnitude`).
PEAKS = ("histogram", "accuracy", "none")
#: Networks with a data set.
TRAINABLE = ("alexnet-tiny",)


@dataclass(frozen=True)
class CompressRecipe:
    """Settings of a run; a checkpoint resumes only under the same recipe.

    Attributes
    ----------
    network : str
        One of `TRAINABLE`.
    order, peak : str
        One of `ORDERS`, one of `PEAKS`.
    densities : dict of str to float, optional
        Density by layer; None: chosen by sensitivity (`drop`).
    drop : float
        Percentage points on held-out training images that pruning one layer may cost before it is
        retrained.
    epochs_dense : int
        Length of the dense training.
    epochs_layer, epochs_peak : float
        Retraining after a layer was pruned, in passes over the training images, and the same for
        every try of peak-pruning. Part of a pass takes as large a part of the images, at random.
    epochs_masked, epochs_retrain : float
        Length of the training with all masks, and of that with weights and activations rounded to
        8 bits.
    rate_dense, rate_layer, rate_masked : float
        Learning rates of SGD at the start of each; they fall along a cosine.
    rate_retrain : float
        The same of Adam for the rounded network, whose batch norm is folded.
    factor, patience : float, int
        By how much one try of ``accuracy`` lowers a density, and how many tries may fail.
    batch : int
        Images per step.
    decay, smoothing : float
        Weight decay and label smoothing, in all stages but the last one.
    precision : str
        ``"float32"``, or ``"bfloat16"`` for autocast while weights are not rounded.
    seed : int
        Seed of every random choice.
    """

    network: str
    order: str = "reversed"
    peak: str = "none"
    densities: dict[str, float] | None = None
    drop: float = 8.0
    epochs_dense: int = 18
    epochs_layer: float = 0.25
    epochs_peak: float = 0.2
    epochs_masked: float = 6.0
    epochs_retrain: float = 0.5
    rate_dense: float = 0.05
    rate_layer: float = 0.02
    rate_masked: float = 0.05
    rate_retrain: float = 1e-4
    factor: float = 0.6
    patience: int = 0
    batch: int = 128
    decay: float = 5e-4
    smoothing: float = 0.1
    precision: str = "bfloat16"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot run, naming the value."""
        for name, known in (("network", TRAINABLE), ("order", ORDERS), ("peak", PEAKS),
                            ("precision", ("float32", "bfloat16"))):
            if getattr(self, name) not in known:
                raise UserError(f"unknown {name} {getattr(self, name)!r}: known are "
                                f"{', '.join(known)}")
        for name in ("epochs_dense", "batch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("epochs_layer", "epochs_peak", "epochs_retrain", "rate_dense", "rate_layer",
                     "rate_masked", "rate_retrain"):
            if not 0 < getattr(self, name) < inf:
                raise UserError(f"{name} must be positive and finite, not {getattr(self, name)}")
        for name in ("epochs_masked", "decay", "drop", "patience"):
            if not 0 <= getattr(self, name) < inf:
                raise UserError(f"{name} must be finite and not negative, not "
                                f"{getattr(self, name)}")
        if not 0 < self.factor < 1:
            raise UserError(f"factor must lie between 0 and 1, not {self.factor}")
        if not 0 <= self.smoothing < 1:
            raise UserError(f"smoothing must lie in 0..1, not {self.smoothing}")
        if self.order == "none" and (self.peak != "none" or self.densities is not None):
            raise UserError("order none prunes nothing: it takes neither a peak nor densities")
        self._check_densities()

    def _check_densities(self) -> None:
        """Refuse unknown layers and shares that are none."""
        known = [layer.name for layer in ALEXNETS[self.network].layers]
        for name, value in (self.densities or {}).items():
            if name not in known:
                raise UserError(f"densities name layer {name!r}; {self.network} has "
                                f"{', '.join(known)}")
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
                raise UserError(f"density of {name} must lie in (0, 1], not {value!r}")

    @property
    def title(self) -> str:
        """Short name of the result, e.g. ``alexnet-tiny-reversed-histogram``."""
        peak = "" if self.peak == "none" else f"-{self.peak}"
        return f"{self.network}-{'dense' if self.order == 'none' else self.order}{peak}"

    def to_dict(self) -> dict:
        """Plain JSON types."""
        return dataclasses.asdict(self)
