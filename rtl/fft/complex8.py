"""Eight-point transform of complex columns."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.fft.pipeline import add_rounded, delay, register, sqrt_half, sub_rounded
from rtl.signatures import Complex

__all__ = ["ColumnTransform"]


class ColumnTransform(wiring.Component):
    """Transform 8 complex values, one column per cycle.

    52 adders and 4 constant products; at most two adders between registers.  The inverse is the
    same transform with real and imaginary parts exchanged at both ends.

    Parameters
    ----------
    width : int
        Bits of a signed input component.
    inverse : bool
        8 times the inverse DFT instead of the DFT.

    Members
    -------
    i : :py:`In(ArrayLayout(Complex(width), 8))`
        Column.
    o : :py:`Out(ArrayLayout(Complex(width + 4), 8))`
        Spectrum (or signal, if ``inverse``), ``LATENCY`` cycles later.  It always fits: at odd
        positions a component is at most 4 + 4 * sqrt(2) = 9.7 times the largest one of the input.
    """

    LATENCY = 5

    def __init__(self, *, width: int, inverse: bool = False) -> None:
        self.width = width
        self.inverse = inverse
        super().__init__({
            "i": In(data.ArrayLayout(Complex(width), 8)),
            "o": Out(data.ArrayLayout(Complex(width + 4), 8)),
        })

    def elaborate(self, platform) -> Module:
        """Add and subtract, multiply for the odd bins, add and subtract again."""
        m = Module()
        x = [(w.im, w.re) if self.inverse else (w.re, w.im) for w in self.i]

        def wait(value, name):  # from stage 2 to 4, beside sqrt_half with its operands
            return delay(m, value, 3, name)

        ar, ai = (
            [register(m, x[k][part] + x[k + 4][part], f"s1_a{part}{k}") for k in range(4)]
            for part in range(2)
        )
        br, bi = (
            [register(m, x[k][part] - x[k + 4][part], f"s1_b{part}{k}") for k in range(4)]
            for part in range(2)
        )
        even = wait(ar[0] + ar[2], "even_r"), wait(ai[0] + ai[2], "even_i")
        odd = wait(ar[1] + ar[3], "odd_r"), wait(ai[1] + ai[3], "odd_i")
        c = wait(ar[0] - ar[2], "c_r"), wait(ai[0] - ai[2], "c_i")
        d = wait(ai[1] - ai[3], "d_r"), wait(ar[3] - ar[1], "d_i")
        g = wait(br[0] + bi[2], "g_r"), wait(bi[0] - br[2], "g_i")
        h = wait(br[0] - bi[2], "h_r"), wait(bi[0] + br[2], "h_i")
        # The odd bins: b1 and b3 with their twiddle factors, added before the product.
        e_r, e_i = register(m, br[1] - br[3], "s2_e_r"), register(m, bi[1] - bi[3], "s2_e_i")
        f_r, f_i = register(m, br[1] + br[3], "s2_f_r"), register(m, bi[1] + bi[3], "s2_f_i")
        p = sqrt_half(m, e_r + f_i, "p_r"), sqrt_half(m, e_i - f_r, "p_i")
        q = sqrt_half(m, f_i - e_r, "q_r"), sqrt_half(m, e_i + f_r, "q_i")

        spectrum = [
            (even[0] + odd[0], even[1] + odd[1]),
            (add_rounded(g[0], p[0]), add_rounded(g[1], p[1])),
            (c[0] + d[0], c[1] + d[1]),
            (add_rounded(h[0], q[0]), sub_rounded(h[1], q[1])),
            (even[0] - odd[0], even[1] - odd[1]),
            (sub_rounded(g[0], p[0]), sub_rounded(g[1], p[1])),
            (c[0] - d[0], c[1] - d[1]),
            (sub_rounded(h[0], q[0]), add_rounded(h[1], q[1])),
        ]
        for u, (re, im) in enumerate(spectrum):
            re = register(m, re, f"s5_re{u}", self.width + 4)
            im = register(m, im, f"s5_im{u}", self.width + 4)
            if self.inverse:
                re, im = im, re
            m.d.comb += [self.o[u].re.eq(re), self.o[u].im.eq(im)]
        return m
