"""Cost model: cycles and bytes of a compiled network, checked against RTL simulation.

A layer's interval ends with its last written value. One feature bank: four engines share the work
of a layer: the array (steps, and at least N'/4 cycles per frequency, which the drain takes), the
store stage (8 cycles per kernel and tile block; segments through one write port; one value per
cycle and Post), the loader, and the memory port (one beat per cycle, streaming ahead across
layers). The slowest bounds the layer; filling and emptying the pipelines is added once.

Several feature banks: maps lie in the order of their tile blocks, so that the next layer's first
block is loaded while the last ones are multiplied, if there are enough of them. Then the array goes
on without a gap; otherwise it waits until the layer before is written and a block is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from model.compile import CompiledLayer, Program

__all__ = ["LayerCost", "estimate"]

#: Cycles from the last input beat to the first sum of the first layer.
FIRST_FILL = 74
#: Cycles from the end of the layer before to the first sum, the loading nobody hides included.
FILL = 53
#: The same where the first of several tile blocks is loaded before the layer before has ended.
FILL_AHEAD = 25
#: Cycles from the last beat of a kernel stream to the last write, besides reading the last block.
STREAM_LATENCY = 140
#: Cycles from the last sum of a convolution to its last write, besides reading the last block.
DRAIN = 46
#: The same two together for a dot layer.
DOT_LATENCY = 88
#: Cycles of the store stage per kernel block of a dot layer, besides one per kernel.
DOT_BLOCK = 6

#: Several banks: tile blocks from which on the next layer's first block is complete in time.
AHEAD_BLOCKS = 3
#: From the last sum of a block to the last write, besides reading the block and writing its rows.
BANKS_DRAIN = 118
#: From the last write to the first sum, besides loading a group of channels.
BANKS_FILL = 28
#: From the start of a run to the first sum, besides the latency of the memory.
BANKS_FIRST = 900


@dataclass(frozen=True)
class LayerCost:
    """Estimated cycles and bytes of one layer for one image."""

    name: str
    mac_cycles: int
    store_cycles: int
    load_cycles: int
    stream_beats: int
    cycles: int
    bytes_read: int


def _mac(layer: CompiledLayer, kernel_lanes: int, words: int) -> int:
    fields = layer.descriptor
    frequencies = fields["kernel_blocks"] * (1 if fields["dot"] else words)
    return max(layer.steps, frequencies * kernel_lanes // 4) * fields["tile_blocks"]


def _store(layer: CompiledLayer, tile_lanes: int) -> int:
    fields = layer.descriptor
    if fields["dot"]:
        return fields["kernels"] + DOT_BLOCK * fields["kernel_blocks"]
    segments, values = fields["out_step"] * tile_lanes, fields["out_step"] ** 2
    return fields["kernels"] * fields["tile_blocks"] * max(8, segments, values)


def _load(layer: CompiledLayer, tile_lanes: int) -> int:
    fields = layer.descriptor
    if fields["dot"]:
        return fields["groups"]
    return 4 * fields["channels"] * fields["tile_blocks"] * tile_lanes


def estimate(program: Program) -> list[LayerCost]:
    """Estimate every layer of a program."""
    if program.config.feature_banks > 1:
        return _estimate_banks(program)
    config = program.config
    lanes = config.tile_lanes
    input_beats = config.map_row_beats * program.input_region.rows
    costs: list[LayerCost] = []
    elapsed, streamed = 0, input_beats
    for index, layer in enumerate(program.layers):
        fields = layer.descriptor
        beats = layer.stream_beats * (fields["tile_blocks"] if fields["restream"] else 1)
        mac, store = _mac(layer, config.kernel_lanes, config.words), _store(layer, lanes)
        load = _load(layer, lanes)
        streamed += beats
        if fields["dot"]:
            latency, tail = load + DOT_LATENCY, 0
        else:
            tail = 8 * fields["lanes_last"]
            if index == 0:
                fill = input_beats + FIRST_FILL
            else:
                fill = FILL if fields["tile_blocks"] == 1 else FILL_AHEAD
            latency = fill + tail + DRAIN
        end = max(elapsed + max(mac, store, load) + latency, streamed + STREAM_LATENCY + tail)
        costs.append(LayerCost(layer.name, mac, store, load, beats, end - elapsed,
                               8 * config.port_words * (beats + (0 if index else input_beats))))
        elapsed = end
    return costs


def _estimate_banks(program: Program) -> list[LayerCost]:
    """Estimate the layers of a program for several feature banks."""
    config = program.config
    lanes, banks, rows = config.tile_lanes, config.feature_banks, config.inverse_rows
    slots = 4 * max(lanes, banks)           # cycles to load as many channels as there are banks
    costs: list[LayerCost] = []
    input_beats = config.map_row_beats * program.input_region.rows
    multiplied = written = streamed = 0
    before = 0                              # tile blocks of the layer before
    for index, layer in enumerate(program.layers):
        fields = layer.descriptor
        blocks, step = fields["tile_blocks"], fields["out_step"]
        beats = layer.stream_beats * (blocks if fields["restream"] else 1)
        streamed += beats
        drained = fields["kernel_blocks"] * config.words * config.kernel_lanes // (4 * rows)
        mac = max(layer.steps, drained) * blocks
        kernels = (fields["kernel_blocks"] - 1) * config.kernel_lanes + fields["lanes_last"]
        # The input still comes while layer 0 writes, through the same ports, in two halves a row.
        segments = kernels * blocks * step * lanes / banks
        segments += 0 if index else 2 * program.input_region.rows
        store = ceil(max(kernels * blocks * 8 / rows, segments))
        load = -(-fields["channels"] // banks) * slots * blocks
        begin = multiplied if before >= AHEAD_BLOCKS else written + BANKS_FILL + slots
        if index == 0:
            begin = BANKS_FIRST
        multiplied = max(begin + max(mac, store, load), input_beats + streamed)
        end = multiplied + 8 * fields["lanes_last"] // rows + BANKS_DRAIN + step * lanes
        costs.append(LayerCost(
            layer.name, mac, store, load, beats, end - written,
            8 * config.port_words * (beats + (0 if index else input_beats)),
        ))
        written, before = end, blocks
    return costs
