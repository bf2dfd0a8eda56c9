"""CIFAR-10 from its binary files or from the JPEG archive, decoded once (no torch).

Two layouts are read from DIR or ``DIR/cifar10``:

* the official ``cifar-10-batches-bin``: ``data_batch_1.bin`` … ``data_batch_5.bin`` and
  ``test_batch.bin``, records of one label byte and 3×32×32 pixels (Krizhevsky, 2009);
* ``cifar10_jpeg.npz``: every image a JPEG, ``train_blob[train_off[i]:train_off[i + 1]]``, with
  labels ``train_y``, and the same with ``test_``.  What is trained on these is to be called
  CIFAR-10 (JPEG) and compared with nothing but itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.errors import UserError

__all__ = ["Images", "load_cifar", "SHAPE", "CLASSES"]

SHAPE = (3, 32, 32)
CLASSES = 10
ARCHIVE = "cifar10_jpeg.npz"
BINARY = {"train": [f"data_batch_{index}.bin" for index in range(1, 6)],
          "test": ["test_batch.bin"]}


@dataclass(frozen=True)
class Images:
    """Labelled colour images.

    Attributes
    ----------
    images : ndarray of uint8, shape (count, 3, 32, 32)
        Red, green, blue, 0 ... 255.
    labels : ndarray of uint8, shape (count,)
        Classes 0 ... 9.
    kind : str
        What the files are, for tables: ``"CIFAR-10"`` or ``"CIFAR-10 (JPEG)"``.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    kind: str


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
            images, labels = _read_archive(folder / ARCHIVE, part)
            return Images(images, labels, "CIFAR-10 (JPEG)")
    raise UserError(f"no CIFAR-10 in {directory}: neither {BINARY[part][0]} nor {ARCHIVE}, there "
                    "or in its folder cifar10")


def _read_binary(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images and labels of one file of records."""
    raw = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    record = 1 + int(np.prod(SHAPE))
    if not len(raw) or len(raw) % record:
        raise UserError(f"{path} has {len(raw)} bytes, no multiple of a record's {record}")
    records = raw.reshape(-1, record)
    _check_labels(path, records[:, 0], len(records))
    return records[:, 1:].reshape(-1, *SHAPE), records[:, 0]


def _read_archive(path: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images and labels of the JPEG archive; the decoded pixels are kept in the cache folder."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
            blob, offsets, labels = (data[f"{part}_{name}"] for name in ("blob", "off", "y"))
    except KeyError as error:
        raise UserError(f"{path} holds no array {error}") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if blob.dtype != np.uint8 or offsets.ndim != 1 or len(offsets) < 2:
        raise UserError(f"{path}: {part}_blob must be bytes and {part}_off at least two offsets")
    lengths = np.diff(offsets.astype(np.int64))
    if offsets[0] != 0 or offsets[-1] != len(blob) or (lengths <= 0).any():
        raise UserError(f"{path}: {part}_off does not cut {part}_blob into images")
    _check_labels(path, labels, len(offsets) - 1)
    digest = hashlib.sha256(blob.tobytes()).hexdigest()[:16]
    kept = _cache_folder() / f"cifar10-{digest}.npy"
    images = _read_cache(kept, len(labels))
    if images is None:
        images = _decode(path, part, blob, offsets)
        _write_cache(kept, images)
    return images, labels.astype(np.uint8)


def _check_labels(path: Path, labels: NDArray, count: int) -> None:
    """Raise unless there are ``count`` classes 0 ... 9."""
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{path}: labels have shape {labels.shape} and type {labels.dtype}, "
                        f"expected {count} integers")
    if count and not (labels.min() >= 0 and labels.max() < CLASSES):
        raise UserError(f"{path}: label {labels.max()} is no class of 0..{CLASSES - 1}")


def _decode(path: Path, part: str, blob: NDArray, offsets: NDArray) -> NDArray[np.uint8]:
    """Decode every JPEG."""
    images = np.empty((len(offsets) - 1, *SHAPE), dtype=np.uint8)
    for index, (start, stop) in enumerate(zip(offsets[:-1], offsets[1:], strict=True)):
        try:
            with Image.open(io.BytesIO(blob[start:stop].tobytes())) as file:
                pixels = np.asarray(file.convert("RGB"))
        except (OSError, SyntaxError) as error:
            raise UserError(f"{path}: {part} image {index} is corrupt: {error}") from error
        if pixels.shape != (*SHAPE[1:], SHAPE[0]):
            raise UserError(f"{path}: {part} image {index} is {pixels.shape[1]}×{pixels.shape[0]}, "
                            "not 32×32")
        images[index] = np.moveaxis(pixels, -1, 0)
    return images


def _cache_folder() -> Path:
    """``SPECTRALCNN_CACHE``, else ``spectralcnn`` in the user's cache folder, as in `sim.cache`."""
    if chosen := os.environ.get("SPECTRALCNN_CACHE"):
        return Path(chosen)
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "spectralcnn"


def _read_cache(path: Path, count: int) -> NDArray[np.uint8] | None:
    """Load the decoded images of an earlier run; None if there are none that fit."""
    try:
        images = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return images if images.shape == (count, *SHAPE) and images.dtype == np.uint8 else None


def _write_cache(path: Path, images: NDArray[np.uint8]) -> None:
    """Keep decoded images; without a writable cache they are decoded again next time."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            np.save(file, images)
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
