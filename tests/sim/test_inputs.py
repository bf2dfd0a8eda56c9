"""Photographs as a network reads them: less a mean where its input is signed, else as they are."""

import numpy as np
import pytest
from PIL import Image

from model.errors import UserError
from sim.inputs import image_files, photograph_files

SHAPE = (3, 12, 10)


def test_digits_are_what_they_look_like(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (28, 28), dtype=np.uint8)
    files = {name: str(tmp_path / name) for name in ("8.png", "16.png", "opaque.png")}
    Image.fromarray(pixels).save(files["8.png"])
    Image.fromarray(pixels.astype(np.uint16) * 257).save(files["16.png"])
    Image.merge("LA", (Image.fromarray(pixels), Image.new("L", (28, 28), 255))).save(
        files["opaque.png"])
    for digit in image_files(list(files.values())):
        np.testing.assert_array_equal(digit.pixels, pixels)


@pytest.mark.parametrize("name, mode, message", [
    ("a.png", "LA", "a.png is transparent in places: flatten it"),
    ("a.tif", "F", "a.tif has pixels of 32 bits: save it with 8 bits a pixel"),
])
def test_digits_that_could_be_taken_for_others(tmp_path, name, mode, message):
    Image.new(mode, (28, 28)).save(tmp_path / name)
    with pytest.raises(UserError, match=message):
        image_files([str(tmp_path / name)])


@pytest.mark.parametrize(("signed", "pixel"), [(False, [250, 100, 3]), (True, None)])
def test_file(tmp_path, signed, pixel):
    Image.new("RGB", (10, 12), (250, 100, 3)).save(tmp_path / "a.png")
    (image,) = photograph_files([str(tmp_path / "a.png")], SHAPE, signed=signed)
    assert image.name == "a.png" and image.pixels.shape == SHAPE
    if pixel is not None:
        np.testing.assert_array_equal(image.pixels[:, 5, 5], pixel)
    else:
        assert image.pixels.min() < 0 < image.pixels.max() <= 127


def test_random_photographs_fill_the_range_they_are_for():
    (as_bytes,), (signed,) = (
        photograph_files([], (3, 64, 64), seed=2, signed=signed) for signed in (False, True)
    )
    assert 0 <= as_bytes.pixels.min() < 30 and 220 < as_bytes.pixels.max() <= 255
    assert -128 <= signed.pixels.min() < -60 and 60 < signed.pixels.max() <= 127
