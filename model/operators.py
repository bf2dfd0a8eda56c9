"""Operators of a network: convolution, fully connected layer, pooling; their shapes and limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from model.errors import UserError
from model.polyphase import Polyphase
from model.tiling import Tiling, edges_of

__all__ = ["Conv", "Layer", "Linear", "Pool", "layer_from_dict", "layer_to_dict"]

Shape = tuple[int, int, int]

#: Operators that the core cannot run, and what to do instead.
REFUSED = {
    "LocalResponseNorm": "local response normalisation divides by a sum over neighbouring "
    "channels, which the core cannot: train the network without it, as torchvision's AlexNet is",
}


@dataclass(frozen=True)
class Pool:
    """Pooling of a finished map, as torch's ``MaxPool2d`` and ``AvgPool2d`` (no ``ceil_mode``).

    Parameters
    ----------
    kind : str
        ``"max"``, or ``"average"``, whose divisor counts the padding too.
    size : int
        Edge of the window, 1 to 15; 0: the whole map, whatever its size.
    stride : int
        1 to 7.
    padding : int
        Rows and columns around the map that never win a maximum and add nothing to an average; at
        most half of ``size``.
    """

    kind: str
    size: int
    stride: int = 1
    padding: int = 0

    def __post_init__(self) -> None:
        """Refuse what no layer could have."""
        if self.kind not in ("max", "average"):
            raise ValueError(f"pooling must be 'max' or 'average', not {self.kind!r}")
        for field, low, high in (("size", 0, 15), ("stride", 1, 7),
                                 ("padding", 0, self.size // 2)):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"pooling {field} must be {low} to {high}, not {value!r}")

    def window(self, shape: Shape) -> int:
        """Edge of the window over a map of ``shape`` (C, H, W)."""
        if self.size:
            return self.size
        if shape[1] != shape[2] or shape[1] > 15:
            raise ValueError(f"global pooling is of square maps up to 15x15, not {shape}")
        return shape[1]

    def out_shape(self, shape: Shape) -> Shape:
        """Shape of the pooled map of one of ``shape`` (C, H, W)."""
        size = self.window(shape)
        height, width = ((edge + 2 * self.padding - size) // self.stride + 1 for edge in shape[1:])
        if height < 1 or width < 1:
            raise ValueError(f"a {size}x{size} pool does not fit a map of {shape}")
        return shape[0], height, width


@dataclass(frozen=True)
class Conv:
    """Convolution (torch's correlation), then optional ReLU, 2×2/2 max pool and pooling.

    Parameters
    ----------
    padding : int or (top, left, bottom, right)
        Zero rows and columns around the input, each less than ``kernel``.
    pool : int
        1, or 2: a 2×2/2 max pool on the way out of the inverse FFT.
    stride : int
        Of more than 1 computed on the input's phases (`model.polyphase`), and so the spectrum is of
        ``channels`` channels and of a kernel of ``taps``.
    groups : int
        As torch's: output channel n sees only those input channels that are of its group.
    pooling : Pool or None
        Any other pooling, of the finished map.
    add : str or None
        Name of an earlier convolution whose output, of this one's shape, is added before the ReLU;
        not together with a pool.
    """

    name: str
    in_channels: int
    out_channels: int
    kernel: int
    padding: int | tuple[int, int, int, int] = 0
    relu: bool = True
    pool: int = 1
    stride: int = 1
    groups: int = 1
    pooling: Pool | None = None
    add: str | None = None

    def __post_init__(self) -> None:
        if self.pool not in (1, 2):
            raise ValueError(f"layer {self.name}: pool must be 1 or 2, not {self.pool!r}")
        for field in ("in_channels", "out_channels", "kernel", "stride", "groups"):
            if getattr(self, field) < 1:
                raise ValueError(
                    f"layer {self.name}: {field} must be positive, not {getattr(self, field)!r}"
                )
        if len(self.edges) != 4 or not all(0 <= edge < self.kernel for edge in self.edges):
            raise ValueError(
                f"layer {self.name}: padding must be 0 to kernel-1, not {self.padding!r}"
            )
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(f"layer {self.name}: {self.groups} groups do not divide "
                             f"{self.in_channels} and {self.out_channels} channels")
        if self.add is not None and (self.pool > 1 or self.pooling is not None):
            raise ValueError(f"layer {self.name}: what {self.add} gave is added to a map that is "
                             "not pooled: pool after the next convolution")

    @property
    def edges(self) -> tuple[int, int, int, int]:
        """Zero rows and columns above, left, below and right of the input."""
        return edges_of(self.padding)

    @property
    def plain(self) -> bool:
        """Whether nothing but kernel, one padding and the 2×2 pool describes it."""
        return (not isinstance(self.padding, tuple) and self.stride == self.groups == 1
                and self.pooling is None and self.add is None)

    @property
    def taps(self) -> int:
        """Edge of the kernel that is transformed."""
        return -(-self.kernel // self.stride)

    @property
    def channels(self) -> int:
        """Input channels of each output's spectral words."""
        return self.in_channels * self.stride**2 // self.groups

    def polyphase(self, shape: Shape) -> Polyphase | None:
        """How an input map of ``shape`` (C, H, W) is cut into phases; None if it is not."""
        if self.stride == 1:
            return None
        top, left, _, _ = self.edges
        _, height, width = self._map(shape)
        return Polyphase(shape, self.stride, (top, left),
                         (height + self.taps - 1, width + self.taps - 1))

    def unfolded(self, shape: Shape) -> tuple[Conv, Shape]:
        """Find the equal layer of stride 1, and its input map, for an input of ``shape``."""
        phases = self.polyphase(shape)
        if phases is None:
            return self, shape
        plain = dataclasses.replace(
            self, in_channels=phases.out_shape[0], kernel=self.taps, padding=0, stride=1
        )
        return plain, phases.out_shape

    def tiling(self, shape: Shape, tile: int) -> Tiling:
        """Tiling of this layer's input map of ``shape`` (C, H, W), or of its phases."""
        layer, (_, height, width) = self.unfolded(shape)
        return Tiling(
            height=height, width=width, kernel=layer.kernel, padding=layer.padding, tile=tile
        )

    def _map(self, shape: Shape) -> Shape:
        """Shape of the convolution alone."""
        if shape[0] != self.in_channels:
            raise ValueError(
                f"layer {self.name} expects {self.in_channels} channels, its input has {shape[0]}"
            )
        top, left, bottom, right = self.edges
        height = (shape[1] + top + bottom - self.kernel) // self.stride + 1
        width = (shape[2] + left + right - self.kernel) // self.stride + 1
        if height < self.pool or width < self.pool:
            raise ValueError(f"layer {self.name}: input {shape} is smaller than its kernel or pool")
        return self.out_channels, height, width

    def map_shape(self, shape: Shape) -> Shape:
        """Shape (C, H, W) of the map before ``pooling`` for an input of ``shape``."""
        channels, height, width = self._map(shape)
        return channels, height // self.pool, width // self.pool

    def out_shape(self, shape: Shape) -> Shape:
        """Shape (C, H, W) of the output for an input of ``shape``."""
        made = self.map_shape(shape)
        if self.pooling is None:
            return made
        try:
            return self.pooling.out_shape(made)
        except ValueError as error:
            raise ValueError(f"layer {self.name}: {error}") from error


@dataclass(frozen=True)
class Linear:
    """Fully connected layer over the CHW-flattened input, then optional ReLU."""

    name: str
    in_features: int
    out_features: int
    relu: bool = True

    def out_shape(self, shape: Shape) -> Shape:
        """Shape (C, 1, 1) of the output for an input of ``shape``."""
        if prod(shape) != self.in_features:
            raise ValueError(
                f"layer {self.name} expects {self.in_features} features, "
                f"its input has {prod(shape)}"
            )
        return self.out_features, 1, 1

    def map_shape(self, shape: Shape) -> Shape:
        """Shape of the output, as `Conv.map_shape`."""
        return self.out_shape(shape)


Layer = Conv | Linear

#: Fields of a `Conv` that are written only where they are not as they were before they existed.
_LATER = {"stride": 1, "groups": 1, "pooling": None, "add": None}


def layer_to_dict(layer: Layer) -> dict[str, Any]:
    """Plain JSON types of a layer."""
    fields = {name: value for name, value in dataclasses.asdict(layer).items()
              if name not in _LATER or value != _LATER[name]}
    return {"type": type(layer).__name__} | fields


def layer_from_dict(item: Mapping[str, Any]) -> Layer:
    """Read what `layer_to_dict` wrote; an operator that nobody can run is a `UserError`."""
    fields = dict(item)
    kind = fields.pop("type")
    if kind in REFUSED:
        raise UserError(f"layer {item.get('name')!r}: {REFUSED[kind]}")
    if kind == "Linear":
        return Linear(**fields)
    if kind != "Conv":
        raise ValueError(f"layer {item.get('name')!r}: unknown operator {kind!r}; known: "
                         "['Conv', 'Linear']")
    if isinstance(fields.get("padding"), list):
        fields["padding"] = tuple(fields["padding"])
    if fields.get("pooling") is not None:
        fields["pooling"] = Pool(**fields["pooling"])
    return Conv(**fields)
