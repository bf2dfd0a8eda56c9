"""What is around a core on a board: pins, clock, reset."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import ClockDomain, ClockSignal, Elaboratable, Instance, Module, Signal
from amaranth.lib import io
from amaranth.lib.cdc import ResetSynchronizer

from boards.mmcm import Mmcm
from boards.pll import Pll

__all__ = ["BoardTop"]


class BoardTop(Elaboratable):
    """PLL, reset and pins around `rtl.host.top.HostedTop`, or what takes its place in tests.

    Parameters
    ----------
    core : wiring.Component
        Has the ports ``rx`` and ``tx``.
    pll : Pll or Mmcm
        From the board's clock to that of the core.
    keepouts : bool
        Whether there are places without tables (`boards.tiles.keepouts`).
    """

    def __init__(self, core: Any, pll: Pll | Mmcm, *, keepouts: bool = False) -> None:
        self._core, self._pll, self._keepouts = core, pll, keepouts

    def elaborate(self, platform: Any) -> Module:
        """Request the pins, make the clock, hold the reset until the PLL has locked."""
        m = Module()
        m.submodules.core = core = self._core
        m.submodules.clock = clock = io.Buffer(
            "i", platform.request(platform.default_clk, dir="-")
        )
        out, locked, reset = Signal(), Signal(), Signal()
        m.domains.sync = ClockDomain()
        m.submodules.pll = self._pll.circuit(clock.i, out, locked)
        m.d.comb += [ClockSignal().eq(out), reset.eq(~locked)]
        if platform.default_rst is not None:
            m.submodules.reset = button = io.Buffer(
                "i", platform.request(platform.default_rst, dir="-")
            )
            m.d.comb += reset.eq(~locked | button.i)
        # However short the pulse: two edges at least, which `rtl.core.Core` needs on an ECP5.
        m.submodules.reset_sync = ResetSynchronizer(reset, domain="sync", stages=3)

        pins = platform.lookup("uart", 0).ios
        uart = platform.request("uart", 0, dir={pin.name: "-" for pin in pins})
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.Buffer("o", uart.tx)
        m.d.comb += [core.rx.eq(rx.i), tx.o.eq(core.tx)]
        if self._keepouts:
            m.submodules.keepouts = Instance("keepouts", a_keep=1)
        return m
