"""Reading Tiny ImageNet: parts, the cache, and files that are not there or of another shape."""

import shutil

import numpy as np
import pytest

from model.errors import UserError
from pruning import jpegs, tinyimagenet
from pruning.tinyimagenet import load_tiny_imagenet


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SPECTRALCNN_CACHE", str(tmp_path / "cache"))


def test_both_parts_are_read_and_decoded_once(tiny_imagenet_dir, monkeypatch):
    train, val = (load_tiny_imagenet(tiny_imagenet_dir, part) for part in ("train", "val"))
    assert train.images.shape == (120, 3, 64, 64) and val.images.shape == (40, 3, 64, 64)
    assert train.labels[:4].tolist() == [3, 60, 120, 199]
    mean = train.images.mean(axis=(2, 3))
    assert np.abs(mean[:4] - mean[4:8]).max() < 6 < np.abs(mean[0] - mean[1]).max()
    monkeypatch.setattr(jpegs, "_decode", None)
    np.testing.assert_array_equal(load_tiny_imagenet(tiny_imagenet_dir, "val").images, val.images)


def test_the_folder_may_be_the_one_above(tiny_imagenet_dir, tmp_path):
    shutil.copytree(tiny_imagenet_dir, tmp_path / "tiny-imagenet")
    assert len(load_tiny_imagenet(tmp_path, "val").labels) == 40


def test_no_files(tmp_path):
    with pytest.raises(UserError, match="no Tiny ImageNet in .*: tiny_imagenet200_val_10k.npz is"):
        load_tiny_imagenet(tmp_path, "val")


@pytest.mark.parametrize("change, message", [
    (lambda a: a.pop("y"), "holds no array 'y"),
    (lambda a: a["y"].__setitem__(2, 200), r"label 200 is no class of 0\.\.199"),
    (lambda a: a.update(off=a["off"][:-1]), "off does not cut blob"),
    (lambda a: a["blob"].__setitem__(slice(a["off"][1], a["off"][2]), 0), "image 1 is corrupt"),
])
def test_a_damaged_archive(tiny_imagenet_dir, tmp_path, change, message):
    name = tinyimagenet.FILES["val"]
    with np.load(tiny_imagenet_dir / name) as data:
        arrays = {key: data[key].copy() for key in data.files}
    change(arrays)
    np.savez(tmp_path / name, **arrays)
    with pytest.raises(UserError, match=message):
        load_tiny_imagenet(tmp_path, "val")
