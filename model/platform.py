"""Boards a core can be chosen for: what their devices have and what their memory gives.

Sources: AMD DS891 (XCZU7EV), DS190 (XC7Z045), DS962 (Alveo U200), Lattice FPGA-DS-02012
(LFE5U-85F); boards: UG1267 (ZCU104: one 64-bit DDR4-2400), UG954 (ZC706: one 64-bit DDR3-1600
module), DS962 (four 64-bit DDR4-2400), the ULX3S manual. Ports: high-performance ports of the
processing systems, 4 of 128 bits (UG1085) and 4 of 64 (UG585), which a faster clock of their own
makes twice as wide for the core (docs/boards.md); on the U200 one of 512 bits per memory. A port
may be wider than what the memory gives in a cycle, which is 96 bytes on ZCU104. Clocks are those
the board's design asks for (docs/boards.md; on ZC706 with 200 MHz, to compare with others), not
what timing has been shown to close at.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PLATFORMS", "Platform"]


@dataclass(frozen=True)
class Platform:
    """A device on a board.

    Attributes
    ----------
    name, device : str
        Id of the board and the part on it.
    family : str
        One of `model.memories.FAMILIES`.
    lut, ff, dsp : int
        Look-up tables, flip-flops and multipliers.
    rams : dict
        RAM blocks by kind; two ``BRAM18`` are one ``BRAM36`` and not listed.
    bandwidth : float
        Peak bytes a second of the memory; 0: the program lies in block RAM (``onchip_kib``).
    port_bits : int
        Widest memory port the board's memory ports can be joined to.
    clock_hz : int
        Clock of the core.
    """

    name: str
    device: str
    family: str
    lut: int
    ff: int
    dsp: int
    rams: dict[str, int]
    bandwidth: float
    port_bits: int
    clock_hz: int


PLATFORMS = {
    platform.name: platform
    for platform in (
        Platform("zcu104", "XCZU7EV", "xcup", 230_400, 460_800, 1728, {"BRAM36": 312, "URAM": 96},
                 19.2e9, 1024, 200_000_000),
        Platform("zc706", "XC7Z045", "xc7", 218_600, 437_200, 900, {"BRAM36": 545},
                 12.8e9, 512, 200_000_000),
        # Three dies with a third each; a core of this size lies on all of them.
        Platform("u200", "XCU200", "xcup", 1_182_240, 2_364_480, 6840,
                 {"BRAM36": 2160, "URAM": 960}, 76.8e9, 2048, 200_000_000),
        Platform("ulx3s-85f", "LFE5U-85F", "ecp5", 83_640, 83_640, 156, {"DP16KD": 208},
                 0, 64, 25_000_000),
    )
}
