"""One epoch of training and the accuracy after it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional

from pruning.admm import require_finite
from pruning.batches import Samples, batch_count, epoch_batches

__all__ = ["Step", "distilled_loss", "evaluate", "train_epoch"]

# Steps between two looks at the loss on a GPU, where each look waits for all that is queued.
LOOK = 16
TEMPERATURE = 2.0

#: From images and labels to the loss to report; does the optimiser's step.
Step = Callable[[int, Tensor, Tensor], Tensor]


def evaluate(model: nn.Module, data: Samples, batch: int = 500) -> float:
    """Share of right answers, in percent; batch norm uses its running statistics."""
    right = 0
    training = model.training
    model.eval()
    with torch.no_grad():
        for start in range(0, len(data.labels), batch):
            images = data.images[start : start + batch].float() / 255
            right += int((model(images).argmax(1) == data.labels[start : start + batch]).sum())
    model.train(training)
    return 100 * right / len(data.labels)


def train_epoch(data: Samples, batch: int, seed: int, title: str, step: Step) -> float:
    """Go through the data once.

    Parameters
    ----------
    data : Samples
        Training images.
    batch : int
        Images per step.
    seed : int
        Of order and augmentation.
    title : str
        Name of the epoch, for the progress bar and messages.
    step : callable
        Called with the number of the step, images and labels.

    Returns
    -------
    float
        Mean of the losses.

    Raises
    ------
    FloatingPointError
        A loss is NaN or infinite, noticed up to `LOOK` steps late on a GPU.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = batch_count(data, batch)
    every = LOOK if data.images.is_cuda else 1
    summed = 0.0
    pending: list[Tensor] = []
    with Progress(console=Console(stderr=True), transient=True,
                  disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(title, total=steps)
        for index, (images, labels) in enumerate(epoch_batches(data, batch, generator)):
            pending.append(step(index, images, labels).detach())
            if len(pending) == every or index == steps - 1:
                for loss in pending:
                    summed += require_finite(loss, f"{title}, step {index + 1}")
                pending = []
            bar.advance(task)
    return summed / steps


def distilled_loss(scores: Tensor, labels: Tensor, teacher: Tensor, share: float) -> Tensor:
    """Cross entropy, and for a `share` the distance to the teacher's class probabilities.

    Hinton et al., 2015; scores (B, classes), labels (B,).
    """
    loss = functional.cross_entropy(scores, labels)
    target = functional.softmax(teacher / TEMPERATURE, 1)
    student = functional.log_softmax(scores / TEMPERATURE, 1)
    distance = functional.kl_div(student, target, reduction="batchmean") * TEMPERATURE**2
    return (1 - share) * loss + share * distance
