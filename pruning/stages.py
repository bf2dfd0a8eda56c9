"""The stages of a run, resumable by epoch.

Dense training, ADMM, masked retraining with float weights and live batch norm (where there is one),
masked retraining with rounded weights and folded batch norm.
"""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from math import cos, pi
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional

from model.errors import UserError
from pruning import checkpoint
from pruning.admm import ADMMPruner, parameter_groups, require_finite, rho_at
from pruning.batches import Samples, batch_count, hold_out
from pruning.export import sparsity
from pruning.grouplasso import GroupLasso
from pruning.loop import distilled_loss, evaluate, train_epoch
from pruning.nets import SpatialNet, SpectralNet
from pruning.recipe import Recipe
from pruning.report import epoch_line
from pruning.warmstart import Effort, warm_start

__all__ = ["CALIBRATION", "Run", "STAGES"]

#: Stages in order, and the place of each in the seeds of its epochs.
STAGES = {"dense": 0, "admm": 1, "masked": 3, "retrain": 2}
CALIBRATION = 1024
#: Settings that may change between an interruption and ``--resume``.
FREE = ("rate_", "epochs_")


class Run:
    """One training run.

    Parameters
    ----------
    recipe : Recipe
        Settings.
    train, test : Samples
        Training images, of which some are held out if the recipe says so, and the test images.
    out : Path
        Folder of ``checkpoint.pt`` and ``dense.pt``.
    device : torch.device
        Where to train.
    save_seconds : float
        Least time between two checkpoints within a stage; 0: after every epoch.

    Attributes
    ----------
    history : list of dict
        One entry per epoch: stage, epoch, loss, accuracy, accuracy_pruned (the projection Z in
        the ADMM stage), residual, rho, zeros_conv, zeros_linear, seconds.
    """

    def __init__(
        self, recipe: Recipe, train: Samples, test: Samples, out: Path,
        device: torch.device | str = "cpu", save_seconds: float = 0.0,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.device = torch.device(device)
        self.recipe, self.out = recipe, out
        self.save_seconds, self.saved = save_seconds, time.monotonic()
        held = test
        if recipe.hold_out:
            train, held = hold_out(train, recipe.hold_out)
        self.train, self.test = train.to(self.device), test.to(self.device)
        # What the epochs are measured on.
        self.held = held.to(self.device) if recipe.hold_out else self.test
        self.dense = SpatialNet(recipe.net, recipe.batch_norm).to(self.device)
        self.model: SpectralNet | None = None
        self.pruner: ADMMPruner | None = None
        self.history: list[dict] = []
        self.dense_accuracy = 0.0
        # Whether a checkpoint in the folder is of another run.
        self.new = True
        self.steps = batch_count(train, recipe.batch)
        if not self.steps:
            raise UserError(f"batch {recipe.batch} exceeds the {len(train.labels)} training images")

    @property
    def spectral(self) -> SpectralNet:
        """The spectral network, once the dense stage is over."""
        if self.model is None:
            raise ValueError("the dense stage is not over")
        return self.model

    @property
    def _images(self) -> str:
        """What the epochs are measured on, in a word."""
        return "held-out" if self.recipe.hold_out else "test"

    def execute(self, dense_file: Path | None, resume: bool, dense_only: bool = False) -> None:
        """Go through the stages (or the first alone), from the checkpoint if `resume`."""
        self.new = not resume
        stage, epoch, optimiser = self._restore(resume)
        if stage == "dense" and dense_file is not None:
            self.load_dense(dense_file)
            stage, epoch, optimiser = "admm", 0, None
        if stage == "dense":
            self._stage("dense", self.dense, epoch, optimiser)
            self.dense_accuracy = evaluate(self.dense, self.test)
            self._save_dense()
            stage, epoch, optimiser = "admm", 0, None
        if dense_only:
            return
        self.dense.eval()
        if self.model is None or self.pruner is None:
            self.model, self.pruner = self._start()
        if stage == "admm":
            if self.recipe.method == "layerwise":
                self._warm_start(self.model)
            else:
                self._stage("admm", self.model, epoch, optimiser)
            self.pruner.finalise()
            stage, epoch, optimiser = "masked", 0, None
        if stage == "masked":
            self._stage("masked", self.model, epoch, optimiser)
            self.model.quantise(self.recipe.weight_bits, self.train.head(CALIBRATION))
            stage, epoch, optimiser = "retrain", 0, None
        self._stage("retrain", self.model, epoch, optimiser)

    def load_dense(self, path: Path) -> None:
        """Start from the dense network of another run, with its history."""
        state = checkpoint.load(path, "dense")
        with checkpoint.reading(path):
            if state["network"] != self.recipe.network:
                raise UserError(f"{path} is a dense {state['network']}, not {self.recipe.network}")
            if bool(self.dense.norms) != any(key.startswith("norms.") for key in state["model"]):
                raise UserError(f"{path} differs from the recipe in batch norm")
            # Files of before held-out images were all trained with every image.
            apart = state.get("recipe", {}).get("hold_out", 0)
            if self.recipe.hold_out and apart != self.recipe.hold_out:
                raise UserError(f"{path} was trained with hold_out {apart}, so it may know the "
                                f"images that hold_out {self.recipe.hold_out} keeps back: train it "
                                "anew")
            self.dense.load_state_dict(state["model"])
            self.history = list(state["history"])
        if not all(bool(value.isfinite().all()) for value in self.dense.state_dict().values()):
            raise UserError(f"{path} holds NaN or infinity: train the dense network again with a "
                            "lower --rate-dense")
        self.dense_accuracy = evaluate(self.dense, self.test)

    def _start(self) -> tuple[SpectralNet, ADMMPruner]:
        """Spectral network of the dense one, and what prunes it."""
        recipe = self.recipe
        model = SpectralNet(recipe.net, self.dense)
        patterns, rho = recipe.patterns(), (recipe.rho_first, recipe.rho_last)
        updates = recipe.epochs_admm * recipe.updates
        every = max(1, self.steps // recipe.updates)
        if recipe.method != "lasso":
            return model, ADMMPruner(
                model.layers, layers=patterns, rho=rho, updates=updates, every=every
            )
        return model, GroupLasso(
            model.layers, layers=patterns, rho=rho, updates=updates, every=every,
            strength=(recipe.strength_first, recipe.strength_last),
        )

    def _warm_start(self, model: SpectralNet) -> None:
        """Choose the words layer by layer, in place of the ADMM stage."""
        started, effort = time.monotonic(), Effort()
        with Progress(console=Console(stderr=True), transient=True,
                      disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("layer-wise start", total=1.0)
            layers = warm_start(
                model, self.dense, self.recipe.patterns(), self.train.head(effort.images), effort,
                lambda name, share: bar.update(task, completed=share, description=name),
            )
        entry = {"stage": "layerwise", "epoch": 1, "accuracy": evaluate(model, self.held),
                 "layers": layers, "seconds": round(time.monotonic() - started, 1)}
        self.history.append(entry)
        print(epoch_line(entry, 1, self._images), flush=True)

    def _stage(self, stage: str, model: nn.Module, first: int, optimiser: dict | None) -> None:
        """Train `model` through the epochs of one stage, saving after each."""
        total = getattr(self.recipe, f"epochs_{stage}")
        rate = getattr(self.recipe, f"rate_{stage}")
        groups = (
            parameter_groups(model, rate) if isinstance(model, SpectralNet)
            else [{"params": list(model.parameters()), "lr": rate, "gain": 1}]
        )
        steps = self._optimiser(stage, groups)
        if optimiser is not None:
            with checkpoint.reading(self._file):
                steps.load_state_dict(optimiser)
        model.train()
        for epoch in range(first, total):
            started = time.monotonic()
            loss = self._epoch(stage, model, steps, epoch, total, rate)
            entry = {"stage": stage, "epoch": epoch + 1, "loss": loss,
                     "rate": steps.param_groups[-1]["lr"]}
            entry |= self._measure(stage, model)
            entry["seconds"] = round(time.monotonic() - started, 1)
            self.history.append(entry)
            if epoch + 1 == total or time.monotonic() - self.saved >= self.save_seconds:
                self._save(stage, epoch + 1, steps)
            print(epoch_line(entry, total, self._images), flush=True)

    def _optimiser(self, stage: str, groups: list[dict]) -> torch.optim.Optimizer:
        """Optimiser of a stage."""
        decay = self.recipe.decay if stage == "dense" else 0.0
        if stage == "dense" and self.recipe.optimiser_dense == "sgd":
            return torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=decay,
                                   fused=True)
        return torch.optim.Adam(groups, weight_decay=decay, fused=True)

    def _epoch(
        self, stage: str, model: nn.Module, optimiser: torch.optim.Optimizer, epoch: int,
        total: int, rate: float,
    ) -> float:
        """Train one epoch; returns the mean loss without the ADMM penalty."""
        every = max(1, self.steps // self.recipe.updates)
        title = f"stage {stage}, epoch {epoch + 1} of {total}"

        def step(index: int, images: Tensor, labels: Tensor) -> Tensor:
            done = (epoch * self.steps + index) / (total * self.steps)
            share = 1.0 if stage == "admm" else (1 + cos(pi * done)) / 2
            for group in optimiser.param_groups:
                group["lr"] = rate * group["gain"] * share
            with self._precision(stage):
                reported = loss = self._loss(stage, model, images, labels)
            if not images.is_cuda:
                require_finite(reported, f"{title}, step {index + 1}")
            if stage == "admm" and self.pruner is not None:
                loss = loss + self.pruner.penalty()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            if stage == "admm" and isinstance(self.pruner, GroupLasso):
                self.pruner.shrink()
            if stage == "admm" and (index + 1) % every == 0:
                self._update(epoch, index // every)
            return reported

        seed = 1000 * self.recipe.seed + 100 * STAGES[stage] + epoch
        try:
            return train_epoch(self.train, self.recipe.batch, seed, title, step)
        except FloatingPointError as error:
            again = f"last good state in {self._file}: go on with --resume and"
            raise UserError(f"{error}; {again if self.history else 'start again with'} a lower "
                            f"--rate-{stage}") from error

    def _update(self, epoch: int, index: int) -> None:
        """Z and U step with the next rho of the schedule."""
        assert self.pruner is not None
        recipe = self.recipe
        update = epoch * recipe.updates + min(index, recipe.updates - 1) + 1
        self.pruner.update(
            rho_at(update, recipe.epochs_admm * recipe.updates, recipe.rho_first, recipe.rho_last)
        )

    def _precision(self, stage: str) -> AbstractContextManager:
        """Autocast where the recipe asks for it; never where weights are rounded."""
        low = self.recipe.precision == "bfloat16" and stage != "retrain"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low)

    def _loss(self, stage: str, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy, mixed with distillation from the dense network after the dense stage."""
        scores = model(images)
        if stage == "dense" or not self.recipe.distill:
            return functional.cross_entropy(scores, labels)
        with torch.no_grad():
            teacher = self.dense(images)
        return distilled_loss(scores, labels, teacher, self.recipe.distill)

    def _measure(self, stage: str, model: nn.Module) -> dict:
        """Accuracy, residual and sparsity after an epoch."""
        with self._precision(stage):
            entry: dict = {"accuracy": evaluate(model, self.held)}
        if not isinstance(model, SpectralNet):
            return entry
        zeros = sparsity(model)
        if stage == "admm" and self.pruner is not None:
            entry["rho"] = self.pruner.rho
            entry["residuals"] = self.pruner.residual()
            entry["residual"] = max(entry["residuals"].values())
            if isinstance(self.pruner, GroupLasso):
                entry["groups"] = self.pruner.groups()
            with self.pruner.projected(), self._precision(stage):
                entry["accuracy_pruned"] = evaluate(model, self.held)
                zeros = sparsity(model)
        entry["zeros_conv"], entry["zeros_linear"] = (100 * x for x in zeros)
        return entry

    @property
    def _file(self) -> Path:
        return self.out / "checkpoint.pt"

    def _save(self, stage: str, epoch: int, optimiser: torch.optim.Optimizer) -> None:
        """Write the checkpoint of this run."""
        if self.new:
            checkpoint.put_aside(self._file)
            self.new = False
        checkpoint.save(self._file, {
            "kind": "run", "recipe": self.recipe.to_dict(), "stage": stage, "epoch": epoch,
            "dense": self.dense.state_dict(), "optimiser": optimiser.state_dict(),
            "model": self.model.state_dict() if self.model is not None else None,
            "pruner": self.pruner.state_dict() if self.pruner is not None else None,
            "dense_accuracy": self.dense_accuracy, "history": self.history,
        })
        self.saved = time.monotonic()

    def _save_dense(self) -> None:
        """Write the dense network for other runs (``--dense``)."""
        checkpoint.put_aside(self.out / "dense.pt")
        checkpoint.save(self.out / "dense.pt", {
            "kind": "dense", "network": self.recipe.network, "model": self.dense.state_dict(),
            "recipe": self.recipe.to_dict(),
            "history": self.history,
        })

    def _restore(self, resume: bool) -> tuple[str, int, dict | None]:
        """Stage, epochs done and optimiser state to go on with."""
        if not resume:
            return "dense", 0, None
        state = checkpoint.load(self._file, "run")
        with checkpoint.reading(self._file):
            return self._take(state)

    def _take(self, state: dict) -> tuple[str, int, dict | None]:
        """Take over a checkpoint; returns as `_restore`."""
        # A run that diverged goes on at a lower rate, one that takes too long with fewer epochs;
        # each epoch's entry tells its rate. All else must be as it was.
        before = Recipe(self.recipe.network).to_dict() | state["recipe"]
        changed = [name for name, value in self.recipe.to_dict().items()
                   if before[name] != value and not name.startswith(FREE)]
        if changed:
            raise UserError(f"{self._file} was made with other settings: {', '.join(changed)}")
        stage, epoch = state["stage"], int(state["epoch"])
        if stage not in STAGES:
            raise ValueError(f"unknown stage {stage!r}")
        self.dense.load_state_dict(state["dense"])
        self.dense_accuracy, self.history = state["dense_accuracy"], list(state["history"])
        if state["model"] is not None:
            self.model, self.pruner = self._start()
            self.pruner.load_state_dict(state["pruner"])
            if stage == "retrain":
                self.model.restore_quantisation(self.recipe.weight_bits)
            self.model.load_state_dict(state["model"])
        return stage, epoch, state["optimiser"]

