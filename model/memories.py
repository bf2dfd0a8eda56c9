"""The memories of a core, and how many RAMs of a device yosys makes of each.

The rule is that of yosys' ``memory_libmap`` (0.70), as measured: of every shape a RAM can have, as
many are taken as the words are wide and deep, and the cheapest kind wins. A block RAM of 18 Kbit
costs 129, of 36 Kbit 257, an UltraRAM 1024; LUT RAM wins below 64 words and is not counted here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from model.config import AcceleratorConfig
from model.descriptor import BEATS
from model.stream import param_beats

__all__ = ["FAMILIES", "Ram", "memories", "rams"]

#: Families the rule is known for: UltraScale+ (``-family xcup -uram``), 7 series, ECP5.
FAMILIES = ("xcup", "xc7", "ecp5")
#: Blocks of parameters that are kept (`rtl.parameters`), slots of sums (`rtl.sums`).
PARAM_BLOCKS, SUM_SLOTS = 16, 4
#: The widest RAM of the kernel buffer (`rtl.kernelbuffer`).
KERNEL_RAM = 512
#: Rows that LUT RAM holds more cheaply on Xilinx.
LUT_RAM_ROWS = 64

#: Kind of RAM, its cost, and its shapes (rows, bits of a row).
_BLOCK_18 = tuple((512 << k, width) for k, width in enumerate((36, 18, 9, 4, 2, 1)))
_BLOCK_36 = tuple((512 << k, width) for k, width in enumerate((72, 36, 18, 9, 4, 2, 1)))
_ULTRA = tuple((4096 << k, 72 >> k) for k in range(4))
_KINDS = {
    "BRAM18": (129, _BLOCK_18), "BRAM36": (257, _BLOCK_36), "URAM": (1024, _ULTRA),
    "DP16KD": (128, _BLOCK_18),
}
_OF_FAMILY = {"xcup": ("BRAM36", "BRAM18", "URAM"), "xc7": ("BRAM36", "BRAM18"),
              "ecp5": ("DP16KD",)}


@dataclass(frozen=True)
class Ram:
    """``count`` memories of ``depth`` words of ``width`` bits.

    ``large`` are those that ``AcceleratorConfig.ultra_ram`` puts into UltraRAM.
    """

    part: str
    count: int
    width: int
    depth: int
    large: bool = False


def memories(config: AcceleratorConfig) -> list[Ram]:
    """List every memory of a core that is more than LUT RAM."""
    lanes, bits = config.kernel_lanes, config.port_bits
    row = config.row_beats * bits
    width = min(bits, KERNEL_RAM)
    words = config.port_words
    beats = param_beats(config)
    found = [
        Ram("tile buffer", config.banks * config.tile_lanes, 2 * config.word_bits,
            config.tile_depth, True),
        Ram("kernel buffer", row // width, width, config.kernel_depth, True),
        Ram("selects", 1, bits, config.select_depth),
        Ram("feature bank", 16 * config.feature_banks, config.act_bits, config.feature_depth),
        Ram("sum buffer", config.drained * config.tile_lanes, 2 * config.sum_bits,
            config.words // config.drained * SUM_SLOTS * lanes),
        Ram("descriptors", 1, 64, words * ceil(config.max_layers * BEATS / words)),
    ]
    if PARAM_BLOCKS * beats > 32:
        found.append(Ram("parameters", 1, bits, PARAM_BLOCKS * beats))
    if config.onchip_kib:
        found.append(Ram("on-chip memory", 1, bits, config.onchip_kib * 8192 // bits))
    return found


def _fewest(ram: Ram, shapes: tuple[tuple[int, int], ...]) -> int:
    """RAMs of one kind that hold a memory."""
    return min(ceil(ram.depth / rows) * ceil(ram.width / bits) for rows, bits in shapes)


def rams(config: AcceleratorConfig, family: str) -> dict[str, int]:
    """RAMs of a core by kind, of all kinds that the family has.

    Raises
    ------
    ValueError
        The family is unknown.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, not {family!r}")
    kinds = _OF_FAMILY[family]
    total = dict.fromkeys(kinds, 0)
    for ram in memories(config):
        if family != "ecp5" and ram.depth <= LUT_RAM_ROWS:
            continue
        counts = {kind: _fewest(ram, _KINDS[kind][1]) for kind in kinds}
        if ram.large and config.ultra_ram and "URAM" in counts:
            kind = "URAM"
        else:
            kind = min(kinds, key=lambda kind: counts[kind] * _KINDS[kind][0])
        total[kind] += ram.count * counts[kind]
    return total
