"""Network description and the quantised network that pruning hands to the compiler.

A network is a chain of blocks; a block is one pass through the accelerator: convolution or
fully connected layer, bias, ReLU, requantisation and pooling (`model.operators`).
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import UserError
from model.files import write_output
from model.operators import Conv, Layer, Linear, Pool, layer_from_dict, layer_to_dict
from model.patterns import parse

__all__ = ["Conv", "Layer", "Linear", "Network", "Pool", "QuantisedLayer", "QuantisedNetwork",
           "NETWORKS"]

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Network:
    """A chain of layers over an input map of ``input_shape`` (C, H, W)."""

    name: str
    input_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]

    def shapes(self) -> list[tuple[int, int, int]]:
        """Shape of the input and of each layer's output; raises if the chain does not fit."""
        shapes = [self.input_shape]
        for index, layer in enumerate(self.layers):
            shapes.append(layer.out_shape(shapes[-1]))
            added = self.added(index)
            if added is not None and shapes[added + 1] != shapes[-1]:
                raise ValueError(f"layer {layer.name}: its output is {shapes[-1]}, that of the "
                                 f"layer it adds is {shapes[added + 1]}")
        return shapes

    def added(self, index: int) -> int | None:
        """Index of the layer whose output layer ``index`` adds to its own, if it does."""
        layer = self.layers[index]
        if not isinstance(layer, Conv) or layer.add is None:
            return None
        for before, other in enumerate(self.layers[:index]):
            if other.name == layer.add and isinstance(other, Conv):
                return before
        raise ValueError(f"layer {layer.name}: it adds the output of {layer.add!r}, which is no "
                         "convolution before it")

    def to_dict(self) -> dict[str, object]:
        """Plain JSON types."""
        layers = [layer_to_dict(item) for item in self.layers]
        return {"name": self.name, "input_shape": list(self.input_shape), "layers": layers}

    @classmethod
    def from_dict(cls, data: dict) -> Network:
        """Read what `to_dict` wrote."""
        channels, height, width = data["input_shape"]
        layers = tuple(layer_from_dict(item) for item in data["layers"])
        return cls(data["name"], (channels, height, width), layers)


@dataclass(frozen=True)
class QuantisedLayer:
    """Integers and scales of one layer.

    Attributes
    ----------
    weight : int array
        Convolution: (N, C, K²/2, 2), real and imaginary part of each half-plane word
        (`model.halfplane`); the spectrum is of the flipped kernel. C counts the phases of a
        strided layer and the channels of one group (`Conv.channels`). Linear: (N, L).
    weight_scale : float array, (N,)
        Real value of weight integer 1, per output channel.
    bias : float array, (N,)
        Real bias.
    out_scale : float
        Real value of output integer 1. Hidden outputs are 8 bits, unsigned after a ReLU,
        else signed; those of a final linear layer are 16-bit signed scores.
    pattern : str
        The sparsity pattern the weights obey, e.g. ``"channel 1:4"``, ``"kernel 4"``.
    sum_shift : int or None
        Bits dropped from the accumulators (`model.lower.calibrate`); None: taken from the worst
        case, which costs a few bits of precision.
    """

    weight: NDArray[np.int64]
    weight_scale: NDArray[np.float64]
    bias: NDArray[np.float64]
    out_scale: float
    pattern: str
    sum_shift: int | None = None


@dataclass(frozen=True)
class QuantisedNetwork:
    """A pruned, quantised network: what `pruning` writes and the compiler reads.

    Attributes
    ----------
    weight_bits : int
        8 or 16.
    in_scale : float
        Real value of input integer 1.
    tile : int
        Edge of the FFT tile.
    in_signed : bool
        Whether input integers are -128..127 (mean-subtracted images) or 0..255.
    """

    network: Network
    layers: tuple[QuantisedLayer, ...]
    weight_bits: int
    in_scale: float
    tile: int = 8
    in_signed: bool = False

    def __post_init__(self) -> None:
        if len(self.layers) != len(self.network.layers):
            raise ValueError(
                f"{len(self.layers)} weight sets for {len(self.network.layers)} layers"
            )
        if not (np.isfinite(self.in_scale) and self.in_scale > 0):
            raise ValueError(f"in_scale must be positive and finite, not {self.in_scale!r}")
        limit = 1 << (self.weight_bits - 1)
        for layer, data in zip(self.network.layers, self.layers, strict=True):
            if isinstance(layer, Conv):
                shape: tuple[int, ...] = (
                    layer.out_channels, layer.channels, self.tile * self.tile // 2, 2,
                )
            else:
                shape = (layer.out_features, layer.in_features)
            if data.weight.shape != shape:
                raise ValueError(
                    f"layer {layer.name}: weight shape {data.weight.shape}, expected {shape}"
                )
            if not np.issubdtype(data.weight.dtype, np.integer):
                raise TypeError(
                    f"layer {layer.name}: weights must be integers, not {data.weight.dtype}"
                )
            if np.abs(data.weight).max(initial=0) >= limit:
                raise ValueError(
                    f"layer {layer.name}: weight {np.abs(data.weight).max()} does not fit "
                    f"{self.weight_bits} bits symmetric"
                )
            for what, value in (("weight_scale", data.weight_scale), ("bias", data.bias)):
                if value.shape != shape[:1]:
                    raise ValueError(f"layer {layer.name}: {what} shape {value.shape}")
                if not np.isfinite(value).all():
                    raise ValueError(f"layer {layer.name}: {what} holds NaN or infinity")
            if not (np.all(data.weight_scale > 0) and np.isfinite(data.out_scale)
                    and data.out_scale > 0):
                raise ValueError(f"layer {layer.name}: scales must be positive and finite")

    def part(self, first: int, stop: int) -> QuantisedNetwork:
        """Layers ``first`` to ``stop - 1`` as a network of their own, for the maps before it."""
        if not 0 <= first < stop <= len(self.layers):
            raise ValueError(f"layers {first}:{stop} do not lie within 0:{len(self.layers)}")
        if (first, stop) == (0, len(self.layers)):
            return self
        chain, before = self.network, self.network.layers[first - 1]
        for index in range(first, stop):
            added = chain.added(index)
            if added is not None and added < first:
                raise UserError(f"layers {first}:{stop} do not hold layer "
                                f"{chain.layers[added].name}, which layer "
                                f"{chain.layers[index].name} adds")
        network = Network(f"{chain.name}[{first}:{stop}]", chain.shapes()[first],
                          chain.layers[first:stop])
        return dataclasses.replace(
            self, network=network, layers=self.layers[first:stop],
            in_scale=self.layers[first - 1].out_scale if first else self.in_scale,
            in_signed=not before.relu if first else self.in_signed,
        )

    def save(self, path: str | Path) -> None:
        """Write a compressed ``.npz``, whole or not at all; a `UserError` if it cannot be."""
        arrays: dict[str, NDArray] = {}
        meta: dict[str, object] = {
            "format": FORMAT_VERSION, "network": self.network.to_dict(),
            "weight_bits": self.weight_bits, "in_scale": self.in_scale, "tile": self.tile,
            "in_signed": self.in_signed,
            "patterns": [data.pattern for data in self.layers],
            "out_scales": [data.out_scale for data in self.layers],
            "sum_shifts": [data.sum_shift for data in self.layers],
        }
        dtype = np.int8 if self.weight_bits == 8 else np.int16
        for layer, data in zip(self.network.layers, self.layers, strict=True):
            arrays[f"{layer.name}.weight"] = data.weight.astype(dtype)
            arrays[f"{layer.name}.weight_scale"] = data.weight_scale.astype(np.float64)
            arrays[f"{layer.name}.bias"] = data.bias.astype(np.float64)
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        write_output(Path(path), content.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> QuantisedNetwork:
        """Read what `save` wrote; anything wrong with the file is a `UserError`."""
        try:
            with open(path, "rb") as file:
                if not zipfile.is_zipfile(file):
                    raise ValueError("it is no .npz archive, or the end of one is missing")
                file.seek(0)
                with np.load(file, allow_pickle=False) as data:
                    return cls._from_archive(data)
        except FileNotFoundError as error:
            raise UserError(f"network file {path} does not exist") from error
        except KeyError as error:
            name = str(error.args[0]).removesuffix(" is not a file in the archive")
            raise UserError(f"network file {path} cannot be used: it holds no {name!r}") from error
        except (OSError, ValueError, TypeError, AttributeError, OverflowError, EOFError,
                NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"network file {path} cannot be used: {reason}") from error

    @classmethod
    def _from_archive(cls, data: Mapping[str, NDArray]) -> QuantisedNetwork:
        if "meta" not in data:
            raise ValueError("it is an .npz archive but no network (it holds no 'meta'); "
                             "python -m pruning.train writes networks")
        meta = json.loads(bytes(data["meta"]).decode())
        if not isinstance(meta, dict):
            raise ValueError(f"'meta' is no JSON object but {type(meta).__name__}")
        if meta["format"] != FORMAT_VERSION:
            raise ValueError(f"format {meta['format']}, this version reads {FORMAT_VERSION}")
        network = Network.from_dict(meta["network"])
        layers = []
        for layer, pattern, scale, shift in zip(
            network.layers, meta["patterns"], meta["out_scales"], meta["sum_shifts"], strict=True,
        ):
            parse(pattern)
            if not (shift is None or type(shift) is int):
                raise ValueError(f"layer {layer.name}: sum_shift is {shift!r}, no integer")
            raw = data[f"{layer.name}.weight"]
            _require_integers(layer.name, raw)
            layers.append(QuantisedLayer(
                weight=raw.astype(np.int64), pattern=pattern, out_scale=float(scale),
                weight_scale=data[f"{layer.name}.weight_scale"],
                bias=data[f"{layer.name}.bias"], sum_shift=shift,
            ))
        network.shapes()
        return cls(network, tuple(layers), meta["weight_bits"], meta["in_scale"], meta["tile"],
                   bool(meta.get("in_signed", False)))


def _require_integers(name: str, raw: NDArray) -> None:
    """Raise unless ``raw`` holds integers; a NaN is named as such."""
    if np.issubdtype(raw.dtype, np.integer):
        return
    if not np.isfinite(raw).all():
        raise ValueError(f"layer {name}: weights hold NaN or infinity")
    raise ValueError(f"layer {name}: weights are {raw.dtype}, not integers")


def _vgg16(
    name: str = "vgg16", size: int = 224, divisor: int = 1, classes: int | None = None
) -> Network:
    """VGG16's 13 convolutions (configuration D of Simonyan and Zisserman, ICLR 2015).

    Parameters
    ----------
    name : str
        Name of the network.
    size : int
        Edge of the input, a multiple of 32.
    divisor : int
        Every width is divided by it.
    classes : int or None
        Ends in a fully connected layer of that many scores; None: convolutions only.
    """
    layers: list[Layer] = []
    channels = 3
    for block, (width, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
        for index in range(1, count + 1):
            layers.append(Conv(f"conv{block}_{index}", channels, width // divisor, 3, padding=1,
                               pool=2 if index == count else 1))
            channels = width // divisor
    if classes is not None:
        layers.append(Linear("fc", channels * (size // 32) ** 2, classes, relu=False))
    return Network(name, (3, size, size), tuple(layers))


def _alexnet(name: str, size: int, widths: tuple[int, ...], groups: int, padding: int) -> Network:
    """Five convolutions and three fully connected layers, without response normalisation.

    Parameters
    ----------
    name : str
        Name of the network.
    size : int
        Edge of the input.
    widths : tuple of int
        Output channels of the convolutions.
    groups : int
        Of the second, fourth and fifth convolution.
    padding : int
        Of the first one.
    """
    one, two, three, four, five = widths
    pool = Pool("max", 3, 2)
    layers: list[Layer] = [
        Conv("conv1", 3, one, 11, padding=padding, stride=4, pooling=pool),
        Conv("conv2", one, two, 5, padding=2, groups=groups, pooling=pool),
        Conv("conv3", two, three, 3, padding=1),
        Conv("conv4", three, four, 3, padding=1, groups=groups),
        Conv("conv5", four, five, 3, padding=1, groups=groups, pooling=pool),
        Linear("fc6", 36 * five, 4096), Linear("fc7", 4096, 4096),
        Linear("fc8", 4096, 1000, relu=False),
    ]
    return Network(name, (3, size, size), tuple(layers))


NETWORKS = {
    network.name: network
    for network in (
        # The Caffe LeNet of SPEC2 and of the ADMM pruning papers.
        Network("lenet", (1, 28, 28), (
            Conv("conv1", 1, 20, 5, pool=2), Conv("conv2", 20, 50, 5, pool=2),
            Linear("fc1", 800, 500), Linear("fc2", 500, 10, relu=False),
        )),
        # LeNet-5 (LeCun 1998, ReLU and max pool), digits zero-padded to 32×32.
        Network("lenet5", (1, 32, 32), (
            Conv("conv1", 1, 6, 5, pool=2), Conv("conv2", 6, 16, 5, pool=2),
            Linear("fc1", 400, 120), Linear("fc2", 120, 84),
            Linear("fc3", 84, 10, relu=False),
        )),
        # Convolutions only: the published spectral accelerators report no more either.
        _vgg16(),
        # VGG16 as CIFAR-10 networks have it (one classifier layer; batch norm folded), and the
        # same with a quarter of the channels.
        _vgg16("vgg16-cifar", 32, classes=10),
        _vgg16("vgg16-cifar-quarter", 32, 4, classes=10),
        # AlexNet as in torchvision (Krizhevsky, "One weird trick", 2014), and the grouped one of
        # Krizhevsky et al. (NIPS 2012) on the 227x227 pixels its layers need; the latter's
        # response normalisation is left out.
        _alexnet("alexnet", 224, (64, 192, 384, 256, 256), 1, 2),
        _alexnet("alexnet-grouped", 227, (96, 256, 384, 384, 256), 2, 0),
    )
}
