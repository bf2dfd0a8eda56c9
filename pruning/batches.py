"""Digits as torch batches with a mild, reproducible augmentation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor
from torch.nn import functional

from model.network import Network
from pruning.data import Digits

ROTATION = 10 * pi / 180
SCALING = 0.1
SHIFT = 2.0


@dataclass(frozen=True)
class Samples:
    """Images (count, C, H, W) of bytes 0 ... 255, zero-padded to the network's input; labels."""

    images: Tensor
    labels: Tensor

    def head(self, count: int) -> Tensor:
        """First `count` images as the network reads them."""
        return self.images[:count].float() / 255


def samples(digits: Digits, network: Network) -> Samples:
    """Centre the digits in the network's input map."""
    _, height, width = network.input_shape
    images = torch.tensor(digits.images)[:, None]
    extra_y, extra_x = height - images.shape[2], width - images.shape[3]
    pads = (extra_x // 2, extra_x - extra_x // 2, extra_y // 2, extra_y - extra_y // 2)
    return Samples(functional.pad(images, pads), torch.tensor(digits.labels).long())


def epoch_batches(
    data: Samples, batch: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled, augmented batches of one epoch; the last incomplete batch is left out.

    Pixels stay on the grid of 1/255 the hardware sees.
    """
    order = torch.randperm(len(data.labels), generator=generator)
    for start in range(0, len(order) - batch + 1, batch):
        chosen = order[start : start + batch]
        images = data.images[chosen].float()
        yield _augment(images, generator).round() / 255, data.labels[chosen]


def batch_count(data: Samples, batch: int) -> int:
    """Batches of one epoch."""
    return len(data.labels) // batch


def _augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random rotation, scale and shift of every image, bilinear."""
    count, _, height, width = images.shape
    random = 2 * torch.rand((4, count), generator=generator) - 1
    angle, scale = random[0] * ROTATION, 1 + random[1] * SCALING
    rows = (
        torch.stack([scale * angle.cos(), -scale * angle.sin(), random[2] * 2 * SHIFT / width], -1),
        torch.stack([scale * angle.sin(), scale * angle.cos(), random[3] * 2 * SHIFT / height], -1),
    )
    grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)
