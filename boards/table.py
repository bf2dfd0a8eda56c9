"""The boards: which core fits, how a host gets to it, how it is programmed.

Pins come from amaranth-boards, which is only imported when a bitstream is built.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

from model.config import AcceleratorConfig, load_config
from model.errors import UserError

__all__ = ["BOARDS", "ZYNQ_BOARDS", "Board", "ZynqBoard", "find_board"]


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board.

    Attributes
    ----------
    id, name : str
        Short id for command lines; what it is called.
    module, platform : str
        Class of amaranth-boards, or of a module with dots.
    config : str
        Config of `model.config.PRESETS` that fits its FPGA.
    clock_hz : int
        Clock the core runs at; nearest one that the PLL makes.
    programmer : tuple of str
        Command, with ``{bit}``, ``{svf}`` and ``{openocd}`` for the files.
    uart : tuple of str
        Connector, and its pins that are the FPGA's receiver and transmitter, for boards without a
        serial port of their own.
    line : str
        How a host gets to the UART.
    ecppack : str
        Options of ecppack.
    vivado : bool
        Built by Vivado (7 series) instead of the open tools (ECP5).
    """

    id: str
    name: str
    module: str
    platform: str
    config: str
    clock_hz: int
    programmer: tuple[str, ...]
    uart: tuple[str, ...] = field(default=())
    line: str = "the USB port"
    ecppack: str = "--compress"
    vivado: bool = False

    @property
    def design(self) -> str:
        """Name of its top module and files."""
        return "spectralcnn_" + self.id.replace("-", "_")

    @property
    def family(self) -> str:
        """What yosys calls the family of its FPGA."""
        return "xc7" if self.vivado else "ecp5"

    def accelerator(self) -> AcceleratorConfig:
        """Config of its core."""
        return load_config(self.config)

    def make_platform(self) -> Any:
        """Make a new platform object; its UART is resource ``("uart", 0)``."""
        try:
            module = importlib.import_module(
                self.module if "." in self.module else f"amaranth_boards.{self.module}"
            )
            from amaranth.build import Attrs
            from amaranth_boards.resources import UARTResource
        except ImportError as error:
            raise UserError(f"bitstreams need amaranth-boards: pip install '.[toolchain]' "
                            f"({error})") from error
        platform = getattr(module, self.platform)()
        if self.uart:
            connector, rx, tx = self.uart
            platform.add_resources([UARTResource(
                0, rx=rx, tx=tx, conn=(connector, 0), attrs=Attrs(IO_TYPE="LVCMOS33"),
            )])
        return platform


@dataclass(frozen=True, kw_only=True)
class ZynqBoard:
    """A board with processors, which have the memory and drive the core.

    Attributes
    ----------
    id, name : str
        Short id for command lines; what it is called.
    part, files : str
        Device, and pattern of Vivado's board files (memory and pins of the processors).
    processors : str
        IP of the processing system: ``zynq_ultra_ps_e`` or ``processing_system7``.
    config : str
        Config of `model.config.PRESETS` that fits its FPGA.
    clock_hz : int
        Clock asked of the processing system.
    ports, widest : int
        High-performance memory ports (HP0, HP1 ...), and bits of each.
    memory_clock_hz : int
        Clock of these ports for a core whose ports are wider.
    addr_bits : int
        Address bits of the core's masters.
    registers : int
        Byte address of the core's registers for the processors.
    stride : int
        Bytes between the parts of the core's memory that its ports see.
    """

    id: str
    name: str
    part: str
    files: str
    processors: str
    config: str
    clock_hz: int
    widest: int
    memory_clock_hz: int
    addr_bits: int
    registers: int
    ports: int = 4
    stride: int = 32 << 20

    @property
    def design(self) -> str:
        """Name of its project and files."""
        return "spectralcnn_" + self.id.replace("-", "_")

    @property
    def family(self) -> str:
        """What yosys calls the family of its FPGA."""
        return "xcup" if self.part.startswith("xczu") else "xc7"

    def accelerator(self) -> AcceleratorConfig:
        """Config of its core."""
        return load_config(self.config)


BOARDS = {
    board.id: board
    for board in (
        Board(
            id="ulx3s-85f", name="Radiona ULX3S 85F", module="ulx3s",
            platform="ULX3S_85F_Platform", config="ecp5-85f-board", clock_hz=75_000_000,
            programmer=("openFPGALoader", "-b", "ulx3s", "-m", "{bit}"), line="USB port US1",
        ),
        Board(
            id="ulx3s-45f", name="Radiona ULX3S 45F", module="ulx3s",
            platform="ULX3S_45F_Platform", config="ecp5-45f", clock_hz=60_000_000,
            programmer=("openFPGALoader", "-b", "ulx3s", "-m", "{bit}"), line="USB port US1",
        ),
        Board(
            id="ecpix5-85f", name="LambdaConcept ECPIX-5 85F", module="ecpix5",
            platform="ECPIX585Platform", config="ecp5-85f-board", clock_hz=25_000_000,
            programmer=("openFPGALoader", "-c", "ft2232", "-m", "{bit}"),
            line="the second channel of the micro USB port",
        ),
        Board(
            id="ecpix5-45f", name="LambdaConcept ECPIX-5 45F", module="ecpix5",
            platform="ECPIX545Platform", config="ecp5-45f", clock_hz=25_000_000,
            programmer=("openFPGALoader", "-c", "ft2232", "-m", "{bit}"),
            line="the second channel of the micro USB port",
        ),
        Board(
            id="orangecrab-85f", name="OrangeCrab r0.2 85F", module="orangecrab_r0_2",
            platform="OrangeCrabR0_2_85FPlatform", config="ecp5-85f-board", clock_hz=24_000_000,
            programmer=("dfu-util", "-d", "1209:5af0", "-a", "0", "-D", "{bit}"),
            uart=("io", "0", "1"), line="a 3.3 V serial adapter at pins 0 (receives) and 1 (sends)",
            ecppack="--compress --freq 38.8",
        ),
        Board(
            id="versa-ecp5", name="Lattice ECP5 Versa", module="versa_ecp5",
            platform="VersaECP5Platform", config="ecp5-45f", clock_hz=25_000_000,
            programmer=("openocd", "-f", "{openocd}", "-c",
                        "transport select jtag; init; svf -quiet {svf}; exit"),
            line="the second channel of the USB port",
        ),
        Board(
            id="arty-a7-100", name="Digilent Arty A7-100T", module="boards.series7",
            platform="Arty100Platform", config="ecp5-85f", clock_hz=50_000_000, vivado=True,
            programmer=("openFPGALoader", "-b", "arty_a7_100t", "-m", "{bit}"),
            line="the second channel of the micro USB port",
        ),
        Board(
            id="kc705", name="AMD KC705", module="boards.series7", platform="Kc705Platform",
            config="ecp5-85f", clock_hz=100_000_000, vivado=True,
            programmer=("openFPGALoader", "-b", "kc705", "-m", "{bit}"), line="the USB UART port",
        ),
    )
}

ZYNQ_BOARDS = {
    board.id: board
    for board in (
        ZynqBoard(
            id="zcu104", name="AMD ZCU104", part="xczu7ev-ffvc1156-2-e",
            files="xilinx.com:zcu104:*", processors="zynq_ultra_ps_e", config="zcu104",
            clock_hz=200_000_000, widest=128, memory_clock_hz=300_000_000, addr_bits=40,
            registers=0xA000_0000,
        ),
        ZynqBoard(
            id="zc706", name="AMD ZC706", part="xc7z045ffg900-2", files="xilinx.com:zc706:*",
            processors="processing_system7", config="zc706", clock_hz=150_000_000, widest=64,
            memory_clock_hz=200_000_000, addr_bits=32, registers=0x43C0_0000,
        ),
    )
}


def find_board(name: str) -> Board | ZynqBoard:
    """Board of an id; `UserError` lists them."""
    known: dict[str, Board | ZynqBoard] = {**BOARDS, **ZYNQ_BOARDS}
    if name not in known:
        raise UserError(f"unknown board {name!r}: known are {', '.join(known)}")
    return known[name]
