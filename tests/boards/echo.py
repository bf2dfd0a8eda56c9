"""A UART that answers every byte with itself: the smallest thing that can be built for a board."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.host.uart import UartReceiver, UartTransmitter


class Echo(wiring.Component):
    rx: In(1, init=1)
    tx: Out(1, init=1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.receiver = receiver = UartReceiver(divisor=25)
        m.submodules.transmitter = transmitter = UartTransmitter(divisor=25)
        m.d.comb += [
            receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx),
            transmitter.i.valid.eq(receiver.valid), transmitter.i.payload.eq(receiver.data),
        ]
        return m
