"""Compiler: quantised network and config in, program image, descriptors and golden network out."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from model import layout
from model.config import AcceleratorConfig
from model.descriptor import pack
from model.entries import Addressing, Block, addressing, blocks
from model.errors import UserError
from model.grouped import divide
from model.image import build_image
from model.kernels import KernelBlock, kernel_blocks
from model.lower import LoweredLayer, LoweredNetwork, lower, worst_accumulator
from model.maps import Maps, after_fields, place_maps
from model.network import Conv, QuantisedNetwork
from model.rates import load_cycles, mac_cycles, store_cycles
from model.residency import Demand, choose, kernel_passes
from model.stream import pack_layer, select_beats, stream_beats

__all__ = ["CompiledLayer", "Outline", "Program", "compile_network", "compile_outline"]

#: Rows of the kernel buffer the prefetcher keeps free of a replayed block.
KERNEL_MARGIN = 64


@dataclass(frozen=True)
class CompiledLayer:
    """What the compiler decided for one layer.

    Attributes
    ----------
    descriptor : dict
        Field values (`model.descriptor.FIELDS`).
    demand : Demand
        What its residency was chosen from.
    steps : int
        Array steps of all kernel blocks and one tile block.
    entries : int
        Entries of all kernel blocks.
    stream_beats : int
        Beats of the kernel stream.
    blocks : tuple of KernelBlock
        Its kernel blocks.
    """

    lowered: LoweredLayer
    descriptor: dict[str, int]
    how: Addressing
    demand: Demand
    steps: int
    entries: int
    stream_beats: int
    blocks: tuple[KernelBlock, ...]

    @property
    def name(self) -> str:
        """Name of the layer."""
        return self.lowered.name

    @property
    def kernel_passes(self) -> int:
        """How many times the kernel stream is read: once per group of tile blocks."""
        return kernel_passes(self.descriptor["tile_blocks"], self.descriptor["resident"])


@dataclass(frozen=True)
class Outline:
    """What the compiler decided for a network, without weights and image."""

    config: AcceleratorConfig
    network: LoweredNetwork
    layers: tuple[CompiledLayer, ...]
    input_region: layout.Region
    output_region: layout.Region

    @property
    def image_beats(self) -> int:
        """Beats of the kernel streams, the bulk of the program image."""
        return sum(layer.stream_beats for layer in self.layers)


@dataclass(frozen=True)
class Program:
    """A compiled network: the image for the core and everything to check its run."""

    config: AcceleratorConfig
    network: LoweredNetwork
    layers: tuple[CompiledLayer, ...]
    image: NDArray[np.uint64]
    input_region: layout.Region
    output_region: layout.Region

    def pack_input(self, image: NDArray) -> NDArray[np.uint64]:
        """Linear image of an input map (C, H, W) as the input DMA expects it, in 64-bit words."""
        first = self.network.layers[0]
        if image.shape != first.source_shape:
            raise ValueError(f"input must have shape {first.source_shape}, not {image.shape}")
        return layout.pack_plane(first.fold(image), self.input_region)

    def unpack_output(self, beats: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Turn what the output DMA wrote, as 64-bit words, into the last layer's (N, H, W)."""
        last, region = self.network.layers[-1], self.output_region
        if region.plane:
            raw = layout.unpack_plane(beats, last.out_shape, region)
            return raw.view(np.int8 if last.out_signed else np.uint8).astype(np.int64)
        dtype = "<i2" if last.out_wide else ("<i1" if last.out_signed else "<u1")
        count = int(np.prod(last.out_shape))
        raw = np.ascontiguousarray(beats, dtype="<u8").view(dtype)[:count]
        return raw.astype(np.int64).reshape(last.out_shape)


def compile_network(
    network: QuantisedNetwork, config: AcceleratorConfig, *, resident: int | None = None
) -> Program:
    """Compile a network for a config; `UserError` names the layer that does not fit and why.

    ``resident``: at most so many tile blocks per group, instead of as many as are best
    (`model.residency`).
    """
    if resident is not None and resident < 1:
        raise ValueError(f"resident must be at least 1, not {resident}")
    if network.weight_bits != config.weight_bits:
        raise UserError(
            f"network {network.network.name} has {network.weight_bits}-bit weights, config "
            f"{config.name} takes {config.weight_bits}: choose a config with weight_bits = "
            f"{network.weight_bits}"
        )
    if network.tile != config.tile:
        raise UserError(f"network was pruned on {network.tile}-tiles, config has {config.tile}")
    lowered = lower(network)
    regions, layers, streams = _compile_layers(lowered, config, resident)
    image = build_image(
        config, [layer.descriptor for layer in layers], streams,
        regions[0].source.base, regions[0].source.rows,
        regions[-1].out.base, regions[-1].out.rows,
    )
    return Program(config, lowered, tuple(layers), image, regions[0].source, regions[-1].out)


def compile_outline(network: LoweredNetwork, config: AcceleratorConfig) -> Outline:
    """Compile a network whose weights have a shape only (`model.outline`); errors as above."""
    regions, layers, _ = _compile_layers(network, config, None)
    return Outline(config, network, tuple(layers), regions[0].source, regions[-1].out)


def _compile_layers(
    lowered: LoweredNetwork, config: AcceleratorConfig, resident: int | None,
) -> tuple[list[Maps], list[CompiledLayer], list[NDArray[np.uint64]]]:
    """Places of the maps, compiled layers and their streams."""
    if len(lowered.layers) > config.max_layers:
        raise UserError(f"{len(lowered.layers)} layers, config {config.name} holds at most "
                        f"{config.max_layers}: raise max_layers")
    regions = place_maps(lowered, config)
    layers, streams = [], []
    for index, layer in enumerate(lowered.layers):
        compiled, stream = _compile_layer(
            layer, config, regions[index], index == len(lowered.layers) - 1, resident,
        )
        layers.append(compiled)
        streams.append(stream)
    return regions, layers, streams


def _geometry(layer: LoweredLayer, config: AcceleratorConfig, row: int) -> dict[str, int]:
    """Descriptor fields of tiles and maps."""
    channels, height, width = layer.in_shape
    if isinstance(layer.layer, Conv):
        tiling = layer.layer.tiling(layer.in_shape, config.tile)
        pool = layer.layer.pool
        if tiling.step % pool:
            raise UserError(
                f"layer {layer.name}: a {pool}x{pool} pool straddles the {tiling.step}x"
                f"{tiling.step} output tiles of a {layer.layer.kernel}x{layer.layer.kernel} kernel"
            )
        out_step = tiling.step // pool
        if config.inverse_rows > 1 and layer.layer.kernel % 2 == 0:
            raise UserError(
                f"layer {layer.name}: an even kernel size, {layer.layer.kernel}, needs "
                f"inverse_rows = 1, config {config.name} has {config.inverse_rows}"
            )
        if config.feature_banks > 1 and out_step > config.post_values:
            raise UserError(
                f"layer {layer.name}: its output tiles have {out_step} values a row, config "
                f"{config.name} requantises {config.post_values}: raise post_values"
            )
        _, out_height, out_width = layer.map_shape
        top, left, _, _ = layer.layer.edges
        return {
            "dot": 0, "pool": int(pool == 2), "channels": channels,
            "groups": ceil(channels / config.banks), "tiles": tiling.tiles,
            "tile_blocks": ceil(tiling.tiles / config.tile_lanes), "tiles_x": tiling.tiles_x,
            "step": tiling.step, "crop": layer.layer.kernel - 1, "pad": top, "pad_left": left,
            "in_height": height, "in_width": width, "out_height": out_height,
            "out_width": out_width, "out_step": out_step, "out_tile_row": out_step * out_width,
            "out_map": out_height * out_width,
        }
    length = int(np.prod(layer.in_shape))
    if config.feature_banks == 1:
        height = width = 1      # a vector
    return {
        "dot": 1, "pool": 0, "channels": ceil(length / 2), "groups": ceil(length / (2 * row)),
        "tiles": 1, "tile_blocks": 1, "tiles_x": 1, "step": 1, "crop": config.tile - 1,
        "pad": 0, "pad_left": 0, "in_height": height, "in_width": width, "out_height": 1,
        "out_width": 1,
        "out_step": 1, "out_tile_row": 1, "out_map": 1,
    }


def _compile_layer(
    layer: LoweredLayer, config: AcceleratorConfig, maps: Maps, last: bool, resident: int | None,
) -> tuple[CompiledLayer, NDArray[np.uint64]]:
    source, target = maps.source, maps.map
    kernels, lanes = len(layer.weight), config.kernel_lanes
    peak = 0 if layer.outline else worst_accumulator(layer.layer, layer.weight)
    if peak >= 1 << (config.acc_bits - 1):
        raise UserError(f"layer {layer.name}: sums may reach {peak}, beyond acc_bits = "
                        f"{config.acc_bits}: raise acc_bits")
    layer, division = divide(layer, config)
    how = addressing(layer, config)
    geometry = _geometry(layer, config, how.row)
    parts = blocks(layer, config, how)
    lanes_last = kernels - (len(parts) - 1) * lanes
    if not layer.dot:
        # A channel of every bank is written at a time: zero kernels fill the last block up.
        lanes_last = ceil(lanes_last / config.feature_banks) * config.feature_banks
    stream = np.zeros(0, dtype=np.uint64) if layer.outline else pack_layer(
        config, _stream_blocks(layer, parts, lanes), how.select_bits, lanes_last=lanes_last)
    beats = stream_beats(config, [len(part.weights) for part in parts], how.select_bits,
                         lanes_last)
    words = geometry["groups"] * (1 if layer.dot else config.words)
    if words > config.tile_depth:
        raise UserError(f"layer {layer.name}: a tile block needs {words} words per bank, config "
                        f"{config.name} has tile_depth = {config.tile_depth}")
    longest = max(len(part.weights) for part in parts)
    replayable = (
        longest + KERNEL_MARGIN <= config.kernel_depth
        and select_beats(config, longest, how.select_bits) <= config.select_depth
    )
    steps = sum(part.steps for part in parts)
    sizes = geometry | {
        "kernels": kernels, "kernel_blocks": len(parts), "lanes_last": lanes_last,
        "in_plane": source.plane,
    }
    busy = max(mac_cycles(config, sizes, steps), store_cycles(config, sizes))
    demand = Demand(
        tile_blocks=geometry["tile_blocks"], kernel_blocks=len(parts),
        room=config.tile_depth // words, replayable=replayable, load=load_cycles(config, sizes),
        compute=ceil(busy / len(parts)), stream_beats=beats,
    )
    stay = choose(demand)
    descriptor = sizes | {
        "scatter": int(how.scatter), "resident": min(stay, resident or stay),
        "relu": int(layer.map_relu), "in_signed": int(layer.in_signed),
        "out_signed": int(layer.map_signed), "out_wide": int(layer.out_wide),
        "out_vector": int(target.plane == 0), "last": int(last),
        "in_base": source.base, "in_row_log2": source.row_log2,
        "entries": how.entries, "entries_last": how.entries_last, "sub_log2": how.sub_log2,
        "hold": how.hold, "select_code": how.select_code, "spread": how.spread,
        "row_beats_last": ceil(lanes_last * 2 * config.weight_bits / config.port_bits),
        "sum_shift": layer.sum_shift, "requant_shift": layer.requant_shift,
        "out_base": target.base, "out_plane": target.plane, "out_row_log2": target.row_log2,
    }
    if not descriptor["out_vector"]:
        descriptor |= {"out_tile_row": 0, "out_map": 0}
    descriptor |= division | after_fields(layer, maps)
    if descriptor["pool_vector"]:
        descriptor["out_map"] = descriptor["pool_height"] * descriptor["pool_width"]
    try:
        pack(descriptor | {"stream_offset": 0, "stream_beats": beats})
    except ValueError as error:
        raise UserError(f"layer {layer.name}: {error}: too large for this version") from error
    compiled = CompiledLayer(
        layer, descriptor, how, demand, steps,
        sum(len(part.weights) for part in parts), beats,
        kernel_blocks(config, parts, how.select_bits, lanes_last),
    )
    return compiled, stream


def _stream_blocks(
    layer: LoweredLayer, parts: list[Block], lanes: int
) -> list[dict[str, NDArray[np.int64] | None]]:
    """Blocks in the form `model.stream.pack_layer` takes; missing lanes have zero parameters."""
    out = []
    for index, part in enumerate(parts):
        rows = slice(index * lanes, index * lanes + lanes)
        params = np.zeros((lanes, 2), dtype=np.int64)
        params[:len(layer.bias[rows]), 0] = layer.bias[rows]
        params[:len(layer.bias[rows]), 1] = layer.multiplier[rows]
        out.append({"params": params, "weights": part.weights, "selects": part.selects,
                    "addresses": part.addresses})
    return out
