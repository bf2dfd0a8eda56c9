"""Torch networks built from a `model.network.Network`: spatial (dense) and spectral (pruned)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.network import Conv, Linear, Network
from pruning.activations import ActivationQuantiser
from pruning.layers import Compressed, CompressedLinear, SpectralConv


class SpatialNet(nn.Module):
    """The dense float network, ordinary convolutions."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        modules: dict[str, nn.Module] = {}
        for layer in network.layers:
            if isinstance(layer, Conv):
                modules[layer.name] = nn.Conv2d(
                    layer.in_channels, layer.out_channels, layer.kernel, padding=layer.padding
                )
            else:
                modules[layer.name] = nn.Linear(layer.in_features, layer.out_features)
        self.layers = nn.ModuleDict(modules)
        # Channels innermost: 32 instead of 54 ms for LeNet, batch 256, one thread.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Class scores; (B, C, H, W) in 0 ... 1 to (B, classes)."""
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in self.network.layers:
            if isinstance(layer, Linear):
                x = x.flatten(1)
            x = self.layers[layer.name](x)
            if isinstance(layer, Conv) and layer.pool > 1:
                x = functional.max_pool2d(x, layer.pool)
            x = functional.relu(x) if layer.relu else x
        return x


class SpectralNet(nn.Module):
    """The same function with spectral convolutions, masks and fake quantisation.

    Parameters
    ----------
    network : Network
        Chain of layers.
    dense : SpatialNet
        Weights to start from; until something is pruned or quantised the two nets agree.
    tile : int
        Tile edge K.
    """

    def __init__(self, network: Network, dense: SpatialNet, tile: int = 8) -> None:
        super().__init__()
        self.network = network
        self.tile = tile
        modules: dict[str, nn.Module] = {}
        for layer, shape in zip(network.layers, network.shapes(), strict=False):
            source = dense.layers[layer.name]
            assert isinstance(source, (nn.Conv2d, nn.Linear)) and source.bias is not None
            if isinstance(layer, Conv):
                modules[layer.name] = SpectralConv(
                    layer, layer.tiling(shape, tile), source.weight, source.bias
                )
            else:
                modules[layer.name] = CompressedLinear(layer, source.weight, source.bias)
        for layer in network.layers[:-1]:
            if not layer.relu:
                raise ValueError(f"layer {layer.name}: only the last layer may lack its ReLU")
        self.layers = nn.ModuleDict(modules)
        self.quantisers = nn.ModuleDict(
            {layer.name: ActivationQuantiser() for layer in network.layers[:-1]}
        )

    def forward(self, x: Tensor) -> Tensor:
        """Class scores; (B, C, H, W) in 0 ... 1 to (B, classes)."""
        for layer in self.network.layers:
            if isinstance(layer, Linear):
                x = x.flatten(1)
            x = self.layers[layer.name](x)
            x = functional.relu(x) if layer.relu else x
            if layer.name in self.quantisers:
                x = self.quantisers[layer.name](x)
        return x

    def compressed(self) -> Iterator[tuple[str, Compressed]]:
        """Name and module of every layer in order."""
        for layer in self.network.layers:
            module = self.layers[layer.name]
            assert isinstance(module, Compressed)
            yield layer.name, module

    def quantise(self, weight_bits: int, calibration: Tensor) -> None:
        """Switch fake quantisation on and choose every activation scale.

        Parameters
        ----------
        weight_bits : int
            Width of the weights.
        calibration : Tensor, shape (B, C, H, W)
            Training images.  Layers are calibrated in order, each on quantised inputs.
        """
        for _, module in self.compressed():
            module.weight_bits = weight_bits
        quantisers = [q for q in self.quantisers.values() if isinstance(q, ActivationQuantiser)]
        for quantiser in quantisers:
            quantiser.mode = "off"
        for quantiser in quantisers:
            quantiser.mode = "observe"
            with torch.no_grad():
                self(calibration)
            quantiser.calibrate()
            quantiser.mode = "on"

    def restore_quantisation(self, weight_bits: int) -> None:
        """Switch fake quantisation on with the scales already loaded."""
        for _, module in self.compressed():
            module.weight_bits = weight_bits
        for quantiser in self.quantisers.values():
            assert isinstance(quantiser, ActivationQuantiser)
            quantiser.mode = "on"

    def parameter_groups(self, rate: float) -> list[dict]:
        """Optimiser groups.

        A word of a k x k kernel is a sum of k*k weights, about k times as large as one of them, so
        spectral weights step k times as far as the others.
        """
        groups = []
        for _, module in self.compressed():
            gain = module.layer.kernel if isinstance(module, SpectralConv) else 1
            groups.append({"params": [module.weight], "lr": rate * gain, "gain": gain})
            groups.append({"params": [module.bias], "lr": rate, "gain": 1})
        return groups
