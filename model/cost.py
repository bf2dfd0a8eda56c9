"""Cost model: cycles and bytes of a compiled network, checked against RTL simulation.

A layer's interval ends with its last written value. One feature bank: four engines share the work
of a layer: the array (steps, and at least N'/4 cycles per frequency, which the drain takes), the
store stage (8 cycles per kernel and tile block; segments through one write port; one value per
cycle and Post), the loader, and the memory port (one beat per cycle, streaming ahead across
layers as far as the kernel buffer goes). The slowest bounds the layer; filling and emptying the
pipelines is added once.

Several feature banks: maps lie in the order of their tile blocks, so that the next layer's first
block is loaded while the last ones are multiplied, if there are enough of them. Then the array goes
on without a gap; otherwise it waits until the layer before is written and a block is loaded.

A map that is pooled when it is finished takes `model.rates.pool_cycles` more, and nothing of the
next layer is loaded before.

In a batch the next image's input is read as soon as the last convolution of an image is loaded, and
its first layer goes on without a gap if it has come by then.

With a window the sums of a layer's last block leave only after its last step. Irregular kernels
need more beats than steps where a kernel is used once; the kernel buffer holds some of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from model.compile import CompiledLayer, Outline, Program
from model.config import AcceleratorConfig
from model.rates import load_cycles, mac_cycles, pool_cycles, row_writes, store_cycles
from model.residency import timeline

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

#: Several banks: tile blocks from which on the next layer's first block is complete in time.
AHEAD_BLOCKS = 3
#: From the last sum of a block to the last write, besides reading the block and writing its rows.
BANKS_DRAIN = 118
#: The same of a dot layer, besides two cycles for each kernel of the block.
BANKS_DOT_DRAIN = 62
#: From the last write to the first sum, besides loading a group of channels.
BANKS_FILL = 28
#: The same of a dot layer, besides loading it.
BANKS_DOT_FILL = 50
#: From the start of a run to the first sum, besides the latency of the memory.
BANKS_FIRST = 900


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


def _busy(program: Program | Outline, layer: CompiledLayer) -> tuple[int, int, int, int]:
    """Cycles of the array, the store stage and the loader, and of the slowest with its waits."""
    fields, config = layer.descriptor, program.config
    blocks = fields["tile_blocks"]
    mac = mac_cycles(config, fields, layer.steps) * blocks
    store = ceil(store_cycles(config, fields) * blocks)
    load = load_cycles(config, fields) * blocks
    slowest = max(mac, store, load)
    if fields["resident"] < blocks:
        # The first tile block is loaded before: FILL and the like.
        slowest = max(slowest, timeline(layer.demand, fields["resident"]) - layer.demand.load)
    return mac, store, load, slowest


def _leaving(config: AcceleratorConfig) -> int:
    """Cycles from the last step of a block to the last of its sums."""
    return config.words * config.drain_interval if config.window > 1 else 0


def estimate(program: Program | Outline) -> list[LayerCost]:
    """Estimate every layer of a program."""
    if program.config.feature_banks > 1:
        return _estimate_banks(program)
    config = program.config
    input_beats = config.map_row_beats * program.input_region.rows
    costs: list[LayerCost] = []
    elapsed, streamed, before = 0, 0, 0
    for index, layer in enumerate(program.layers):
        fields = layer.descriptor
        beats = layer.stream_beats * layer.kernel_passes
        mac, store, load, slowest = _busy(program, layer)
        held = config.kernel_depth * layer.stream_beats // layer.entries
        streamed = max(streamed, elapsed - held) + beats + fields["input"] * input_beats
        if fields["dot"]:
            # Nothing is multiplied before all of it is loaded.
            slowest, latency, tail = max(mac, store), load + DOT_LATENCY, 0
        else:
            tail = 8 * fields["lanes_last"] + _leaving(config)
            if index == 0:
                fill = input_beats + FIRST_FILL
            elif program.layers[index - 1].descriptor["pool_op"]:
                fill = FILL + load_cycles(config, fields)
            elif fields["input"]:
                # Begins while the layer before leaves, if the input has come meanwhile.
                fill = max(-DRAIN, input_beats + FIRST_FILL - before)
            else:
                fill = FILL if fields["tile_blocks"] == 1 else FILL_AHEAD
            latency = fill + tail + DRAIN
        end = max(elapsed + slowest + latency, streamed + STREAM_LATENCY + tail)
        end += pool_cycles(config, fields)
        before = slowest
        costs.append(LayerCost(layer.name, mac, store, load, beats, end - elapsed,
                               8 * config.port_words * (beats + fields["input"] * input_beats)))
        elapsed = end
    return costs


def _estimate_banks(program: Program | Outline) -> list[LayerCost]:
    """Estimate the layers of a program for several feature banks."""
    config = program.config
    lanes, banks, rows = config.tile_lanes, config.feature_banks, config.inverse_rows
    slots = 4 * max(lanes, banks)           # cycles to load as many channels as there are banks
    costs: list[LayerCost] = []
    input_beats = config.map_row_beats * program.input_region.rows
    multiplied = written = streamed = length = 0
    ahead = 0                               # beats in the kernel buffer before they are needed
    before = 0                              # tile blocks of the layer before
    for index, layer in enumerate(program.layers):
        fields = layer.descriptor
        blocks, writes = fields["tile_blocks"], row_writes(config, fields)
        beats = layer.stream_beats * layer.kernel_passes
        streamed += beats + fields["input"] * input_beats
        mac, store, load, slowest = _busy(program, layer)
        if index == 0:
            # The input still comes while layer 0 writes, through the same ports.
            kernels = (fields["kernel_blocks"] - 1) * config.kernel_lanes + fields["lanes_last"]
            segments = kernels * blocks * writes * lanes / banks + program.input_region.rows
            store = max(store, ceil(segments))
            slowest = max(slowest, store)
        ready = before >= AHEAD_BLOCKS or fields["input"]
        begin = multiplied if ready else written + BANKS_FILL + slots
        if index and fields["input"]:       # read since the layer before was loaded
            begin = max(multiplied, multiplied - length + input_beats + BANKS_FILL + slots)
        if index and program.layers[index - 1].descriptor["pool_op"]:
            begin = written + BANKS_FILL + load_cycles(config, fields)
        if fields["dot"]:
            begin = written + BANKS_DOT_FILL + load
        if index == 0:
            begin = BANKS_FIRST
        length = max(slowest, beats - ahead)
        held = config.kernel_depth * layer.stream_beats // layer.entries
        ahead = min(held, ahead + begin + length - multiplied - beats)
        multiplied = max(begin + length, streamed)
        if fields["dot"]:
            end = multiplied + max(2, fields["tiles"]) * fields["lanes_last"] + BANKS_DOT_DRAIN
        else:
            end = (multiplied + 8 * fields["lanes_last"] // rows + BANKS_DRAIN + writes * lanes
                   + _leaving(config) + pool_cycles(config, fields))
        costs.append(LayerCost(
            layer.name, mac, store, load, beats, end - written,
            8 * config.port_words * (beats + fields["input"] * input_beats),
        ))
        written, before = end, blocks
    return costs
