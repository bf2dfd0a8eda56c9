"""AlexNet in torch, with batch norm until it is quantised to 8 bits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from model.alexnet import ALEXNETS, POOL, POOL_STRIDE, AlexNetShape, ConvShape
from model.spatialfile import SpatialLayer, SpatialNetwork
from pruning.activations import ActivationQuantiser
from pruning.masks import (
    free_weight,
    mask_of,
    masked_weight,
    open_mask,
    rounding_of,
    set_rounding,
)

__all__ = ["AlexNet", "export", "restore"]

DROPOUT = 0.5
#: Value of pixel 1.
IN_SCALE = 1 / 255


class AlexNet(nn.Module):
    """The layers of a shape, batch norm behind all but the last, dropout before fc6 and fc7.

    Parameters
    ----------
    shape : AlexNetShape
        Layers.

    Notes
    -----
    Batch norm only helps the training: `fold` moves it into weights and biases, exactly.  Every
    weight has a parametrised mask from the start (`pruning.masks`), so that the keys of the state
    do not depend on what is pruned.
    """

    def __init__(self, shape: AlexNetShape) -> None:
        super().__init__()
        self.shape = shape
        layers: dict[str, nn.Module] = {}
        norms: dict[str, nn.Module] = {}
        for layer in shape.layers:
            if isinstance(layer, ConvShape):
                made: nn.Conv2d | nn.Linear = nn.Conv2d(
                    layer.in_channels, layer.out_channels, layer.kernel, layer.stride,
                    layer.padding, groups=layer.groups)
                norms[layer.name] = nn.BatchNorm2d(layer.out_channels)
            else:
                made = nn.Linear(layer.in_features, layer.out_features)
                if layer is not shape.linears[-1]:
                    norms[layer.name] = nn.BatchNorm1d(layer.out_features)
            nn.init.kaiming_normal_(made.weight, mode="fan_out" if layer.name in norms
                                    else "fan_in")
            nn.init.zeros_(made.bias)       # type: ignore[arg-type]
            layers[layer.name] = made
        self.layers, self.norms = nn.ModuleDict(layers), nn.ModuleDict(norms)
        self.quantisers = nn.ModuleDict(
            {layer.name: ActivationQuantiser() for layer in shape.layers[:-1]})
        self.dropout = {layer.name: DROPOUT for layer in shape.linears[:-1]}
        self.to(memory_format=torch.channels_last)      # type: ignore[call-overload]
        for module in self.layers.values():
            open_mask(module)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores; (B, 3, H, W) in 0 ... 1 to (B, classes)."""
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in self.shape.layers:
            if not isinstance(layer, ConvShape):
                x = functional.dropout(x.flatten(1), self.dropout.get(layer.name, 0.0),
                                       self.training)
            x = self.layers[layer.name](x)
            if layer.name in self.norms:
                x = self.norms[layer.name](x)
            if isinstance(layer, ConvShape) and layer.pool:
                x = functional.max_pool2d(x, POOL, POOL_STRIDE)
            if layer.name in self.quantisers:
                x = self.quantisers[layer.name](functional.relu(x))
        return x

    def adjust_dropout(self) -> None:
        """Drop less before a pruned layer: by the root of its share of kept weights.

        Han et al., "Learning both weights and connections", NIPS 2015, section 3.2: fewer
        connections need less regularisation.
        """
        for name in self.dropout:
            mask = mask_of(self.layers[name])
            self.dropout[name] = DROPOUT * (1.0 if mask is None else float(mask.mean()) ** 0.5)

    def fold(self) -> None:
        """Move batch norm's running statistics, scale and shift into weights and biases."""
        for name, norm in self.norms.items():
            assert isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d))
            assert norm.running_var is not None and norm.running_mean is not None
            module = self.layers[name]
            bias, weight = module.bias, free_weight(module)
            assert isinstance(bias, Tensor)
            with torch.no_grad():
                factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
                bias.copy_(norm.bias + (bias - norm.running_mean) * factor)
                weight.mul_(factor.view(-1, *[1] * (weight.ndim - 1)))
        self.norms = nn.ModuleDict()

    def quantise(self, calibration: Tensor | None = None) -> None:
        """Fold batch norm and round weights and activations to 8 bits from now on.

        Parameters
        ----------
        calibration : Tensor, shape (B, 3, H, W), optional
            Training images that choose the activation scales, layer by layer, each on quantised
            inputs; without them the scales come with ``load_state_dict``.
        """
        self.fold()
        for module in self.layers.values():
            set_rounding(module, 8)
        quantisers = [q for q in self.quantisers.values() if isinstance(q, ActivationQuantiser)]
        training = self.training
        self.eval()
        for quantiser in quantisers:
            if calibration is not None:
                quantiser.mode = "observe"
                with torch.no_grad():
                    self(calibration)
                quantiser.calibrate()
            quantiser.mode = "on"
        self.train(training)


def export(model: AlexNet) -> SpatialNetwork:
    """Integers, scales and biases of a network after `AlexNet.quantise`."""
    layers = []
    for name, module in model.layers.items():
        rounding, bias = rounding_of(module), module.bias
        assert isinstance(bias, Tensor)
        if rounding is None:
            raise ValueError(f"layer {name} is not rounded yet: call quantise first")
        with torch.no_grad():
            integers, scale = rounding.integers(masked_weight(module))
        quantiser = dict(model.quantisers.items()).get(name)
        layers.append(SpatialLayer(
            name, integers.numpy().astype(np.int64), scale.double().numpy(),
            bias.detach().double().numpy(),
            None if quantiser is None else float(quantiser.scale),  # type: ignore[arg-type]
        ))
    return SpatialNetwork(model.shape.name, IN_SCALE, tuple(layers))


def restore(network: SpatialNetwork) -> AlexNet:
    """Rebuild what a file holds: integers times scales, rounded activations, no batch norm."""
    model = AlexNet(ALEXNETS[network.name])
    model.norms = nn.ModuleDict()
    for layer in network.layers:
        module = model.layers[layer.name]
        bias = module.bias
        assert isinstance(bias, Tensor)
        scale = torch.tensor(layer.weight_scale).float()
        weight = torch.tensor(layer.weight).float() * scale.view(-1, *[1] * (layer.weight.ndim - 1))
        with torch.no_grad():
            free_weight(module).copy_(weight)
            bias.copy_(torch.tensor(layer.bias))
        if layer.out_scale is not None:
            quantiser = model.quantisers[layer.name]
            assert isinstance(quantiser, ActivationQuantiser)
            quantiser.scale.fill_(layer.out_scale)
            quantiser.mode = "on"
    return model.eval()
