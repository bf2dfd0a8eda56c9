"""Whole VGG16 against the number of lanes and the memory's bandwidth: estimated and simulated.

The lanes of a config are changed through P', its tile buffer keeps its size (up to the power of
two). Kernels stream ahead of their use only as far as the kernel buffer reaches, so a layer whose
kernels come too slowly cannot borrow from all the layers before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import ceil, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import golden
from model.compile import Program, compile_network
from model.config import AcceleratorConfig
from model.cost import estimate
from model.errors import UserError
from model.network import QuantisedNetwork
from sim.memory import MemoryOptions
from sim.session import layer_figures, open_backend, simulate_image

__all__ = ["BANDWIDTHS", "LATENCY", "TILE_LANES", "curve", "merge", "simulate", "with_lanes"]

#: P' of the estimated curve, with the 64 kernel lanes of `u200`: 64 to 1024 complex lanes.
TILE_LANES = (1, 2, 4, 8, 14, 16)
#: Bytes per cycle of the estimated curve; 96 is one DDR4 channel of 19.2 GB/s at 200 MHz.
BANDWIDTHS = (16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256)
#: Cycles of latency of the simulated memory.
LATENCY = 100


def with_lanes(base: AcceleratorConfig, tile_lanes: int) -> AcceleratorConfig:
    """Config with another P' and the same tile buffer in all, to the nearest power of two."""
    if tile_lanes == base.tile_lanes:
        return base
    depth = 1 << round(log2(base.tile_depth * base.tile_lanes / tile_lanes))
    return dataclasses.replace(base, name=f"{base.name}-{tile_lanes}x{base.kernel_lanes}",
                               tile_lanes=tile_lanes, tile_depth=depth)


def _estimate(program: Program, rate: float) -> tuple[int, int]:
    """Cycles with the output that is written at the end, and bytes read."""
    costs = estimate(program, rate, LATENCY)
    leaving = program.config.map_row_beats * program.output_region.rows
    return (sum(cost.cycles for cost in costs) + ceil(leaving / rate),
            sum(cost.bytes_read for cost in costs))


def _rate(config: AcceleratorConfig, bandwidth: float) -> float:
    """Beats a cycle of ``bandwidth`` bytes a cycle."""
    rate = 8 * bandwidth / config.port_bits
    if not 0 < rate <= 1:
        raise UserError(f"bandwidth {bandwidth:g} bytes a cycle: the port of {config.name} takes "
                        f"up to {config.port_bits // 8}")
    return rate


def curve(network: QuantisedNetwork, base: AcceleratorConfig, tile_lanes: Iterable[int],
          bandwidths: Iterable[float],
          tell: Callable[[str], None] = lambda text: None) -> list[dict[str, Any]]:
    """Estimated cycles for every P' and bandwidth (bytes per cycle)."""
    points = []
    bandwidths = list(bandwidths)
    for lanes in tile_lanes:
        config = with_lanes(base, lanes)
        tell(config.name)
        program = compile_network(network, config)
        for bandwidth in bandwidths:
            cycles, bytes_read = _estimate(program, _rate(config, bandwidth))
            points.append(_key(config, bandwidth) | {"cycles": cycles, "bytes_read": bytes_read})
    return points


def _key(config: AcceleratorConfig, bandwidth: float) -> dict[str, Any]:
    return {"lanes": config.tile_lanes * config.kernel_lanes, "tile_lanes": config.tile_lanes,
            "tile_depth": config.tile_depth, "bytes_per_cycle": bandwidth}


def simulate(network: QuantisedNetwork, pixels: NDArray[np.integer], base: AcceleratorConfig,
             tile_lanes: int, bandwidths: Sequence[float],
             tell: Callable[[str], None] = lambda text: None) -> Iterator[dict[str, Any]]:
    """Run the whole network in RTL with P' tile lanes, every word compared; yield each bandwidth.

    Raises
    ------
    UserError
        The core stopped or a word differs.
    """
    config = with_lanes(base, tile_lanes)
    rates = [_rate(config, bandwidth) for bandwidth in bandwidths]
    tell(f"compiling for {config.name}")
    program = compile_network(network, config)
    traces = golden.run(program.network, pixels)
    image = np.ascontiguousarray(program.image, dtype="<u8").tobytes()
    beat = config.port_bits // 8
    for bandwidth, rate in zip(bandwidths, rates, strict=True):
        tell(f"{config.name} at {bandwidth:g} bytes a cycle")
        options = MemoryOptions(latency=LATENCY, bandwidth=rate)
        with open_backend("fast", config, options=options) as backend:
            backend.load(image)
            result = simulate_image(backend, program, pixels, traces)
        if result.run is None or not result.comparison.exact:
            why = result.failure or result.comparison.difference
            raise UserError(f"{config.name} at {bandwidth:g} bytes a cycle: {why}")
        yield _key(config, bandwidth) | {
            "cycles": result.run.cycles, "latency": LATENCY,
            "estimated_cycles": _estimate(program, rate)[0],
            "bytes_read": beat * result.run.read_beats,
            "bytes_written": beat * result.run.write_beats,
            "words_compared": result.comparison.words, "bit_exact": True,
            "layers": [{"name": item.name, "cycles": item.cycles, "bytes_read": item.bytes_read,
                        "mac_issue_cycles": item.mac_issue_cycles, "stalls": item.stalls}
                       for item in layer_figures(program, result.run)],
        }


def merge(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Points of both, a new one in place of an old one of the same lanes and bandwidth, sorted."""
    points = {(point["lanes"], point["bytes_per_cycle"]): point for point in (*old, *new)}
    return [points[key] for key in sorted(points)]
