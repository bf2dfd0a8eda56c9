"""Torch networks built from a `model.network.Network`: spatial (dense) and spectral (pruned)."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.network import Conv, Linear, Network
from pruning.activations import ActivationQuantiser
from pruning.layers import Compressed, SpectralConv
from pruning.masks import free_weight, set_rounding
from pruning.spectral import convert


class _Chain(nn.Module):
    """Layers one after the other; subclasses fill `layers` and `norms`."""

    network: Network
    layers: nn.ModuleDict
    norms: nn.ModuleDict

    def forward(self, x: Tensor) -> Tensor:
        """Class scores; (B, C, H, W) in 0 ... 1 to (B, classes)."""
        for layer in self.network.layers:
            x = self.block(layer, x)
        return x

    def block(self, layer: Conv | Linear, x: Tensor) -> Tensor:
        """One layer with what follows it: batch norm, pool, ReLU."""
        if isinstance(layer, Linear):
            x = x.flatten(1)
        module = self.layers[layer.name]
        x = module(x)
        if layer.name in self.norms:
            x = self.norms[layer.name](x)
        # A spectral convolution without batch norm has pooled already.
        pooled = isinstance(module, SpectralConv) and module.layer.pool > 1
        if isinstance(layer, Conv) and layer.pool > 1 and not pooled:
            x = functional.max_pool2d(x, layer.pool)
        return functional.relu(x) if layer.relu else x


class SpatialNet(_Chain):
    """The dense float network, ordinary convolutions.

    Parameters
    ----------
    network : Network
        Chain of layers.
    batch_norm : bool
        Whether batch normalisation follows each convolution (which then has no bias).
    """

    def __init__(self, network: Network, batch_norm: bool = False) -> None:
        super().__init__()
        self.network = network
        modules: dict[str, nn.Module] = {}
        norms: dict[str, nn.Module] = {}
        for layer in network.layers:
            if isinstance(layer, Conv):
                conv = modules[layer.name] = nn.Conv2d(
                    layer.in_channels, layer.out_channels, layer.kernel, padding=layer.edges[:2],
                    bias=not batch_norm,
                )
                if batch_norm:
                    norms[layer.name] = nn.BatchNorm2d(layer.out_channels)
                    # He et al., ICCV 2015. Behind batch norm the size of the weights is the inverse
                    # of their rate: from torch's smaller ones SGD at 0.1 learns nothing at first.
                    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
            else:
                modules[layer.name] = nn.Linear(layer.in_features, layer.out_features)
        self.layers = nn.ModuleDict(modules)
        self.norms = nn.ModuleDict(norms)
        # Channels innermost: 32 instead of 54 ms for LeNet, batch 256, one thread.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Class scores; (B, C, H, W) in 0 ... 1 to (B, classes)."""
        return super().forward(x.contiguous(memory_format=torch.channels_last))


class SpectralNet(_Chain):
    """The same function with spectral convolutions, to be pruned and quantised.

    Parameters
    ----------
    network : Network
        Chain of layers.
    dense : SpatialNet
        Weights to start from; until something is pruned or quantised the two nets agree.
    tile : int
        Edge K of the transform.

    Notes
    -----
    Without batch norm a convolution pools before it adds its bias, which is the same and cheaper.
    """

    def __init__(self, network: Network, dense: SpatialNet, tile: int = 8) -> None:
        super().__init__()
        self.network = network
        self.tile = tile
        modules: dict[str, nn.Module] = {}
        for layer in network.layers:
            pool = layer.pool if isinstance(layer, Conv) and layer.name not in dense.norms else 1
            modules[layer.name] = convert(dense.layers[layer.name], layer.name, tile, pool)
        for layer in network.layers[:-1]:
            if not layer.relu:
                raise ValueError(f"layer {layer.name}: only the last layer may lack its ReLU")
        self.layers = nn.ModuleDict(modules)
        self.norms = copy.deepcopy(dense.norms)
        self.quantisers = nn.ModuleDict(
            {layer.name: ActivationQuantiser() for layer in network.layers[:-1]}
        ).to(next(dense.parameters()).device)

    def block(self, layer: Conv | Linear, x: Tensor) -> Tensor:
        """One layer with what follows it: batch norm, pool, ReLU, quantisation."""
        x = super().block(layer, x)
        return self.quantisers[layer.name](x) if layer.name in self.quantisers else x

    def compressed(self) -> Iterator[tuple[str, Compressed]]:
        """Name and module of every layer in order."""
        for layer in self.network.layers:
            module = self.layers[layer.name]
            assert isinstance(module, Compressed)
            yield layer.name, module

    def fold(self) -> None:
        """Move batch norm's running statistics, scale and shift into weights and biases."""
        for name, norm in list(self.norms.items()):
            assert isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None
            assert norm.running_mean is not None
            old = self.layers[name]
            assert isinstance(old, SpectralConv)
            chain = next(item for item in self.network.layers if item.name == name)
            assert isinstance(chain, Conv)
            with torch.no_grad():
                factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
                bias = norm.bias - norm.running_mean * factor
                if old.bias is not None:
                    bias = bias + old.bias * factor
                free_weight(old).mul_(factor[:, None, None, None])
            old.bias = nn.Parameter(bias)
            old.layer = dataclasses.replace(old.layer, pool=chain.pool)
        self.norms = nn.ModuleDict()

    def quantise(self, weight_bits: int, calibration: Tensor) -> None:
        """Fold batch norm, round the weights and choose every activation scale.

        Parameters
        ----------
        weight_bits : int
            Width of the weights.
        calibration : Tensor, shape (B, C, H, W)
            Training images.  Layers are calibrated in order, each on quantised inputs.
        """
        self.fold()
        for _, module in self.compressed():
            set_rounding(module, weight_bits)
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
        """Bring a fresh network into the form `quantise` leaves, for ``load_state_dict``."""
        self.fold()
        for _, module in self.compressed():
            set_rounding(module, weight_bits)
        for quantiser in self.quantisers.values():
            assert isinstance(quantiser, ActivationQuantiser)
            quantiser.mode = "on"
