"""One layer-wise pruning run: layers in order, each fed by the quantised layers before it.

Every layer is pruned on the maps that the layers already done compute, weights and activations
quantised, and aims at the dense network's outputs, so later layers make up for what earlier ones
lost.  The held-out images go through the bit-exact golden model; the calibration images through
the same layers in floating point with rounded outputs, which is several times faster.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model import golden, halfplane
from model.errors import UserError
from model.fixed import int_range
from model.lower import calibrate, lower_layer
from model.network import NETWORKS, Conv, Network, QuantisedLayer, QuantisedNetwork
from model.patterns import KernelPattern, Pattern, project
from pruning import checkpoint
from pruning.activations import ActivationQuantiser
from pruning.bins import Bins
from pruning.recipe import channel_pattern
from pruning.reconstruct import admm, least_squares, normal_equations
from pruning.samples import (
    TileSet,
    collect,
    convolve,
    decibels,
    signal_to_noise,
    some_places,
)
from pruning.vgg import Weights

__all__ = ["LayerRun", "Settings", "integers"]

TILE = 8
#: Images that set the range of the accumulators; `model.lower.calibrate` leaves a factor of two.
PEAK_IMAGES = 4


@dataclass(frozen=True)
class Settings:
    """What a run does; it resumes only under the same settings.

    Attributes
    ----------
    network : str
        Name in `model.network.NETWORKS`.
    pattern : str
        ``"channel"`` or ``"kernel"``.
    alpha : int
        Compression.
    weight_bits : int
        8 or 16.
    weights : str
        Where the dense weights come from.
    images, held_out : int
        Photographs to calibrate on, and others to measure on.
    tiles : int
        Tiles per layer on which the error is measured and minimised.
    admm_steps, solve_steps : int
        Iterations of ADMM (see `steps_of`) and of the least squares on the support.
    ridge : float
        Pull to the dense weights, relative to a channel's power.
    seed : int
        Seed of the choice of photographs and tiles.
    """

    network: str = "vgg16"
    pattern: str = "channel"
    alpha: int = 4
    weight_bits: int = 16
    weights: str = "hed"
    images: int = 32
    held_out: int = 4
    tiles: int = 4096
    admm_steps: int = 12
    solve_steps: int = 8
    ridge: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot run, naming the value."""
        if self.network not in NETWORKS:
            raise UserError(f"unknown network {self.network!r}: known are "
                            f"{', '.join(sorted(NETWORKS))}")
        if any(not isinstance(layer, Conv) for layer in NETWORKS[self.network].layers):
            raise UserError(f"network {self.network} has fully connected layers: layer-wise "
                            "pruning takes convolutions, pruning.train the others")
        if self.pattern not in ("channel", "kernel"):
            raise UserError(f"unknown pattern {self.pattern!r}: channel or kernel")
        if self.weight_bits not in (8, 16):
            raise UserError(f"weight bits must be 8 or 16, not {self.weight_bits}")
        for name in ("images", "held_out", "tiles", "admm_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.solve_steps < 0:
            raise UserError(f"solve_steps must not be negative, not {self.solve_steps}")
        if not 1 <= self.alpha <= TILE * TILE // 2:
            raise UserError(f"alpha must be 1..{TILE * TILE // 2}, not {self.alpha}")
        if not self.ridge > 0:
            raise UserError(f"ridge must be positive, not {self.ridge}")

    @property
    def title(self) -> str:
        """Short name of the result, e.g. ``vgg16-channel-a4-w16``."""
        return f"{self.network}-{self.pattern}-a{self.alpha}-w{self.weight_bits}"

    def pattern_of(self, layer: Conv) -> Pattern:
        """Pattern of a layer."""
        if self.pattern == "kernel":
            return KernelPattern(self.alpha)
        return channel_pattern(layer.in_channels, self.alpha)

    def steps_of(self, layer: Conv) -> int:
        """ADMM iterations: `admm_steps` for 512 x 512 kernels, up to eight times that for fewer.

        The first layers are cheap, and what they lose no later layer can restore.
        """
        share = min(8.0, max(1.0, 512 * 512 / (layer.in_channels * layer.out_channels)))
        return round(self.admm_steps * share)

    def to_dict(self) -> dict:
        """Plain JSON types."""
        return dataclasses.asdict(self)


def integers(words: NDArray[np.complexfloating], bits: int) -> tuple[NDArray, NDArray]:
    """Round words (N, C, F) to symmetric integers (N, C, F, 2) and a scale per output, (N,)."""
    limit = (1 << (bits - 1)) - 1
    parts = np.stack([words.real, words.imag], axis=-1).astype(np.float64)
    scale = np.maximum(np.abs(parts).reshape(len(parts), -1).max(axis=1), 1e-9) / limit
    return np.rint(parts / scale[:, None, None, None]).astype(np.int64), scale


class LayerRun:
    """State of a run: the maps of every image, pruned and dense, before the next layer.

    Parameters
    ----------
    settings : Settings
        What to do.
    network : Network
        Layers; normally ``NETWORKS[settings.network]``.
    weights : dict of str to (kernel, bias)
        Dense weights by layer.
    images : int array, (images + held_out, C, H, W)
        Integer inputs, the held-out ones last.
    in_scale : float
        Value of input integer 1.
    dense_images : float array
        The same images before rounding.
    out : Path
        Folder of the checkpoints.
    donor : QuantisedNetwork or None
        Take its pruned weights instead of solving, and only quantise them anew.
    """

    def __init__(
        self, settings: Settings, network: Network, weights: Weights, images: NDArray[np.int64],
        in_scale: float, dense_images: NDArray[np.floating], out: Path,
        donor: QuantisedNetwork | None = None,
    ) -> None:
        self.settings, self.network, self.weights, self.out = settings, network, weights, out
        self.donor = donor
        self.maps = images.astype(np.int16)
        self.scale = self.in_scale = in_scale
        self.signed = True
        self.dense = torch.tensor(dense_images, dtype=torch.float32)
        self.report: list[dict] = []

    def execute(self, resume: bool, tell: Callable[[str, float], None]) -> QuantisedNetwork:
        """Prune every layer; `tell` hears the layer's name and the share done (0..1)."""
        layers: list[QuantisedLayer] = []
        count = len(self.network.layers)
        for index, layer in enumerate(self.network.layers):
            assert isinstance(layer, Conv)
            tell(layer.name, index / count)
            file = self.out / "checkpoints" / f"{self.settings.title}-{layer.name}.pt"
            data = self._restore(file, layer) if resume else None
            if data is None:
                started = time.monotonic()
                entry: dict = {"layer": layer.name}
                data = self._prune(
                    layer, entry, partial(_tell_part, tell, layer.name, index, count)
                )
                self._advance(layer, data, entry)
                entry["seconds"] = round(time.monotonic() - started, 1)
                self.report.append(entry)
                self._save(file, data, entry)
            else:
                self._advance(layer, data, {})
            layers.append(data)
        return QuantisedNetwork(self.network, tuple(layers), self.settings.weight_bits,
                                self.in_scale, TILE, in_signed=True)

    def _prune(
        self, layer: Conv, entry: dict, tell: Callable[[float], None]
    ) -> QuantisedLayer:
        """Solve, quantise and calibrate one layer; measurements go into `entry`."""
        settings = self.settings
        pattern = settings.pattern_of(layer)
        tiling = layer.tiling(self._shape, TILE)
        bins = Bins(tiling)
        raw, bias = self.weights[layer.name]
        dense_words = halfplane.from_spatial(raw.astype(np.float64), TILE)
        kernel = bins.weights(torch.tensor(dense_words, dtype=torch.complex64))
        shift = torch.tensor(bias, dtype=torch.float32)
        images = settings.images
        fit = self._collect(layer, bins, kernel, shift, slice(None, images), settings.tiles)
        real = tiling.tiles * settings.held_out
        held = self._collect(layer, bins, kernel, shift, slice(images, None),
                             min(settings.tiles, real))
        tell(0.2)

        def judge(weights: Tensor) -> float:
            return round(signal_to_noise(bins, held, weights, shift, layer.relu), 3)

        energy = halfplane.energy(dense_words)
        one_shot = project(energy, pattern)
        entry |= {"pattern": str(pattern), "dense_on_pruned_input_db": judge(kernel),
                  "one_shot_kept_energy": float((energy * one_shot).sum() / energy.sum()),
                  "one_shot_db": judge(kernel * bins.spread(torch.from_numpy(one_shot)))}
        if self.donor is None:
            normal = normal_equations(fit.spectra, fit.dense, kernel, settings.ridge)
            tell(0.35)
            mask, z, residual = admm(bins, normal, pattern, kernel * normal.scale,
                                     settings.steps_of(layer))
            entry |= {"admm_residual": residual, "admm_db": judge(z / normal.scale)}
            tell(0.6)
            weights = least_squares(normal, mask, z, settings.solve_steps) / normal.scale
            entry["least_squares_db"] = judge(weights)
            del normal, z, mask
            words = bins.words(weights).numpy()
        else:
            words = _words(self.donor.layers[self.network.layers.index(layer)])
        tell(0.75)
        kept = words != 0
        entry |= {"kept_energy": float((energy * kept).sum() / energy.sum()),
                  "density": float(kept.mean())}
        weight, scale = integers(words, settings.weight_bits)
        rounded = torch.tensor(weight[..., 0] + 1j * weight[..., 1]) * torch.tensor(
            scale[:, None, None])
        final = bins.weights(rounded.to(torch.complex64))
        entry["quantised_db"] = judge(final)
        result = bins.valid(fit.spectra @ final) + shift
        result = (result.clamp_min(0) if layer.relu else result) * fit.kept
        target = (fit.target.clamp_min(0) if layer.relu else fit.target) * fit.kept
        entry["quantised_fit_db"] = round(decibels(target, result), 3)
        data = QuantisedLayer(
            weight=weight, weight_scale=scale, bias=bias.astype(np.float64), pattern=str(pattern),
            out_scale=_out_scale(layer, result),
        )
        peaks = calibrate(self._single(layer, data), self.maps[:min(images, PEAK_IMAGES)])
        tell(0.85)
        return peaks.layers[0]

    @property
    def _shape(self) -> tuple[int, int, int]:
        """Shape of the maps before the next layer."""
        channels, height, width = self.maps.shape[1:]
        return channels, height, width

    def _collect(
        self, layer: Conv, bins: Bins, kernel: Tensor, bias: Tensor, images: slice, tiles: int
    ) -> TileSet:
        """Tiles of some images before the next layer."""
        tiling = layer.tiling(self._shape, TILE)
        maps = torch.tensor(self.maps[images]) * self.scale
        places = some_places(tiling, len(maps), tiles, self.settings.seed)
        return collect(layer, tiling, bins, maps, self.dense[images], kernel, bias, places)

    def _single(self, layer: Conv, data: QuantisedLayer) -> QuantisedNetwork:
        """Make the layer a network of its own, over the maps before it."""
        return QuantisedNetwork(Network(layer.name, self._shape, (layer,)), (data,),
                                self.settings.weight_bits, self.scale, TILE,
                                in_signed=self.signed)

    def _advance(self, layer: Conv, data: QuantisedLayer, entry: dict) -> None:
        """Run the layer, quantised and dense, over all images and compare the held-out ones."""
        images = self.settings.images
        held_maps = golden.layer_maps(
            lower_layer(self._single(layer, data), 0), self.maps[images:], TILE
        )
        tiling = layer.tiling(self._shape, TILE)
        bins = Bins(tiling)
        words = torch.tensor(_words(data)).to(torch.complex64)
        low, high = int_range(8, not layer.relu)
        parts = []
        for image in self.maps[:images]:
            value = convolve(layer, tiling, bins, torch.tensor(image)[None] * self.scale,
                             bins.weights(words), torch.tensor(data.bias).float())
            rounded = torch.floor(value / data.out_scale + 0.5).clamp(low, high)
            parts.append(rounded.to(torch.int16).numpy())
        kernel, bias = (torch.tensor(array) for array in self.weights[layer.name])
        dense = []
        for image in self.dense:
            value = functional.conv2d(image[None], kernel, bias, padding=layer.padding)
            value = functional.relu(value) if layer.relu else value
            dense.append(functional.max_pool2d(value, layer.pool) if layer.pool > 1 else value)
        self.maps = np.concatenate([*parts, held_maps.astype(np.int16)])
        self.dense = torch.cat(dense)
        self.scale, self.signed = data.out_scale, not layer.relu
        held, wanted = torch.tensor(self.maps[images:]) * self.scale, self.dense[images:]
        entry |= {"network_db": round(decibels(wanted, held), 3), "network_cosine": round(
            float(functional.cosine_similarity(held.flatten(1), wanted.flatten(1)).mean()), 5)}

    def _save(self, file: Path, data: QuantisedLayer, entry: dict) -> None:
        """Write the checkpoint of a layer."""
        fields = {field.name: getattr(data, field.name) for field in dataclasses.fields(data)}
        arrays = {name: torch.tensor(value) if isinstance(value, np.ndarray) else value
                  for name, value in fields.items()}
        arrays["weight"] = arrays["weight"].to(torch.int16)
        checkpoint.save(file, {"kind": "layer", "settings": self.settings.to_dict(),
                               "data": arrays, "report": entry})

    def _restore(self, file: Path, layer: Conv) -> QuantisedLayer | None:
        """Layer of an earlier run, None where it had not come that far."""
        if not file.exists():
            return None
        state = checkpoint.load(file, "layer")
        if state["settings"] != self.settings.to_dict():
            changed = [k for k, v in self.settings.to_dict().items()
                       if state["settings"].get(k) != v]
            raise UserError(f"{file} was made with other settings: {', '.join(changed)}")
        self.report.append(state["report"])
        arrays: dict[str, Any] = {
            name: value.numpy() if isinstance(value, Tensor) else value
            for name, value in state["data"].items()
        }
        arrays["weight"] = arrays["weight"].astype(np.int64)
        return QuantisedLayer(**arrays)


def _tell_part(
    tell: Callable[[str, float], None], name: str, index: int, count: int, part: float
) -> None:
    """Translate the share of a layer into the share of the run."""
    tell(name, (index + part) / count)


def _words(data: QuantisedLayer) -> NDArray[np.complex128]:
    """Real-valued words (N, C, F) of a quantised layer."""
    scale = data.weight_scale[:, None, None]
    return (data.weight[..., 0] * scale + 1j * (data.weight[..., 1] * scale)).astype(np.complex128)


def _out_scale(layer: Conv, outputs: Tensor) -> float:
    """Scale of the 8-bit outputs with the least squared error on outputs (t*t, T, N)."""
    if not layer.relu:
        return float(outputs.abs().max().clamp_min(1e-6)) / 127
    quantiser = ActivationQuantiser()
    quantiser.mode = "observe"
    # A few hundred tiles are enough for one number.
    quantiser(outputs[:, ::max(1, outputs.shape[1] // 512)])
    quantiser.calibrate()
    return float(quantiser.scale)


def end_to_end(report: Sequence[dict]) -> dict:
    """Summary of a finished run's report: the last layer against the dense network."""
    return {"layer": report[-1]["layer"], "sqnr_db": report[-1]["network_db"],
            "cosine": report[-1]["network_cosine"],
            "density": float(np.mean([entry["density"] for entry in report]))}
