"""Photographs as a network reads them: less a mean where its input is signed, else as they are."""

import numpy as np
import pytest
from PIL import Image

from sim.inputs import photograph_files

SHAPE = (3, 12, 10)


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
