"""Short queues whose ``valid`` and ``ready`` are registers, so that no path leads through them."""

from __future__ import annotations

from amaranth.hdl import Module, ShapeLike, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

__all__ = ["Level", "Queue"]


class Level(wiring.Component):
    """Fill level of a queue: what is asked of it is found while it changes.

    Parameters
    ----------
    depth : int
        Elements, at least 2.

    Attributes
    ----------
    write, read : In(1)
        An element comes; only with ``room``. One leaves; only with ``some``.
    room, some, many : Out(1)
        There is room for an element; one is there; more than one is there. Registers.
    """

    def __init__(self, *, depth: int) -> None:
        if not isinstance(depth, int) or depth < 2:
            raise ValueError(f"depth must be at least 2, not {depth!r}")
        self._depth = depth
        super().__init__({
            "write": In(1), "read": In(1),
            "room": Out(1, init=1), "some": Out(1), "many": Out(1),
        })

    def elaborate(self, platform) -> Module:
        """Count up and down."""
        m = Module()
        filled = Signal(range(self._depth + 1))
        with m.If(self.write & ~self.read):
            m.d.sync += [
                filled.eq(filled + 1), self.some.eq(1), self.many.eq(self.some),
                self.room.eq(filled != self._depth - 1),
            ]
        with m.Elif(self.read & ~self.write):
            m.d.sync += [
                filled.eq(filled - 1), self.some.eq(self.many), self.many.eq(filled > 2),
                self.room.eq(1),
            ]
        return m


class Queue(wiring.Component):
    """First in, first out, a cycle later; in RAM with asynchronous read (distributed RAM).

    Parameters
    ----------
    shape : ShapeLike
        Of an element.
    depth : int
        Elements, a power of two.

    Attributes
    ----------
    i, o : In(stream.Signature(shape)), Out(stream.Signature(shape))
        Both ends.
    """

    def __init__(self, shape: ShapeLike, *, depth: int) -> None:
        if not isinstance(depth, int) or depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two of at least 2, not {depth!r}")
        self._shape, self._depth = shape, depth
        super().__init__({
            "i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape)),
        })

    def elaborate(self, platform) -> Module:
        """Both pointers and the level."""
        m = Module()
        m.submodules.level = level = Level(depth=self._depth)
        m.submodules.storage = storage = Memory(shape=self._shape, depth=self._depth, init=[])
        write, read = storage.write_port(), storage.read_port(domain="comb")
        m.d.comb += [
            self.i.ready.eq(level.room), self.o.valid.eq(level.some),
            level.write.eq(self.i.valid & level.room), level.read.eq(self.o.ready & level.some),
            write.en.eq(level.write), write.data.eq(self.i.payload), self.o.payload.eq(read.data),
        ]
        m.d.sync += [
            write.addr.eq(write.addr + level.write), read.addr.eq(read.addr + level.read),
        ]
        return m
