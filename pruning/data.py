"""MNIST from its IDX files (NumPy only)."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import UserError

ENVIRONMENT = "SPECTRAL_DATA"
SHAPE = (28, 28)
CLASSES = 10


@dataclass(frozen=True)
class Digits:
    """Labelled grey images.

    Attributes
    ----------
    images : ndarray of uint8, shape (count, 28, 28)
        Pixels 0 ... 255.
    labels : ndarray of uint8, shape (count,)
        Classes 0 ... 9.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def data_directory(option: str | Path | None) -> Path:
    """Directory given by ``--data``, else by the environment variable ``SPECTRAL_DATA``."""
    chosen = option or os.environ.get(ENVIRONMENT)
    if not chosen:
        raise UserError(f"no data directory: give --data DIR or set {ENVIRONMENT}")
    path = Path(chosen)
    if not path.is_dir():
        raise UserError(f"data directory {path} does not exist")
    if not os.access(path, os.R_OK | os.X_OK):
        raise UserError(f"data directory {path} is not readable")
    return path


def load_digits(directory: Path, part: str) -> Digits:
    """Read the MNIST part ``"train"`` (60 000 digits) or ``"t10k"`` (10 000 test digits).

    Parameters
    ----------
    directory : Path
        Folder with the four ``.gz`` files, or with a folder ``mnist`` that has them.
    part : str
        ``"train"`` or ``"t10k"``.

    Returns
    -------
    Digits
        Images and labels.

    Raises
    ------
    UserError
        A file is missing, damaged, empty, or of other images than 28×28 in ten classes.
    """
    images = _read_idx(_find(directory, f"{part}-images-idx3-ubyte.gz"), 3)
    labels = _read_idx(_find(directory, f"{part}-labels-idx1-ubyte.gz"), 1)
    if len(images) != len(labels):
        raise UserError(f"{directory}: {len(images)} {part} images but {len(labels)} labels")
    if not len(images) or images.shape[1:] != SHAPE:
        raise UserError(f"{directory}: {len(images)} {part} images of shape {images.shape[1:]}, "
                        f"MNIST's have shape {SHAPE}")
    if labels.max() >= CLASSES:
        raise UserError(f"{directory}: {part} label {labels.max()} is no class of "
                        f"0..{CLASSES - 1}")
    return Digits(images, labels)


def _find(directory: Path, name: str) -> Path:
    """Locate a file in `directory` or its ``mnist`` folder."""
    for candidate in (directory / "mnist" / name, directory / name):
        if candidate.is_file():
            return candidate
    raise UserError(f"{name} is neither in {directory} nor in {directory / 'mnist'}")


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes."""
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    header = 4 + 4 * dimensions
    if len(raw) < header or raw[:4] != bytes((0, 0, 8, dimensions)):
        raise UserError(f"{path} is no IDX file of {dimensions}-dimensional bytes")
    shape = struct.unpack(f">{dimensions}I", raw[4:header])
    if len(raw) - header != int(np.prod(shape)):
        raise UserError(f"{path} holds {len(raw) - header} bytes, its header says {shape}")
    return np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape)
