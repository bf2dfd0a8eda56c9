"""Photographs to calibrate and to measure on: the same choice for every command (no torch)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model import photographs
from model.errors import UserError
from pruning.data import data_directory

__all__ = ["calibration_images"]


def calibration_images(
    data: str | None, images: int, held_out: int, shape: tuple[int, int, int], seed: int,
    made_up: bool = False,
) -> NDArray[np.float64]:
    """Calibration and held-out images, in this order.

    Parameters
    ----------
    data : str or None
        Folder of photographs (None: SPECTRAL_DATA).
    images, held_out : int
        How many of each.
    shape : (int, int, int)
        Shape (3, H, W) of the network's input.
    seed : int
        Seed of the choice.
    made_up : bool
        Without `data`, take synthetic images.

    Returns
    -------
    float array, (images + held_out, 3, H, W)
        Mean-subtracted pixels.
    """
    count = images + held_out
    if made_up and data is None:
        return photographs.synthetic(count, shape, seed)
    files = photographs.folder(data_directory(data))
    if len(files) < count:
        raise UserError(f"{len(files)} photographs, --images and --held-out ask for {count}")
    chosen = np.random.default_rng(seed).permutation(len(files))[:count]
    return np.stack([photographs.read(files[index], shape) for index in chosen])
