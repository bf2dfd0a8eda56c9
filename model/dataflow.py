"""Choose each layer's dataflow: ``python -m model.dataflow vgg16``.

What stays on chip and what is read again, per layer, so that the fewest bytes cross the memory port
and then the fewest cycles pass (docs/dataflow.md). Sums are finished on chip, so there are two loop
orders, each with a part that may stay:

* ``stream kernels``: groups of Ps tiles outside, kernels inside. Maps are read once; the kernels
  once per group, except Ns of them that stay.
* ``stream activations``: groups of Ns kernels outside, tiles inside. Kernels are read once; the
  tiles once per group, except Ps of them that stay.

FPGA 2020 ("Reuse Kernels or Activations?") calls the two reuse of activations and of kernels; with
a part that stays, either is a partial reuse.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any, Final

from model.errors import Parser, UserError, command
from model.files import check_target, write_atomic
from model.network import NETWORKS, Conv, Network

__all__ = ["STREAM_KERNELS", "STREAM_ACTIVATIONS", "Platform", "Layer", "Plan", "convolutions",
           "plans", "fixed", "choose", "main"]

STREAM_KERNELS: Final = "stream kernels"
STREAM_ACTIVATIONS: Final = "stream activations"
#: Cycles of a forward transform per tile and channel, and of an inverse one per tile lane and
#: kernel (docs/architecture.md, "Units").
FORWARD, INVERSE = 4, 8


@dataclass(frozen=True)
class Platform:
    """What the choice depends on.

    Parameters
    ----------
    tile_lanes, kernel_lanes : int
        P' and N'.
    tile_words : int
        Spectral words of the tile buffer, over all lanes and banks.
    kernel_bytes : int
        Kernel buffer.
    feature_bytes : int
        On-chip feature memory; 0 sends every map through the port.
    port_bytes : int
        Bytes the memory port moves per cycle.
    weight_bits, select_bits : int
        Bits of a weight component, and of the select of a kernel word.
    alpha : int
        One word of ``alpha`` is kept.
    forward_ffts : int
        Forward transforms that work side by side.
    tile : int
        K.
    """

    tile_lanes: int = 13
    kernel_lanes: int = 64
    tile_words: int = 1 << 19
    kernel_bytes: int = 3 << 20
    feature_bytes: int = 0
    port_bytes: int = 96
    weight_bits: int = 16
    select_bits: int = 2
    alpha: int = 4
    forward_ffts: int = 13
    tile: int = 8

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an integer, not {value!r}")
            if value < (0 if name in ("feature_bytes", "select_bits") else 1):
                raise ValueError(f"{name} must be positive, not {value}")

    @property
    def kept(self) -> int:
        """Words kept of the K²/2 of a kernel and channel."""
        return max(1, self.tile * self.tile // 2 // self.alpha)


@dataclass(frozen=True)
class Layer:
    """Sizes of a convolution: maps in bytes (8-bit activations), new pixels of every tile."""

    name: str
    channels: int
    kernels: int
    pixels: tuple[int, ...]
    out_bytes: int

    @property
    def tiles(self) -> int:
        """Tiles per channel."""
        return len(self.pixels)

    @property
    def in_bytes(self) -> int:
        """Bytes of the input map."""
        return self.channels * sum(self.pixels)

    def kernel_size(self, platform: Platform) -> int:
        """Bytes of one kernel, whole bytes per layer stream."""
        bits = 2 * platform.weight_bits + platform.select_bits
        return ceil(self.channels * platform.kept * bits / 8)


@dataclass(frozen=True)
class Plan:
    """One dataflow of one layer and what it costs.

    Attributes
    ----------
    order : str
        `STREAM_KERNELS` or `STREAM_ACTIVATIONS`.
    tiles, kernels : int
        Ps and Ns: the group of the outer loop, and how many of the other kind stay.
    kernel_bytes, in_bytes, out_bytes : int
        Transfers through the port.
    cycles : int
        The slowest of array, port, forward and inverse transforms.
    """

    order: str
    tiles: int
    kernels: int
    kernel_bytes: int
    in_bytes: int
    out_bytes: int
    cycles: int

    @property
    def bytes(self) -> int:
        """All transfers."""
        return self.kernel_bytes + self.in_bytes + self.out_bytes

    @property
    def cost(self) -> tuple[int, int]:
        """What is minimised: bytes, then cycles."""
        return self.bytes, self.cycles


def _spans(length: int, count: int, step: int) -> list[int]:
    """Pixels of an axis that each tile is the first to need; the last tile takes the rest."""
    return [max(0, min(length, (i + 1) * step if i < count - 1 else length) - i * step)
            for i in range(count)]


def convolutions(network: Network, tile: int = 8) -> list[Layer]:
    """Sizes of the convolutions a network begins with."""
    layers = []
    for layer, shape in zip(network.layers, network.shapes()[:-1], strict=True):
        if not isinstance(layer, Conv):
            break
        if not layer.plain:
            raise UserError(f"layer {layer.name}: dataflows are compared for layers of stride 1, "
                            "one group and no other pooling than 2x2")
        tiling = layer.tiling(shape, tile)
        out = layer.out_shape(shape)
        pixels = tuple(h * w for h in _spans(shape[1], tiling.tiles_y, tiling.step)
                       for w in _spans(shape[2], tiling.tiles_x, tiling.step))
        layers.append(Layer(layer.name, layer.in_channels, layer.out_channels, pixels,
                            out[0] * out[1] * out[2]))
    return layers


def _plan(layer: Layer, platform: Platform, order: str, tiles: int, kernels: int,
          on_chip: tuple[bool, bool]) -> Plan:
    """Cost of a dataflow by formula (docs/dataflow.md)."""
    if order == STREAM_KERNELS:
        tile_passes, kernel_passes = 1, ceil(layer.tiles / tiles)
    else:
        tile_passes, kernel_passes = ceil(layer.kernels / kernels), 1
    stay = kernels if order == STREAM_KERNELS else layer.kernels
    kernel_bytes = (stay + (layer.kernels - stay) * kernel_passes) * layer.kernel_size(platform)
    stay = tiles if order == STREAM_ACTIVATIONS else layer.tiles
    once = sum(layer.pixels[:stay]) * layer.channels
    in_bytes = 0 if on_chip[0] else once + (layer.in_bytes - once) * tile_passes
    loads = stay + (layer.tiles - stay) * tile_passes
    out_bytes = 0 if on_chip[1] else layer.out_bytes
    blocks = ceil(layer.tiles / platform.tile_lanes)
    cycles = max(
        blocks * ceil(layer.kernels / platform.kernel_lanes) * layer.channels * platform.kept,
        ceil((kernel_bytes + in_bytes + out_bytes) / platform.port_bytes),
        ceil(loads * layer.channels * FORWARD / platform.forward_ffts),
        blocks * layer.kernels * INVERSE,
    )
    return Plan(order, tiles, kernels, kernel_bytes, in_bytes, out_bytes, cycles)


def _sizes(total: int, step: int) -> list[int]:
    """Multiples of ``step`` below ``total``, and ``total``."""
    return [*range(step, total, step), total]


def plans(layer: Layer, platform: Platform, on_chip: tuple[bool, bool] = (False, False)
          ) -> Iterator[Plan]:
    """Every dataflow that fits the buffers.

    The tile buffer holds the tiles that stay and, unless those are all, a block of P' being loaded
    (and one in use, where tiles stream). The kernel buffer holds the kernels that stay and, where a
    streamed kernel meets more than one block of tiles, the N' kernels in use.

    Parameters
    ----------
    layer : Layer
        What to compute.
    platform : Platform
        The buffers.
    on_chip : (bool, bool)
        Whether the input and the output map lie in the feature memory.
    """
    lanes, block = platform.tile_lanes, platform.kernel_lanes
    tile_room = platform.tile_words // (layer.channels * platform.tile**2 // 2)
    kernel_room = platform.kernel_bytes // layer.kernel_size(platform)
    for tiles in _sizes(layer.tiles, lanes):
        if tiles + (lanes if tiles < layer.tiles else 0) > tile_room:
            break
        for kernels in [0, *_sizes(layer.kernels, block)]:
            replayed = block if tiles > lanes and kernels < layer.kernels else 0
            if kernels + replayed <= kernel_room:
                yield _plan(layer, platform, STREAM_KERNELS, tiles, kernels, on_chip)
    for kernels in _sizes(layer.kernels, block):
        if kernels > kernel_room:
            break
        for tiles in [0, *_sizes(layer.tiles, lanes)]:
            if tiles + (2 * lanes if tiles < layer.tiles else 0) <= tile_room:
                yield _plan(layer, platform, STREAM_ACTIVATIONS, tiles, kernels, on_chip)


def _best(candidates: Iterator[Plan], layer: Layer, what: str) -> Plan:
    plan = min(candidates, key=lambda plan: plan.cost, default=None)
    if plan is None:
        raise UserError(
            f"layer {layer.name}: no dataflow{what} fits; enlarge the tile buffer (--tile-words) "
            "or the kernel buffer (--kernel-bytes)"
        )
    return plan


def fixed(layers: Sequence[Layer], platform: Platform, order: str) -> list[Plan]:
    """Plans of one order for all layers, nothing of the streamed kind staying.

    The groups of the outer loop and the maps on chip are chosen as in `choose`.
    """
    def stays(plan: Plan) -> int:
        return plan.kernels if order == STREAM_KERNELS else plan.tiles

    return _chain(layers, platform, lambda plan: plan.order == order and not stays(plan),
                  f" of {order!r}")


def choose(layers: Sequence[Layer], platform: Platform) -> list[Plan]:
    """Plans with the fewest bytes, then cycles, of the whole chain of layers."""
    return _chain(layers, platform, lambda plan: True, "")


def _chain(layers: Sequence[Layer], platform: Platform, allowed: Any, what: str) -> list[Plan]:
    """Dynamic programme over the maps between layers: each is on chip or not.

    The image arrives and the last map leaves through the port. A layer's maps on chip must fit the
    feature memory together.
    """
    paths: dict[bool, tuple[tuple[int, int], list[Plan]]] = {False: ((0, 0), [])}
    for index, layer in enumerate(layers):
        after: dict[bool, tuple[tuple[int, int], list[Plan]]] = {}
        for inside, (cost, path) in paths.items():
            for outside in (False, True):
                held = inside * layer.in_bytes + outside * layer.out_bytes
                if outside and index == len(layers) - 1 or held > platform.feature_bytes:
                    continue
                candidates = filter(allowed, plans(layer, platform, (inside, outside)))
                plan = _best(candidates, layer, what)
                total = cost[0] + plan.bytes, cost[1] + plan.cycles
                if outside not in after or total < after[outside][0]:
                    after[outside] = total, [*path, plan]
        paths = after
    return paths[False][1]


def compare(layers: Sequence[Layer], platform: Platform) -> dict[str, list[Plan]]:
    """Plans of both fixed flows and of the choice."""
    flows = {order: fixed(layers, platform, order)
             for order in (STREAM_KERNELS, STREAM_ACTIVATIONS)}
    return flows | {"chosen": choose(layers, platform)}


def _print(layers: Sequence[Layer], flows: dict[str, list[Plan]]) -> None:
    head = "".join(f"{name:>28}" for name in flows)
    print(f"{'':10}{head}\n{'layer':10}" + f"{'MB':>14}{'cycles':>14}" * len(flows)
          + "  chosen order, tiles Ps, kernels Ns")
    for index, layer in enumerate(layers):
        row = "".join(f"{plan[index].bytes / 1e6:14.3f}{plan[index].cycles:14}"
                      for plan in flows.values())
        plan = flows["chosen"][index]
        print(f"{layer.name:10}{row}  {plan.order}, {plan.tiles}/{layer.tiles}, "
              f"{plan.kernels}/{layer.kernels}")
    totals = {name: (sum(p.bytes for p in plan), sum(p.cycles for p in plan))
              for name, plan in flows.items()}
    print(f"{'total':10}" + "".join(f"{b / 1e6:14.3f}{c:14}" for b, c in totals.values()))
    for name, (size, _) in totals.items():
        if name != "chosen":
            print(f"bytes against {name!r}: {100 * (totals['chosen'][0] / size - 1):+.1f} %")


def _result(network: str, platform: Platform, layers: Sequence[Layer],
            flows: dict[str, list[Plan]]) -> dict[str, Any]:
    return {
        "network": network, "platform": asdict(platform),
        "flows": {name: {
            "bytes": sum(plan.bytes for plan in chain), "cycles": sum(p.cycles for p in chain),
            "layers": [{"name": layer.name, "tiles_total": layer.tiles,
                        "kernels_total": layer.kernels, "bytes": plan.bytes, **asdict(plan)}
                       for layer, plan in zip(layers, chain, strict=True)],
        } for name, chain in flows.items()},
    }


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of a network."""
    parser = Parser(prog="python -m model.dataflow", description=__doc__)
    parser.add_argument("network", choices=sorted(NETWORKS))
    default = asdict(Platform())
    for name, value in default.items():
        if name != "tile":
            parser.add_argument("--" + name.replace("_", "-"), type=int, default=value, metavar="N",
                                help=f"default {value}")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    check_target(args.json)
    try:
        platform = Platform(**{name: getattr(args, name) for name in default if name != "tile"})
    except ValueError as error:
        raise UserError(str(error)) from error
    layers = convolutions(NETWORKS[args.network])
    flows = compare(layers, platform)
    _print(layers, flows)
    if args.json:
        result = _result(args.network, platform, layers, flows)
        write_atomic(args.json, json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
