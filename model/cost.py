"""Cost model: cycles and bytes of a compiled network, checked against RTL simulation.

A layer's interval ends with its last written value. Three engines share the work of a layer: the
array (steps), the store stage (8 cycles per kernel and tile block; segments through one write port;
one value per cycle and Post) and the memory port (one beat per cycle, streaming ahead across
layers). The slowest bounds the layer; filling and draining the pipelines is added once.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.compile import CompiledLayer, Program

__all__ = ["LayerCost", "estimate", "FIRST_FILL", "LAYER_LATENCY"]

#: Cycles from RUN to the first step besides the input DMA: descriptors, first tile through the FFT.
FIRST_FILL = 90
#: Cycles from a layer's first load to its last write besides the engines' own work.
LAYER_LATENCY = 100


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


def _mac(layer: CompiledLayer) -> int:
    return layer.steps * layer.descriptor["tile_blocks"]


def _store(layer: CompiledLayer, tile_lanes: int) -> int:
    fields = layer.descriptor
    per_kernel = 1 if fields["dot"] else 8
    segments = fields["out_step"] * tile_lanes
    values = fields["out_step"] ** 2
    return fields["kernels"] * fields["tile_blocks"] * max(per_kernel, segments, values)


def _load(layer: CompiledLayer, tile_lanes: int) -> int:
    fields = layer.descriptor
    if fields["dot"]:
        return fields["groups"]
    return 4 * fields["channels"] * fields["tile_blocks"] * tile_lanes


def estimate(program: Program) -> list[LayerCost]:
    """Estimate every layer of a program."""
    lanes = program.config.tile_lanes
    input_beats = 2 * program.input_region.rows
    costs: list[LayerCost] = []
    elapsed, streamed = input_beats + FIRST_FILL, input_beats
    for index, layer in enumerate(program.layers):
        fields = layer.descriptor
        passes = fields["tile_blocks"] if fields["restream"] else 1
        beats = layer.stream_beats * passes
        mac, store, load = _mac(layer), _store(layer, lanes), _load(layer, lanes)
        streamed += beats
        # What of the loading nobody hides: the first block (later layers: its last channels).
        exposed = load // fields["tile_blocks"] if fields["dot"] else 4 * lanes
        work = max(mac, store, load) + exposed + LAYER_LATENCY
        end = max(elapsed + work, streamed + LAYER_LATENCY)
        cycles = end - (elapsed if index else 0)
        costs.append(LayerCost(layer.name, mac, store, load, beats, cycles,
                               8 * (beats + (0 if index else input_beats))))
        elapsed = end
    return costs
