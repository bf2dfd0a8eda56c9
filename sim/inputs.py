"""Images to simulate: stored digits by index, the user's digit images, photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from model import photographs
from model.errors import UserError

__all__ = ["Digit", "Photograph", "parse_indices", "stored_digits", "image_files", "as_input",
           "photograph_files"]

SIZE = 28
#: Digits of the whole of MNIST.
MOST = 70_000
TEST_SET = Path(__file__).resolve().parents[1] / "model" / "zoo" / "mnist_test.npz"


@dataclass(frozen=True)
class Digit:
    """A 28×28 greyscale image (white on black) and, if known, its class."""

    name: str
    pixels: NDArray[np.uint8]
    label: int | None = None


@dataclass(frozen=True)
class Photograph:
    """Input integers (3, H, W) of a network for photographs."""

    name: str
    pixels: NDArray[np.int64]
    label: None = None


def photograph_files(
    paths: Sequence[str], shape: tuple[int, int, int], seed: int = 0, *, signed: bool = True
) -> list[Photograph]:
    """Read the centres of photographs; without any, one random image of photograph statistics.

    A network with signed inputs reads them less a mean, others as they are (`model.photographs`).
    """
    def prepare(path: Path) -> NDArray[np.int64]:
        return (photographs.quantise(photographs.read(path, shape)) if signed
                else photographs.colours(path, shape))

    if paths:
        return [Photograph(Path(path).name, prepare(Path(path))) for path in paths]
    made = photographs.synthetic(1, shape, seed)[0]
    if signed:
        return [Photograph("synthetic photograph", photographs.quantise(made))]
    mean = np.array(photographs.MEAN)[:, None, None]
    bytes_of = np.clip(made + mean, 0, 255)[::-1].astype(np.int64)
    return [Photograph("synthetic photograph", bytes_of)]


def parse_indices(texts: Sequence[str]) -> list[int]:
    """Read indices like ``"7"``, ``"0:100"`` and ``"0:100:10"``."""
    indices: list[int] = []
    for text in texts:
        try:
            parts = [int(part) for part in text.split(":")]
            if not 1 <= len(parts) <= 3 or min(parts) < 0:
                raise ValueError
            chosen: Sequence[int] = parts if len(parts) == 1 else range(*parts)
        except ValueError:
            raise UserError(f"index {text!r} is neither a number nor a range like 0:100") from None
        if not chosen:
            raise UserError(f"index range {text!r} is empty")
        # A slip of the finger must not fill the memory.
        if chosen[MOST:]:
            raise UserError(f"index {text!r} asks for more digits than there are")
        indices += chosen
    return indices


def stored_digits(indices: Sequence[int], path: Path = TEST_SET) -> list[Digit]:
    """Digits of the test set."""
    try:
        with np.load(path, allow_pickle=False) as data:
            images, labels = data["images"], data["labels"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"test digits {path} cannot be read: {error}") from error
    for index in indices:
        if index >= len(images):
            raise UserError(f"index {index} is beyond the test set of {len(images)} digits")
    return [Digit(f"#{index}", images[index], int(labels[index])) for index in indices]


def _grey(picture: Image.Image, path: str) -> Image.Image:
    """Convert to 8 bits a pixel; what is seen through, nobody knows."""
    if picture.has_transparency_data:
        if picture.convert("RGBA").getchannel("A").getextrema() != (255, 255):
            raise UserError(f"image {path} is transparent in places: flatten it")
    if picture.mode.startswith("I;16"):     # `convert` would clip it
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise UserError(f"image {path} has pixels of 32 bits: save it with 8 bits a pixel")
    return picture.convert("L")


def image_files(paths: Sequence[str]) -> list[Digit]:
    """Read image files; anything but a readable 28×28 picture is a `UserError`."""
    digits = []
    for path in paths:
        try:
            with Image.open(path) as picture:
                grey = _grey(picture, path)
        except FileNotFoundError:
            raise UserError(f"image {path} does not exist") from None
        except UnidentifiedImageError as error:
            raise UserError(f"image {path} is of no known format: give a PNG, say") from error
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise UserError(f"image {path} cannot be read: {why}") from error
        if grey.size != (SIZE, SIZE):
            raise UserError(f"image {path} is {grey.width}x{grey.height} pixels, the network takes "
                            f"{SIZE}x{SIZE}: crop or scale it first")
        digits.append(Digit(Path(path).name, np.asarray(grey, dtype=np.uint8)))
    return digits


def as_input(digit: Digit | Photograph, shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """Input map (C, H, W): a digit in the middle of zeros, a photograph as it is."""
    if isinstance(digit, Photograph):
        if digit.pixels.shape != shape:
            raise UserError(f"{digit.name} is {digit.pixels.shape}, the network takes {shape}")
        return digit.pixels
    channels, height, width = shape
    if channels != 1 or height < SIZE or width < SIZE:
        raise UserError(f"a digit is no input for a network that takes {channels}x{height}x{width}")
    top, left = (height - SIZE) // 2, (width - SIZE) // 2
    out = np.zeros(shape, dtype=np.int64)
    out[0, top:top + SIZE, left:left + SIZE] = digit.pixels
    return out
