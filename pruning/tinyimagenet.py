"""Tiny ImageNet, 200 classes of 64×64 pixels, from archives of JPEGs (no torch).

DIR or ``DIR/tiny-imagenet`` holds ``tiny_imagenet200_train_100perclass_20k.npz`` (100 images of
every class; the full set has 500) and ``tiny_imagenet200_val_10k.npz``, the 10 000 validation
images, both in the layout of `pruning.jpegs`.
"""

from __future__ import annotations

from pathlib import Path

from model.errors import UserError
from pruning.jpegs import Images, read_jpegs

__all__ = ["CLASSES", "SHAPE", "load_tiny_imagenet"]

SHAPE = (3, 64, 64)
CLASSES = 200
FILES = {"train": "tiny_imagenet200_train_100perclass_20k.npz",
         "val": "tiny_imagenet200_val_10k.npz"}


def load_tiny_imagenet(directory: Path, part: str) -> Images:
    """Read the part ``"train"`` or ``"val"``; `UserError` if it is not there or damaged."""
    for folder in (directory, directory / "tiny-imagenet"):
        if (path := folder / FILES[part]).is_file():
            images, labels, _ = read_jpegs(path, "", SHAPE, CLASSES, "tiny-imagenet")
            return Images(images, labels, "Tiny ImageNet, 100 images a class")
    raise UserError(f"no Tiny ImageNet in {directory}: {FILES[part]} is neither there nor in its "
                    "folder tiny-imagenet")
