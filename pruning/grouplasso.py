"""Group lasso over the words the hardware reads together (Li et al., FCCM 2017; Wen et al., 2016).

In a step a bank delivers the word of one input channel at one frequency, and all kernel lanes of a
block see it.  Its products are the weights of ``lanes`` consecutive outputs for that channel and
frequency: if they are all kept they take one step with every lane busy, if none is the word is not
read at all.  That is the group, `model.patterns.LocalityPattern` with ``lanes`` = N' of the core
(8 on `ecp5-85f`, 64 on `u200`) and one channel.  Groups of several channels (``banks``) also work;
they only take choice away, because a step reads the r banks independently of each other.

Smaller groups are a compromise: with N'/r outputs the ports still suffice, but the parts of a block
keep different numbers of words and wait for each other (docs/scheduling.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.patterns import LocalityPattern
from pruning.admm import ADMMPruner, rho_at
from pruning.masks import free_weight
from pruning.selection import Choice

__all__ = ["GroupLasso", "group_norms", "shrinkage", "spread_groups"]


class GroupLasso(ADMMPruner):
    """Prunes whole groups of words while the user's own loop trains the module.

    Minimises ``loss + strength * sum_g sqrt(p_g) * ||W_g||`` (p_g: words of group g) by a proximal
    step after each of the optimiser's: a group loses that much of its norm and is exactly zero if
    nothing is left.  What a group loses is a share of its layer's root mean square word at the
    start, so one strength fits all layers whatever their scale; like AdamW's decay it does not
    depend on the learning rate.  The strength grows geometrically.  It never takes more
    groups than the density asks for: once only those are left, they shrink no further.

    Used like `ADMMPruner`, which it is for the layers that `layers` gives another pattern (a
    classifier, say): add `penalty` to the loss, call `step` after the optimiser's step and
    `finalise` at the end.

    Parameters
    ----------
    model : Module
        What `pruning.spectral.spectralise` returned, or a `DistributedDataParallel` of it.
    lanes, banks : int
        A group is so many consecutive outputs x channels at one frequency.
    density : float
        Share of the words to keep.
    layers : mapping of str to str, float, Pattern or None
        Other choices for single layers, as for `ADMMPruner`.
    strength : pair of float
        Share of a layer's root mean square word that a step takes at first and at last.
    rho, updates, every
        As for `ADMMPruner`; the strength is at its last value after ``updates * every`` steps.

    Raises
    ------
    ValueError
        As `ADMMPruner`; a strength is not positive, or no layer has the pattern ``locality``.
    """

    def __init__(
        self, model: nn.Module, lanes: int = 8, banks: int = 1, density: float = 0.25,
        layers: Mapping[str, Choice] | None = None, *,
        strength: tuple[float, float] = (5e-4, 2e-2), rho: tuple[float, float] = (2e-2, 1.0),
        updates: int = 16, every: int = 100,
    ) -> None:
        if not all(0 < value < float("inf") for value in strength):
            raise ValueError(f"strength must be positive and finite, not {strength}")
        if not 0 < density <= 1:
            raise ValueError(f"density must be above 0 and at most 1, not {density}")
        super().__init__(model, LocalityPattern(1 / density, lanes, banks), density, layers,
                         rho=rho, updates=updates, every=every)
        self.strength = strength
        self.shrinks = 0
        #: Root mean square word of every layer at the start.
        self.scale = {
            path: float(module.word_energy(free_weight(module)).mean().sqrt())
            for path, module in self.layers.items() if not self._splits(path)
        }
        if not self.scale:
            raise ValueError("no layer has the pattern locality: use ADMMPruner")

    def step(self) -> bool:
        """Count a step of the optimiser: `shrink`, and what `ADMMPruner.step` does."""
        self.shrink()
        return super().step()

    @torch.no_grad()
    def shrink(self) -> None:
        """Proximal step of every layer with groups."""
        self._require_open()
        self.shrinks += 1
        total = self.updates * self.every
        share = rho_at(min(self.shrinks, total), total, *self.strength)
        for path, scale in self.scale.items():
            module, pattern = self.layers[path], self._pattern(path)
            weight = free_weight(module)
            energy = module.word_energy(weight)
            norms = group_norms(energy, pattern)
            shape = (energy.shape[0], energy.shape[1], energy.shape[2])
            spare = norms.numel() - pattern.groups(shape)
            limit = float(norms.flatten().kthvalue(spare).values) if spare > 0 else 0.0
            factors = shrinkage(norms, min(share * scale, limit))
            weight.mul_(module.spread(spread_groups(factors, shape, pattern)))

    def groups(self) -> dict[str, tuple[int, int]]:
        """Count, per layer with groups, those that are not zero and those the density allows."""
        found = {}
        for path in self.scale:
            energy = self.layers[path].word_energy(free_weight(self.layers[path]))
            alive = int((group_norms(energy, self._pattern(path)) > 0).sum())
            shape = (energy.shape[0], energy.shape[1], energy.shape[2])
            found[path] = (alive, self._pattern(path).groups(shape))
        return found

    def state_dict(self) -> dict:
        """State for a checkpoint; the weights and the masks are in the model's own."""
        return super().state_dict() | {"shrinks": self.shrinks, "scale": dict(self.scale)}

    def load_state_dict(self, state: Mapping) -> None:
        """Restore what `state_dict` gave; load the model's state afterwards."""
        if "shrinks" not in state:
            raise ValueError("the state is of ADMMPruner, not of GroupLasso")
        super().load_state_dict(state)
        self.shrinks, self.scale = state["shrinks"], dict(state["scale"])

    def _splits(self, path: str) -> bool:
        """ADMM is for the layers without groups."""
        return not isinstance(self.patterns[path], LocalityPattern)

    def _pattern(self, path: str) -> LocalityPattern:
        """Size of a layer's groups."""
        pattern = self.patterns[path]
        assert isinstance(pattern, LocalityPattern)
        return pattern

    def _mask(self, path: str, weight: Tensor) -> Tensor:
        """Mask of the groups that survive: those with the largest norm per word.

        At the upper end of the channels groups may be smaller; the projection of ADMM counts their
        energy, which would undo what the lasso did for them.
        """
        if self._splits(path):
            return super()._mask(path, weight)
        self._require_finite(path, weight)
        module, pattern = self.layers[path], self._pattern(path)
        energy = module.word_energy(weight)
        shape = (energy.shape[0], energy.shape[1], energy.shape[2])
        norms = group_norms(energy, pattern)
        order = torch.sort(norms.flatten(), descending=True, stable=True).indices
        kept = torch.zeros_like(norms).flatten()
        kept[order[:pattern.groups(shape)]] = 1
        words = spread_groups(kept.view_as(norms), shape, pattern) * (energy > 0)
        return module.spread(words)


def group_norms(energy: Tensor, pattern: LocalityPattern) -> Tensor:
    """Root mean square word of every group.

    Parameters
    ----------
    energy : Tensor, shape (N, C, F)
        Energy of every word.
    pattern : LocalityPattern
        Size of the groups.

    Returns
    -------
    Tensor, shape (ceil(N / lanes), ceil(C / channels), F)
        Groups at the upper ends are averaged over the words they have.
    """
    def summed(values: Tensor) -> Tensor:
        padded = functional.pad(values, (0, 0, 0, -values.shape[1] % pattern.channels,
                                         0, -values.shape[0] % pattern.lanes))
        shape = (-1, pattern.lanes, padded.shape[1] // pattern.channels, pattern.channels,
                 values.shape[2])
        return padded.reshape(shape).sum((1, 3))

    return (summed(energy) / summed(torch.ones_like(energy))).sqrt()


def shrinkage(norms: Tensor, threshold: float) -> Tensor:
    """Factor of every group in the proximal operator of the sum of norms.

    ``argmin_x ||x - w||^2 / 2 + threshold * ||x|| = w * max(0, 1 - threshold / ||w||)``.
    """
    tiny = torch.finfo(norms.dtype).tiny
    return (1 - threshold / norms.clamp_min(tiny)).clamp_min(0)


def spread_groups(values: Tensor, shape: tuple[int, int, int], pattern: LocalityPattern) -> Tensor:
    """Value of its group for every word, (N, C, F)."""
    wide = values.repeat_interleave(pattern.lanes, 0).repeat_interleave(pattern.channels, 1)
    return wide[:shape[0], :shape[1]]
