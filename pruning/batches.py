"""Images as torch batches with a mild, reproducible augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import pi

import torch
from torch import Tensor
from torch.nn import functional

from model.errors import UserError
from model.network import Network
from pruning.data import Digits
from pruning.jpegs import Images

ROTATION = 10 * pi / 180
SCALING = 0.1
SHIFT = 2.0


CROP = 4


@dataclass(frozen=True)
class Samples:
    """Images (count, C, H, W) of bytes 0 ... 255 of the network's input size; labels.

    Attributes
    ----------
    augment : callable
        From bytes (B, C, H, W) as floats and a CPU generator to augmented ones.
    kind : str
        Name of the data set.
    """

    images: Tensor
    labels: Tensor
    augment: Callable[[Tensor, torch.Generator], Tensor]
    kind: str

    def head(self, count: int) -> Tensor:
        """First `count` images as the network reads them."""
        return self.images[:count].float() / 255

    def to(self, device: torch.device) -> Samples:
        """Copy of the samples on a device."""
        return Samples(
            self.images.to(device), self.labels.to(device), self.augment, self.kind
        )


def samples(data: Digits | Images, network: Network) -> Samples:
    """Centre digits in the network's input map; colour images must have its size already."""
    channels, height, width = network.input_shape
    images = torch.tensor(data.images)
    labels = torch.tensor(data.labels).long()
    if isinstance(data, Images):
        if tuple(images.shape[1:]) != network.input_shape:
            raise UserError(f"{network.name} reads {network.input_shape} images, the data set's "
                            f"have shape {tuple(images.shape[1:])}")
        return Samples(images, labels, crop_and_flip, data.kind)
    if channels != 1:
        raise UserError(f"{network.name} reads {channels} channels, digits have one")
    extra_y, extra_x = height - images.shape[1], width - images.shape[2]
    pads = (extra_x // 2, extra_x - extra_x // 2, extra_y // 2, extra_y - extra_y // 2)
    return Samples(functional.pad(images[:, None], pads), labels, rotate_and_shift, "MNIST")


def hold_out(data: Samples, every: int) -> tuple[Samples, Samples]:
    """Images to train on, and every `every`-th one, held out to choose settings by."""
    held = torch.arange(len(data.labels)) % every == every - 1
    train, kept_back = (replace(data, images=data.images[part], labels=data.labels[part])
                        for part in (~held, held))
    return train, kept_back


def epoch_batches(
    data: Samples, batch: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled, augmented batches of one epoch; the last incomplete batch is left out.

    Pixels stay on the grid of 1/255 the hardware sees.
    """
    order = torch.randperm(len(data.labels), generator=generator)
    for start in range(0, len(order) - batch + 1, batch):
        chosen = order[start : start + batch].to(data.images.device)
        images = data.images[chosen].float()
        yield data.augment(images, generator).round() / 255, data.labels[chosen]


def batch_count(data: Samples, batch: int) -> int:
    """Batches of one epoch."""
    return len(data.labels) // batch


def rotate_and_shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random rotation, scale and shift of every image, bilinear."""
    count, _, height, width = images.shape
    random = (2 * torch.rand((4, count), generator=generator) - 1).to(images.device)
    angle, scale = random[0] * ROTATION, 1 + random[1] * SCALING
    rows = (
        torch.stack([scale * angle.cos(), -scale * angle.sin(), random[2] * 2 * SHIFT / width], -1),
        torch.stack([scale * angle.sin(), scale * angle.cos(), random[3] * 2 * SHIFT / height], -1),
    )
    grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def crop_and_flip(images: Tensor, generator: torch.Generator, margin: int = CROP) -> Tensor:
    """Random crop of the image with ``margin`` zeros around it, and a random horizontal flip."""
    count, channels, height, width = images.shape
    shifts = torch.randint(0, 2 * margin + 1, (2, count, 1), generator=generator)
    flip = torch.rand((count, 1), generator=generator) < 0.5
    rows = shifts[0] + torch.arange(height)
    columns = shifts[1] + torch.arange(width)
    columns = torch.where(flip, columns.flip(1), columns)
    padded = functional.pad(images, (margin,) * 4)
    index = [axis.to(images.device) for axis in (
        torch.arange(count)[:, None, None, None], torch.arange(channels)[None, :, None, None],
        rows[:, None, :, None], columns[:, None, None, :],
    )]
    return padded[tuple(index)]
