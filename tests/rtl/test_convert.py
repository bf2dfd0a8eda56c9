"""Verilog with and without the zeros that memories begin with."""

from amaranth.back import rtlil
from amaranth.hdl import Module
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from rtl.convert import convert, convert_rtlil


class Rams(wiring.Component):
    addr: In(4)
    one: Out(8)
    two: Out(8)

    def elaborate(self, platform):
        m = Module()
        for name, init in (("one", []), ("two", [1, 2, 3])):
            m.submodules[name] = ram = memory.Memory(shape=8, depth=16, init=init)
            port = ram.read_port()
            m.d.comb += [port.addr.eq(self.addr), getattr(self, name).eq(port.data)]
        return m


def test_zeros_are_left_out_and_values_are_not():
    full, short = convert(Rams(), emit_src=False), convert(Rams(), initial=False, emit_src=False)
    assert full.count("] = 8'h") == 32 and short.count("] = 8'h") == 16
    assert "] = 8'h03" in short


def test_amaranth_is_as_before_afterwards():
    before = rtlil.convert(Rams(), emit_src=False)
    assert convert_rtlil(Rams(), initial=False) != before
    assert convert_rtlil(Rams()) == before == rtlil.convert(Rams(), emit_src=False)
