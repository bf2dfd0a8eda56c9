"""Reading MNIST, and every way its files can be wrong."""

import gzip
import os
import shutil

import numpy as np
import pytest

from model.errors import UserError
from pruning import export_digits
from pruning.data import data_directory, load_digits
from tests.pruning.conftest import write_idx


def test_digits_are_read(digits_dir):
    digits = load_digits(digits_dir, "t10k")
    assert digits.images.shape == (128, 28, 28)
    assert digits.images.dtype == digits.labels.dtype == np.uint8


def test_the_mnist_folder_is_found(digits_dir, tmp_path):
    shutil.copytree(digits_dir, tmp_path / "mnist")
    assert len(load_digits(tmp_path, "train").labels) == 384


def test_directory_comes_from_the_option_or_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("SPECTRAL_DATA", raising=False)
    with pytest.raises(UserError, match="give --data DIR or set SPECTRAL_DATA"):
        data_directory(None)
    monkeypatch.setenv("SPECTRAL_DATA", str(tmp_path))
    assert data_directory(None) == tmp_path
    with pytest.raises(UserError, match="nowhere does not exist"):
        data_directory(tmp_path / "nowhere")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="is not readable"):
        data_directory(tmp_path)


@pytest.mark.parametrize("content, message", [
    (b"no gzip", "cannot be read"),
    (gzip.compress(b"\0\0\x08\x01" + bytes(4)), "no IDX file of 3-dimensional"),
    (gzip.compress(b"\0\0\x08\x03" + bytes(11)), "no IDX file of 3-dimensional"),
    (gzip.compress(b"\0\0\x08\x03" + bytes(12) + b"\x01"), "holds 1 bytes"),
    (gzip.compress(bytes(3000))[:20], "cannot be read"),
], ids=["no-gzip", "one-dimension", "short-header", "short-data", "truncated"])
def test_damaged_files_are_refused(tmp_path, content, message):
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_digits(tmp_path, "t10k")


@pytest.mark.parametrize("shape, label, message", [
    ((4, 32, 32), 9, r"4 t10k images of shape \(32, 32\)"),
    ((4, 20, 20), 9, r"4 t10k images of shape \(20, 20\)"),
    ((0, 28, 28), 9, "0 t10k images"),
    ((4, 28, 28), 10, r"t10k label 10 is no class of 0\.\.9"),
], ids=["large", "small", "none", "label"])
def test_other_images_are_refused(tmp_path, shape, label, message):
    # Never padded or cropped to size in silence: such a network would learn nothing.
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", np.zeros(shape, np.uint8))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.full(shape[0], label, np.uint8))
    with pytest.raises(UserError, match=message):
        load_digits(tmp_path, "t10k")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="train-images-idx3-ubyte.gz is neither in"):
        load_digits(tmp_path, "train")


def test_export_of_the_first_digits(digits_dir, tmp_path, capsys):
    out = tmp_path / "digits.npz"
    assert export_digits.main(["--data", str(digits_dir), "--count", "9", "--out", str(out)]) == 0
    with np.load(out) as saved:
        np.testing.assert_array_equal(saved["images"], load_digits(digits_dir, "t10k").images[:9])
        assert saved["labels"].shape == (9,)
    assert export_digits.main(["--data", str(digits_dir), "--count", "999",
                               "--out", str(out)]) == 2
    assert capsys.readouterr().err == "error: --count must be 1..128, not 999\n"


def test_export_is_written_whole_or_not_at_all(digits_dir, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    out = tmp_path / "digits.npz"
    out.write_text("old")
    monkeypatch.setattr("model.files.os.replace", full)
    assert export_digits.main(["--data", str(digits_dir), "--count", "9", "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"error: cannot write {out}: No space left on device\n"
    assert out.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == [out.name]
    assert export_digits.main(["--data", "none", "--out", str(tmp_path / "no" / "x.npz")]) == 2
    assert "no does not exist" in capsys.readouterr().err
