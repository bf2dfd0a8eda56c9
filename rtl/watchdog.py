"""Watchdog of the memory port: ends the wait for a memory that has stopped answering."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["DEFAULT_TIMEOUT", "Watchdog"]

#: Reset value of the register TIMEOUT: 7 ms at 150 MHz, far beyond any refresh or arbitration.
DEFAULT_TIMEOUT = 1 << 20


class Watchdog(wiring.Component):
    """Count down while the memory owes something and does nothing.

    Latency: ``expired`` comes `LATENCY` cycles after ``timeout`` cycles without a sign of life, and
    goes as many after the next one.

    Attributes
    ----------
    timeout : In(32)
        Cycles of patience; 0: for ever.
    owed : In(1)
        The memory has something to do: a request to take, a beat to bring, a write to answer.
    moved : In(1)
        It did some of it.
    expired : Out(1)
        Level, so that it is not missed while something else ends the run.
    """

    LATENCY = 2

    timeout: In(32)
    owed: In(1)
    moved: In(1)
    expired: Out(1)

    def elaborate(self, platform) -> Module:
        """Register what is seen (it comes from the pins), count, register the end."""
        m = Module()
        s1_still = Signal()
        count = Signal(32)
        m.d.sync += [
            s1_still.eq(self.owed & ~self.moved),
            self.expired.eq(s1_still & (count == 1)),
        ]
        with m.If(~s1_still):
            m.d.sync += count.eq(self.timeout)
        with m.Elif(count > 1):
            m.d.sync += count.eq(count - 1)
        return m
