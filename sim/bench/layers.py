"""Roofline of a simulated run: products per cycle and per byte of each layer."""

from __future__ import annotations

from typing import Any

from model.config import AcceleratorConfig
from model.errors import UserError

__all__ = ["CHANNEL_BYTES", "roofline"]

#: Bytes a cycle of one DDR4 channel of 19.2 GB/s at 200 MHz.
CHANNEL_BYTES = 96


def roofline(run: dict[str, Any], config: AcceleratorConfig) -> dict[str, Any]:
    """Points of every layer under the roofs of array and memory.

    Parameters
    ----------
    run : dict
        What ``sim.run --json`` wrote.
    config : AcceleratorConfig
        The config that ran.

    Returns
    -------
    dict
        ``lanes``, ``port_bytes`` and per layer ``products`` (complex, of words that are kept),
        ``products_per_cycle``, ``intensity`` (products per byte read), and ``bound``: ``array`` or
        ``memory`` at the port's width, ``bound_96`` at 96 bytes a cycle.
    """
    if run["config"] != config.name:
        raise UserError(f"the run is of config {run['config']}, not {config.name}")
    lanes, port = config.tile_lanes * config.kernel_lanes, config.port_bits // 8
    points = []
    for layer in run["layers"]:
        products = layer["mac_issue_cycles"] * lanes * layer["lanes_filled"]
        intensity = products / layer["bytes_read"]
        points.append({
            "name": layer["name"], "products": round(products),
            "products_per_cycle": products / layer["cycles"], "intensity": intensity,
            "bound": "array" if intensity * port >= lanes else "memory",
            "bound_96": "array" if intensity * CHANNEL_BYTES >= lanes else "memory",
        })
    return {"config": config.name, "lanes": lanes, "port_bytes": port, "layers": points}
