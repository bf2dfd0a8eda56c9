"""Busy lanes of pruned networks on a config's array: ``python -m model.utilisation FILE ...``.

Schedules the words every layer has kept with the scheduler of the compiler, for the lanes, banks
and window of a config.  Utilisation is products / (steps x lanes that have an output channel): the
last block of a layer may have fewer outputs than lanes, which no pattern can change.

Two counts of steps.  ``scheduler``: steps with a product, nothing but lanes, banks and window.
``core``: entries the core runs, one per frequency at least; with a window a frequency opens only
when the drain has taken the block before (`model.windowed`), which a block of few steps waits for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.access import Ports, check, pack_lanes
from model.config import PRESETS, AcceleratorConfig
from model.cover import cover
from model.entries import addressing, blocks
from model.errors import Parser, UserError, command
from model.files import check_target, write_output
from model.lower import LoweredLayer, lower
from model.netfile import load_network
from model.network import Conv, QuantisedNetwork

__all__ = ["layer_utilisation", "main", "utilisation"]

CONFIGS = ("ecp5-85f", "u200", "u200-window")


def layer_utilisation(layer: LoweredLayer, config: AcceleratorConfig) -> dict[str, Any]:
    """Products, steps and utilisation of all kernel blocks of a convolution.

    Parameters
    ----------
    layer : LoweredLayer
        Its non-zero words are scheduled.
    config : AcceleratorConfig
        Lanes, banks and window.

    Returns
    -------
    dict
        ``words``, ``products`` (words that are not zero), ``offered`` and ``core_offered`` (lanes
        with an output times steps, of both counts), ``scheduler`` and ``core`` (utilisations).
    """
    kept: NDArray[np.bool_] = np.asarray(layer.weight.any(axis=-1))
    lanes = config.kernel_lanes
    offered = core = 0
    for index, block in enumerate(blocks(layer, config, addressing(layer, config))):
        part = kept[index * lanes:(index + 1) * lanes]
        core += block.steps * len(part)
        steps = _window_steps(part, config) if block.addresses is not None \
            else int(block.weights.any(axis=(1, 2)).sum())
        if block.steps > len(block.weights):
            # `channel n:m` with m above the banks: an entry takes several steps.
            steps = block.steps
        offered += steps * len(part)
    products = int(kept.sum())
    return {"name": layer.name, "pattern": layer.pattern, "words": kept.size, "products": products,
            "offered": offered, "core_offered": core,
            "scheduler": products / offered if offered else 1.0, "core": products / core}


def _window_steps(part: NDArray[np.bool_], config: AcceleratorConfig) -> int:
    """Count the steps of a block with all frequencies open from the first."""
    masks = pack_lanes(part)
    ports = Ports(config.banks, config.banks)
    banks = ports.bank_of((masks.shape[0], masks.shape[1]), True)
    schedule = cover(masks, ports, config.window, "completing", banks)
    check(schedule, masks, ports, config.window, banks)
    return schedule.cycles


def utilisation(network: QuantisedNetwork, config: AcceleratorConfig) -> dict[str, Any]:
    """Utilisation of every convolution, and of an image (each block once per tile).

    Returns
    -------
    dict
        ``layers`` (`layer_utilisation` and ``tiles``), ``scheduler``, ``core``.
    """
    layers = []
    for layer in lower(network).layers:
        if isinstance(layer.layer, Conv):
            tiling = layer.layer.tiling(layer.in_shape, network.tile)
            layers.append(layer_utilisation(layer, config) | {"tiles": tiling.tiles})
    if not layers:
        raise UserError(f"network {network.network.name} has no convolution to schedule")
    products = sum(item["products"] * item["tiles"] for item in layers)
    total = {key: products / sum(item[steps] * item["tiles"] for item in layers)
             for key, steps in (("scheduler", "offered"), ("core", "core_offered"))}
    return {"config": config.name, "lanes": config.kernel_lanes, "banks": config.banks,
            "window": config.window, **total, "layers": layers}


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Schedule the networks for each config and print a table."""
    parser = Parser(prog="python -m model.utilisation", description=__doc__)
    parser.add_argument("networks", nargs="+", type=Path, metavar="FILE", help="pruned networks")
    parser.add_argument("--config", action="append", metavar="NAME",
                        help=f"configs (default {', '.join(CONFIGS)}); may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    check_target(args.json)
    names = args.config or CONFIGS
    if unknown := sorted(set(names) - set(PRESETS)):
        raise UserError(f"unknown config {', '.join(unknown)}: known are {', '.join(PRESETS)}")
    results = []
    print("busy lanes, %: scheduler (core)")
    for path in args.networks:
        network = load_network(path)
        found = [utilisation(network, PRESETS[name]) for name in names]
        results.append({"file": path.name, "network": network.network.name, "configs": found})
        for item in found:
            cells = "  ".join(f"{layer['name']} {100 * layer['scheduler']:.1f} "
                              f"({100 * layer['core']:.1f})" for layer in item["layers"])
            print(f"{path.name}, {item['config']}: {100 * item['scheduler']:.1f} "
                  f"({100 * item['core']:.1f}); {cells}", flush=True)
    if args.json:
        write_output(args.json, json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
