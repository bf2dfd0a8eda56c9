"""External bytes per layer of VGG16: fixed flows, flexible flows, and `u200` as it runs.

Two cost models, both computed:

* FPGA 2020 ("Reuse Kernels or Activations?", read off the authors' published RTL): full spectra,
  partial sums of Ps tiles and Ns kernels on chip as complex words, every map through the memory.
  A layer reads its map ceil(N/Ns) times and its kernels ceil(P/Ps) times. Maps are counted as bare
  16-bit pixels, pooled, without the padding to tiles: less than their RTL moves.
* this project's (`model.dataflow`): half spectra, sums finished on chip, 8-bit maps.

Each is given a number of on-chip bytes, all of which it may use for what its flow keeps on chip.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from model.config import AcceleratorConfig
from model.dataflow import (
    STREAM_ACTIVATIONS,
    STREAM_KERNELS,
    Layer,
    Platform,
    choose,
    convolutions,
    fixed,
)
from model.errors import UserError
from model.network import NETWORKS

__all__ = ["FPGA20", "Spectra", "compare", "onchip_bytes", "own", "spectra_flows"]

ORDERS = (STREAM_KERNELS, STREAM_ACTIVATIONS)


@dataclass(frozen=True)
class Spectra:
    """What FPGA 2020's cost model depends on.

    Parameters
    ----------
    sum_bytes : int
        Room for partial sums.
    tile_lanes, kernel_lanes : int
        P' and N', the steps of Ps and Ns.
    word_bytes : int
        Bytes of a complex word, of a partial sum and of a weight.
    kept : int
        Words kept of the 64 of a kernel and channel.
    index_bits : int
        Bits that place a kept word.
    pixel_bytes : int
        Bytes of a pixel.
    """

    sum_bytes: int
    tile_lanes: int = 9
    kernel_lanes: int = 64
    word_bytes: int = 4
    kept: int = 16
    index_bits: int = 5
    pixel_bytes: int = 2

    @property
    def kernel_bytes(self) -> int:
        """Bytes of a kernel and channel."""
        return self.kept * self.word_bytes + ceil(self.kept * self.index_bits / 8)


#: Their U200 design: 576 lanes of 1536 partial sums.
FPGA20 = Spectra(sum_bytes=576 * 1536 * 4)


def _groups(layer: Layer, model: Spectra) -> Iterator[tuple[int, int]]:
    """Ps and Ns whose partial sums fit."""
    for tiles in _sizes(layer.tiles, model.tile_lanes):
        for kernels in _sizes(layer.kernels, model.kernel_lanes):
            if tiles * kernels * 64 * model.word_bytes <= model.sum_bytes:
                yield tiles, kernels


def _sizes(total: int, step: int) -> list[int]:
    return [*range(step, total, step), total]


def _bytes(layer: Layer, model: Spectra, tiles: int, kernels: int) -> int:
    maps = ceil(layer.kernels / kernels) * layer.in_bytes + layer.out_bytes
    weights = ceil(layer.tiles / tiles) * layer.kernels * layer.channels * model.kernel_bytes
    return maps * model.pixel_bytes + weights


def spectra_flows(layers: Sequence[Layer], model: Spectra) -> dict[str, list[int]]:
    """Bytes per layer of both fixed flows and of the best Ps and Ns, in FPGA 2020's model.

    Stream kernels: maps are read once (Ns = N) and Ps is as large as fits. Stream activations:
    Ps is as large as fits beside N' kernels (all tiles where they fit: kernels are read once),
    then Ns.

    Raises
    ------
    UserError
        Not even one block of P' tiles and N' kernels fits.
    """
    flows: dict[str, list[int]] = {order: [] for order in (*ORDERS, "chosen")}
    for layer in layers:
        groups = list(_groups(layer, model))
        whole = [(tiles, kernels) for tiles, kernels in groups if kernels == layer.kernels]
        if not whole:
            raise UserError(f"layer {layer.name}: partial sums of {model.tile_lanes} tiles and all "
                            f"kernels exceed {model.sum_bytes} bytes")
        best = {STREAM_KERNELS: max(whole), STREAM_ACTIVATIONS: max(groups)}
        for order, group in best.items():
            flows[order].append(_bytes(layer, model, *group))
        flows["chosen"].append(min(_bytes(layer, model, *group) for group in groups))
    return flows


def own(layers: Sequence[Layer], room: int, base: Platform, shares: int = 16
        ) -> dict[str, list[int]]:
    """Bytes per layer in this project's model, ``room`` bytes divided best for each flow.

    Parameters
    ----------
    layers : sequence of Layer
        The network.
    room : int
        Bytes of tile and kernel buffer together.
    base : Platform
        Everything else; its ``feature_bytes`` are beside ``room``.
    shares : int
        The kernel buffer takes 1 to ``shares - 1`` of ``shares`` parts.
    """
    flows: dict[str, list[int]] = {}
    for part in range(1, shares):
        kernel_bytes = room * part // shares
        platform = dataclasses.replace(base, kernel_bytes=kernel_bytes,
                                       tile_words=(room - kernel_bytes) // 4)
        for name in (*ORDERS, "chosen"):
            try:
                chain = (choose(layers, platform) if name == "chosen"
                         else fixed(layers, platform, name))
            except UserError:
                continue
            sizes = [plan.bytes for plan in chain]
            if name not in flows or sum(sizes) < sum(flows[name]):
                flows[name] = sizes
    if missing := [name for name in (*ORDERS, "chosen") if name not in flows]:
        raise UserError(f"{room} bytes are too few for any dataflow of {missing[0]!r}")
    return {name: flows[name] for name in (*ORDERS, "chosen")}


def onchip_bytes(config: AcceleratorConfig) -> dict[str, int]:
    """Bytes of a config's memories."""
    return {
        "tiles": config.tile_lanes * config.banks * config.tile_depth * config.word_bits // 4,
        "kernels": config.kernel_depth * config.kernel_lanes * config.weight_bits // 4
        + config.select_depth * config.port_bits // 8,
        "maps": config.feature_banks * config.feature_depth * 16 * config.act_bits // 8,
    }


def compare(run: dict[str, Any], config: AcceleratorConfig) -> dict[str, Any]:
    """All flows beside a simulated run.

    Parameters
    ----------
    run : dict
        What ``sim.run --json`` wrote of VGG16 on ``config``.
    config : AcceleratorConfig
        Whose bytes the flows are given.

    Returns
    -------
    dict
        ``flows``: name to bytes per layer; ``saved``: share of bytes saved by the run against the
        better fixed flow of each model; ``groups`` of flow names with their titles.
    """
    layers = convolutions(NETWORKS["vgg16"])
    names = [layer.name for layer in layers]
    if [row["name"] for row in run["layers"]] != names:
        raise UserError("the run holds other layers than vgg16's convolutions")
    memories = onchip_bytes(config)
    total = sum(memories.values())
    lanes = Platform(tile_lanes=config.tile_lanes, kernel_lanes=config.kernel_lanes,
                     forward_ffts=config.feature_banks, port_bytes=config.port_bits // 8)
    small = Platform(tile_lanes=9, forward_ffts=9, tile_words=327_680, kernel_bytes=1_300_000,
                     select_bits=5)
    groups: list[dict[str, Any]] = [
        {"title": "FPGA 2020's model, its own 3.5 MB of partial sums", "key": "fpga20",
         "flows": spectra_flows(layers, FPGA20)},
        {"title": f"FPGA 2020's model, all {total / 1e6:.1f} MB of {config.name}",
         "key": "fpga20-same", "flows": spectra_flows(
             layers, dataclasses.replace(FPGA20, sum_bytes=total))},
        {"title": "this model, maps through the memory, buffers like FPGA 2020's", "key": "own",
         "flows": {name: [plan.bytes for plan in chain] for name, chain in (
             *((order, fixed(layers, small, order)) for order in ORDERS),
             ("chosen", choose(layers, small)))}},
        {"title": f"this model, maps through the memory, all {total / 1e6:.1f} MB of "
         f"{config.name}", "key": "own-same", "flows": own(layers, total, lanes)},
    ]
    measured = [row["bytes_read"] + row["bytes_written"] for row in run["layers"]]
    used = sum(measured)
    for group in groups:
        flows = group["flows"]
        better = min(ORDERS, key=lambda order: sum(flows[order]))
        best = sum(flows[better])
        group |= {"better": better, "saved_by_choice": 1 - sum(flows["chosen"]) / best,
                  "saved_by_run": 1 - used / best}
    return {"config": config.name, "memories": memories, "names": names, "measured": measured,
            "groups": groups}
