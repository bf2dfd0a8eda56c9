"""Cells of the ECP5 that yosys does not find by itself.

`ECP5` stands for a platform where a netlist is made without a board.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["ECP5", "Accumulate", "is_ecp5", "multiplier"]

#: Platform of a netlist of ECP5 cells.
ECP5 = SimpleNamespace(family="ecp5")

#: Table of a carry cell with D = 1: A if C, else A ^ B. Its first four bits, A, are the carry where
#: the table is 0: there the operands are equal, or A, the only one, is 0.
_INIT = 0xA6AA


def is_ecp5(platform: Any) -> bool:
    """Whether the cells of ``platform`` are those of an ECP5."""
    return getattr(platform, "family", None) == "ecp5"


class Accumulate(wiring.Component):
    """``a + (0 if first else b)`` in carry cells alone; yosys takes a table more for each bit.

    Parameters
    ----------
    width : int
        Bits of the operands and of the sum, which wraps.

    Attributes
    ----------
    a, b : In(width), In(width)
        Operands.
    first : In(1)
        Leave ``b`` out.
    o : Out(width)
        Sum, in the same cycle.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__({"a": In(width), "b": In(width), "first": In(1), "o": Out(width)})

    def elaborate(self, platform: Any) -> Module:
        """Build a chain of CCU2C, two bits each."""
        m = Module()
        a, b = Cat(self.a, Const(0, 1)), Cat(self.b, Const(0, 1))
        carry = Const(0, 1)
        for low in range(0, len(self.o), 2):
            sums, out = Signal(2, name=f"sums{low}"), Signal(name=f"carry{low}")
            m.submodules[f"bits{low}"] = Instance(
                "CCU2C", p_INIT0=Const(_INIT, 16), p_INIT1=Const(_INIT, 16),
                p_INJECT1_0="NO", p_INJECT1_1="NO",
                i_A0=a[low], i_B0=b[low], i_C0=self.first, i_D0=Const(1, 1),
                i_A1=a[low + 1], i_B1=b[low + 1], i_C1=self.first, i_D1=Const(1, 1),
                i_CIN=carry, o_S0=sums[0], o_S1=sums[1], o_COUT=out,
            )
            m.d.comb += self.o[low:low + 2].eq(sums)
            carry = out
        return m


def multiplier(a: Value, b: Value, product: Value) -> Instance:
    """MULT18X18D with registers at its operands and its product; yosys would use flip-flops.

    Parameters
    ----------
    a, b : Value
        Signed operands of at most 18 bits.
    product : Value
        What takes the product, two cycles later: as many bits as both operands have.

    Notes
    -----
    Registers and pins: Lattice FPGA-TN-02205, "ECP5 sysDSP Usage Guide". Half of a cycle at
    100 MHz is enough between the registers (3.9 ns from the operands' to the product, Project
    Trellis' timing of speed grade 6).
    """
    operands = {f"i_{name}{bit}": value[min(bit, len(value) - 1)]
                for name, value in (("A", a), ("B", b)) for bit in range(18)}
    registers = {
        f"p_REG_{register}_{part}": f"{part}0"
        for register in ("INPUTA", "INPUTB", "OUTPUT") for part in ("CLK", "CE", "RST")
    }
    return Instance(
        "MULT18X18D", **registers, p_CLK0_DIV="ENABLED", p_GSR="DISABLED", **operands,
        i_CLK0=ClockSignal(), i_CE0=Const(1, 1), i_RST0=Const(0, 1),
        i_SIGNEDA=Const(1, 1), i_SIGNEDB=Const(1, 1),
        i_SOURCEA=Const(0, 1), i_SOURCEB=Const(0, 1),
        **{f"o_P{bit}": product[bit] for bit in range(len(product))},
    )
