"""From a trained `SpectralNet` to the integers of a `model.network.QuantisedNetwork`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from model.lower import calibrate
from model.network import QuantisedLayer, QuantisedNetwork
from model.patterns import Pattern
from pruning.activations import ActivationQuantiser
from pruning.masks import masked_weight, rounding_of
from pruning.nets import SpectralNet

IN_SCALE = 1 / 255
# The last layer's scores are signed 16-bit; room for scores beyond those seen in training.
SCORE_LIMIT = 32767
SCORE_ROOM = 1.5
# Training images that set the shift of the accumulators.
SHIFT_IMAGES = 256


def export(
    model: SpectralNet, patterns: Mapping[str, Pattern], calibration: Tensor
) -> QuantisedNetwork:
    """Read integers and scales off a fake-quantised network.

    Parameters
    ----------
    model : SpectralNet
        Network after `SpectralNet.quantise`.
    patterns : mapping of str to Pattern
        Pattern each layer obeys.
    calibration : Tensor, shape (B, C, H, W)
        Training images that set the range of the scores and of the accumulators.

    Returns
    -------
    QuantisedNetwork
        What the compiler reads.
    """
    with torch.no_grad():
        largest = float(model(calibration).abs().max())
    layers = []
    bits = 0
    for name, module in model.compressed():
        integers, scale = module.integers()
        rounding = rounding_of(module)
        assert rounding is not None and module.bias is not None
        bits = rounding.bits
        if name in model.quantisers:
            quantiser = model.quantisers[name]
            assert isinstance(quantiser, ActivationQuantiser)
            out_scale = float(quantiser.scale)
        else:
            out_scale = SCORE_ROOM * max(largest, 1e-6) / SCORE_LIMIT
        layers.append(
            QuantisedLayer(
                weight=integers.cpu().numpy().astype(np.int64),
                weight_scale=scale.cpu().double().numpy(),
                bias=module.bias.detach().cpu().double().numpy(),
                out_scale=out_scale,
                pattern=str(patterns[name]),
            )
        )
    network = QuantisedNetwork(
        network=model.network, layers=tuple(layers), weight_bits=bits, in_scale=IN_SCALE,
        tile=model.tile,
    )
    pixels = torch.round(calibration[:SHIFT_IMAGES] / IN_SCALE).cpu().numpy().astype(np.int64)
    return calibrate(network, pixels)


def sparsity(model: SpectralNet) -> tuple[float, float]:
    """Share of zero words in the convolutions and of zero weights in the linear layers."""
    zeros = {True: 0, False: 0}
    total = {True: 0, False: 0}
    for _, module in model.compressed():
        weight = masked_weight(module).detach()
        conv = weight.ndim == 4
        used = weight.ne(0).any(-1) if conv else weight.ne(0)
        zeros[conv] += int((~used).sum())
        total[conv] += used.numel()
    return zeros[True] / max(1, total[True]), zeros[False] / max(1, total[False])
