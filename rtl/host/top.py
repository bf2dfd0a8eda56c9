"""The accelerator with on-chip memory behind a UART: all a board needs but clock and pins."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from model.config import AcceleratorConfig
from rtl.core import Top
from rtl.host.link import HostLink
from rtl.host.uart import UartReceiver, UartTransmitter

__all__ = ["HostedTop"]


class HostedTop(wiring.Component):
    """`rtl.core.Top`, host link and UART.

    Parameters
    ----------
    config : AcceleratorConfig
        What to build; ``onchip_kib`` must not be 0.
    divisor : int
        Clock cycles of a bit on the line.
    timeout : int
        Clock cycles without a byte that end an unfinished frame.

    Attributes
    ----------
    rx, tx : In(1), Out(1)
        Line from and to the host.
    """

    rx: In(1, init=1)
    tx: Out(1, init=1)

    def __init__(self, config: AcceleratorConfig, *, divisor: int, timeout: int) -> None:
        self._core = Top(config)
        self._link = HostLink(config=config, timeout=timeout)
        self._receiver = UartReceiver(divisor=divisor)
        self._transmitter = UartTransmitter(divisor=divisor)
        super().__init__()

    def elaborate(self, platform) -> Module:
        """Line to bytes to commands to core."""
        m = Module()
        core, link = self._core, self._link
        m.submodules.core = core
        m.submodules.link = link
        m.submodules.receiver = receiver = self._receiver
        m.submodules.transmitter = transmitter = self._transmitter
        connect(m, link.tx, transmitter.i)
        m.d.comb += [
            receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx),
            link.rx_valid.eq(receiver.valid), link.rx_data.eq(receiver.data),
            link.rx_error.eq(receiver.error),
            link.csr_r_data.eq(core.csr_r_data), link.host_r_data.eq(core.host_r_data),
            *(getattr(core, name).eq(getattr(link, name)) for name in (
                "csr_addr", "csr_w_en", "csr_w_data",
                "host_addr", "host_en", "host_w_en", "host_w_data")),
        ]
        return m
