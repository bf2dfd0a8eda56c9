"""Labelled JPEG images in an ``.npz`` archive, decoded once into the cache folder (no torch).

Image ``i`` is the JPEG ``blob[off[i]:off[i + 1]]`` with label ``y[i]``; a prefix of these names
lets one file hold several parts.
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

__all__ = ["Images", "check_labels", "quality", "read_jpegs"]


@dataclass(frozen=True)
class Images:
    """Labelled colour images.

    Attributes
    ----------
    images : ndarray of uint8, shape (count, 3, H, W)
        Red, green, blue, 0 ... 255.
    labels : ndarray of uint8, shape (count,)
        Classes from 0.
    kind : str
        What the files are, for tables, e.g. ``"CIFAR-10"`` or ``"CIFAR-10 (JPEG q75)"``.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    kind: str


def read_jpegs(
    path: Path, prefix: str, shape: tuple[int, int, int], classes: int, name: str
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int]:
    """Images (count, 3, H, W) and labels (count,) of an archive, and its `quality`.

    Parameters
    ----------
    path : Path
        The archive.
    prefix : str
        What stands before ``blob``, ``off`` and ``y`` in the names of its arrays.
    shape : tuple of int
        (3, H, W) that every image must have.
    classes : int
        Labels must lie below.
    name : str
        Of the data set, for the file in the cache folder.

    Raises
    ------
    UserError
        The file is cut short, corrupt or of another shape.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
            blob, offsets, labels = (data[f"{prefix}{key}"] for key in ("blob", "off", "y"))
    except KeyError as error:
        raise UserError(f"{path} holds no array {error}") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if blob.dtype != np.uint8 or offsets.ndim != 1 or len(offsets) < 2:
        raise UserError(f"{path}: {prefix}blob must be bytes and {prefix}off at least two offsets")
    lengths = np.diff(offsets.astype(np.int64))
    if offsets[0] != 0 or offsets[-1] != len(blob) or (lengths <= 0).any():
        raise UserError(f"{path}: {prefix}off does not cut {prefix}blob into images")
    check_labels(path, labels, len(offsets) - 1, classes)
    digest = hashlib.sha256(blob.tobytes()).hexdigest()[:16]
    kept = _cache_folder() / f"{name}-{digest}.npy"
    images = _read_cache(kept, (len(labels), *shape))
    if images is None:
        images = _decode(f"{path}: {prefix.replace('_', ' ')}image", shape, blob, offsets)
        _write_cache(kept, images)
    return images, labels.astype(np.uint8), quality(blob[: offsets[1]].tobytes())


def quality(jpeg: bytes) -> int:
    """Quality setting, 50 ... 100, with which libjpeg would write an image's quantiser tables.

    From the first step of the luminance table, which is 16 in ITU-T T.81, annex K; 0 if the file
    has none.
    """
    with Image.open(io.BytesIO(jpeg)) as file:
        table = getattr(file, "quantization", {}).get(0)
    return round(100 - 50 * table[0] / 16) if table else 0


def check_labels(path: Path, labels: NDArray, count: int, classes: int) -> None:
    """Raise unless there are ``count`` labels below ``classes``."""
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{path}: labels have shape {labels.shape} and type {labels.dtype}, "
                        f"expected {count} integers")
    if count and not (labels.min() >= 0 and labels.max() < classes):
        raise UserError(f"{path}: label {labels.max()} is no class of 0..{classes - 1}")


def _decode(
    title: str, shape: tuple[int, int, int], blob: NDArray, offsets: NDArray
) -> NDArray[np.uint8]:
    """Decode every JPEG; ``title`` and the number name it in messages."""
    images = np.empty((len(offsets) - 1, *shape), dtype=np.uint8)
    for index, (start, stop) in enumerate(zip(offsets[:-1], offsets[1:], strict=True)):
        try:
            with Image.open(io.BytesIO(blob[start:stop].tobytes())) as file:
                pixels = np.asarray(file.convert("RGB"))
        except (OSError, SyntaxError) as error:
            raise UserError(f"{title} {index} is corrupt: {error}") from error
        if pixels.shape != (*shape[1:], shape[0]):
            raise UserError(f"{title} {index} is {pixels.shape[1]}×{pixels.shape[0]}, "
                            f"not {shape[2]}×{shape[1]}")
        images[index] = np.moveaxis(pixels, -1, 0)
    return images


def _cache_folder() -> Path:
    """``SPECTRALCNN_CACHE``, else ``spectralcnn`` in the user's cache folder, as in `sim.cache`."""
    if chosen := os.environ.get("SPECTRALCNN_CACHE"):
        return Path(chosen)
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "spectralcnn"


def _read_cache(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Load the decoded images of an earlier run; None if there are none that fit."""
    try:
        images = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return images if images.shape == shape and images.dtype == np.uint8 else None


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
