"""What a core takes of a device: a model of what yosys counts, fast enough for a search.

Multipliers and RAMs follow from the config exactly (`model.memories`). Look-up tables and
flip-flops are sums over the parts of a core, of terms whose coefficients `rtl.calibrate` fits to
yosys' counts of small parts; they lie in ``resource_fit.json`` beside this file. No vendor's
tool has been asked: Vivado would, for one thing, take a lane's accumulators into its DSPs.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from math import prod
from pathlib import Path

from model.config import AcceleratorConfig
from model.memories import FAMILIES, rams

__all__ = ["COEFFICIENTS", "ECP5_CORES", "accumulator_tables", "part_count", "part_resources",
           "quantity", "resources"]

#: Weight bits, accumulator bits, port bits and ``map_pool`` of the cores of one bank that were
#: counted.
ECP5_CORES = (8, 32, 64, 0)
#: Coefficients by fabric, kind of core, part and resource.
COEFFICIENTS = Path(__file__).with_name("resource_fit.json")


def quantity(config: AcceleratorConfig, term: str) -> int:
    """Value of a term: a product of sizes joined by ``*``.

    ``P`` tile lanes, ``N`` kernel lanes, ``F`` feature banks, ``R`` inverse rows, ``V`` post
    values, ``W`` 64-bit words of the port, ``wb`` weight bits, ``ab`` accumulator bits.
    """
    sizes = {"1": 1, "P": config.tile_lanes, "N": config.kernel_lanes, "F": config.feature_banks,
             "R": config.inverse_rows, "V": config.post_values, "W": config.port_words,
             "wb": config.weight_bits, "ab": config.acc_bits}
    return prod(sizes[name] for name in term.split("*"))


@functools.cache
def _coefficients() -> dict[str, dict[str, dict[str, dict[str, dict[str, float]]]]]:
    """Content of the file, read once."""
    return json.loads(COEFFICIENTS.read_text())


def part_count(config: AcceleratorConfig, part: str) -> int:
    """How often a core has a part."""
    if part == "complex lane":
        return config.tile_lanes * config.kernel_lanes
    if part.endswith("of a tile lane") or part in ("inverse FFT", "row post"):
        return config.tile_lanes
    if part in ("forward FFT", "row queue", "bank writer", "feature bank"):
        return config.feature_banks
    return config.map_pool if part == "map pool" else 1


def part_resources(config: AcceleratorConfig, family: str) -> dict[str, dict[str, float]]:
    """``LUT`` and ``FF`` of one of each part of a core.

    Raises
    ------
    ValueError
        The family is unknown, or no core of this kind was fitted for it.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, not {family!r}")
    fabric = "ecp5" if family == "ecp5" else "xilinx"
    kind = "wide" if config.feature_banks > 1 else "single"
    parts = _coefficients()[fabric].get(kind)
    if parts is None or config.window > 1:
        raise ValueError(f"no counts of cores with feature_banks = {config.feature_banks} and "
                         f"window = {config.window} on {family}")
    if kind == "single" and (config.weight_bits, config.acc_bits, config.port_bits,
                             config.map_pool) != ECP5_CORES:
        raise ValueError(f"on {family} only cores of 8-bit weights, 32-bit accumulators and a "
                         "64-bit port without map_pool were counted")
    return {
        part: {what: _value(config, terms) for what, terms in fitted.items()}
        for part, fitted in parts.items() if part_count(config, part)
    }


def _value(config: AcceleratorConfig, terms: Mapping[str, float]) -> float:
    return sum(factor * quantity(config, term) for term, factor in terms.items())


def resources(config: AcceleratorConfig, family: str) -> dict[str, int]:
    """Count what a core takes: ``LUT``, ``FF``, ``DSP`` and the RAMs of its family by kind.

    Parameters
    ----------
    config : AcceleratorConfig
        Without ``window``.
    family : str
        One of `model.memories.FAMILIES`.
    """
    parts = part_resources(config, family)
    total = {
        what: round(sum(part_count(config, part) * row[what] for part, row in parts.items()))
        for what in ("LUT", "FF")
    }
    return total | {"DSP": config.multipliers} | rams(config, family)


def accumulator_tables(config: AcceleratorConfig) -> int:
    """Tables of a lane's accumulators, which Vivado may put into the DSPs behind the products."""
    return 3 * config.acc_bits * config.tile_lanes * config.kernel_lanes
