"""UART, 8 data bits, no parity, one stop bit, least significant bit first."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import cdc, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["LEAST_DIVISOR", "UartReceiver", "UartTransmitter"]

#: Cycles of a bit, below which the middle of a bit is not met.
LEAST_DIVISOR = 4
_BITS = 10


def _check(divisor: int) -> None:
    if not isinstance(divisor, int) or divisor < LEAST_DIVISOR:
        raise ValueError(
            f"divisor must be an integer of at least {LEAST_DIVISOR} cycles per bit, "
            f"not {divisor!r}"
        )


class UartReceiver(wiring.Component):
    """Bytes from a line, each sampled in the middle of its bits.

    Latency: 2 cycles of synchroniser and half a bit after the begin of the stop bit. Throughput:
    bytes may follow each other without a pause.

    Parameters
    ----------
    divisor : int
        Cycles of a bit.

    Attributes
    ----------
    rx : In(1)
        The line, asynchronous; idle is high.
    valid, data : Out(1), Out(8)
        A byte, for one cycle.
    error : Out(1)
        It had no stop bit.
    """

    def __init__(self, *, divisor: int) -> None:
        _check(divisor)
        self._divisor = divisor
        super().__init__({
            "rx": In(1, init=1), "valid": Out(1), "data": Out(8), "error": Out(1),
        })

    def elaborate(self, platform) -> Module:
        """Wait for the begin of a start bit, then count half a bit and whole ones."""
        m = Module()
        line = Signal(init=1)
        m.submodules.line = cdc.FFSynchronizer(self.rx, line, init=1)
        timer = Signal(range(self._divisor))
        left = Signal(range(_BITS + 1))
        # After a break the line must have been idle before another start bit counts.
        armed = Signal()
        m.d.sync += self.valid.eq(0)
        with m.If(left == 0):
            m.d.sync += [armed.eq(line), timer.eq(self._divisor // 2 - 1)]
            with m.If(armed & ~line):
                m.d.sync += left.eq(_BITS)
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Else():
            m.d.sync += [timer.eq(self._divisor - 1), left.eq(left - 1)]
            with m.If((left == _BITS) & line):      # a glitch
                m.d.sync += left.eq(0)
            with m.If(left == 1):
                m.d.sync += [self.valid.eq(1), self.error.eq(~line), armed.eq(line)]
            with m.Else():
                m.d.sync += self.data.eq(Cat(self.data[1:], line))
        return m


class UartTransmitter(wiring.Component):
    """Bytes to a line.

    Throughput: a byte in `10 * divisor` cycles and one.

    Parameters
    ----------
    divisor : int
        Cycles of a bit.

    Attributes
    ----------
    i : In(stream.Signature(8))
        Bytes.
    tx : Out(1)
        The line; idle is high.
    """

    def __init__(self, *, divisor: int) -> None:
        _check(divisor)
        self._divisor = divisor
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform) -> Module:
        """Shift start bit, data and stop bit out."""
        m = Module()
        timer = Signal(range(self._divisor))
        left = Signal(range(_BITS + 1))
        bits = Signal(_BITS, init=(1 << _BITS) - 1)
        m.d.comb += [self.tx.eq(bits[0]), self.i.ready.eq(left == 0)]
        with m.If(left == 0):
            m.d.sync += timer.eq(self._divisor - 1)
            with m.If(self.i.valid):
                m.d.sync += [bits.eq(Cat(0, self.i.payload, 1)), left.eq(_BITS)]
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Else():
            m.d.sync += [
                timer.eq(self._divisor - 1), left.eq(left - 1), bits.eq(Cat(bits[1:], 1)),
            ]
        return m
