"""CIFAR-10 from its binary files or from the JPEG archive (no torch).

Two layouts are read from DIR or ``DIR/cifar10``:

* the official ``cifar-10-batches-bin``: ``data_batch_1.bin`` … ``data_batch_5.bin`` and
  ``test_batch.bin``, records of one label byte and 3×32×32 pixels (Krizhevsky, 2009);
* ``cifar10_jpeg.npz``: an archive of `pruning.jpegs` with prefixes ``train_`` and ``test_``.  What
  is trained on these goes by the name CIFAR-10 (JPEG q75), after the files' quality, and compares
  with nothing but itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import UserError
from pruning.jpegs import Images, check_labels, read_jpegs

__all__ = ["Images", "load_cifar", "SHAPE", "CLASSES"]

SHAPE = (3, 32, 32)
CLASSES = 10
ARCHIVE = "cifar10_jpeg.npz"
BINARY = {"train": [f"data_batch_{index}.bin" for index in range(1, 6)],
          "test": ["test_batch.bin"]}


def load_cifar(directory: Path, part: str) -> Images:
    """Read the part ``"train"`` (50 000 images) or ``"test"`` (10 000).

    Parameters
    ----------
    directory : Path
        Folder of one of the two layouts, or a folder with it in ``cifar10`` or
        ``cifar-10-batches-bin``.
    part : str
        ``"train"`` or ``"test"``.

    Raises
    ------
    UserError
        No such file, or one that is cut short, corrupt or of another shape.
    """
    folders = [directory, directory / "cifar10", directory / "cifar-10-batches-bin",
               directory / "cifar10" / "cifar-10-batches-bin"]
    for folder in folders:
        if all((folder / name).is_file() for name in BINARY[part]):
            parts = [_read_binary(folder / name) for name in BINARY[part]]
            images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            return Images(images, labels, "CIFAR-10")
        if (folder / ARCHIVE).is_file():
            images, labels, grade = read_jpegs(folder / ARCHIVE, f"{part}_", SHAPE, CLASSES,
                                               "cifar10")
            return Images(images, labels, f"CIFAR-10 (JPEG q{grade})")
    raise UserError(f"no CIFAR-10 in {directory}: neither {BINARY[part][0]} nor {ARCHIVE}, there "
                    "or in its folder cifar10")


def _read_binary(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images and labels of one file of records."""
    try:
        raw = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    record = 1 + int(np.prod(SHAPE))
    if not len(raw) or len(raw) % record:
        raise UserError(f"{path} has {len(raw)} bytes, no multiple of a record's {record}")
    records = raw.reshape(-1, record)
    check_labels(path, records[:, 0], len(records), CLASSES)
    return records[:, 1:].reshape(-1, *SHAPE), records[:, 0]
