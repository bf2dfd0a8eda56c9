"""Photographs as the 8-bit input of a network.

One trained on red, green and blue of 0..255 reads them as they are (`colours`). One trained the
Caffe way reads blue, green, red in 0..255 with a mean per colour subtracted and pads with
zeros, that is with the mean; so its input is signed.  VGG16: Simonyan and Zisserman, ICLR 2015.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.errors import UserError

__all__ = ["IN_SCALE", "MEAN", "colours", "folder", "quantise", "read", "synthetic"]

#: Mean of blue, green and red that Caffe's VGG16 subtracts.
MEAN = (104.0, 117.0, 123.0)
#: Value of input integer 1: the largest value, 255 less the smallest mean, becomes 127.
IN_SCALE = (255.0 - min(MEAN)) / 127
SUFFIXES = (".jpg", ".jpeg", ".png")


def colours(path: Path, shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """Red, green, blue in 0..255 of the centre of a photograph, in ``shape`` (3, H, W).

    A photograph smaller than the input is enlarged first.
    """
    channels, height, width = shape
    if channels != 3:
        raise ValueError(f"a photograph has 3 channels, the network reads {channels}")
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except OSError as error:
        raise UserError(f"photograph {path} cannot be read: {error}") from error
    ratio = max(height / image.height, width / image.width)
    if ratio > 1:
        image = image.resize((max(width, round(image.width * ratio)),
                              max(height, round(image.height * ratio))), Image.Resampling.BILINEAR)
    top, left = (image.height - height) // 2, (image.width - width) // 2
    pixels = np.asarray(image, dtype=np.int64)[top:top + height, left:left + width]
    return np.moveaxis(pixels, -1, 0)


def read(path: Path, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """Read what `colours` does the Caffe way: blue, green, red, less the mean."""
    return colours(path, shape)[::-1] - np.array(MEAN)[:, None, None]


def quantise(images: NDArray[np.floating]) -> NDArray[np.int64]:
    """Round mean-subtracted images to the input integers -128..127 of scale `IN_SCALE`."""
    return np.clip(np.floor(images / IN_SCALE + 0.5), -128, 127).astype(np.int64)


def folder(directory: Path) -> list[Path]:
    """Photographs of a data directory, sorted: its ``imagenet-sample`` folder or itself."""
    for candidate in (directory / "imagenet-sample", directory):
        if candidate.is_dir():
            files = sorted(p for p in candidate.iterdir() if p.suffix.lower() in SUFFIXES)
            if files:
                return files
    raise UserError(f"no photographs (.jpg, .png) in {directory} or {directory}/imagenet-sample")


def synthetic(count: int, shape: tuple[int, int, int], seed: int = 0) -> NDArray[np.float64]:
    """Random images with the 1/f amplitude spectrum of photographs (Field, JOSA A 1987).

    Returns
    -------
    ndarray, shape (count, C, H, W)
        Mean-subtracted values within -104..151, the colours partly correlated.
    """
    channels, height, width = shape
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = frequency.flat[1]
    noise = np.fft.rfft2(rng.normal(size=(count, channels + 1, height, width))) / frequency
    maps = np.fft.irfft2(noise, s=(height, width))
    maps = maps[:, 1:] + 2 * maps[:, :1]
    maps *= 55 / maps.std(axis=(1, 2, 3), keepdims=True)
    return np.rint(np.clip(maps, -min(MEAN), 255 - min(MEAN))).astype(np.float64)
