"""Drain: complete accumulators out of the array, combined, rounded and saturated.

The array completes D = ``drained`` kernels of every tile lane per cycle, 4 for every row that the
inverse FFT gives in a cycle. They are called a quad here. Each quad is taken in its cycle, while
the lanes before it go on with the next frequency.

    complex     re = a1 - a3        im = a1 + a2
    real word   re = a1 + a2        im = a1 - a3        (`rtl.mac` chose the factors so)
    dot         re = a1 - a3        im = 0

So two sums are formed and rounded in any case, and change places at the end. With ``spread`` the
real parts of the first ``dot_lanes`` tile lanes are added up before they are rounded, and the sum
leaves in the first.
"""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from rtl.fixed import round_shift
from rtl.signatures import Complex, Event, LaneSums, SumWrite

__all__ = ["Rounder", "Drain"]


class Rounder(wiring.Component):
    """``saturate(round_shift(value, shift), sum_bits)``; a value every cycle.

    The value is shifted to half an LSB (by multiples of 8, then by 0..7), clamped to the range
    that rounds into ``sum_bits``, and rounded with an adder that cannot overflow. Clamping first
    changes no result, since rounding is monotonic, and is the cheaper order: what the last shift
    drops at the top is compared with the sign on the way.

    Parameters
    ----------
    in_bits, sum_bits : int
        Width of the value and of the result.

    Attributes
    ----------
    value : In(signed(in_bits))
        Value to round.
    shift : In(5)
        Shift, in the cycle of ``value``.
    o : Out(signed(sum_bits))
        Result, ``LATENCY`` cycles after ``value``.
    """

    LATENCY = 4

    def __init__(self, *, in_bits: int, sum_bits: int) -> None:
        if in_bits < sum_bits + 8:
            raise ValueError(f"in_bits must be at least {sum_bits + 8}, not {in_bits!r}")
        self._in_bits, self._sum_bits = in_bits, sum_bits
        super().__init__({
            "value": In(signed(in_bits)), "shift": In(5), "o": Out(signed(sum_bits)),
        })

    def elaborate(self, platform) -> Module:
        """Stages: s1 and s2 shift, s3 clamp, s4 round; what s2 does is decided in s1."""
        m = Module()
        bits = self._sum_bits       # of the magnitude with half an LSB
        s1 = Signal(signed(self._in_bits + 1), reset_less=True)
        s1_fine = Signal(3, reset_less=True)
        s1_up_to = Signal(7, reset_less=True)       # bit n: the fine shift is at most n
        s2_low = Signal(bits, reset_less=True)
        s2_sign = Signal(reset_less=True)
        s2_overs = Signal(3, reset_less=True)       # it is too large if any of them is set
        s3 = Signal(signed(bits + 1), reset_less=True)
        s4 = Signal(signed(bits), reset_less=True)

        sign = s1[-1]
        above = s1[bits:-1] ^ sign.replicate(len(s1) - bits - 1)
        # The bits of the magnitude that remain above the result after the fine shift, looked at in
        # three parts: synthesis has one ``s1_up_to`` for all rounders, which comes late.
        remain = above[:7] & s1_up_to
        top, s2_over = Signal(), Signal()   # ``top``: it would round up to a positive overflow
        m.d.comb += [top.eq(s2_low.all() & ~s2_sign), s2_over.eq(s2_overs.any())]
        m.d.sync += [
            s1.eq((self.value << 1) >> (self.shift[3:] << 3)), s1_fine.eq(self.shift[:3]),
            s1_up_to.eq(Cat(self.shift[:3] <= count for count in range(7))),
            s2_low.eq(s1 >> s1_fine), s2_sign.eq(sign),
            s2_overs.eq(Cat(remain[:4].any(), remain[4:].any(), above[7:].any())),
            s3.eq(Cat(
                Mux(s2_over, 0, s2_low[0] & ~top),
                Mux(s2_over, (~s2_sign).replicate(bits - 1), s2_low[1:]),
                s2_sign,
            )),
            s4.eq(round_shift(s3, 1)),
        ]
        m.d.comb += self.o.eq(s4)
        return m


class Drain(wiring.Component):
    """Choice of the quad, its counter, and two `Rounder` for D kernels of every tile lane.

    Parameters
    ----------
    config : AcceleratorConfig
        Lanes and widths.

    Attributes
    ----------
    i : In(LaneSums(config))
        Accumulators, at most every ``INTERVAL`` cycles; those of quad q are looked at q cycles
        later. ``sum_shift`` is 0..31 (`model.lower` gives no other).
    o : Out(Event(SumWrite(config)))
        ``INTERVAL`` words on consecutive cycles, the first ``LATENCY`` cycles after ``i``.
        ``block_last`` comes with the last of them if it came with the accumulators.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        #: Choice, combination, sum of tile lanes, rounder, exchange.
        self.LATENCY = 3 + config.spread + Rounder.LATENCY
        self.INTERVAL = config.kernel_lanes // config.drained
        super().__init__({
            "i": In(LaneSums(config)),
            "o": Out(Event(SumWrite(config))),
        })

    def elaborate(self, platform) -> Module:
        """Take quad after quad, delay the tag past the rounders."""
        m = Module()
        s1_valid, s1_how, s1_tag = self._sequence(m)
        heads = self._heads(m)

        across = self._config.spread        # stages from s2 to the rounder
        hows = [s1_how]
        for stage in range(2, across + 3):
            hows.append(Signal.like(s1_how, name=f"s{stage}_how", reset_less=True))
            m.d.sync += hows[-1].eq(hows[-2])

        valid, tag, real, dot = s1_valid, s1_tag, s1_how.real, s1_how.dot
        for stage in range(2, self.LATENCY + 1):
            late = Signal(data.StructLayout({
                "valid": 1, "real": 1, "dot": 1, "tag": Tag(self._config),
            }), name=f"s{stage}_late")
            m.d.sync += [
                late.valid.eq(valid), late.real.eq(real), late.dot.eq(dot), late.tag.eq(tag)
            ]
            if stage < self.LATENCY:
                valid, tag, real, dot = late.valid, late.tag, late.real, late.dot
        m.d.comb += [
            self.o.valid.eq(late.valid),
            *(self.o.payload[name].eq(late.tag[name]) for name in Tag(self._config).members),
        ]

        for kernel in range(self._config.drained):
            # Combined sums of every tile lane, s2, and what the rounders take, s2 + ``across``.
            re, im = [], []
            for tile in range(self._config.tile_lanes):
                acc, name = heads[tile * self._config.drained + kernel], f"{tile}_{kernel}"
                re.append(self._register(m, acc[0] - acc[2], f"s2_re{name}"))
                im.append(self._register(m, acc[0] + acc[1], f"s2_im{name}"))
            tree = re[:self._config.dot_lanes]
            for stage in range(3, 3 + across):
                half = len(tree) // 2
                tree = [
                    self._register(m, one + Mux(hows[stage - 2].spread, other, 0),
                                   f"s{stage}_tree{number}_{kernel}")
                    for number, (one, other) in enumerate(zip(tree, tree[half:], strict=False))
                ]
                re, im = (
                    [self._register(m, value, f"s{stage}_{part}{tile}_{kernel}")
                     for tile, value in enumerate(values)]
                    for part, values in (("re", re), ("im", im))
                )
            re[0] = tree[0]
            for tile, parts in enumerate(zip(re, im, strict=True)):
                name = f"{tile}_{kernel}"
                rounded = []
                for part, value in zip(("re", "im"), parts, strict=True):
                    rounder = Rounder(in_bits=len(value), sum_bits=self._config.sum_bits)
                    m.submodules[f"round_{part}{name}"] = rounder
                    m.d.comb += [
                        rounder.value.eq(value), rounder.shift.eq(hows[across + 1].shift),
                    ]
                    rounded.append(rounder.o)
                first, second = rounded
                last = Signal(Complex(self._config.sum_bits), name=f"s{self.LATENCY}_sum{name}",
                              reset_less=True)
                m.d.sync += [
                    last.re.eq(Mux(real & ~dot, second, first)),
                    last.im.eq(Mux(dot, 0, Mux(real, first, second))),
                ]
                m.d.comb += self.o.payload.sums[tile][kernel].eq(last)
        return m

    def _register(self, m: Module, value, name: str) -> Signal:
        """Register a combined sum; a bit more than an accumulator holds every sum of sums.

        `model.compile` refuses a layer whose accumulators could overflow, tile lanes together.
        """
        register = Signal(signed(self._config.acc_bits + 1), name=name, reset_less=True)
        m.d.sync += register.eq(value)
        return register

    def _sequence(self, m: Module):
        """Count the quads of the accumulators taken last; their tag with the quad's number."""
        sums = self.i.payload
        valid = Signal(name="s1_valid")
        how = Signal(
            data.StructLayout({"real": 1, "dot": 1, "spread": 1, "shift": 5}), name="s1_how",
            reset_less=True,
        )
        tag = Signal(Tag(self._config), name="s1_tag", reset_less=True)
        block_last = Signal(reset_less=True)
        ends = tag.quad == self.INTERVAL - 1
        with m.If(self.i.valid):
            m.d.sync += [
                valid.eq(1),
                how.real.eq(sums.real), how.dot.eq(sums.dot), how.spread.eq(sums.spread),
                how.shift.eq(sums.sum_shift),
                tag.frequency.eq(sums.frequency), tag.slot.eq(sums.slot), tag.quad.eq(0),
                tag.block_last.eq(sums.block_last & (self.INTERVAL == 1)),
                block_last.eq(sums.block_last),
            ]
        with m.Elif(valid):
            m.d.sync += [
                valid.eq(~ends), tag.quad.eq(tag.quad + 1),
                tag.block_last.eq(block_last & (tag.quad == self.INTERVAL - 2)),
            ]
        return valid, how, tag

    def _heads(self, m: Module):
        """Accumulators of the quad that leaves now, D kernels of each tile lane."""
        config = self._config
        lane = data.ArrayLayout(signed(config.acc_bits), 3)
        # Known before the accumulators come: it reaches all of them.
        turn = Signal(range(max(2, self.INTERVAL)))
        if self.INTERVAL > 1:
            with m.If(self.i.valid | (turn != 0)):
                m.d.sync += turn.eq(Mux(turn == self.INTERVAL - 1, 0, turn + 1))
        heads = []
        for tile in range(config.tile_lanes):
            for kernel in range(config.drained):
                lanes = Array(
                    self.i.acc[tile][number].as_value()
                    for number in range(kernel, config.kernel_lanes, config.drained)
                )
                head = Signal(lane, name=f"s1_acc{tile}_{kernel}", reset_less=True)
                m.d.sync += head.eq(lanes[turn])
                heads.append(head)
        return heads


def Tag(config: AcceleratorConfig) -> data.StructLayout:  # noqa: N802
    """Tag of a sum word: all of it but the sums."""
    members = SumWrite(config).members
    return data.StructLayout({name: shape for name, shape in members.items() if name != "sums"})
