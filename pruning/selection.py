"""Which pattern each layer gets: from a name and a density, with exceptions (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Protocol

from model.network import Conv, Linear
from model.patterns import (
    BalancedPattern,
    ChannelPattern,
    KernelPattern,
    LocalityPattern,
    Pattern,
    UnstructuredPattern,
    budget,
    parse,
)

__all__ = ["BANKS", "Choice", "NAMES", "channel_pattern", "choose", "choose_layer",
           "named_pattern", "require_words"]

#: Channels the hardware reads together (`model.config.AcceleratorConfig.banks`).
BANKS = 8
NAMES = ("channel", "kernel", "balanced", "unstructured", "locality")
#: Largest group of ``channel n:m`` for a density that is no 1/m.
MOST_GROUP = 32

#: Pattern, its text or name, a density, or None for a layer that stays dense.
Choice = Pattern | str | float | None


class HasLayer(Protocol):
    """Anything that knows its shape."""

    layer: Conv | Linear


def choose(
    layers: Mapping[str, HasLayer], pattern: str | Pattern, density: float,
    exceptions: Mapping[str, Choice],
) -> dict[str, Pattern]:
    """Pattern of every layer that is to be pruned, by path.

    Parameters
    ----------
    layers : mapping of str to layer
        All compressible layers by path.
    pattern, density, exceptions
        As for `pruning.admm.ADMMPruner`.

    Returns
    -------
    dict of str to Pattern
        In the order of `layers`, without those that stay dense.
    """
    unused = set(exceptions)
    chosen: dict[str, Pattern] = {}
    for path, module in layers.items():
        choice: Choice = pattern
        share = density
        for key, value in exceptions.items():
            if key == path or fnmatchcase(path, key):
                unused.discard(key)
                if isinstance(value, (int, float)):
                    choice, share = pattern, float(value)
                else:
                    choice, share = value, density
        if choice is not None:
            chosen[path] = choose_layer(choice, share, module.layer, path)
    if unused:
        raise ValueError(f"no layer is called {', '.join(sorted(unused))}; there are "
                         f"{', '.join(layers)}")
    if not chosen:
        raise ValueError("every layer stays dense: nothing to prune")
    return chosen


def choose_layer(choice: Choice, density: float, layer: Conv | Linear, path: str) -> Pattern:
    """Pattern of one layer: `choice`, or the pattern of that name at `density`."""
    if not isinstance(choice, (str, Pattern)):
        raise TypeError(f"layer {path}: no pattern but {choice!r}")
    try:
        if choice in NAMES:
            return named_pattern(str(choice), density, layer)
        pattern = parse(choice) if isinstance(choice, str) else choice
    except ValueError as error:
        raise ValueError(f"layer {path}: {error}") from error
    if isinstance(pattern, KernelPattern) and isinstance(layer, Linear):
        # As in `named_pattern`: of the one frequency it could keep all or nothing.
        return ChannelPattern(1, pattern.alpha)
    return pattern


def named_pattern(name: str, density: float, layer: Conv | Linear) -> Pattern:
    """Pattern called `name` that keeps a share `density` of a layer's words.

    The words of a fully connected layer have one frequency, of which ``kernel`` could keep all or
    nothing: it gets ``channel`` instead.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density must be above 0 and at most 1, not {density}")
    if name == "unstructured":
        return UnstructuredPattern(1 / density)
    if name == "locality":
        return LocalityPattern(1 / density)
    ratio = Fraction(density).limit_denominator(MOST_GROUP)
    if not ratio or abs(float(ratio) - density) > 1e-6:
        raise ValueError(f"pattern {name} has no density {density}: use n/m with m up to "
                         f"{MOST_GROUP}, or unstructured")
    if name == "channel" or (name == "kernel" and isinstance(layer, Linear)):
        if ratio.numerator > 1:
            return ChannelPattern(ratio.numerator, ratio.denominator)
        if isinstance(layer, Linear):
            return ChannelPattern(1, ratio.denominator)
        return channel_pattern(layer.in_channels, ratio.denominator)
    if ratio.numerator > 1:
        raise ValueError(f"pattern {name} has no density {density}: use 1/n")
    return KernelPattern(ratio.denominator) if name == "kernel" else BalancedPattern(
        ratio.denominator
    )


def channel_pattern(channels: int, alpha: int) -> ChannelPattern:
    """Density 1/alpha; groups of a bank row where a layer has no more channels than that.

    Two of eight leave more choice than one of four and take the array as many steps, as long as
    there is one row: LeNet-5's six channels would fall into groups of four and two.
    """
    if channels <= BANKS and BANKS % alpha == 0:
        return ChannelPattern(BANKS // alpha, BANKS)
    return ChannelPattern(1, alpha)


def require_words(path: str, shape: tuple[int, int, int], pattern: Pattern) -> None:
    """Raise if `pattern` leaves a layer of shape (N, C, F) no word: its output would be its bias.

    A group of ``locality`` may be larger than what the density keeps of a small layer.
    """
    if not budget(shape, pattern):
        raise ValueError(f"layer {path}: pattern {pattern} keeps none of its "
                         f"{shape[0]} x {shape[1]} x {shape[2]} words")
