"""The stages of a run: dense training, ADMM, masked quantised retraining; resumable by epoch."""

from __future__ import annotations

import sys
import time
from math import cos, pi
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional

from model.errors import UserError
from pruning import checkpoint
from pruning.admm import Admm, projection_mask, rho_at
from pruning.batches import Samples, batch_count, epoch_batches
from pruning.export import sparsity
from pruning.nets import SpatialNet, SpectralNet
from pruning.recipe import Recipe

STAGES = ("dense", "admm", "retrain")
CALIBRATION = 1024
TEMPERATURE = 2.0


def evaluate(model: nn.Module, data: Samples, batch: int = 500) -> float:
    """Share of right answers, in percent."""
    right = 0
    with torch.no_grad():
        for start in range(0, len(data.labels), batch):
            images = data.images[start : start + batch].float() / 255
            right += int((model(images).argmax(1) == data.labels[start : start + batch]).sum())
    return 100 * right / len(data.labels)


class Run:
    """One training run.

    Parameters
    ----------
    recipe : Recipe
        Settings.
    train, test : Samples
        Training digits, and the test digits that are only reported, never chosen by.
    out : Path
        Folder of ``checkpoint.pt`` and ``dense.pt``.

    Attributes
    ----------
    history : list of dict
        One entry per epoch: stage, epoch, loss, accuracy, accuracy_pruned (the projection Z in
        the ADMM stage), residual, rho, zeros_conv, zeros_linear, seconds.
    """

    def __init__(self, recipe: Recipe, train: Samples, test: Samples, out: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.train, self.test, self.out = recipe, train, test, out
        self.dense = SpatialNet(recipe.net)
        self.model: SpectralNet | None = None
        self.admm: Admm | None = None
        self.history: list[dict] = []
        self.dense_accuracy = 0.0
        self.steps = batch_count(train, recipe.batch)
        if not self.steps:
            raise UserError(f"batch {recipe.batch} exceeds the {len(train.labels)} training images")

    @property
    def spectral(self) -> SpectralNet:
        """The spectral network, once the dense stage is over."""
        if self.model is None:
            raise ValueError("the dense stage is not over")
        return self.model

    def execute(self, dense_file: Path | None, resume: bool) -> None:
        """Go through the stages, from the checkpoint if `resume`."""
        stage, epoch, optimiser = self._restore(resume)
        if stage == "dense" and dense_file is not None:
            self.load_dense(dense_file)
            stage, epoch, optimiser = "admm", 0, None
        if stage == "dense":
            self._stage("dense", self.dense, epoch, optimiser)
            self.dense_accuracy = evaluate(self.dense, self.test)
            self._save_dense()
            stage, epoch, optimiser = "admm", 0, None
        if self.model is None:
            self.model = SpectralNet(self.recipe.net, self.dense)
        if stage == "admm":
            if self.admm is None:
                self.admm = Admm(self.model, self.recipe.patterns(), self.recipe.rho_first)
            self._stage("admm", self.model, epoch, optimiser)
            self.admm.apply_masks()
            self.admm = None
            self.model.quantise(self.recipe.weight_bits, self.train.head(CALIBRATION))
            stage, epoch, optimiser = "retrain", 0, None
        self._stage("retrain", self.model, epoch, optimiser)

    def load_dense(self, path: Path) -> None:
        """Start from the dense network of another run."""
        state = checkpoint.load(path, "dense")
        if state["network"] != self.recipe.network:
            raise UserError(f"{path} is a dense {state['network']}, not {self.recipe.network}")
        self.dense.load_state_dict(state["model"])
        self.dense_accuracy = evaluate(self.dense, self.test)

    def _stage(self, stage: str, model: nn.Module, first: int, optimiser: dict | None) -> None:
        """Train `model` through the epochs of one stage, saving after each."""
        total = getattr(self.recipe, f"epochs_{stage}")
        rate = getattr(self.recipe, f"rate_{stage}")
        groups = (
            model.parameter_groups(rate) if isinstance(model, SpectralNet)
            else [{"params": list(model.parameters()), "lr": rate, "gain": 1}]
        )
        adam = torch.optim.Adam(groups)
        if optimiser is not None:
            adam.load_state_dict(optimiser)
        for epoch in range(first, total):
            started = time.monotonic()
            loss = self._epoch(stage, model, adam, epoch, total, rate)
            entry = {"stage": stage, "epoch": epoch + 1, "loss": loss}
            entry |= self._measure(stage, model)
            entry["seconds"] = round(time.monotonic() - started, 1)
            self.history.append(entry)
            self._save(stage, epoch + 1, adam)
            print(_line(entry, total), flush=True)

    def _epoch(
        self, stage: str, model: nn.Module, adam: torch.optim.Adam, epoch: int, total: int,
        rate: float,
    ) -> float:
        """Train one epoch; returns the mean loss without the ADMM penalty."""
        generator = torch.Generator().manual_seed(
            1000 * self.recipe.seed + 100 * STAGES.index(stage) + epoch
        )
        every = max(1, self.steps // self.recipe.updates)
        summed = 0.0
        with Progress(console=Console(stderr=True), transient=True,
                      disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task(f"{stage} {epoch + 1}/{total}", total=self.steps)
            for step, (images, labels) in enumerate(
                epoch_batches(self.train, self.recipe.batch, generator)
            ):
                done = (epoch * self.steps + step) / (total * self.steps)
                share = 1.0 if stage == "admm" else (1 + cos(pi * done)) / 2
                for group in adam.param_groups:
                    group["lr"] = rate * group["gain"] * share
                loss = self._loss(stage, model, images, labels)
                value = float(loss.detach())
                if value != value or value == float("inf"):
                    raise UserError(
                        f"loss became {value} in stage {stage}, epoch {epoch + 1}, "
                        f"step {step + 1}; last good state in {self._file}, lower the learning rate"
                    )
                summed += value
                if self.admm is not None:
                    loss = loss + self.admm.penalty()
                adam.zero_grad(set_to_none=True)
                loss.backward()
                adam.step()
                if self.admm is not None and (step + 1) % every == 0:
                    self._admm_update(epoch, step // every)
                bar.advance(task)
        return summed / self.steps

    def _admm_update(self, epoch: int, index: int) -> None:
        """Z and U step with the next rho of the schedule."""
        assert self.admm is not None
        recipe = self.recipe
        update = epoch * recipe.updates + min(index, recipe.updates - 1) + 1
        self.admm.update(
            rho_at(update, recipe.epochs_admm * recipe.updates, recipe.rho_first, recipe.rho_last)
        )

    def _loss(self, stage: str, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy, mixed with distillation from the dense network after the dense stage."""
        scores = model(images)
        loss = functional.cross_entropy(scores, labels)
        share = self.recipe.distill
        if stage == "dense" or not share:
            return loss
        with torch.no_grad():
            target = functional.softmax(self.dense(images) / TEMPERATURE, 1)
        student = functional.log_softmax(scores / TEMPERATURE, 1)
        distance = functional.kl_div(student, target, reduction="batchmean") * TEMPERATURE**2
        return (1 - share) * loss + share * distance

    def _measure(self, stage: str, model: nn.Module) -> dict:
        """Accuracy, residual and sparsity after an epoch."""
        entry: dict = {"accuracy": evaluate(model, self.test)}
        if not isinstance(model, SpectralNet):
            return entry
        if self.admm is not None:
            entry["rho"] = self.admm.rho
            entry["residuals"] = self.admm.residual()
            entry["residual"] = max(entry["residuals"].values())
            for name, module in model.compressed():
                pattern = self.admm.patterns[name]
                module.mask.copy_(projection_mask(module, module.weight, pattern))
            entry["accuracy_pruned"] = evaluate(model, self.test)
        entry["zeros_conv"], entry["zeros_linear"] = (100 * x for x in sparsity(model))
        if self.admm is not None:
            for _, module in model.compressed():
                module.mask.fill_(1)
        return entry

    @property
    def _file(self) -> Path:
        return self.out / "checkpoint.pt"

    def _save(self, stage: str, epoch: int, adam: torch.optim.Adam) -> None:
        """Write the checkpoint of this run."""
        checkpoint.save(self._file, {
            "kind": "run", "recipe": self.recipe.to_dict(), "stage": stage, "epoch": epoch,
            "dense": self.dense.state_dict(), "optimiser": adam.state_dict(),
            "model": self.model.state_dict() if self.model is not None else None,
            "admm": self.admm.state_dict() if self.admm is not None else None,
            "dense_accuracy": self.dense_accuracy, "history": self.history,
        })

    def _save_dense(self) -> None:
        """Write the dense network for other runs (``--dense``)."""
        checkpoint.save(self.out / "dense.pt", {
            "kind": "dense", "network": self.recipe.network, "model": self.dense.state_dict(),
            "history": self.history,
        })

    def _restore(self, resume: bool) -> tuple[str, int, dict | None]:
        """Stage, epochs done and optimiser state to go on with."""
        if not resume:
            return "dense", 0, None
        state = checkpoint.load(self._file, "run")
        if state["recipe"] != self.recipe.to_dict():
            changed = [k for k, v in self.recipe.to_dict().items() if state["recipe"].get(k) != v]
            raise UserError(f"{self._file} was made with other settings: {', '.join(changed)}")
        stage, epoch = state["stage"], state["epoch"]
        self.dense.load_state_dict(state["dense"])
        self.dense_accuracy, self.history = state["dense_accuracy"], state["history"]
        if state["model"] is not None:
            self.model = SpectralNet(self.recipe.net, self.dense)
            self.model.load_state_dict(state["model"])
        if state["admm"] is not None:
            self.admm = Admm(self.spectral, self.recipe.patterns(), self.recipe.rho_first)
            self.admm.load_state_dict(state["admm"])
        if stage == "retrain":
            self.spectral.restore_quantisation(self.recipe.weight_bits)
        return stage, epoch, state["optimiser"]


def _line(entry: dict, total: int) -> str:
    """One line of text about an epoch."""
    parts = [f"{entry['stage']:8} {entry['epoch']:3}/{total}  loss {entry['loss']:.4f}",
             f"test {entry['accuracy']:.2f} %"]
    if "residual" in entry:
        parts.append(f"projected {entry['accuracy_pruned']:.2f} %  residual {entry['residual']:.3f}"
                     f"  rho {entry['rho']:.4f}")
    if "zeros_conv" in entry:
        parts.append(f"zeros {entry['zeros_conv']:.1f}/{entry['zeros_linear']:.1f} %")
    return "  ".join([*parts, f"{entry['seconds']:.0f} s"])
