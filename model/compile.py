"""Compiler: quantised network and config in, program image, descriptors and golden network out."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
from model.maps import Maps, Placement, after_fields, place_maps, steps
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
    image : int or None
        Number of the image in a batch; None: of all images, or the only one.
    """

    lowered: LoweredLayer
    descriptor: dict[str, int]
    how: Addressing
    demand: Demand
    steps: int
    entries: int
    stream_beats: int
    blocks: tuple[KernelBlock, ...]
    image: int | None = None

    @property
    def name(self) -> str:
        """Name of the layer, and of the image if it is of one of a batch."""
        return self.lowered.name if self.image is None else f"{self.lowered.name}, {self.image}"

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
    """A compiled network: the image for the core and everything to check its run.

    With ``batch`` > 1 a run takes as many inputs and gives as many outputs, one after the other;
    ``input_region`` is of one input, ``output_region`` of all outputs.
    """

    config: AcceleratorConfig
    network: LoweredNetwork
    layers: tuple[CompiledLayer, ...]
    image: NDArray[np.uint64]
    input_region: layout.Region
    output_region: layout.Region
    batch: int = 1

    def pack_input(self, *images: NDArray) -> NDArray[np.uint64]:
        """Linear image of ``batch`` input maps (C, H, W) for the input DMA, in 64-bit words."""
        first = self.network.layers[0]
        if len(images) != self.batch:
            raise ValueError(f"the program takes {self.batch} inputs, not {len(images)}")
        for image in images:
            if image.shape != first.source_shape:
                raise ValueError(f"input must have shape {first.source_shape}, not {image.shape}")
        return np.concatenate([
            layout.pack_plane(first.fold(image), self.input_region) for image in images
        ])

    def unpack_output(self, beats: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Turn what the output DMA wrote, as 64-bit words, into the last layer's (N, H, W)."""
        if self.batch != 1:
            raise ValueError(f"the program gives {self.batch} outputs: use unpack_outputs")
        return self.unpack_outputs(beats)[0]

    def unpack_outputs(self, beats: NDArray[np.uint64]) -> list[NDArray[np.int64]]:
        """Turn what the output DMA wrote, as 64-bit words, into the images' (N, H, W)."""
        region = layout.part(self.output_region, self.batch, 0)
        words = 2 * region.banks * region.rows
        return [self._unpack(beats[image * words:(image + 1) * words], region)
                for image in range(self.batch)]

    def _unpack(self, beats: NDArray[np.uint64], region: layout.Region) -> NDArray[np.int64]:
        last = self.network.layers[-1]
        if region.plane:
            raw = layout.unpack_plane(beats, last.out_shape, region)
            return raw.view(np.int8 if last.out_signed else np.uint8).astype(np.int64)
        dtype = "<i2" if last.out_wide else ("<i1" if last.out_signed else "<u1")
        count = int(np.prod(last.out_shape))
        raw = np.ascontiguousarray(beats, dtype="<u8").view(dtype)[:count]
        return raw.astype(np.int64).reshape(last.out_shape)


def compile_network(
    network: QuantisedNetwork, config: AcceleratorConfig, *, resident: int | None = None,
    batch: int = 1,
) -> Program:
    """Compile a network for a config; `UserError` names the layer that does not fit and why.

    ``resident``: at most so many tile blocks per group, instead of as many as are best
    (`model.residency`). ``batch``: images of a run; fully connected layers read their weights once
    for all of them.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
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
    places, layers, streams = _compile_layers(lowered, config, resident, batch)
    source, out = places.source, places.out
    image = build_image(
        config, [layer.descriptor for layer in layers], streams,
        source.base, source.rows, out.base, out.rows,
        stream_of=[step.layer for step in steps(lowered, batch)], batch=batch,
    )
    return Program(config, lowered, tuple(layers), image, source, out, batch)


def compile_outline(
    network: LoweredNetwork, config: AcceleratorConfig, *, batch: int = 1
) -> Outline:
    """Compile a network whose weights have a shape only (`model.outline`); errors as above."""
    places, layers, _ = _compile_layers(network, config, None, batch)
    return Outline(config, network, tuple(layers), places.source, places.out)


def _compile_layers(
    lowered: LoweredNetwork, config: AcceleratorConfig, resident: int | None, batch: int,
) -> tuple[Placement, list[CompiledLayer], list[NDArray[np.uint64]]]:
    """Places of the maps, the program's layers, and the streams of the network's."""
    order = steps(lowered, batch)
    if batch > config.tile_lanes and any(layer.dot for layer in lowered.layers):
        raise UserError(f"a batch of {batch} images, config {config.name} has {config.tile_lanes} "
                        "tile lanes, one for each image: take fewer images or raise tile_lanes")
    if len(order) > config.max_layers:
        what = f" for a batch of {batch} images" if batch > 1 else ""
        raise UserError(f"{len(order)} layers{what}, config {config.name} holds at most "
                        f"{config.max_layers}: raise max_layers (to 32 at most)"
                        + (" or take fewer images" if batch > 1 else ""))
    places = place_maps(lowered, config, batch)
    layers: list[CompiledLayer] = []
    streams = []
    for step, maps in zip(order, places.maps, strict=True):
        layer = lowered.layers[step.layer]
        flags = {"last": int(len(layers) == len(order) - 1), "input": int(step.layer == 0)}
        if step.image:      # as the first image's, elsewhere
            first = layers[step.layer]
            places_of = {"in_base": maps.source.base, "out_base": maps.map.base,
                         "pool_base": after_fields(layer, maps)["pool_base"]}
            layers.append(replace(
                first, descriptor=first.descriptor | flags | places_of, image=step.image,
            ))
            continue
        compiled, stream = _compile_layer(layer, config, maps, flags, resident, batch)
        layers.append(replace(compiled, image=None if batch == 1 else step.image))
        streams.append(stream)
    return places, layers, streams


def _geometry(layer: LoweredLayer, config: AcceleratorConfig, row: int,
              batch: int) -> dict[str, int]:
    """Descriptor fields of tiles and maps; the images of a fully connected layer are its tiles."""
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
        "tiles": batch, "tile_blocks": 1, "tiles_x": 1, "step": 1, "crop": config.tile - 1,
        "pad": 0, "pad_left": 0, "in_height": height, "in_width": width, "out_height": batch,
        "out_width": 1,
        "out_step": 1, "out_tile_row": 1, "out_map": 1,
    }


def _compile_layer(
    layer: LoweredLayer, config: AcceleratorConfig, maps: Maps, flags: dict[str, int],
    resident: int | None, batch: int,
) -> tuple[CompiledLayer, NDArray[np.uint64]]:
    source, target = maps.source, maps.map
    kernels, lanes = len(layer.weight), config.kernel_lanes
    peak = 0 if layer.outline else worst_accumulator(layer.layer, layer.weight)
    if peak >= 1 << (config.acc_bits - 1):
        raise UserError(f"layer {layer.name}: sums may reach {peak}, beyond acc_bits = "
                        f"{config.acc_bits}: raise acc_bits")
    layer, division = divide(layer, config)
    how = addressing(layer, config, batch)
    geometry = _geometry(layer, config, how.row, batch)
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
        "out_vector": int(target.plane == 0), **flags,
        "in_base": source.base, "in_row_log2": source.row_log2,
        "entries": how.entries, "entries_last": how.entries_last, "sub_log2": how.sub_log2,
        "hold": how.hold, "select_code": how.select_code, "spread": how.spread,
        "row_beats_last": ceil(lanes_last * 2 * config.weight_bits / config.port_bits),
        "sum_shift": layer.sum_shift, "requant_shift": layer.requant_shift,
        "out_base": target.base, "out_plane": target.plane, "out_row_log2": target.row_log2,
    }
    if not descriptor["out_vector"]:
        descriptor |= {"out_tile_row": 0, "out_map": 0}
    if layer.dot:
        # From one image's input, and output, to the next one's.
        values = layout.ROW_BYTES * config.feature_banks * target.rows >> layer.out_wide
        descriptor |= {"out_plane": source.rows, "out_tile_row": values}
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
