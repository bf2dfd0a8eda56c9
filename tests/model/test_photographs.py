"""Photographs as network inputs: crop, colours, scale, and bad folders."""

import numpy as np
import pytest
from PIL import Image

from model import photographs
from model.errors import UserError


def save(path, size, colour=(0, 0, 0)):
    image = Image.new("RGB", size, colour)
    image.putpixel((size[0] // 2, size[1] // 2), (255, 128, 7))
    image.save(path)
    return path


def test_centre_colour_order_and_mean(tmp_path):
    x = photographs.read(save(tmp_path / "a.png", (40, 30)), (3, 20, 22))
    assert x.shape == (3, 20, 22)
    np.testing.assert_array_equal(x[:, 10, 11], [7 - 104, 128 - 117, 255 - 123])
    np.testing.assert_array_equal(x[:, 0, 0], [-104, -117, -123])


def test_colours_as_they_are(tmp_path):
    x = photographs.colours(save(tmp_path / "a.png", (40, 30)), (3, 20, 22))
    assert x.dtype == np.int64
    np.testing.assert_array_equal(x[:, 10, 11], [255, 128, 7])


def test_integers_use_the_signed_range_without_clipping(tmp_path):
    assert photographs.quantise(np.array([151.0, -123.0, 0.0])).tolist() == [127, -103, 0]
    x = photographs.synthetic(2, (3, 24, 20))
    error = photographs.quantise(x) * photographs.IN_SCALE - x
    assert np.abs(error).max() <= photographs.IN_SCALE / 2 + 1e-9
    np.testing.assert_array_equal(x, photographs.synthetic(2, (3, 24, 20)))


def test_small_photographs_are_enlarged(tmp_path):
    x = photographs.read(save(tmp_path / "a.png", (10, 16), (50, 60, 70)), (3, 20, 20))
    assert x.shape == (3, 20, 20)
    np.testing.assert_array_equal(x[:, 0, 0], [70 - 104, 60 - 117, 50 - 123])


def test_folders(tmp_path):
    with pytest.raises(UserError, match="no photographs"):
        photographs.folder(tmp_path)
    b, a = save(tmp_path / "b.png", (4, 4)), save(tmp_path / "a.jpg", (4, 4))
    assert photographs.folder(tmp_path) == [a, b]
    (tmp_path / "imagenet-sample").mkdir()
    inner = save(tmp_path / "imagenet-sample" / "c.png", (4, 4))
    assert photographs.folder(tmp_path) == [inner]
    with pytest.raises(UserError, match="x.png cannot be read"):
        photographs.read(tmp_path / "x.png", (3, 4, 4))
    with pytest.raises(ValueError, match="3 channels, the network reads 1"):
        photographs.read(a, (1, 4, 4))
