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
from model.network import Conv, Network, QuantisedLayer, QuantisedNetwork
from model.patterns import project
from pruning import checkpoint
from pruning.bins import Bins
from pruning.layersettings import TILE, Settings
from pruning.reconstruct import admm, least_squares, normal_equations
from pruning.rounding import integers, output_scale, real_words
from pruning.samples import (
    TileSet,
    collect,
    convolve,
    decibels,
    signal_to_noise,
    some_places,
)
from pruning.vgg import Weights

__all__ = ["LayerRun", "end_to_end"]

#: Images that set the range of the accumulators; `model.lower.calibrate` leaves a factor of two.
PEAK_IMAGES = 4


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
            words = real_words(self.donor.layers[self.network.layers.index(layer)])
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
            out_scale=output_scale(layer, result),
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
        words = torch.tensor(real_words(data)).to(torch.complex64)
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
            value = functional.conv2d(image[None], kernel, bias, padding=layer.edges[:2])
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


def end_to_end(report: Sequence[dict]) -> dict:
    """Summary of a finished run's report: the last layer against the dense network."""
    return {"layer": report[-1]["layer"], "sqnr_db": report[-1]["network_db"],
            "cosine": report[-1]["network_cosine"],
            "density": float(np.mean([entry["density"] for entry in report]))}
