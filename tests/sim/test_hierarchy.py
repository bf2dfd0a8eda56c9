"""Merging equal modules changes the text of a design and nothing else."""

import re

import pytest
from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.convert import convert
from sim.hierarchy import merge_modules


class Leaf(wiring.Component):
    def __init__(self, step):
        self._step = step
        super().__init__({"i": In(signed(8)), "o": Out(signed(8))})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(self.i + self._step)
        return m


class Pair(wiring.Component):
    def __init__(self, step):
        self._step = step
        super().__init__({"i": In(signed(8)), "o": Out(signed(8))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.first = first = Leaf(self._step)
        m.submodules.second = second = Leaf(self._step)
        m.d.comb += [first.i.eq(self.i), second.i.eq(first.o), self.o.eq(second.o)]
        return m


class Tree(wiring.Component):
    i: In(signed(8))
    o: Out(signed(8))

    def elaborate(self, platform):
        m = Module()
        total = Signal(signed(8))
        value = 0
        for index, step in enumerate((1, 1, 1, 2)):
            m.submodules[f"pair{index}"] = pair = Pair(step)
            m.d.comb += pair.i.eq(self.i)
            value = value + pair.o
        m.d.comb += [total.eq(value), self.o.eq(total)]
        return m


def modules(verilog):
    return re.findall(r"^module (\S+)", verilog, re.MULTILINE)


def instances(verilog):
    return re.findall(r"^  \\?\S+  (\S+) \($", verilog, re.MULTILINE)


def test_one_module_of_each_kind_remains():
    plain = convert(Tree(), emit_src=False, strip_internal_attrs=True)
    merged = merge_modules(plain)
    # The top, and for both steps a pair and its leaves (Amaranth orders their ports differently).
    assert len(modules(plain)) == 13 and len(modules(merged)) == 7
    assert merge_modules(merged) == merged
    for name in re.findall(r"^  (\\\S+)  \S+ \($", merged, re.MULTILINE):
        assert name in modules(merged)
    # Instances keep their names: of the top all, of the remaining pairs one each.
    assert instances(merged).count("first") == 2
    assert [name for name in instances(merged) if name.startswith("pair")] == [
        "pair0", "pair1", "pair2", "pair3"
    ]


def test_different_modules_stay():
    merged = merge_modules(convert(Tree(), emit_src=False, strip_internal_attrs=True))
    leaves = [text for text in merged.split("endmodule") if "i) + " in text or "+" in text]
    assert any("2'h1" in text or "8'h01" in text for text in leaves)
    assert any("h2" in text or "8'h02" in text for text in leaves)


def test_a_truncated_design_is_refused():
    verilog = convert(Tree(), emit_src=False, strip_internal_attrs=True)
    with pytest.raises(ValueError, match="has no end"):
        merge_modules(verilog[:verilog.rindex("endmodule")])
