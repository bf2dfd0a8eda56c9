"""The configs that are searched for a network on a board, and what each of them gives.

Searched: tile lanes, kernel lanes, feature banks, inverse rows, width of the port, bits of the
weights, depths of tile and kernel buffer, block RAM or UltraRAM for these. What is left follows
from the network: accumulators that no weights overflow, the least feature memory that holds the
maps, post values of the widest output tile, selects for as many entries as there are kernel rows.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from typing import Any

from model.config import AcceleratorConfig
from model.cost import estimate
from model.descriptor import BEATS
from model.entries import addressing
from model.errors import UserError
from model.lower import LoweredNetwork
from model.network import Conv, Network
from model.outline import acc_bits, compile_outline, dense_operations, feature_rows, outline
from model.patterns import ChannelPattern, parse
from model.platform import Platform
from model.resources import ECP5_CORES, accumulator_tables, resources
from model.stream import chunk_entries

__all__ = ["Found", "Point", "Task", "Workload", "dominates", "front", "search", "tasks"]

TILE_LANES = range(1, 17)
KERNEL_LANES = (4, 8, 16, 32, 64)
FEATURE_BANKS = (1, 8, 16)
KERNEL_DEPTHS = (512, 1024, 2048, 4096, 8192, 16384)
DEEPEST_TILE = 16384
PORTS = (64, 128, 256, 512, 1024, 2048)
#: Kbit of a RAM block, to add up kinds.
KBIT = {"BRAM36": 36, "BRAM18": 18, "URAM": 288, "DP16KD": 18}
#: Bytes of a program image besides descriptors and streams (docs/program-image.md), rounded up.
IMAGE_HEADER = 512


@dataclass(frozen=True)
class Workload:
    """A network, its patterns, and the board it shall run on.

    Attributes
    ----------
    network : Network
        Shapes.
    pattern, linear : str
        Of the convolutions, and of the fully connected layers.
    platform : Platform
        Its clock is the core's.
    fill : float
        Share of the device's tables and flip-flops a core may take.
    dsp_accumulators : bool
        Whether a lane's accumulators are in its DSPs (Vivado) or in tables (yosys).
    """

    network: Network
    pattern: str
    linear: str
    platform: Platform
    fill: float = 0.9
    dsp_accumulators: bool = False

    @cached_property
    def operations(self) -> int:
        """See `model.outline.dense_operations`."""
        return dense_operations(self.network)

    def lowered(self, weight_bits: int) -> LoweredNetwork:
        """Outline of the network."""
        return outline(self.network, self.pattern, weight_bits, self.linear)


@dataclass(frozen=True)
class Task:
    """What one worker looks at: all depths of the buffers for these sizes."""

    tile_lanes: int
    kernel_lanes: int
    feature_banks: int
    inverse_rows: int
    port_bits: int
    weight_bits: int


@dataclass(frozen=True)
class Point:
    """A config that fits, and what it gives."""

    config: AcceleratorConfig
    cycles: int
    used: dict[str, int]
    bytes_read: int
    #: What the fully connected layers read in their time, of what the memory gives in it.
    linear_share: float | None = None

    @property
    def seconds(self) -> float:
        """Time of an image, alone."""
        return self.cycles / self.config.clock_hz

    @property
    def ram_kbit(self) -> int:
        """RAM blocks by their size."""
        return sum(KBIT[kind] * self.used.get(kind, 0) for kind in KBIT)

    @property
    def objectives(self) -> tuple[float, int, int]:
        """What shall be small: time, multipliers, RAM."""
        return self.seconds, self.used["DSP"], self.ram_kbit


@dataclass
class Found:
    """Front of a part of the space, how many configs were looked at, and why some were none."""

    points: list[Point] = field(default_factory=list)
    configs: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    #: Least share of the device's resource that was too much, by resource.
    closest: dict[str, tuple[float, str]] = field(default_factory=dict)

    def too_much(self, what: str, used: float, available: float) -> None:
        """Note a config that does not fit."""
        self.refused[what] += 1
        share = used / available if available else float("inf")
        if share < self.closest.get(what, (float("inf"), ""))[0]:
            self.closest[what] = share, f"{ceil(used)} of {int(available)} {what}"

    def merge(self, other: Found) -> None:
        """Take in the result of another part."""
        self.points += other.points
        self.configs += other.configs
        self.refused += other.refused
        for what, near in other.closest.items():
            self.closest[what] = min(near, self.closest.get(what, near))


def tasks(platform: Platform, weight_bits: Sequence[int]) -> Iterator[Task]:
    """All sizes that make a config and that the board can feed."""
    for banks in FEATURE_BANKS:
        # Only what `rtl.calibrate` has counted. Eight forward transforms alone would take a third
        # of the largest ECP5.
        if (banks == 1) != (platform.family == "ecp5"):
            continue
        for rows in (1, 2) if banks > 1 else (1,):
            for kernels in KERNEL_LANES:
                for bits in weight_bits if banks > 1 else {*weight_bits} & {ECP5_CORES[0]}:
                    for port in PORTS:
                        if (port <= min(platform.port_bits, 128 * banks, kernels * 2 * bits)
                                and kernels % banks == 0 and 4 * rows <= kernels <= port // 8):
                            yield from (Task(tiles, kernels, banks, rows, port, bits)
                                        for tiles in TILE_LANES)


def dominates(one: Point, other: Point) -> bool:
    """Whether a point is as good in everything and not the same."""
    return one.objectives != other.objectives and all(
        mine <= theirs for mine, theirs in zip(one.objectives, other.objectives, strict=True))


def front(points: Sequence[Point]) -> list[Point]:
    """Points that none dominates, fastest first; of equal ones that with the fewest tables."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (*point.objectives, point.used["LUT"])):
        if not any(all(mine <= theirs for mine, theirs in zip(
                other.objectives, point.objectives, strict=True)) for other in best):
            best.append(point)
    return best


def search(workload: Workload, task: Task) -> Found:
    """Every depth of the buffers for a task; the front of what fits."""
    found, platform = Found(), workload.platform
    lowered = workload.lowered(task.weight_bits)
    try:
        base = _base(workload, lowered, task)
        if not _tables_fit(workload, base, found):
            return found
        base = dataclasses.replace(base, feature_depth=feature_rows(lowered, base))
        shallow, deep = _tile_depths(lowered, base)
    except (UserError, ValueError) as error:
        found.configs += 1
        found.refused[str(error)] += 1
        return found
    per_beat = chunk_entries(base, max(
        addressing(layer, base).select_bits for layer in lowered.layers
    ))
    tile = shallow
    while tile <= min(deep, DEEPEST_TILE):
        for kernels in KERNEL_DEPTHS:
            selects = max(64, _power(kernels // per_beat) if per_beat else 64)
            config = dataclasses.replace(base, tile_depth=tile, kernel_depth=kernels,
                                         select_depth=selects)
            fitting = [
                (choice, used) for ultra in ((0, 1) if platform.family == "xcup" else (0,))
                for choice in (dataclasses.replace(config, ultra_ram=ultra),)
                if (used := _fits(workload, choice, found)) is not None
            ]
            if fitting:
                _evaluate(workload, lowered, fitting, found)
        tile *= 2
    found.points = front(found.points)
    return found


def _power(value: int) -> int:
    """Least power of two of at least ``value``."""
    return 1 << max(0, value - 1).bit_length()


def _base(workload: Workload, lowered: LoweredNetwork, task: Task) -> AcceleratorConfig:
    """Config of a task with what follows from the network, the depths still open."""
    pooled = any(isinstance(layer.layer, Conv) and layer.layer.pooling is not None
                 or layer.addition is not None for layer in lowered.layers)
    widest = max((_values(layer) for layer in lowered.layers if not layer.dot), default=2)
    # Up to as many rows as a weight of a fully connected layer has to choose from.
    patterns = [parse(layer.pattern) for layer in lowered.layers if layer.dot]
    rows = max((pattern.m // 8 for pattern in patterns if isinstance(pattern, ChannelPattern)),
               default=1)
    shared = min(task.tile_lanes, rows) if task.feature_banks > 1 else 1
    return AcceleratorConfig(
        name=f"{workload.network.name.split('[')[0]}-{workload.platform.name}",
        tile_lanes=task.tile_lanes, kernel_lanes=task.kernel_lanes, weight_bits=task.weight_bits,
        # A product has 18 bits more than a weight: narrower sums would cut it up.
        acc_bits=max(acc_bits(lowered),
                     task.weight_bits + 18 if task.feature_banks > 1 else ECP5_CORES[1]),
        max_layers=16 if len(lowered.layers) <= 16 else 32,
        clock_hz=workload.platform.clock_hz, inverse_rows=task.inverse_rows,
        port_bits=task.port_bits, feature_banks=task.feature_banks,
        post_values=1 if task.feature_banks == 1 else max(2, widest), map_pool=int(pooled),
        dot_lanes=1 << max(1, shared).bit_length() - 1,
    )


def _values(layer: Any) -> int:
    """Values of a row of a layer's output tile."""
    return (8 - layer.layer.kernel + 1) // layer.layer.pool


def _tile_depths(lowered: LoweredNetwork, config: AcceleratorConfig) -> tuple[int, int]:
    """Tile depths at which a tile block, and at which every layer as a whole fits."""
    least, most = 64, 64
    for layer in lowered.layers:
        if layer.dot:
            words = blocks = 1
            words = ceil(layer.in_shape[0] * layer.in_shape[1] * layer.in_shape[2] / 16)
        else:
            assert isinstance(layer.layer, Conv)
            tiles = layer.layer.tiling(layer.in_shape, config.tile).tiles
            words = ceil(layer.in_shape[0] / config.banks) * config.words
            blocks = ceil(tiles / config.tile_lanes)
        least, most = max(least, _power(words)), max(most, _power(words * blocks))
    return least, max(least, most)


def _tables_fit(workload: Workload, config: AcceleratorConfig, found: Found) -> bool:
    """Whether tables, flip-flops and multipliers fit, which the depths hardly change."""
    used, platform = _used(workload, config), workload.platform
    limits = {"LUT": workload.fill * platform.lut, "FF": workload.fill * platform.ff,
              "DSP": platform.dsp}
    for what, available in limits.items():
        if used[what] > available:
            found.configs += 1
            found.too_much(what, used[what], available)
            return False
    return True


def _used(workload: Workload, config: AcceleratorConfig) -> dict[str, int]:
    used = resources(config, workload.platform.family)
    if workload.dsp_accumulators:
        used["LUT"] -= accumulator_tables(config)
    return used


def _fits(
    workload: Workload, config: AcceleratorConfig, found: Found
) -> dict[str, int] | None:
    """Count what a config takes; None if the device has fewer RAMs."""
    used = _used(workload, config)
    used["BRAM36"] = used.get("BRAM36", 0) + ceil(used.pop("BRAM18", 0) / 2)
    if not used["BRAM36"]:
        del used["BRAM36"]
    for kind, available in workload.platform.rams.items():
        if used.get(kind, 0) > available:
            found.configs += 1
            found.too_much(kind, used[kind], available)
            return None
    return used


def _evaluate(
    workload: Workload, lowered: LoweredNetwork,
    fitting: Sequence[tuple[AcceleratorConfig, dict[str, int]]], found: Found,
) -> None:
    """Cycles of a config, the same for block RAM and UltraRAM."""
    config, platform = fitting[0][0], workload.platform
    found.configs += len(fitting)
    try:
        compiled = compile_outline(lowered, config)
    except UserError as error:
        found.refused[str(error)] += 1
        return
    rate = 1.0
    if platform.bandwidth:
        rate = min(1.0, 8 * platform.bandwidth / (config.port_bits * config.clock_hz))
    costs = estimate(compiled, rate)
    arriving, leaving = (config.map_row_beats * region.rows
                         for region in (compiled.input_region, compiled.output_region))
    bytes_read = sum(cost.bytes_read for cost in costs)
    linear = [cost for cost, layer in zip(costs, lowered.layers, strict=True) if layer.dot]
    share = None
    if linear and platform.bandwidth:
        share = (sum(cost.bytes_read for cost in linear) * config.clock_hz
                 / sum(cost.cycles for cost in linear) / platform.bandwidth)
    cycles = sum(cost.cycles for cost in costs) + ceil(leaving / rate)
    for choice, used in fitting:
        if not platform.bandwidth:
            words = compiled.image_beats + arriving + leaving
            content = words * config.port_bits // 8 + 8 * BEATS * config.max_layers
            choice = dataclasses.replace(choice, onchip_kib=ceil((content + IMAGE_HEADER) / 1024))
            again = _fits(workload, choice, found)
            if again is None:
                continue
            used = again
        found.points.append(Point(choice, cycles, used, bytes_read, share))
