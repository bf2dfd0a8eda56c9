"""Lowering: from scales in floating point to the integers the hardware computes with.

Units. An accumulator of a convolution is Σ X·w with X = 2·DFT(activations), so its unit is
``in_scale * weight_scale / 2``; sums keep ``acc >> sum_shift``; the 24-bit inverse is 64·IDFT and
the 18-bit result drops POST_SHIFT bits of it. For a dot layer the sum is the result.
The result plus bias, times ``multiplier / 2**requant_shift``, is the output integer.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import ceil, frexp, log2

import numpy as np
from numpy.typing import NDArray

from model.config import POST_SHIFT
from model.errors import UserError
from model.fixed import int_range, round_shift
from model.mapadd import MAP_UNIT
from model.network import Conv, Layer, QuantisedLayer, QuantisedNetwork
from model.polyphase import Polyphase

__all__ = [
    "LoweredLayer", "LoweredNetwork", "lower", "lower_layer", "calibrate", "MULTIPLIER_BITS",
]

MULTIPLIER_BITS = 14
RESULT_BITS = 18
SUM_BITS = 18
#: Largest component of a forward word: 2·64·255 plus rounding.
WORD_PEAK = 32767
PIXEL_PEAK = 255


@dataclass(frozen=True)
class Addition:
    """What a layer adds to its map: index of the other layer, shift (`model.mapadd`), its sign."""

    index: int
    shift: int
    signed: bool


@dataclass(frozen=True)
class LoweredLayer:
    """One layer in integers; `weight` as in `model.network.QuantisedLayer`.

    A strided convolution has become one of stride 1 over the phases of its input: ``layer`` and
    ``in_shape`` are those, ``phases`` says how the input becomes them. With an ``addition`` the
    written map is signed, in twice the unit of the output, and the ReLU comes after the sum.
    """

    layer: Layer
    in_shape: tuple[int, int, int]
    map_shape: tuple[int, int, int]     # before the pooling of the finished map
    out_shape: tuple[int, int, int]
    weight: NDArray[np.int64]
    pattern: str
    in_signed: bool
    out_signed: bool
    out_wide: bool
    sum_shift: int
    requant_shift: int
    bias: NDArray[np.int64]
    multiplier: NDArray[np.int64]
    phases: Polyphase | None = None
    addition: Addition | None = None

    @property
    def outline(self) -> bool:
        """Whether the weights have a shape only (`model.outline`)."""
        return not any(self.weight.strides)

    @property
    def map_signed(self) -> bool:
        """Whether the integers of the written map are signed."""
        return self.out_signed or self.addition is not None

    @property
    def map_relu(self) -> bool:
        """Whether the written map has passed the ReLU; a sum passes it later."""
        return self.layer.relu and self.addition is None

    @property
    def source_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of the input before it is cut into phases."""
        return self.in_shape if self.phases is None else self.phases.shape

    def fold(self, maps: NDArray) -> NDArray:
        """Input maps (..., C, H, W) as the layer reads them."""
        return maps if self.phases is None else self.phases.fold(maps)

    @property
    def name(self) -> str:
        """Name of the layer."""
        return self.layer.name

    @property
    def dot(self) -> bool:
        """Whether the layer is fully connected."""
        return not isinstance(self.layer, Conv)

    @property
    def out_bits(self) -> int:
        """Width of an output integer."""
        return 16 if self.out_wide else 8


@dataclass(frozen=True)
class LoweredNetwork:
    """The integer network; `model.golden` executes it, `model.compile` compiles it."""

    name: str
    tile: int
    weight_bits: int
    layers: tuple[LoweredLayer, ...]


def worst_accumulator(layer: Layer, weight: NDArray[np.int64]) -> int:
    """Bound of any of a lane's three accumulators over all inputs (3-multiplier product)."""
    if not isinstance(layer, Conv):
        # A dot product sums wr·(xr+xi) and xi·(wr−wi).
        return 2 * int(np.abs(weight).sum(axis=1).max()) * PIXEL_PEAK
    real, imag = weight[..., 0], weight[..., 1]
    per_word = np.maximum.reduce([2 * np.abs(real), np.abs(imag - real), np.abs(imag + real)])
    return int(per_word.sum(axis=1).max()) * WORD_PEAK


def _shift_for(peak: int) -> int:
    """Smallest shift that brings ``peak`` into a signed sum."""
    return max(0, peak.bit_length() - (SUM_BITS - 1))


def lower(network: QuantisedNetwork) -> LoweredNetwork:
    """Compute every integer parameter; deterministic.

    Raises
    ------
    UserError
        If a shift or scale does not fit its field.
    """
    layers = tuple(lower_layer(network, index) for index in range(len(network.layers)))
    return LoweredNetwork(network.network.name, network.tile, network.weight_bits, layers)


def lower_layer(network: QuantisedNetwork, index: int) -> LoweredLayer:
    """Integer parameters of layer ``index`` alone; errors as in `lower`."""
    layer, data = network.network.layers[index], network.layers[index]
    shapes = network.network.shapes()
    shift = data.sum_shift
    if shift is None:
        shift = _shift_for(worst_accumulator(layer, data.weight))
    if not 0 <= shift < 32:
        raise UserError(f"layer {layer.name}: sum_shift {shift} is outside 0..31")
    in_scale, in_signed = network.in_scale, network.in_signed
    if index:
        in_scale = network.layers[index - 1].out_scale
        in_signed = not network.network.layers[index - 1].relu
    wide = index == len(network.layers) - 1 and not isinstance(layer, Conv)
    return _lower_layer(layer, data, shapes[index], in_scale, in_signed, wide, shift,
                        _addition(network, index))


def _addition(network: QuantisedNetwork, index: int) -> Addition | None:
    """How the other map's integers are brought to the unit of layer ``index``'s output."""
    added = network.network.added(index)
    if added is None:
        return None
    layer, other = network.network.layers[index], network.network.layers[added]
    ratio = network.layers[added].out_scale / network.layers[index].out_scale
    power = round(log2(ratio))
    if ratio != 2.0**power or not -3 <= power <= 3:
        raise UserError(f"layer {layer.name}: the out_scale of {other.name}, which it adds, is "
                        f"{ratio:g} times its own: make it 1/8 to 8, a power of two")
    return Addition(added, power + 3, not other.relu)


def _lower_layer(
    layer: Layer, data: QuantisedLayer, source_shape: tuple[int, int, int], in_scale: float,
    in_signed: bool, wide: bool, shift: int, addition: Addition | None,
) -> LoweredLayer:
    map_shape, out_shape = layer.map_shape(source_shape), layer.out_shape(source_shape)
    in_shape, phases = source_shape, None
    if isinstance(layer, Conv):
        phases = layer.polyphase(source_shape)
        layer, in_shape = layer.unfolded(source_shape)
    unit = in_scale * data.weight_scale * 2.0**shift
    if isinstance(layer, Conv):
        unit = unit / 2 / 64 * 2.0**POST_SHIFT
    weight, unit = _fit_bias(data.weight, data.bias, unit)
    ratio = unit / (data.out_scale * (1 if addition is None else MAP_UNIT))
    requant_shift = MULTIPLIER_BITS - frexp(float(ratio.max()))[1]
    if not 0 <= requant_shift < 48:
        raise UserError(
            f"layer {layer.name}: out_scale {data.out_scale:g} is too far from the weights' scale"
        )
    multiplier = np.rint(ratio * 2.0**requant_shift).astype(np.int64)
    multiplier = np.minimum(multiplier, (1 << MULTIPLIER_BITS) - 1)
    signed = not layer.relu
    return LoweredLayer(
        layer, in_shape, map_shape, out_shape, weight, data.pattern, in_signed, signed or wide,
        wide, shift, requant_shift, np.rint(data.bias / unit).astype(np.int64), multiplier, phases,
        addition,
    )


def _fit_bias(
    weight: NDArray[np.int64], bias: NDArray[np.float64], unit: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Halve the weights of outputs whose bias would not fit its field.

    Such an output hardly depends on its inputs (all its weights are tiny beside the bias), so the
    coarser weights change it by less than the bias's own rounding would at full scale.
    """
    weight, unit = weight.copy(), unit.copy()
    limit = int_range(RESULT_BITS)[1]
    while (outside := np.abs(bias / unit) > limit).any():
        weight[outside] = round_shift(weight[outside], 1)
        unit[outside] *= 2
    return weight, unit


def calibrate(
    network: QuantisedNetwork, images: NDArray[np.integer], margin: float = 2.0
) -> QuantisedNetwork:
    """Set every layer's ``sum_shift`` from the largest accumulator over calibration images.

    The accumulators keep a headroom of `margin`, the results after the inverse FFT none.

    Parameters
    ----------
    network : QuantisedNetwork
        Its present shifts are ignored.
    images : int array, (B, C, H, W)
        A few hundred training images.
    margin : float
        Headroom kept above the largest value seen.
    """
    from model import golden  # golden imports this module

    layers = tuple(dataclasses.replace(data, sum_shift=None) for data in network.layers)
    maps = np.asarray(images)
    outputs: list[NDArray[np.int64]] = []
    for index in range(len(layers)):
        current = dataclasses.replace(network, layers=layers)
        worst = lower_layer(current, index)
        peak, result = golden.layer_peaks(worst, maps, network.tile)
        shift = max(0, ceil(log2(max(peak, 1) * margin)) - (SUM_BITS - 1))
        # Words in phase add up in the inverse FFT (edges, noise): results must fit their field too.
        limit = int_range(RESULT_BITS)[1]
        shift = max(shift, worst.sum_shift + ceil(log2(max(result, 1) / limit)))
        layers = (
            *layers[:index], dataclasses.replace(layers[index], sum_shift=shift),
            *layers[index + 1:],
        )
        current = dataclasses.replace(network, layers=layers)
        now = lower_layer(current, index)
        maps = golden.layer_maps(now, maps, network.tile, golden.added(now, outputs))
        outputs.append(maps)
    return dataclasses.replace(network, layers=layers)
