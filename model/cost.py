"""Cost model: cycles and bytes of a compiled network, checked against RTL simulation.

The units of the core work side by side and wait for each other (docs/architecture.md). The model
follows them block by block, a block being a kernel block with a tile block, in the order in which
the array takes them: a block is multiplied when the one before is, its tile block is loaded
(`model.loading`), its kernels have come (`model.feed`), and one of the four slots of the sum buffer
is free; its sums are read when they are complete, those of the block before are read, and, for the
first block of a layer, the layer before is written. What each of them takes is in `model.rates`.
A layer's interval ends with its last written value. In a batch the next image's input is read as
soon as the last convolution of an image is loaded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from model.compile import CompiledLayer, Outline, Program
from model.config import AcceleratorConfig
from model.feed import Feed
from model.loading import InputMap, Loader, Source, WrittenMap
from model.memories import SUM_SLOTS
from model.rates import (
    DOT_BLOCK,
    kernel_cycles,
    load_cycles,
    mac_cycles,
    pool_cycles,
    row_writes,
    store_cycles,
)
from model.residency import groups

__all__ = ["LayerCost", "estimate"]

#: Cycles from the last step of a block to the first read of its sums, besides the drain's.
TO_SUMS = 20
#: Cycles from the last read of a block to its last write, besides writing its rows.
TO_WRITE = 30
#: The same with one feature bank, where Post collects the values of a row one by one.
TO_WRITE_SINGLE = 34
#: The same of a dot layer, writing included.
TO_WRITE_DOT = 21
#: Cycles from the last read of a block to the step that uses its slot.
SLOT = 5
#: Cycles of the array between two layers.
LAYER = 2
#: Cycles from the end of a layer to the first read of the next one's sums.
NEXT_STORE = 4


@dataclass(frozen=True)
class LayerCost:
    """Estimated cycles and bytes of one layer, for all images it is for."""

    name: str
    mac_cycles: int
    store_cycles: int
    load_cycles: int
    stream_beats: int
    cycles: int
    bytes_read: int


def estimate(program: Program | Outline, rate: float = 1.0, latency: int = 8) -> list[LayerCost]:
    """Estimate every layer of a program.

    Parameters
    ----------
    program : Program or Outline
        What the compiler decided.
    rate : float
        Beats of the port that the memory gives in a cycle: above 0, at most 1.
    latency : int
        Cycles of the memory from a request to its first beat.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate must be above 0 and at most 1 beat a cycle, not {rate!r}")
    config, region = program.config, program.input_region
    feed = Feed(config, program.layers, region.rows, rate, latency)
    core = _Core(config, feed)
    costs: list[LayerCost] = []
    output: WrittenMap | None = None        # of the layer before
    written = 0
    for layer in program.layers:
        fields, before = layer.descriptor, written
        source: Source | None = output
        if source is None or fields["input"]:
            pooled = output is not None and output.whole
            source = InputMap(feed, region.plane, region.row_log2,
                              output.end if output is not None and pooled else 0)
            if output is not None:
                feed.next_input(core.asks())
        output = core.layer(layer, source)
        written = ceil(output.end)
        beats = layer.stream_beats * layer.kernel_passes
        arriving = fields["input"] * config.map_row_beats * region.rows
        blocks = fields["tile_blocks"]
        costs.append(LayerCost(
            layer.name, mac_cycles(config, fields, layer.steps) * blocks,
            ceil(store_cycles(config, fields) * blocks), load_cycles(config, fields) * blocks,
            beats, written - before, 8 * config.port_words * (beats + arriving),
        ))
    return costs


class _Core:
    """The units of the core, and the cycle until which each of them is busy."""

    def __init__(self, config: AcceleratorConfig, feed: Feed) -> None:
        self._config, self._feed = config, feed
        self._loader = Loader(config)
        self._array = self._store = 0.0
        self._written: float = -NEXT_STORE      # when the layer before is
        self._slots: deque[float] = deque([0.0] * SUM_SLOTS)

    def asks(self) -> float:
        """Cycle in which the Loader comes to the next layer."""
        return self._loader.next

    def layer(self, layer: CompiledLayer, source: Source) -> WrittenMap:
        """Run a layer with the input ``source``; what it writes."""
        config, fields, feed = self._config, layer.descriptor, self._feed
        each, tail, drain = kernel_cycles(config, fields), self._tail(fields), self._drain(fields)
        reading = [config.kernel_lanes * each] * (len(layer.blocks) - 1)
        reading.append(fields["lanes_last"] * each)
        if fields["dot"]:
            reading = [DOT_BLOCK + cycles for cycles in reading]
        words = fields["groups"] * (1 if fields["dot"] else config.words)
        written = WrittenMap(config.kernel_lanes // config.feature_banks, each=each
                             * config.feature_banks, whole=bool(fields["pool_op"]))
        self._loader.layer()
        feed.layer(layer)
        self._array += LAYER
        self._store = max(self._store, self._written + NEXT_STORE)

        loaded: dict[int, float] = {}
        end = start = 0.0
        for group in groups(fields["tile_blocks"], fields["resident"]):
            passes: list[list[float]] = []      # last writes, by kernel block and tile block
            for block, cycles in zip(layer.blocks, reading, strict=True):
                arrived, late = feed.block(block)
                ends = []
                for tile in group:
                    if not passes:
                        loaded[tile] = self._loader.block(fields, tile, source)
                    start = max(self._array, loaded[tile], self._slots.popleft())
                    self._array = max(start + block.cycles, arrived, start + late)
                    self._store = max(self._store, self._array + TO_SUMS + drain) + cycles
                    self._slots.append(self._store + SLOT)
                    end = self._store + tail
                    ends.append(end)
                    if len(passes) == len(layer.blocks) - 1:
                        self._loader.free(words, self._array)
                    if isinstance(source, InputMap) and not (passes or tile):
                        feed.share(end - cycles, self._writing(fields, block.cycles, cycles))
                feed.used(block, start, self._array)
                feed.stored(self._store)
                passes.append(ends)
            written.group([self._complete(fields, tile) for tile in group], passes, reading)
        written.end = self._written = end + pool_cycles(config, fields)
        return written

    def _drain(self, fields: Mapping[str, int]) -> int:
        """Cycles in which the sums that a block ends with leave."""
        config = self._config
        whole = config.window > 1 and not fields["dot"]
        return config.drain_interval * (config.words if whole else 1)

    def _tail(self, fields: Mapping[str, int]) -> int:
        """Cycles from the last read of a block to its last write."""
        config = self._config
        if fields["dot"]:
            return TO_WRITE_DOT + fields["tiles"] - 1
        if config.feature_banks == 1:
            return TO_WRITE_SINGLE
        return TO_WRITE + row_writes(config, fields) * config.tile_lanes

    def _complete(self, fields: Mapping[str, int], tile: int) -> int:
        """Map rows above the first tile behind a tile block."""
        return (tile + 1) * self._config.tile_lanes // fields["tiles_x"] * fields["out_step"]

    def _writing(self, fields: Mapping[str, int], array: float, reading: float) -> float:
        """Share of the cycles in which the writer of a bank writes."""
        config = self._config
        writes = row_writes(config, fields) * config.tile_lanes / config.feature_banks
        return writes * config.kernel_lanes / max(array, reading)
