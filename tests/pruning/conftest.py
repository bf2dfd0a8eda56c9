"""Tiny data sets in the file formats of MNIST and Tiny ImageNet."""

import gzip
import io
import struct

import numpy as np
import pytest
from PIL import Image

from pruning import tinyimagenet

torch = pytest.importorskip("torch")
# More threads than free cores make small products ten times slower.
torch.set_num_threads(1)


def write_idx(path, array):
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), 1))


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory):
    """384 + 128 digits: one bar per class at its own angle, with noise."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(7)
    rows, cols = np.mgrid[:28, :28] - 13.5
    for part, count in (("train", 384), ("t10k", 128)):
        labels = rng.integers(0, 10, count).astype(np.uint8)
        angles = labels[:, None, None] * (np.pi / 10)
        distance = abs(rows * np.cos(angles) + cols * np.sin(angles))
        images = 220 * (distance < 2) * (np.hypot(rows, cols) < 11) + rng.integers(0, 30, (28, 28))
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images.astype(np.uint8))
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)
    return folder


def colour_archive(path, labels, seed=0):
    """Tiny ImageNet's layout: 64×64 JPEGs of one colour per label, with noise."""
    rng = np.random.default_rng(seed)
    palette = np.random.default_rng(1).integers(40, 215, (200, 3))
    blobs = []
    for label in labels:
        pixels = palette[label] + rng.integers(-30, 30, (64, 64, 3))
        content = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(content, "JPEG", quality=90)
        blobs.append(content.getvalue())
    np.savez(path, blob=np.frombuffer(b"".join(blobs), np.uint8),
             off=np.cumsum([0, *map(len, blobs)]), y=np.asarray(labels, np.uint8))


@pytest.fixture(scope="session")
def tiny_imagenet_dir(tmp_path_factory):
    """120 + 40 images of four of the 200 classes."""
    folder = tmp_path_factory.mktemp("images")
    classes = [3, 60, 120, 199]
    for seed, (part, count) in enumerate((("train", 30), ("val", 10))):
        colour_archive(folder / tinyimagenet.FILES[part], classes * count, seed)
    return folder
