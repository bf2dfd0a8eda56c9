"""Designs that `synth_ecp5` makes into every cell the core's netlist has."""

import ctypes

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.mac import MacLane


class Logic(wiring.Component):
    """Look-up tables, wide multiplexers, carry chains, flip-flops of every kind, LUT RAM."""

    i: In(96)
    o: Out(96)

    def elaborate(self, platform):
        m = Module()
        a, b, c = self.i[:16], self.i[16:32], self.i[32:48]
        total, held = Signal(17, init=0x1234A), Signal(16, init=0xBEEF)
        low = Signal(16, reset_less=True)
        m.d.sync += [total.eq(a + b), low.eq(a - c)]
        with m.If(self.i[48]):
            m.d.sync += held.eq(held ^ a)
        with m.Elif(~self.i[49]):
            m.d.sync += held.eq(held + 3)
        choice = Signal(8)
        m.d.comb += choice.eq(Cat(self.i[:56]).bit_select(self.i[56:62], 8)
                              ^ Cat(a, b).word_select(c[:3], 4))
        m.submodules.table = table = Memory(shape=6, depth=16, init=range(40, 56))
        write, read = table.write_port(), table.read_port(domain="comb")
        m.d.comb += [write.addr.eq(a), write.data.eq(b), write.en.eq(self.i[62]),
                     read.addr.eq(c)]
        m.d.comb += self.o.eq(Cat(
            total, low, held, choice, read.data, a < b, a.as_signed() >= c.as_signed(),
            Mux(self.i[63], (a + c)[:16], (b - 1)[:16]),
        ))
        return m


class Blocks(wiring.Component):
    """Block RAM of all widths, with initial contents and enables, and multipliers.

    Reads are beside what is written in the same cycle or, with ``clash``, of the same address.
    """

    i: In(96)
    o: Out(174)

    def __init__(self, *, clash=False):
        self._clash = clash
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        a, b = self.i[:18], self.i[18:36]
        outputs = []
        for width, depth, grain in ((36, 512, 9), (30, 512, None), (9, 2048, None), (18, 1024, 9),
                                    (4, 4096, None), (2, 8192, None), (1, 16384, None)):
            # The lowest rows and the highest: what is read has been written now and then.
            address = Cat(self.i[36:41], self.i[87].replicate(9))
            m.submodules += (memory := Memory(
                shape=width, depth=depth, attrs={"ram_style": "block"},
                init=[37 * row % 101 % (1 << width) for row in range(depth)]))
            write = memory.write_port(granularity=grain)
            read = memory.read_port()
            m.d.comb += [
                write.addr.eq(address), read.addr.eq(address ^ (not self._clash)),
                write.data.eq(Cat(a, b)), read.en.eq(self.i[64]),
                write.en.eq(self.i[65:69] if grain else self.i[65]),
            ]
            outputs.append(read.data)
        outputs += [a.as_signed() * b.as_signed(), self.i[69:78] * self.i[78:87]]
        kept = Signal(signed(20))
        m.d.sync += kept.eq(kept + a[:6].as_signed() * b[6:18].as_signed())
        m.d.comb += self.o.eq(Cat(*outputs, kept))
        return m


class Lane(wiring.Component):
    """A lane of the array, with the registers of the multipliers themselves on an ECP5."""

    i: In(96)
    o: Out(84)

    def elaborate(self, platform):
        m = Module()
        m.submodules.lane = lane = MacLane(banks=2, word_bits=14, weight_bits=8, acc_bits=28)
        m.d.comb += [
            Cat(Value.cast(lane.words), Value.cast(lane.factors), lane.select, lane.first).eq(
                self.i),
            self.o.eq(lane.acc),
        ]
        return m


class Pins:
    """A compiled design, one clock cycle at a time."""

    def __init__(self, library, component):
        self._library = ctypes.CDLL(str(library))
        self._library.pins_new.restype = ctypes.c_void_p
        self._library.pins_step.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p,
                                            ctypes.c_int]
        self._library.pins_delete.argtypes = [ctypes.c_void_p]
        self._design = self._library.pins_new()
        self._bits = len(component.o)
        self._out = ctypes.create_string_buffer(4 * ((self._bits + 31) // 32))

    def step(self, value, reset=0):
        self._library.pins_step(self._design, value.to_bytes(12, "little"), self._out, reset)
        return int.from_bytes(self._out.raw, "little") & ((1 << self._bits) - 1)

    def close(self):
        self._library.pins_delete(self._design)
