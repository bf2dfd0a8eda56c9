"""A run of `pruning.compress`: dense, layer by layer, peak, all masks, 8 bits; resumable.

Everything is chosen on training images held out; the test images only measure the dense network.
"""

from __future__ import annotations

import time
from math import ceil
from pathlib import Path

import torch
from torch import nn

from model.alexnet import ALEXNETS
from model.errors import UserError
from pruning import checkpoint
from pruning.alexnet import AlexNet
from pruning.batches import Samples, batch_count
from pruning.compressrecipe import CompressRecipe
from pruning.compresstrain import Trainer, precision
from pruning.loop import evaluate
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

__all__ = ["CompressRun"]

#: Training images that choose the activation scales.
CALIBRATION = 1024
#: Stages in order.
STAGES = ("dense", "layers", "peak", "masked", "retrain")
#: Settings of the stages up to the dense network, and up to the end of the stage ``layers``.
DENSE = ("network", "epochs_dense", "rate_dense", "batch", "decay", "smoothing", "precision",
         "seed")
PRUNED = (*DENSE, "order", "densities", "drop", "epochs_layer", "rate_layer")


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
        # Whether a checkpoint in the folder is of another run.
        self.new = True
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
        optimiser, self.new = None, not resume
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
        with precision(self.recipe, self.stage == "retrain"):
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
        trainer = self._trainer(recipe.rate_layer, whole)
        started, losses = time.monotonic(), 0.0
        for index in range(whole):
            title = f"stage {self.stage}, retraining {self.calls}, pass {index + 1} of {whole}"
            losses += self._guarded(trainer, index, 100 * self.calls + index, title, epochs / whole)
        self._log(epochs, losses / whole, started)

    def _epochs(self, epochs: float, rate: float, state: dict | None) -> None:
        """Go through the epochs of a stage that has some, saving after each."""
        total = ceil(epochs)
        trainer = self._trainer(rate, total)
        if state is not None:
            with checkpoint.reading(self._file):
                trainer.optimiser.load_state_dict(state)
        for epoch in range(self.done, total):
            started = time.monotonic()
            title = f"stage {self.stage}, epoch {epoch + 1} of {total}"
            loss = self._guarded(trainer, epoch, epoch, title, epochs / total)
            self.done = epoch + 1
            self._log(epochs / total, loss, started)
            self._save(self._file, "compress", trainer.optimiser)

    def _trainer(self, rate: float, passes: int) -> Trainer:
        """Make what trains the model as the stage says."""
        return Trainer(self.model, self.train, self.recipe, rate, passes, self.stage == "retrain")

    def _guarded(
        self, trainer: Trainer, index: int, number: int, title: str, share: float = 1.0
    ) -> float:
        """One pass; a loss that is no number ends the run."""
        self.model.adjust_dropout()
        # Another seed in every stage.
        seed = 100_000 * self.recipe.seed + 10_000 * STAGES.index(self.stage) + number
        try:
            return trainer.run(index, seed, title, share)
        except FloatingPointError as error:
            kind = "layer" if self.stage in ("layers", "peak") else self.stage
            saved = f"last good state in {self._file}; " if self.history else ""
            raise UserError(f"{error}; {saved}start again with a lower --rate-{kind}") from error

    def _log(self, epochs: float, loss: float, started: float) -> None:
        """Add a stretch of training to the history."""
        entry = {"stage": self.stage, "epochs": epochs, "loss": loss,
                 "kept": density_of(self.model), "seconds": round(time.monotonic() - started, 1)}
        text = f"{self.stage:8} {len(self.history) + 1:3}  loss {loss:.4f}"
        # Where a layer was pruned the step has it.
        if self.stage not in ("layers", "peak") or self.recipe.order == "none":
            entry["held"] = self.accuracy(self.model)
            text += f"  held-out {entry['held']:.2f} %"
        self.history.append(entry)
        print(f"{text}  {time.monotonic() - started:.0f} s", flush=True)

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
        """Write a checkpoint; the first one of a run spares those of an earlier one."""
        if self.new or path != self._file:
            checkpoint.put_aside(path)
            self.new = self.new and path != self._file
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
        with checkpoint.reading(path):
            return self._take(state, path, settings)

    def _take(self, state: dict, path: Path, settings: tuple[str, ...]) -> dict | None:
        """Take over a checkpoint; returns as `_restore`."""
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
