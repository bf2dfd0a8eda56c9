"""A tiny data set in MNIST's file format."""

import gzip
import struct

import numpy as np
import pytest

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
