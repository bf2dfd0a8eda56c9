"""Compiler: quantised network and config in, program image, descriptors and golden network out."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from model import layout
from model.config import AcceleratorConfig
from model.descriptor import POOL_AVERAGE, POOL_MAX, pack
from model.entries import Addressing, Block, addressing, blocks
from model.errors import UserError
from model.grouped import divide
from model.image import build_image
from model.lower import LoweredLayer, LoweredNetwork, lower, worst_accumulator
from model.mappool import average_scale
from model.network import Conv, Pool, QuantisedNetwork
from model.rates import load_cycles, mac_cycles, store_cycles
from model.residency import Demand, choose, kernel_passes
from model.stream import pack_layer, select_beats

__all__ = ["CompiledLayer", "Program", "compile_network"]

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
    """

    lowered: LoweredLayer
    descriptor: dict[str, int]
    how: Addressing
    demand: Demand
    steps: int
    entries: int
    stream_beats: int

    @property
    def name(self) -> str:
        """Name of the layer."""
        return self.lowered.name

    @property
    def kernel_passes(self) -> int:
        """How many times the kernel stream is read: once per group of tile blocks."""
        return kernel_passes(self.descriptor["tile_blocks"], self.descriptor["resident"])


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
    if len(lowered.layers) > config.max_layers:
        raise UserError(f"{len(lowered.layers)} layers, config {config.name} holds at most "
                        f"{config.max_layers}: raise max_layers")
    regions = _regions(lowered, config)
    layers, streams = [], []
    for index, layer in enumerate(lowered.layers):
        compiled, stream = _compile_layer(
            layer, config, regions[index], index == len(lowered.layers) - 1, resident,
        )
        layers.append(compiled)
        streams.append(stream)
    image = build_image(
        config, [layer.descriptor for layer in layers], streams,
        regions[0].source.base, regions[0].source.rows,
        regions[-1].out.base, regions[-1].out.rows,
    )
    return Program(config, lowered, tuple(layers), image, regions[0].source, regions[-1].out)


@dataclass(frozen=True)
class _Maps:
    """Where a layer's input, the map it writes and its output lie; the last two may be one."""

    source: layout.Region
    map: layout.Region
    out: layout.Region


def _regions(network: LoweredNetwork, config: AcceleratorConfig) -> list[_Maps]:
    first, banks = network.layers[0], config.feature_banks
    if first.dot:
        raise UserError(f"layer {first.name}: the first layer must be a convolution")
    regions, names = [layout.plane(first.in_shape, banks)], []
    for index, layer in enumerate(network.layers):
        following = network.layers[index + 1] if index + 1 < len(network.layers) else None
        if layer.dot and banks > 1:
            raise UserError(f"layer {layer.name}: a fully connected layer needs feature_banks = 1, "
                            f"config {config.name} has {banks}")
        if index and layer.phases is not None:
            raise UserError(f"layer {layer.name}: only the first layer may have a stride, whose "
                            "phases the host cuts; elsewhere use stride 1 and, for stride 2, a "
                            "pooling of max 1x1/2")
        if following is not None and layer.dot and not following.dot:
            raise UserError(f"layer {following.name}: a convolution cannot follow layer "
                            f"{layer.name}, which is fully connected")
        if _pool(layer) is not None:
            if not config.map_pool:
                raise UserError(f"layer {layer.name}: its pooling needs map_pool = 1, config "
                                f"{config.name} has 0")
            regions.append(layout.plane(layer.map_shape, banks))
            names.append(layer.name)
        if banks == 1 and (following is None or following.dot):
            size = int(np.prod(layer.out_shape)) * (2 if layer.out_wide else 1)
            regions.append(layout.vector(size))
        else:
            regions.append(layout.plane(layer.out_shape, banks))
        names.append(layer.name)
    placed = iter(layout.allocate(regions, names, config.feature_depth))
    source, maps = next(placed), []
    for layer in network.layers:
        made = next(placed)
        maps.append(_Maps(source, made, made if _pool(layer) is None else next(placed)))
        source = maps[-1].out
    return maps


def _pool(layer: LoweredLayer) -> Pool | None:
    return layer.layer.pooling if isinstance(layer.layer, Conv) else None


def _pooling(layer: LoweredLayer, out: layout.Region) -> dict[str, int]:
    """Descriptor fields of the pooling of the finished map."""
    names = ("op", "size", "stride", "pad", "base", "row_log2", "height", "width", "vector",
             "multiplier", "shift")
    pool, values = _pool(layer), [0] * len(names)
    if pool is not None:
        size = pool.window(layer.map_shape)
        multiplier, shift = average_scale(size) if pool.kind == "average" else (0, 0)
        operation = POOL_MAX if pool.kind == "max" else POOL_AVERAGE
        values = [operation, size, pool.stride, pool.padding, out.base, out.row_log2,
                  *layer.out_shape[1:], int(out.plane == 0), multiplier, shift]
    return {f"pool_{name}": value for name, value in zip(names, values, strict=True)}


def _geometry(layer: LoweredLayer, config: AcceleratorConfig) -> dict[str, int]:
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
    return {
        "dot": 1, "pool": 0, "channels": ceil(length / 2), "groups": ceil(length / 16),
        "tiles": 1, "tile_blocks": 1, "tiles_x": 1, "step": 1, "crop": config.tile - 1,
        "pad": 0, "pad_left": 0, "in_height": 1, "in_width": 1, "out_height": 1, "out_width": 1,
        "out_step": 1, "out_tile_row": 1, "out_map": 1,
    }


def _compile_layer(
    layer: LoweredLayer, config: AcceleratorConfig, maps: _Maps, last: bool, resident: int | None,
) -> tuple[CompiledLayer, NDArray[np.uint64]]:
    geometry, source, target = _geometry(layer, config), maps.source, maps.map
    kernels, lanes = len(layer.weight), config.kernel_lanes
    peak = worst_accumulator(layer.layer, layer.weight)
    if peak >= 1 << (config.acc_bits - 1):
        raise UserError(f"layer {layer.name}: sums may reach {peak}, beyond acc_bits = "
                        f"{config.acc_bits}: raise acc_bits")
    layer, division = divide(layer, config)
    how = addressing(layer, config)
    parts = blocks(layer, config, how)
    lanes_last = kernels - (len(parts) - 1) * lanes
    # A channel of every bank is written at a time: the last block is filled up with zero kernels.
    lanes_last = ceil(lanes_last / config.feature_banks) * config.feature_banks
    stream = pack_layer(config, _stream_blocks(layer, parts, lanes), how.select_bits,
                        lanes_last=lanes_last)
    beats = len(stream) // config.port_words
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
        "relu": int(layer.layer.relu), "in_signed": int(layer.in_signed),
        "out_signed": int(layer.out_signed), "out_wide": int(layer.out_wide),
        "out_vector": int(target.plane == 0), "last": int(last),
        "in_base": source.base, "in_plane": source.plane, "in_row_log2": source.row_log2,
        "entries": how.entries, "entries_last": how.entries_last, "sub_log2": how.sub_log2,
        "hold": how.hold, "select_code": how.select_code,
        "row_beats_last": ceil(lanes_last * 2 * config.weight_bits / config.port_bits),
        "sum_shift": layer.sum_shift, "requant_shift": layer.requant_shift,
        "out_base": target.base, "out_plane": target.plane, "out_row_log2": target.row_log2,
    }
    if not descriptor["out_vector"]:
        descriptor |= {"out_tile_row": 0, "out_map": 0}
    descriptor |= division | _pooling(layer, maps.out)
    if descriptor["pool_vector"]:
        descriptor["out_map"] = descriptor["pool_height"] * descriptor["pool_width"]
    try:
        pack(descriptor | {"stream_offset": 0, "stream_beats": beats})
    except ValueError as error:
        raise UserError(f"layer {layer.name}: {error}: too large for this version") from error
    compiled = CompiledLayer(
        layer, descriptor, how, demand, steps,
        sum(len(part.weights) for part in parts), beats,
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
