"""The host link with its memory and no core: the part of a bitstream that takes a minute."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.host.link import HostLink
from rtl.host.uart import UartReceiver, UartTransmitter
from rtl.memory import OnChipMemory


class LinkOnly(wiring.Component):
    rx: In(1, init=1)
    tx: Out(1, init=1)

    def __init__(self, config, *, divisor=25):
        self._config, self._divisor = config, divisor
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.link = link = HostLink(config=self._config, timeout=2_500_000)
        m.submodules.memory = memory = OnChipMemory(kib=self._config.onchip_kib)
        m.submodules.receiver = receiver = UartReceiver(divisor=self._divisor)
        m.submodules.transmitter = transmitter = UartTransmitter(divisor=self._divisor)
        wiring.connect(m, link.tx, transmitter.i)
        m.d.comb += [
            receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx),
            link.rx_valid.eq(receiver.valid), link.rx_data.eq(receiver.data),
            link.rx_error.eq(receiver.error), link.host_r_data.eq(memory.host_r_data),
            *(getattr(memory, name).eq(getattr(link, name)) for name in (
                "host_addr", "host_en", "host_w_en", "host_w_data")),
        ]
        return m
