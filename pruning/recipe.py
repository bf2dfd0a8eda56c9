"""What one training run does: settings, and the sparsity pattern of each layer (no torch)."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field, replace
from math import inf

from model.errors import UserError
from model.network import NETWORKS, Conv, Network
from model.patterns import ChannelPattern, LocalityPattern, Pattern
from pruning.selection import NAMES, choose_layer, named_pattern, require_words

# Fully connected layers use `channel 1:m` if nothing else is asked for; m per layer, in order.
LINEAR_GROUPS = {
    "lenet": (32, 8), "lenet5": (16, 8, 4),
    # One small classifier, kept whole.
    "vgg16-cifar": (1,), "vgg16-cifar-quarter": (1,),
}
#: Words of an 8 x 8 tile.
WORDS = 32
# Beyond that `kernel` keeps nothing.
MOST_ALPHA = WORDS
METHODS = ("admm", "lasso", "layerwise")
_TAG = re.compile(r"[A-Za-z0-9._-]+")
#: Settings of the networks that need others than the defaults of `Recipe`.
_CIFAR = {
    "batch_norm": True, "optimiser_dense": "sgd", "decay": 5e-4, "batch": 128,
    "epochs_dense": 120, "rate_dense": 0.05, "epochs_admm": 20, "rate_admm": 5e-4,
    "epochs_masked": 30, "rate_masked": 1e-3, "epochs_retrain": 10, "rate_retrain": 1e-4,
    "updates": 2,
}
PRESETS: dict[str, dict] = {
    "lenet": {}, "lenet5": {},
    "vgg16-cifar": _CIFAR,
    "vgg16-cifar-quarter": _CIFAR | {"epochs_dense": 60},
}


@dataclass(frozen=True)
class Recipe:
    """Settings of a run; a checkpoint resumes only under the same recipe.

    Attributes
    ----------
    network : str
        Name in `model.network.NETWORKS`.
    pattern : str
        One of `pruning.selection.NAMES`, for the convolutions.
    alpha : int
        Compression of the convolutions.
    layers : dict of str to str or float
        Other choices for single layers, by name: a density, a pattern with its numbers, or
        ``"dense"``.
    method : str
        ``"admm"``, or ``"lasso"`` for the groups of the pattern ``locality`` (other layers, ADMM),
        or ``"layerwise"``: no epochs of ADMM, `pruning.warmstart` chooses the words.
    lanes, banks : int
        Size of the groups of the pattern ``locality``: so many outputs x channels.
    weight_bits : int
        8 or 16.
    epochs_dense, epochs_admm, epochs_masked, epochs_retrain : int
        Length of the stages; the masked one (float weights, batch norm alive) may be 0.
    batch : int
        Images per step.
    rate_dense, rate_admm, rate_masked, rate_retrain : float
        Learning rates; all but that of ADMM decay along a cosine.
    batch_norm : bool
        Whether batch norm follows each convolution until it is folded for the retraining.
    optimiser_dense : str
        ``"adam"``, or ``"sgd"`` with Nesterov momentum 0.9; the other stages use Adam.
    decay : float
        Weight decay of the dense stage.
    precision : str
        ``"float32"``, or ``"bfloat16"`` for autocast while weights are not rounded.
    rho_first, rho_last : float
        ADMM penalty, growing geometrically over the updates.
    strength_first, strength_last : float
        Strength of the group lasso, growing geometrically over its steps.
    updates : int
        Z and U updates per epoch.
    distill : float
        Share of the loss that is the distance to the dense network's class probabilities.
    hold_out : int
        0: all training images are trained on, and the epochs measured on the test images. Else
        every so-manyth is held out and the epochs are measured on those; the test images then
        measure only the dense network and the finished one.
    seed : int
        Seed of every random choice.
    tag : str
        Added to `title`, to tell runs apart that differ in other settings.
    """

    network: str
    pattern: str = "channel"
    alpha: int = 4
    layers: dict[str, str | float] = field(default_factory=dict)
    method: str = "admm"
    lanes: int = 8
    banks: int = 1
    weight_bits: int = 8
    epochs_dense: int = 10
    epochs_admm: int = 4
    epochs_masked: int = 0
    epochs_retrain: int = 8
    batch: int = 256
    rate_dense: float = 2e-3
    rate_admm: float = 1e-3
    rate_masked: float = 1e-3
    rate_retrain: float = 3e-3
    rho_first: float = 2e-2
    rho_last: float = 1.0
    strength_first: float = 5e-4
    strength_last: float = 2e-2
    updates: int = 4
    distill: float = 0.0
    batch_norm: bool = False
    optimiser_dense: str = "adam"
    decay: float = 0.0
    precision: str = "float32"
    hold_out: int = 0
    seed: int = 0
    tag: str = ""

    def __post_init__(self) -> None:
        """Refuse settings that cannot run, naming the value."""
        if self.network not in NETWORKS or self.network not in LINEAR_GROUPS:
            raise UserError(
                f"unknown network {self.network!r}: known are {', '.join(sorted(LINEAR_GROUPS))}"
            )
        if self.pattern not in NAMES:
            raise UserError(f"unknown pattern {self.pattern!r}: known are {', '.join(NAMES)}")
        if self.method not in METHODS:
            raise UserError(f"unknown method {self.method!r}: known are {', '.join(METHODS)}")
        if self.weight_bits not in (8, 16):
            raise UserError(f"weight bits must be 8 or 16, not {self.weight_bits}")
        for name in ("alpha", "lanes", "banks", "epochs_dense", "epochs_admm", "epochs_retrain",
                     "batch", "updates"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.alpha > MOST_ALPHA:
            raise UserError(f"alpha must be at most {MOST_ALPHA}, not {self.alpha}")
        for name in ("rate_dense", "rate_admm", "rate_masked", "rate_retrain", "rho_first",
                     "rho_last", "strength_first", "strength_last"):
            if not 0 < getattr(self, name) < inf:
                raise UserError(f"{name} must be positive and finite, not {getattr(self, name)}")
        if self.epochs_masked < 0:
            raise UserError(f"epochs_masked must not be negative, not {self.epochs_masked}")
        if self.hold_out < 0 or self.hold_out == 1:
            raise UserError("hold_out must be 0 (no images) or at least 2 (every second one), not "
                            f"{self.hold_out}")
        if self.optimiser_dense not in ("adam", "sgd"):
            raise UserError(f"unknown optimiser {self.optimiser_dense!r}: adam or sgd")
        if self.precision not in ("float32", "bfloat16"):
            raise UserError(f"unknown precision {self.precision!r}: float32 or bfloat16")
        if not 0 <= self.decay < inf:
            raise UserError(f"decay must be finite and not negative, not {self.decay}")
        if not 0 <= self.distill <= 1:
            raise UserError(f"distill must be 0..1, not {self.distill}")
        if self.tag and not _TAG.fullmatch(self.tag):
            raise UserError(f"tag must be letters, digits, '.', '_' and '-', not {self.tag!r}")
        try:
            patterns = self.patterns()
            for layer in self.net.layers:
                shape = ((layer.out_channels, layer.channels, WORDS) if isinstance(layer, Conv)
                         else (layer.out_features, -(-layer.in_features // 2), 1))
                require_words(layer.name, shape, patterns[layer.name])
        except (TypeError, ValueError) as error:
            raise UserError(str(error)) from error
        if self.method == "lasso" and not any(
            isinstance(pattern, LocalityPattern) for pattern in patterns.values()
        ):
            raise UserError("method lasso is for the pattern locality, which no layer has")

    @classmethod
    def preset(cls, network: str, **changes: object) -> Recipe:
        """Recipe of a network with its own defaults, but for the settings in ``changes``."""
        return cls(network, **(PRESETS.get(network, {}) | changes))  # type: ignore[arg-type]

    @property
    def title(self) -> str:
        """Short name of the result, e.g. ``lenet-channel-a4``."""
        end = ("-w16" if self.weight_bits == 16 else "") + (f"-{self.tag}" if self.tag else "")
        return f"{self.network}-{self.pattern}-a{self.alpha}{end}"

    @property
    def net(self) -> Network:
        """The network described by `network`."""
        return NETWORKS[self.network]

    def patterns(self) -> dict[str, Pattern]:
        """Sparsity pattern of every layer by name."""
        names = [layer.name for layer in self.net.layers]
        if unknown := sorted(self.layers.keys() - set(names)):
            raise ValueError(f"no layer is called {', '.join(unknown)}; there are "
                             f"{', '.join(names)}")
        groups = iter(LINEAR_GROUPS[self.network])
        found: dict[str, Pattern] = {}
        for layer in self.net.layers:
            conv = isinstance(layer, Conv)
            usual = None if conv else ChannelPattern(1, next(groups))
            choice = self.layers.get(layer.name)
            if choice == "dense":
                found[layer.name] = ChannelPattern(1, 1)
            elif choice is None and usual is not None:
                found[layer.name] = usual
            elif choice is None:
                found[layer.name] = self._sized(named_pattern(self.pattern, 1 / self.alpha, layer))
            elif isinstance(choice, str):
                found[layer.name] = choose_layer(choice, 1 / self.alpha, layer, layer.name)
            else:
                kind = self.pattern if conv else "channel"
                found[layer.name] = self._sized(choose_layer(kind, choice, layer, layer.name))
        return found

    def _sized(self, pattern: Pattern) -> Pattern:
        """Give `locality` its groups."""
        if isinstance(pattern, LocalityPattern):
            return replace(pattern, lanes=self.lanes, channels=self.banks)
        return pattern

    def to_dict(self) -> dict:
        """Plain JSON types."""
        return dataclasses.asdict(self)

