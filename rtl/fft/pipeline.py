"""Registers of the transforms: single values, short delays, and long delays in LUT RAM."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Shape, Signal, Value, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from model.fft import SQRT_HALF, SQRT_HALF_SHIFT

__all__ = ["DelayLine", "add_rounded", "delay", "register", "sqrt_half", "sub_rounded"]


def register(m: Module, value: Value, name: str, width: int | None = None) -> Signal:
    """Register a signed value, cut to ``width`` bits if given (the caller knows that it fits)."""
    width = len(value) if width is None else width
    stage = Signal(signed(width), name=name, reset_less=True)
    m.d.sync += stage.eq(value)
    return stage


def delay(m: Module, value: Value, cycles: int, name: str) -> Value:
    """Delay a signed value by a few cycles."""
    for n in range(cycles):
        value = register(m, value, f"{name}_d{n}")
    return value


def sqrt_half(m: Module, value: Value, name: str) -> Signal:
    """Multiply by sqrt(1/2), 2 cycles: 3 adders, two of them in the second stage.

    181 = 16·11 + 5 and 11 = 2·5 + 1.  The result is floored with one extra fraction bit, so that
    `add_rounded` and `sub_rounded` can round half up by a carry instead of another adder.
    """
    if (SQRT_HALF, SQRT_HALF_SHIFT) != (181, 8):
        raise ValueError(f"the adders make 181/256, not {SQRT_HALF}/2**{SQRT_HALF_SHIFT}")
    width = len(value)
    by_1 = register(m, value, f"{name}_by_1")
    by_5 = register(m, value + (value << 2), f"{name}_by_5")
    by_11 = ((by_5 << 1) + by_1)[:width + 4].as_signed()
    by_181 = by_11 + (by_5 >> 4)  # above the lowest 4 bits, which by_11 does not reach
    return register(m, by_181 >> 3, f"{name}_product", width + 1)


def add_rounded(value: Value, product: Value) -> Value:
    """``value + round(product / 2)``, half up."""
    return (Cat(Const(1, 1), value).as_signed() + product) >> 1


def sub_rounded(value: Value, product: Value) -> Value:
    """``value - round(product / 2)``, half up."""
    return (Cat(Const(0, 1), value).as_signed() - product) >> 1


class DelayLine(wiring.Component):
    """Fixed delay of a wide value: a ring of 16 in LUT RAM and an output register.

    Parameters
    ----------
    shape : ShapeCastable
        Shape of the value.
    cycles : int
        Delay, at least 2.

    Members
    -------
    i : :py:`In(shape)`
        Value, every cycle.
    clear : :py:`In(1)`
        Makes ``o`` zero in the next cycle.
    o : :py:`Out(shape)`
        Value of ``cycles`` cycles ago (undefined at first).
    """

    def __init__(self, shape, *, cycles: int) -> None:
        if not isinstance(cycles, int) or cycles < 2:
            raise ValueError(f"cycles must be an integer of at least 2, not {cycles!r}")
        self.cycles = cycles
        super().__init__({"i": In(shape), "clear": In(1), "o": Out(shape)})

    def elaborate(self, platform) -> Module:
        """Write a position of the ring every cycle, read the one written ``cycles - 1`` ago."""
        m = Module()
        i, o = Value.cast(self.i), Value.cast(self.o)
        in_ring = min(self.cycles - 1, 16)
        for n in range(self.cycles - 1 - in_ring):
            i = register(m, i, f"before_{n}")
        m.submodules.ring = ring = memory.Memory(shape=Shape(len(i)), depth=16, init=[])
        write, read = ring.write_port(), ring.read_port(domain="comb")
        position = Signal(4)
        last = Signal(len(i), reset_less=True)
        m.d.sync += [position.eq(position + 1), last.eq(read.data)]
        with m.If(self.clear):
            m.d.sync += last.eq(0)
        m.d.comb += [
            write.en.eq(1), write.addr.eq(position), write.data.eq(i),
            read.addr.eq(position - in_ring), o.eq(last),
        ]
        return m
