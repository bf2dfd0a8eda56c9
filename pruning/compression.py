"""A run of `pruning.compress`: dense, layer by layer, peak, all masks, 8 bits; resumable.

Everything is chosen on training images held out; the test images only measure the dense network.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, cos, pi
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.alexnet import ALEXNETS
from model.errors import UserError
from pruning import checkpoint
from pruning.admm import require_finite
from pruning.alexnet import AlexNet
from pruning.batches import Samples, batch_count, crop_and_flip
from pruning.compressrecipe import CompressRecipe
from pruning.jpegs import Images
from pruning.loop import evaluate, train_epoch
from pruning.magnitude import (
    Step,
    accuracy_peak,
    density_of,
    histogram_peak,
    kept,
    layerwise,
    mask_weight,
    prunable,
)

__all__ = ["HOLD_OUT", "CompressRun", "as_samples", "split"]

#: Every so many training images are held out, to choose densities by.
HOLD_OUT = 10
#: Training images that choose the activation scales.
CALIBRATION = 1024
#: Zeros around an image before it is cropped: an eighth of 64 pixels on each side.
MARGIN = 8
#: Stages in order.
STAGES = ("dense", "layers", "peak", "masked", "retrain")
#: Settings of the stages up to the dense network, and up to the end of the stage ``layers``.
DENSE = ("network", "epochs_dense", "rate_dense", "batch", "decay", "smoothing", "precision",
         "seed")
PRUNED = (*DENSE, "order", "densities", "drop", "epochs_layer", "rate_layer")


def as_samples(data: Images) -> Samples:
    """Images for torch."""
    return Samples(torch.tensor(data.images), torch.tensor(data.labels).long(),
                   partial(crop_and_flip, margin=MARGIN), data.kind)


def split(data: Images) -> tuple[Samples, Samples]:
    """Training images, and those held out (every tenth)."""
    whole = as_samples(data)
    held = torch.arange(len(whole.labels)) % HOLD_OUT == HOLD_OUT - 1
    train, kept_back = (replace(whole, images=whole.images[part], labels=whole.labels[part])
                        for part in (~held, held))
    return train, kept_back


@dataclass(frozen=True)
class _Training:
    """One stretch of training: where it is in the log, how long, how fast, from which seed."""

    stage: str
    epochs: float
    rate: float
    seed: int
    title: str


class CompressRun:
    """One run.

    Parameters
    ----------
    recipe : CompressRecipe
        Settings.
    train, held, test : Samples
        Images to train on, those to choose by, and those the dense network is measured on.
    out : Path
        Folder of ``checkpoint.pt``, ``dense.pt`` and ``pruned.pt`` (after the stage ``layers``).

    Attributes
    ----------
    model : AlexNet
        The network; rounded to 8 bits once the run is over.
    history : list of dict
        Stage, loss, held-out accuracy, share of weights kept, seconds of every stretch of training.
    steps : list of dict
        Steps of the stages ``layers`` and ``peak``, with that share after each.
    dense_accuracy : dict of str to float
        Percent of right answers of the dense network in single precision, ``test`` and ``held``.
    """

    def __init__(
        self, recipe: CompressRecipe, train: Samples, held: Samples, test: Samples, out: Path
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.out = recipe, out
        self.train, self.held, self.test = train, held, test
        self.dense_accuracy: dict[str, float] = {}
        self.model = AlexNet(ALEXNETS[recipe.network])
        self.stage, self.done, self.calls = "dense", 0, 0
        self.layers: list[str] = []
        self.history: list[dict] = []
        self.steps: list[dict] = []
        if not batch_count(train, recipe.batch):
            raise UserError(f"batch {recipe.batch} exceeds the {len(train.labels)} training images")

    def execute(
        self, dense: Path | None = None, pruned: Path | None = None, resume: bool = False,
        dense_only: bool = False,
    ) -> None:
        """Go through the stages, from the checkpoint if ``resume``.

        Parameters
        ----------
        dense, pruned : Path, optional
            ``dense.pt`` or ``pruned.pt`` of another run to start from.
        resume : bool
            Whether to go on from the checkpoint.
        dense_only : bool
            Stop when ``dense.pt`` is written.
        """
        optimiser = None
        if resume:
            optimiser = self._restore(self._file, "compress", tuple(self.recipe.to_dict()))
        elif pruned is not None:
            self._restore(pruned, "pruned", PRUNED)
        elif dense is not None:
            self._restore(dense, "compress-dense", DENSE)
        recipe = self.recipe
        if self.stage == "dense":
            self._epochs(recipe.epochs_dense, recipe.rate_dense, optimiser)
            self.dense_accuracy = {"test": evaluate(self.model, self.test),
                                   "held": evaluate(self.model, self.held)}
            self._next("layers")
            self._save(self.out / "dense.pt", "compress-dense")
            optimiser = None
        if dense_only:
            return
        if self.stage == "layers":
            self._close_masks()
            self._by_layer()
            self._next("peak")
            self._save(self.out / "pruned.pt", "pruned")
        if self.stage == "peak":
            self._peak()
            self._next("masked")
        if self.stage == "masked":
            self._epochs(recipe.epochs_masked, recipe.rate_masked, optimiser)
            self.model.quantise(self.train.head(CALIBRATION))
            self._next("retrain")
            optimiser = None
        self._epochs(recipe.epochs_retrain, recipe.rate_retrain, optimiser)

    def accuracy(self, model: nn.Module) -> float:
        """Percent of right answers on the held-out images."""
        with self._precision():
            return evaluate(model, self.held)

    def _close_masks(self) -> None:
        """Give every weight a mask, so that the keys of the state do not depend on the layers."""
        for _, module in prunable(self.model):
            mask_weight(module, kept(module))

    def _by_layer(self) -> None:
        """Prune layer by layer, or train as long without."""
        order = self.recipe.order
        if order == "none":
            for name, _ in prunable(self.model):
                if name not in self.layers:
                    self._retrain(self.model)
                    self._after(name, None)
            return
        layerwise(
            self.model, self._retrain, self.accuracy, reverse=order == "reversed",
            targets=None if self.recipe.densities is None
            else {f"layers.{name}": value for name, value in self.recipe.densities.items()},
            drop=self.recipe.drop, skip=self.layers, after=self._after,
        )

    def _peak(self) -> None:
        """Take one of the two readings of peak-pruning."""
        if self.recipe.peak == "histogram":
            histogram_peak(self.model, self._retrain, self.accuracy, skip=self.layers,
                           after=self._after)
        elif self.recipe.peak == "accuracy":
            accuracy_peak(self.model, self._retrain, self.accuracy, skip=self.layers,
                          after=self._after, factor=self.recipe.factor,
                          patience=self.recipe.patience)

    def _after(self, name: str, step: Step | None) -> None:
        """Note that a layer is done."""
        self.layers.append(name)
        if step is not None:
            entry = step.to_dict() | {
                "layer": name.removeprefix("layers."), "stage": self.stage,
                "network": density_of(self.model), "epochs": self.spent()}
            self.steps.append(entry)
            print(f"{self.stage:8} {entry['layer']:6} kept {100 * step.density:.2f} % "
                  f"(network {100 * entry['network']:.2f} %)  held-out {step.pruned:.2f} -> "
                  f"{step.retrained:.2f} %", flush=True)
        self._save(self._file, "compress")

    def spent(self) -> float:
        """Epochs of training since the dense network."""
        return sum(entry["epochs"] for entry in self.history if entry["stage"] != "dense")

    def _retrain(self, model: nn.Module) -> None:
        """Retrain after a layer has got another mask."""
        recipe = self.recipe
        epochs = recipe.epochs_peak if self.stage == "peak" else recipe.epochs_layer
        self.calls += 1
        whole = ceil(epochs)
        optimiser = self._optimiser(recipe.rate_layer)
        started, losses = time.monotonic(), 0.0
        for index in range(whole):
            seed = self._seed(100 * self.calls + index)
            title = f"stage {self.stage}, retraining {self.calls}, pass {index + 1} of {whole}"
            data = self._share(epochs / whole, seed)
            losses += self._pass(data, optimiser, recipe.rate_layer, (index, whole), seed, title)
        self._log(epochs, losses / whole, started)

    def _epochs(self, total: int, rate: float, state: dict | None) -> None:
        """Go through the epochs of a stage that has some, saving after each."""
        optimiser = self._optimiser(rate)
        if state is not None:
            optimiser.load_state_dict(state)
        for epoch in range(self.done, total):
            started = time.monotonic()
            title = f"stage {self.stage}, epoch {epoch + 1} of {total}"
            loss = self._pass(self.train, optimiser, rate, (epoch, total), self._seed(epoch), title)
            self.done = epoch + 1
            self._log(1, loss, started)
            self._save(self._file, "compress", optimiser)

    def _pass(
        self, data: Samples, optimiser: torch.optim.Optimizer, rate: float,
        place: tuple[int, int], seed: int, title: str,
    ) -> float:
        """One of several passes over the data under one cosine; returns the mean loss."""
        steps = batch_count(data, self.recipe.batch)
        smoothing = 0.0 if self.stage == "retrain" else self.recipe.smoothing

        def step(index: int, images: Tensor, labels: Tensor) -> Tensor:
            done = (place[0] + index / steps) / place[1]
            for group in optimiser.param_groups:
                group["lr"] = rate * (1 + cos(pi * done)) / 2
            with self._precision():
                loss = functional.cross_entropy(self.model(images), labels,
                                                label_smoothing=smoothing)
            require_finite(loss, f"{title}, step {index + 1}")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            return loss

        self.model.train()
        # Dropout draws from the global generator.
        torch.manual_seed(seed)
        try:
            return train_epoch(data, self.recipe.batch, seed, title, step)
        except FloatingPointError as error:
            kind = "layer" if self.stage == "peak" or self.stage == "layers" else self.stage
            saved = f"last good state in {self._file}; " if self.history else ""
            raise UserError(f"{error}; {saved}start again with a lower --rate-{kind}") from error

    def _share(self, share: float, seed: int) -> Samples:
        """Random part of the training images, not less than a batch."""
        if share >= 1:
            return self.train
        count = max(self.recipe.batch, round(share * len(self.train.labels)))
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(self.train.labels), generator=generator)[:count]
        return replace(self.train, images=self.train.images[chosen],
                       labels=self.train.labels[chosen])

    def _optimiser(self, rate: float) -> torch.optim.Optimizer:
        """SGD; Adam for the rounded network, in which batch norm no longer sets the scale."""
        parameters = self.model.parameters()
        if self.stage == "retrain":
            return torch.optim.Adam(parameters, rate)
        # Fused: a third of the step's time for the wide layers.
        return torch.optim.SGD(parameters, rate, momentum=0.9, nesterov=True, fused=True,
                               weight_decay=self.recipe.decay)

    def _seed(self, index: int) -> int:
        """Seed of a pass, another one in every stage."""
        return 100_000 * self.recipe.seed + 10_000 * STAGES.index(self.stage) + index

    def _precision(self) -> AbstractContextManager:
        """Autocast where the recipe asks for it; never where weights are rounded."""
        low = self.recipe.precision == "bfloat16" and self.stage != "retrain"
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=low)

    def _log(self, epochs: float, loss: float, started: float) -> None:
        """Add a stretch of training to the history."""
        held = self.accuracy(self.model)
        self.history.append({
            "stage": self.stage, "epochs": epochs, "loss": loss, "held": held,
            "kept": density_of(self.model), "seconds": round(time.monotonic() - started, 1)})
        print(f"{self.stage:8} {len(self.history):3}  loss {loss:.4f}  held-out {held:.2f} %  "
              f"{time.monotonic() - started:.0f} s", flush=True)

    def _next(self, stage: str) -> None:
        """Enter a stage."""
        self.stage, self.done, self.layers = stage, 0, []
        self._save(self._file, "compress")

    @property
    def _file(self) -> Path:
        return self.out / "checkpoint.pt"

    def _save(
        self, path: Path, kind: str, optimiser: torch.optim.Optimizer | None = None
    ) -> None:
        """Write a checkpoint."""
        checkpoint.save(path, {
            "kind": kind, "recipe": self.recipe.to_dict(), "stage": self.stage, "done": self.done,
            "layers": self.layers, "calls": self.calls, "history": self.history,
            "steps": self.steps, "dense_accuracy": self.dense_accuracy,
            "model": self.model.state_dict(),
            "optimiser": None if optimiser is None else optimiser.state_dict(),
        })

    def _restore(self, path: Path, kind: str, settings: tuple[str, ...]) -> dict | None:
        """Take over a checkpoint made with the same ``settings``; returns the optimiser's state."""
        state = checkpoint.load(path, kind)
        changed = [name for name in settings
                   if state["recipe"].get(name) != self.recipe.to_dict()[name]]
        if changed:
            raise UserError(f"{path} was made with other settings: {', '.join(changed)}")
        self.stage, self.done, self.layers = state["stage"], state["done"], state["layers"]
        self.calls, self.history, self.steps = state["calls"], state["history"], state["steps"]
        self.dense_accuracy = state["dense_accuracy"]
        if any(key.endswith(".mask") for key in state["model"]):
            self._close_masks()
        if self.stage == "retrain":
            self.model.quantise()
        self.model.load_state_dict(state["model"])
        return state["optimiser"]
