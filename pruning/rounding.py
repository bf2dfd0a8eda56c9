"""Weights and activation ranges of a layer as integers and scales."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.network import Conv, QuantisedLayer
from pruning.activations import ActivationQuantiser

__all__ = ["integers", "output_scale", "real_words"]


def integers(words: NDArray[np.complexfloating], bits: int) -> tuple[NDArray, NDArray]:
    """Round words (N, C, F) to symmetric integers (N, C, F, 2) and a scale per output, (N,)."""
    limit = (1 << (bits - 1)) - 1
    parts = np.stack([words.real, words.imag], axis=-1).astype(np.float64)
    scale = np.maximum(np.abs(parts).reshape(len(parts), -1).max(axis=1), 1e-9) / limit
    return np.rint(parts / scale[:, None, None, None]).astype(np.int64), scale


def real_words(data: QuantisedLayer) -> NDArray[np.complex128]:
    """Real-valued words (N, C, F) of a quantised layer."""
    scale = data.weight_scale[:, None, None]
    return (data.weight[..., 0] * scale + 1j * (data.weight[..., 1] * scale)).astype(np.complex128)


def output_scale(layer: Conv, outputs: Tensor) -> float:
    """Scale of the 8-bit outputs with the least squared error on outputs (t*t, T, N)."""
    if not layer.relu:
        return float(outputs.abs().max().clamp_min(1e-6)) / 127
    quantiser = ActivationQuantiser()
    quantiser.mode = "observe"
    # A few hundred tiles are enough for one number.
    quantiser(outputs[:, ::max(1, outputs.shape[1] // 512)])
    quantiser.calibrate()
    return float(quantiser.scale)
