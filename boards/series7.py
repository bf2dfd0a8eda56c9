"""Arty A7-100T and KC705 for Amaranth: amaranth-boards, with what these boards need changed.

Sources: Digilent's Arty-A7-100-Master.xdc; AMD UG810 (KC705), as litex-boards and VLSI-EDA/PoC
have it.
"""

from __future__ import annotations

from typing import Any

from amaranth.build import Attrs, Clock, DiffPairs, Pins, Resource
from amaranth.vendor import XilinxPlatform
from amaranth_boards.arty_a7 import ArtyA7_100Platform
from amaranth_boards.kc705 import KC705Platform
from amaranth_boards.resources import UARTResource

__all__ = ["Arty100Platform", "Kc705Platform"]


class Arty100Platform(ArtyA7_100Platform):
    """Arty A7-100T.

    It has the commercial XC7A100T-1; amaranth-boards names the low-power part of the A7-35T.
    """

    device, speed = "xc7a100t", "1"

    def toolchain_prepare(self, fragment: Any, name: str, **kwargs: Any) -> Any:
        """Without the image for the flash memory: it takes a bitstream beside ours."""
        return XilinxPlatform.toolchain_prepare(
            self, fragment, name, add_constraints=_configuration("3.3"), **kwargs
        )


class Kc705Platform(KC705Platform):
    """KC705.

    From the fixed 200 MHz oscillator instead of the programmable one, with the reset button, and
    with 2.5 V at the serial port: its bank, 15, has no other supply.
    """

    default_clk, default_rst = "clk200", "rst"
    resources = [
        Resource("clk200", 0, DiffPairs("AD12", "AD11", dir="i"), Clock(200e6),
                 Attrs(IOSTANDARD="LVDS")),
        Resource("rst", 0, Pins("AB7", dir="i"), Attrs(IOSTANDARD="LVCMOS15")),
        UARTResource(0, rx="M19", tx="K24", attrs=Attrs(IOSTANDARD="LVCMOS25")),
    ]

    def toolchain_prepare(self, fragment: Any, name: str, **kwargs: Any) -> Any:
        """Tell the voltage of the configuration bank."""
        return super().toolchain_prepare(
            fragment, name, add_constraints=_configuration("2.5"), **kwargs
        )


def _configuration(volts: str) -> str:
    """Constraints that say what supplies the configuration bank."""
    return ("set_property CFGBVS VCCO [current_design]\n"
            f"set_property CONFIG_VOLTAGE {volts} [current_design]")
