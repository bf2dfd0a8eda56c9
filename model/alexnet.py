"""Shapes of AlexNet: the one of torchvision, the original in two groups, half of it for 64×64.

Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks",
NIPS 2012 (``alexnet-grouped``: 60 965 224 parameters, on two GPUs); Krizhevsky, "One weird trick
for parallelizing convolutional neural networks", arXiv:1404.5997, as in torchvision (``alexnet``:
61 100 840).  ``alexnet-tiny`` has half of torchvision's channels and features everywhere, and a
first layer for Tiny ImageNet.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALEXNETS", "AlexNetShape", "ConvShape", "LinearShape"]

#: Edge and stride of every max pool.
POOL, POOL_STRIDE = 3, 2


@dataclass(frozen=True)
class ConvShape:
    """A convolution, ReLU, and a max pool of 3×3 with stride 2 if ``pool``."""

    name: str
    in_channels: int
    out_channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    pool: bool = False

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape (N, C / groups, k, k) of the weights."""
        return self.out_channels, self.in_channels // self.groups, self.kernel, self.kernel

    def out_side(self, side: int) -> int:
        """Edge of the output map, pooled, for one of the input map."""
        side = (side + 2 * self.padding - self.kernel) // self.stride + 1
        return (side - POOL) // POOL_STRIDE + 1 if self.pool else side


@dataclass(frozen=True)
class LinearShape:
    """A fully connected layer; a ReLU follows all but the last."""

    name: str
    in_features: int
    out_features: int

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape (N, L) of the weights."""
        return self.out_features, self.in_features


@dataclass(frozen=True)
class AlexNetShape:
    """Layers for three-channel images of ``side`` × ``side`` pixels."""

    name: str
    side: int
    convs: tuple[ConvShape, ...]
    linears: tuple[LinearShape, ...]

    @property
    def layers(self) -> tuple[ConvShape | LinearShape, ...]:
        """All layers in order."""
        return self.convs + self.linears

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        total = 0
        for layer in self.layers:
            count = 1
            for size in layer.weight_shape:
                count *= size
            total += count + layer.weight_shape[0]
        return total


def _shape(
    name: str, side: int, first: ConvShape, widths: tuple[int, int, int, int],
    groups: tuple[int, int, int, int], features: int, classes: int,
) -> AlexNetShape:
    """Five convolutions of which the last four differ in width and groups only, three linears."""
    kernels = (5, 3, 3, 3)
    convs, before = [first], first.out_channels
    for index, (width, kernel, parts) in enumerate(zip(widths, kernels, groups, strict=True)):
        convs.append(ConvShape(f"conv{index + 2}", before, width, kernel, 1, kernel // 2, parts,
                               pool=index in (0, 3)))
        before = width
    edge = side
    for conv in convs:
        edge = conv.out_side(edge)
    return AlexNetShape(name, side, tuple(convs), (
        LinearShape("fc6", before * edge * edge, features), LinearShape("fc7", features, features),
        LinearShape("fc8", features, classes),
    ))


_ALL = (
    _shape("alexnet", 224, ConvShape("conv1", 3, 64, 11, 4, 2, pool=True), (192, 384, 256, 256),
           (1, 1, 1, 1), 4096, 1000),
    _shape("alexnet-grouped", 227, ConvShape("conv1", 3, 96, 11, 4, 0, pool=True),
           (256, 384, 384, 256), (2, 1, 2, 2), 4096, 1000),
    _shape("alexnet-tiny", 64, ConvShape("conv1", 3, 32, 5, 2, 2, pool=True), (96, 192, 128, 128),
           (1, 1, 1, 1), 2048, 200),
)
#: Shapes by name.
ALEXNETS = {shape.name: shape for shape in _ALL}
