"""Eight-point transforms of real rows, forward and inverse."""

from __future__ import annotations

from amaranth.hdl import Module, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.fft.pipeline import add_rounded, delay, register, sqrt_half, sub_rounded
from rtl.signatures import Complex

__all__ = ["InverseRow", "RowTransform"]


class RowTransform(wiring.Component):
    """Transform 8 real values into bins (0, 4), 1, 2, 3 with one fraction bit.

    19 adders and 2 constant products; at most two adders between registers.

    Parameters
    ----------
    width : int
        Bits of a signed input value.

    Members
    -------
    i : :py:`In(ArrayLayout(signed(width), 8))`
        Row, one per cycle.
    o : :py:`Out(ArrayLayout(Complex(width + 4), 4))`
        Twice the DFT; word 0 is the real bins 0 and 4.  ``LATENCY`` cycles later.
    """

    LATENCY = 4

    def __init__(self, *, width: int) -> None:
        self.width = width
        super().__init__({
            "i": In(data.ArrayLayout(signed(width), 8)),
            "o": Out(data.ArrayLayout(Complex(width + 4), 4)),
        })

    def elaborate(self, platform) -> Module:
        """Add and subtract; bins 1 and 3 take two products."""
        m = Module()
        x = self.i
        out_width = self.width + 4
        a = [register(m, x[k] + x[k + 4], f"s1_a{k}") for k in range(4)]
        b = [register(m, x[k] - x[k + 4], f"s1_b{k}") for k in range(4)]
        minus_b2 = register(m, x[6] - x[2], "s1_minus_b2")

        # Bins 0, 4 and 2 wait at their second stage for the products.
        even = delay(m, a[0] + a[2], 2, "even")
        odd = delay(m, a[1] + a[3], 2, "odd")
        x2r = delay(m, a[0] - a[2], 2, "x2r")
        x2i = delay(m, a[3] - a[1], 2, "x2i")
        p = sqrt_half(m, (b[1] - b[3]) << 1, "p")
        q = sqrt_half(m, (b[1] + b[3]) << 1, "q")
        b0 = delay(m, b[0], 2, "b0") << 1
        b2 = delay(m, b[2], 2, "b2") << 1
        minus_b2 = delay(m, minus_b2, 2, "minus_b2") << 1

        bins = [
            ((even + odd) << 1, (even - odd) << 1),
            (add_rounded(b0, p), sub_rounded(minus_b2, q)),
            (x2r << 1, x2i << 1),
            (sub_rounded(b0, p), sub_rounded(b2, q)),
        ]
        for v, (re, im) in enumerate(bins):
            m.d.comb += [
                self.o[v].re.eq(register(m, re, f"s4_re{v}", out_width)),
                self.o[v].im.eq(register(m, im, f"s4_im{v}", out_width)),
            ]
        return m


class InverseRow(wiring.Component):
    """Transform bins (0, 4), 1, 2, 3 into 8 real values, 8 times the inverse DFT.

    20 adders and 2 constant products; at most two adders between registers.

    Parameters
    ----------
    width : int
        Bits of a signed input component.

    Members
    -------
    i : :py:`In(ArrayLayout(Complex(width), 4))`
        Bins, one row per cycle; word 0 is the real bins 0 and 4.
    o : :py:`Out(ArrayLayout(signed(width + 3), 8))`
        Row, ``LATENCY`` cycles later.
    """

    LATENCY = 4

    def __init__(self, *, width: int) -> None:
        self.width = width
        super().__init__({
            "i": In(data.ArrayLayout(Complex(width), 4)),
            "o": Out(data.ArrayLayout(signed(width + 3), 8)),
        })

    def elaborate(self, platform) -> Module:
        """Add and subtract; the odd values take two products."""
        m = Module()
        x = self.i
        even = register(m, x[0].re + x[0].im, "s1_even")
        odd = register(m, x[0].re - x[0].im, "s1_odd")
        x2r, x2i = register(m, x[2].re, "s1_x2r"), register(m, x[2].im, "s1_x2i")
        c = register(m, x[1].re + x[3].re, "s1_c")
        d = register(m, x[1].im - x[3].im, "s1_d")
        e = register(m, x[1].re - x[3].re, "s1_e")
        o = register(m, x[1].im + x[3].im, "s1_o")

        f = delay(m, even + (x2r << 1), 2, "f")
        g = delay(m, even - (x2r << 1), 2, "g")
        h = delay(m, odd - (x2i << 1), 2, "h")
        k = delay(m, odd + (x2i << 1), 2, "k")
        c, d = delay(m, c, 2, "c") << 1, delay(m, d, 2, "d") << 1
        p = sqrt_half(m, (e - o) << 1, "p")
        q = sqrt_half(m, (e + o) << 1, "q")

        row = [
            f + c, add_rounded(h, p), g - d, sub_rounded(k, q),
            f - c, sub_rounded(h, p), g + d, add_rounded(k, q),
        ]
        for n, value in enumerate(row):
            m.d.comb += self.o[n].eq(register(m, value, f"s4_x{n}", self.width + 3))
        return m
