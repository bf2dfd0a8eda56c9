"""Drain: complete accumulators out of the array, combined, rounded and saturated.

The accumulators of all lanes are copied at once into a shadow of ``kernel_lanes``/4 quads, which
then shifts by one quad a cycle while the array goes on with the next frequency. Four kernels of
every tile lane leave per cycle.

    complex     re = a1 - a3        im = a1 + a2
    real word   re = a2             im = -a3            (a1 = 0: the same two sums, swapped)
    dot         re = a2 - a3        im = 0

Rounding is ``rtl.fixed.round_shift_dynamic`` cut into stages: shift by multiples of 8, shift by
0..7 keeping half an LSB, clamp, add half an LSB, saturate. The clamp to one bit more than a sum
changes no result, since rounding is monotonic, and keeps the rounding adder narrow.
"""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from rtl.fixed import round_shift, saturate
from rtl.signatures import Complex, Event, LaneSums, SumWrite

__all__ = ["Rounder", "Drain"]


class Rounder(wiring.Component):
    """Combine the accumulators of one lane and round them to a sum; a value every cycle.

    Parameters
    ----------
    acc_bits, sum_bits : int
        Width of the accumulators and of the components of the sum.

    Attributes
    ----------
    acc : In(ArrayLayout(signed(acc_bits), 3))
        a1, a2, a3.
    real, dot : In(1)
        Which combination, in the cycle of ``acc``.
    coarse : In(2), fine : In(3)
        Shift, upper bits one cycle after ``acc``, lower bits two.
    o : Out(Complex(sum_bits))
        Rounded sum, ``LATENCY`` cycles after ``acc``.
    """

    LATENCY = 6

    def __init__(self, *, acc_bits: int, sum_bits: int) -> None:
        self._acc_bits, self._sum_bits = acc_bits, sum_bits
        super().__init__({
            "acc": In(data.ArrayLayout(signed(acc_bits), 3)), "real": In(1), "dot": In(1),
            "coarse": In(2), "fine": In(3), "o": Out(Complex(sum_bits)),
        })

    def elaborate(self, platform) -> Module:
        """Stages: s1 sum, s2 and s3 shift, s4 clamp, s5 round, s6 saturate."""
        m = Module()
        a1, a2, a3 = self.acc
        raw_re = Signal(signed(self._acc_bits + 1))
        raw_im = Signal(signed(self._acc_bits + 1))
        swap = self.real & ~self.dot
        m.d.comb += [
            raw_re.eq(Mux(self.dot, a2, a1) - a3),
            raw_im.eq(a1 + a2),
        ]
        self._round(m, "re", Mux(swap, raw_im, raw_re), self.o.re)
        self._round(m, "im", Mux(swap, raw_re, Mux(self.dot, 0, raw_im)), self.o.im)
        return m

    def _round(self, m: Module, name: str, combined: Value, o: Value) -> None:
        """Pipeline of one component."""
        def stage(number: int, bits: int) -> Signal:
            return Signal(signed(bits), name=f"s{number}_{name}", reset_less=True)

        wide = self._acc_bits + 2       # the sum, and half an LSB
        s1, s2, s3 = stage(1, wide - 1), stage(2, wide), stage(3, wide)
        s4, s5, s6 = (
            stage(4, self._sum_bits + 1), stage(5, self._sum_bits + 1), stage(6, self._sum_bits)
        )
        m.d.sync += [
            s1.eq(combined),
            s2.eq((s1 << 1) >> (self.coarse << 3)),
            s3.eq(s2 >> self.fine),
            s4.eq(saturate(s3, self._sum_bits + 1)),
            s5.eq(round_shift(s4, 1)),
            s6.eq(saturate(s5, self._sum_bits)),
        ]
        m.d.comb += o.eq(s6)


class Drain(wiring.Component):
    """Shadow registers, quad counter and a `Rounder` for four kernels of every tile lane.

    Parameters
    ----------
    config : AcceleratorConfig
        Lanes and widths.

    Attributes
    ----------
    i : In(Event(LaneSums(config)))
        Accumulators, at most every ``INTERVAL`` cycles. ``sum_shift`` is 0..31 (`model.lower`
        gives no other).
    o : Out(Event(SumWrite(config)))
        ``INTERVAL`` words on consecutive cycles, the first ``LATENCY`` cycles after ``i``.
        ``block_last`` comes with the last of them if it came with the accumulators.
    """

    #: Shadow, then the rounder.
    LATENCY = 1 + Rounder.LATENCY

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        self.INTERVAL = config.kernel_lanes // 4
        super().__init__({
            "i": In(Event(LaneSums(config))),
            "o": Out(Event(SumWrite(config))),
        })

    def elaborate(self, platform) -> Module:
        """Shift the shadow under the quad counter, delay the tag past the rounders."""
        m = Module()
        tag = Tag(self._config)
        s1_valid, s1_how, s1_tag = self._sequence(m)
        shadow = self._shadow(m)

        s2_coarse = Signal(2, reset_less=True)
        s2_fine = Signal(3, reset_less=True)
        s3_fine = Signal(3, reset_less=True)
        m.d.sync += [
            s2_coarse.eq(s1_how.shift[3:5]), s2_fine.eq(s1_how.shift[:3]), s3_fine.eq(s2_fine)
        ]
        for index, acc in enumerate(shadow):
            tile, kernel = divmod(index, 4)
            rounder = Rounder(acc_bits=self._config.acc_bits, sum_bits=self._config.sum_bits)
            m.submodules[f"round{tile}_{kernel}"] = rounder
            m.d.comb += [
                rounder.acc.eq(acc),
                rounder.real.eq(s1_how.real), rounder.dot.eq(s1_how.dot),
                rounder.coarse.eq(s2_coarse), rounder.fine.eq(s3_fine),
                self.o.payload.sums[tile][kernel].eq(rounder.o),
            ]

        valid, delayed = s1_valid, s1_tag
        for stage in range(2, self.LATENCY + 1):
            next_valid = Signal(name=f"s{stage}_valid")
            next_tag = Signal(tag, name=f"s{stage}_tag", reset_less=True)
            m.d.sync += [next_valid.eq(valid), next_tag.eq(delayed)]
            valid, delayed = next_valid, next_tag
        m.d.comb += [
            self.o.valid.eq(valid),
            *(self.o.payload[name].eq(delayed[name]) for name in tag.members),
        ]
        return m

    def _sequence(self, m: Module):
        """Count the quads of the accumulators taken last; their tag with the quad's number."""
        sums = self.i.payload
        valid = Signal(name="s1_valid")
        how = Signal(
            data.StructLayout({"real": 1, "dot": 1, "shift": 5}), name="s1_how", reset_less=True
        )
        tag = Signal(Tag(self._config), name="s1_tag", reset_less=True)
        block_last = Signal(reset_less=True)
        ends = tag.quad == self.INTERVAL - 1
        with m.If(self.i.valid):
            m.d.sync += [
                valid.eq(1),
                how.real.eq(sums.real), how.dot.eq(sums.dot), how.shift.eq(sums.sum_shift),
                tag.frequency.eq(sums.frequency), tag.half.eq(sums.half), tag.quad.eq(0),
                tag.block_last.eq(sums.block_last & (self.INTERVAL == 1)),
                block_last.eq(sums.block_last),
            ]
        with m.Elif(valid):
            m.d.sync += [
                valid.eq(~ends), tag.quad.eq(tag.quad + 1),
                tag.block_last.eq(block_last & (tag.quad == self.INTERVAL - 2)),
            ]
        return valid, how, tag

    def _shadow(self, m: Module):
        """Accumulators of the quad that leaves now, four kernels of each tile lane in turn."""
        config, sums = self._config, self.i.payload
        lane = data.ArrayLayout(signed(config.acc_bits), 3)
        heads = []
        for tile in range(config.tile_lanes):
            for kernel in range(4):
                after = 0
                for number in reversed(range(kernel, config.kernel_lanes, 4)):
                    shadow = Signal(lane, name=f"s1_acc{tile}_{number}", reset_less=True)
                    m.d.sync += shadow.eq(
                        Mux(self.i.valid, sums.acc[tile][number].as_value(), after)
                    )
                    after = shadow.as_value()
                heads.append(shadow)
        return heads


def Tag(config: AcceleratorConfig) -> data.StructLayout:  # noqa: N802
    """Tag of a sum word: all of it but the sums."""
    members = SumWrite(config).members
    return data.StructLayout({name: shape for name, shape in members.items() if name != "sums"})
