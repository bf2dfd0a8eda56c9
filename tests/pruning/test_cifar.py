"""Reading CIFAR-10 in both layouts, the cache, and every way its files can be wrong."""

import io

import numpy as np
import pytest
from PIL import Image

from model.errors import UserError
from pruning import cifar, jpegs
from pruning.cifar import load_cifar


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SPECTRALCNN_CACHE", str(tmp_path / "cache"))


def colours(count=6, seed=0):
    """Smooth images, which JPEG hardly changes, and labels."""
    rng = np.random.default_rng(seed)
    images = np.broadcast_to(rng.integers(20, 230, (count, 3, 1, 1)), (count, 3, 32, 32))
    return images.astype(np.uint8), rng.integers(0, 10, count).astype(np.uint8)


def jpeg(pixels, size=(32, 32)):
    content = io.BytesIO()
    Image.fromarray(np.moveaxis(pixels, 0, -1)).resize(size).save(content, "JPEG", quality=75)
    return content.getvalue()


def archive(folder, change=None, size=(32, 32)):
    arrays = {}
    for seed, part in enumerate(("train", "test")):
        images, labels = colours(seed=seed)
        blobs = [jpeg(image, size) for image in images]
        arrays[f"{part}_blob"] = np.frombuffer(b"".join(blobs), np.uint8).copy()
        arrays[f"{part}_off"] = np.cumsum([0, *map(len, blobs)])
        arrays[f"{part}_y"] = labels
    if change:
        change(arrays)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "cifar10_jpeg.npz", **arrays)


def binary(folder, count=6):
    folder.mkdir(parents=True)
    for index, name in enumerate([*cifar.BINARY["train"], "test_batch.bin"]):
        images, labels = colours(count, index)
        records = np.concatenate([labels[:, None], images.reshape(count, -1)], axis=1)
        (folder / name).write_bytes(records.astype(np.uint8).tobytes())


def test_the_archive_is_decoded_once(tmp_path, monkeypatch):
    archive(tmp_path / "cifar10")
    first = load_cifar(tmp_path, "test")
    images, labels = colours(seed=1)
    assert first.images.shape == (6, 3, 32, 32) and first.kind == "CIFAR-10 (JPEG q75)"
    assert np.abs(first.images.astype(int) - images).max() <= 3
    np.testing.assert_array_equal(first.labels, labels)
    monkeypatch.setattr(jpegs, "_decode", None)
    np.testing.assert_array_equal(load_cifar(tmp_path / "cifar10", "test").images, first.images)


def test_a_damaged_cache_is_decoded_again(tmp_path):
    archive(tmp_path)
    first = load_cifar(tmp_path, "train")
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    np.testing.assert_array_equal(load_cifar(tmp_path, "train").images, first.images)


def test_no_cache_is_no_error(tmp_path, monkeypatch):
    archive(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPECTRALCNN_CACHE", str(tmp_path / "file" / "below"))
    assert len(load_cifar(tmp_path, "train").labels) == 6


def test_the_official_files(tmp_path):
    binary(tmp_path / "cifar-10-batches-bin")
    train = load_cifar(tmp_path, "train")
    assert train.images.shape == (30, 3, 32, 32) and train.kind == "CIFAR-10"
    images, labels = colours(seed=2)
    np.testing.assert_array_equal(train.images[12:18], images)
    np.testing.assert_array_equal(train.labels[12:18], labels)


def test_no_files(tmp_path):
    with pytest.raises(UserError, match="no CIFAR-10 in .* nor cifar10_jpeg.npz"):
        load_cifar(tmp_path, "train")


@pytest.mark.parametrize("cut, message", [(1, "no multiple of a record's 3073"), (None, "0 bytes")])
def test_a_cut_binary_file(tmp_path, cut, message):
    binary(tmp_path / "cifar10")
    path = tmp_path / "cifar10" / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-cut] if cut else b"")
    with pytest.raises(UserError, match=message):
        load_cifar(tmp_path, "test")


@pytest.mark.parametrize("change, message", [
    (lambda a: a.pop("test_y"), "holds no array"),
    (lambda a: a.update(test_y=a["test_y"][:-1]), r"labels have shape \(5,\)"),
    (lambda a: a.update(test_y=a["test_y"] + 10), "is no class of 0..9"),
    (lambda a: a.update(test_off=a["test_off"][:-1]), "does not cut test_blob"),
    (lambda a: a.update(test_off=a["test_off"][::-1]), "does not cut test_blob"),
    (lambda a: a.update(test_blob=a["test_blob"].astype(float)), "must be bytes"),
    (lambda a: a["test_blob"].__setitem__(slice(a["test_off"][2], a["test_off"][3]), 0),
     "test image 2 is corrupt"),
])
def test_a_damaged_archive(tmp_path, change, message):
    archive(tmp_path, change)
    with pytest.raises(UserError, match=message):
        load_cifar(tmp_path, "test")


def test_images_of_another_size(tmp_path):
    archive(tmp_path, size=(32, 48))
    with pytest.raises(UserError, match="train image 0 is 32×48, not 32×32"):
        load_cifar(tmp_path, "train")


def test_no_archive_at_all(tmp_path):
    (tmp_path / "cifar10_jpeg.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UserError, match="cifar10_jpeg.npz cannot be read"):
        load_cifar(tmp_path, "train")
