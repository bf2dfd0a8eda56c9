"""Images and training passes of `pruning.compression`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from math import cos, pi

import torch
from torch import Tensor, nn
from torch.nn import functional

from pruning.admm import require_finite
from pruning.batches import Samples, batch_count, crop_and_flip, hold_out
from pruning.compressrecipe import CompressRecipe
from pruning.jpegs import Images
from pruning.loop import train_epoch

__all__ = ["HOLD_OUT", "Trainer", "as_samples", "precision", "split"]

#: Every so many training images are held out, to choose densities by.
HOLD_OUT = 10
#: Zeros around an image before it is cropped: an eighth of 64 pixels on each side.
MARGIN = 8


def as_samples(data: Images) -> Samples:
    """Images for torch."""
    return Samples(torch.tensor(data.images), torch.tensor(data.labels).long(),
                   partial(crop_and_flip, margin=MARGIN), data.kind)


def split(data: Images) -> tuple[Samples, Samples]:
    """Training images, and those held out (every tenth)."""
    return hold_out(as_samples(data), HOLD_OUT)


def precision(recipe: CompressRecipe, rounded: bool) -> AbstractContextManager:
    """Autocast where the recipe asks for it; never where weights are rounded."""
    low = recipe.precision == "bfloat16" and not rounded
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=low)


class Trainer:
    """Several passes over the training images under one cosine.

    Parameters
    ----------
    model : nn.Module
        What is trained.
    train : Samples
        Training images.
    recipe : CompressRecipe
        Batch, decay, smoothing and precision.
    rate : float
        Learning rate at the start.
    passes : int
        How many passes the cosine spans.
    rounded : bool
        Whether weights and activations are rounded: then Adam, because batch norm no longer sets
        the scale of the gradients, single precision and no smoothing; else SGD.
    """

    def __init__(
        self, model: nn.Module, train: Samples, recipe: CompressRecipe, rate: float, passes: int,
        rounded: bool,
    ) -> None:
        self.model, self.train, self.recipe = model, train, recipe
        self.rate, self.passes, self.rounded = rate, passes, rounded
        self.optimiser: torch.optim.Optimizer
        if rounded:
            self.optimiser = torch.optim.Adam(model.parameters(), rate)
        else:
            # Fused: a third of the step's time for the wide layers.
            self.optimiser = torch.optim.SGD(model.parameters(), rate, momentum=0.9, nesterov=True,
                                             fused=True, weight_decay=recipe.decay)

    def run(self, index: int, seed: int, title: str, share: float = 1.0) -> float:
        """One pass, the ``index``-th, over a random ``share`` of the images; the mean loss.

        Raises
        ------
        FloatingPointError
            A loss is NaN or infinite.
        """
        data = self._part(share, seed)
        steps = batch_count(data, self.recipe.batch)
        smoothing = 0.0 if self.rounded else self.recipe.smoothing

        def step(number: int, images: Tensor, labels: Tensor) -> Tensor:
            done = (index + number / steps) / self.passes
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate * (1 + cos(pi * done)) / 2
            with precision(self.recipe, self.rounded):
                loss = functional.cross_entropy(self.model(images), labels,
                                                label_smoothing=smoothing)
            require_finite(loss, f"{title}, step {number + 1}")
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            return loss

        self.model.train()
        # Dropout draws from the global generator.
        torch.manual_seed(seed)
        return train_epoch(data, self.recipe.batch, seed, title, step)

    def _part(self, share: float, seed: int) -> Samples:
        """Random part of the training images, not less than a batch."""
        if share >= 1:
            return self.train
        count = max(self.recipe.batch, round(share * len(self.train.labels)))
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(self.train.labels), generator=generator)[:count]
        return replace(self.train, images=self.train.images[chosen],
                       labels=self.train.labels[chosen])
