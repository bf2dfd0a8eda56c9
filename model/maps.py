"""Where the maps of a network lie, and what is done to a map that is finished."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model import layout
from model.config import AcceleratorConfig
from model.descriptor import POOL_ADD, POOL_AVERAGE, POOL_MAX
from model.errors import UserError
from model.lower import LoweredLayer, LoweredNetwork
from model.mappool import average_scale
from model.network import Conv, Pool

__all__ = ["Maps", "Placement", "Step", "after_fields", "place_maps", "steps"]


@dataclass(frozen=True)
class Step:
    """A layer of the program: number of the network's layer, and of the image; None: all."""

    layer: int
    image: int | None


@dataclass(frozen=True)
class Maps:
    """Where a layer's input, the map it writes and its output lie, and the map it adds, if any.

    Without a pooling the written map is the output; a sum takes the written map's place.
    """

    source: layout.Region
    map: layout.Region
    out: layout.Region
    added: layout.Region | None = None


@dataclass(frozen=True)
class Placement:
    """Maps of every step of a program; the input of an image and the outputs of all.

    The inputs take one another's place, the outputs follow each other. Of a fully connected layer,
    whose step is for all images, ``maps`` has those of the first one.
    """

    maps: tuple[Maps, ...]
    source: layout.Region
    out: layout.Region


def steps(network: LoweredNetwork, batch: int) -> list[Step]:
    """Order of a program: the convolutions image by image, then the fully connected layers."""
    layers = list(enumerate(network.layers))
    return [
        *(Step(index, image) for image in range(batch) for index, layer in layers if not layer.dot),
        *(Step(index, None) for index, layer in layers if layer.dot),
    ]


def _pool(layer: LoweredLayer) -> Pool | None:
    return layer.layer.pooling if isinstance(layer.layer, Conv) else None


def _check(network: LoweredNetwork, index: int, config: AcceleratorConfig) -> None:
    """Refuse a layer whose maps the core cannot have."""
    layer, following = network.layers[index], network.layers[index + 1:index + 2]
    if index and layer.phases is not None:
        raise UserError(f"layer {layer.name}: only the first layer may have a stride, whose "
                        "phases the host cuts; elsewhere use stride 1 and, for stride 2, a "
                        "pooling of max 1x1/2")
    if layer.dot and following and not following[0].dot:
        raise UserError(f"layer {following[0].name}: a convolution cannot follow layer "
                        f"{layer.name}, which is fully connected")
    one_bank = config.feature_banks == 1
    if one_bank and layer.addition is not None and following and following[0].dot:
        raise UserError(f"layer {layer.name}: a fully connected layer cannot follow a sum of maps: "
                        "put a convolution between them")
    if not config.map_pool and (_pool(layer) is not None or layer.addition is not None):
        what = "pooling" if layer.addition is None else "addition"
        raise UserError(f"layer {layer.name}: its {what} needs map_pool = 1, config "
                        f"{config.name} has 0")


def _out_region(
    network: LoweredNetwork, index: int, config: AcceleratorConfig
) -> layout.Region:
    """Region of a layer's output, without a place."""
    layer, banks = network.layers[index], config.feature_banks
    # The writer of one bank flattens maps, of several the Loader.
    flat = index + 1 == len(network.layers) or network.layers[index + 1].dot
    if layer.dot or (banks == 1 and flat and layer.addition is None):
        size = int(np.prod(layer.out_shape)) * (2 if layer.out_wide else 1)
        return layout.vector(size, banks)
    return layout.plane(layer.out_shape, banks)


def place_maps(
    network: LoweredNetwork, config: AcceleratorConfig, batch: int = 1
) -> Placement:
    """Give every map its place; `UserError` names the layer whose maps do not fit."""
    if network.layers[0].dot:
        raise UserError(f"layer {network.layers[0].name}: the first layer must be a convolution")
    for index in range(len(network.layers)):
        _check(network, index, config)
    if batch > 1:
        return _place_batch(network, config, batch)
    maps = _place_one(network, config)
    return Placement(tuple(maps), maps[0].source, maps[-1].out)


def _place_one(network: LoweredNetwork, config: AcceleratorConfig) -> list[Maps]:
    """Places for a program of one image."""
    banks = config.feature_banks
    regions, names = [layout.plane(network.layers[0].in_shape, banks)], []
    # Where a layer's written map and its output lie among the regions.
    written, outputs = [], []
    for index, layer in enumerate(network.layers):
        written.append(len(regions))
        if _pool(layer) is not None:
            regions.append(layout.plane(layer.map_shape, banks))
            names.append(layer.name)
        outputs.append(len(regions))
        regions.append(_out_region(network, index, config))
        names.append(layer.name)
    if any(layer.addition is not None for layer in network.layers):
        lives = _lives(network, written, outputs)
        placed = layout.place(regions, lives, names, config.feature_depth)
    else:
        placed = layout.allocate(regions, names, config.feature_depth)
    sources = [0, *outputs]
    return [
        Maps(placed[sources[index]], placed[written[index]], placed[outputs[index]],
             None if layer.addition is None else placed[outputs[layer.addition.index]])
        for index, layer in enumerate(network.layers)
    ]


def _lives(
    network: LoweredNetwork, written: list[int], outputs: list[int]
) -> list[tuple[int, int]]:
    """First and last step of each region: layer i writes in step 2i, and finishes in 2i + 1."""
    lives = [(-1, 0)]
    for index in range(len(network.layers)):
        if written[index] != outputs[index]:
            lives.append((2 * index, 2 * index + 1))
        begin = 2 * index + int(written[index] != outputs[index])
        lives.append((begin, 2 * index + 2))
    for index, layer in enumerate(network.layers):
        if layer.addition is not None:
            other = outputs[layer.addition.index]
            lives[other] = lives[other][0], max(lives[other][1], 2 * index + 1)
    return lives


def _place_batch(network: LoweredNetwork, config: AcceleratorConfig, batch: int) -> Placement:
    """Places for a program of several images.

    Step s writes at time 2s and finishes its map at 2s + 1. The inputs' place is theirs until the
    last one's first layer is written; what the first fully connected layer reads, of all images,
    is there from the first image's on.
    """
    order = steps(network, batch)
    number = {step: index for index, step in enumerate(order)}
    convs = sum(not layer.dot for layer in network.layers)
    source = layout.plane(network.layers[0].in_shape, config.feature_banks)
    regions, names = [source], [network.layers[0].name]
    lives = [(-1, 2 * number[Step(0, batch - 1)])]
    written, outputs = {}, {}           # where they lie among the regions
    kept: dict[int, int] = {}           # of what is written for all images
    for step, index in number.items():
        layer = network.layers[step.layer]
        begin, pooled = 2 * index, _pool(layer) is not None
        written[step] = len(regions)
        if pooled:
            regions.append(layout.plane(layer.map_shape, config.feature_banks))
            lives.append((begin, begin + 1))
            names.append(layer.name)
        all_images = step.layer >= convs - 1
        outputs[step] = kept.get(step.layer, len(regions))
        if outputs[step] == len(regions):
            region = _out_region(network, step.layer, config)
            end = begin + 2
            if all_images:
                region = layout.repeated(region, batch)
                end = 2 * number.get(Step(step.layer + 1, None), len(order))
                kept[step.layer] = len(regions)
            regions.append(region)
            lives.append((begin + int(pooled), end))
            names.append(layer.name)
        if not pooled:
            written[step] = outputs[step]
        if layer.addition is not None:
            other = outputs[Step(layer.addition.index, step.image)]
            lives[other] = lives[other][0], max(lives[other][1], begin + 1)
    try:
        placed = layout.place(regions, lives, names, config.feature_depth)
    except UserError as error:
        raise UserError(f"{error} or take fewer than {batch} images at a time") from error

    def out(step: Step) -> layout.Region:
        region = placed[outputs[step]]
        return layout.part(region, batch, step.image or 0) if step.layer in kept else region

    def at(step: Step) -> Maps:
        layer = network.layers[step.layer]
        before = placed[0]
        if step.layer:
            # The first fully connected layer finds what the first image left, and the others'.
            image = step.image if step.layer != convs else 0
            before = out(Step(step.layer - 1, image))
        return Maps(
            before, placed[written[step]] if _pool(layer) is not None else out(step), out(step),
            None if layer.addition is None else out(Step(layer.addition.index, step.image)),
        )

    return Placement(tuple(at(step) for step in order), placed[0], placed[outputs[order[-1]]])


def after_fields(layer: LoweredLayer, maps: Maps) -> dict[str, int]:
    """Descriptor fields of what is done to the finished map."""
    names = ("op", "size", "stride", "pad", "base", "row_log2", "height", "width", "vector",
             "multiplier", "shift")
    pool, out, values = _pool(layer), maps.out, [0] * len(names)
    if pool is not None:
        size = pool.window(layer.map_shape)
        multiplier, shift = average_scale(size) if pool.kind == "average" else (0, 0)
        operation = POOL_MAX if pool.kind == "max" else POOL_AVERAGE
        values = [operation, size, pool.stride, pool.padding, out.base, out.row_log2,
                  *layer.out_shape[1:], int(out.plane == 0), multiplier, shift]
    elif layer.addition is not None and maps.added is not None:
        flags = int(layer.addition.signed) | int(layer.layer.relu) << 1
        values = [POOL_ADD, 1, 1, 0, maps.added.base, out.row_log2, *layer.out_shape[1:], 0, flags,
                  layer.addition.shift]
    return {f"pool_{name}": value for name, value in zip(names, values, strict=True)}
