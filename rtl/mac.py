"""Multiply-accumulate array: every tile lane times every kernel lane, three products a lane.

A lane multiplies the word x that its kernel's select picks out of its tile's r banks by the
weight w, in Gauss' form:

    a1 += wr·(xr + xi)        a2 += (wi - wr)·xr        a3 += (wr + wi)·xi

so that x·w = (a1 - a3) + j(a1 + a2). The weight's sums are formed once per kernel lane. For a real
word (two independent reals) the factors are 0, wr and -wi, so that the same two sums are wi·xi
and wr·xr. For a dot layer w is conjugated: a1 - a3 = wr·xr + wi·xi. `rtl.drain` forms the sums.

With ``spread`` (dot layers, ``dot_lanes`` > 1) a kernel's select names a word of one tile lane, and
its lanes of the others take zeros; `rtl.drain` adds the sums of the tile lanes.

An idle cycle and a disabled lane are steps with a zero weight, which needs no clock enable.

The drain takes the sums of D = ``drained`` kernels of every tile lane per cycle. D kernel lanes at
a time work a cycle behind those before them, so that their sums are complete when it is their turn:
no copy of all sums is kept, and a register of a tile's words drives D lanes, not all of them.

With ``window`` > 1 a lane has not one accumulator of each but a file of them, with a place for
every frequency; the words of a step may then be of different frequencies.
Operands have at most 17 bits, so each product is one 18 x 18 multiplier.

Source: K. F. Gauss' three-multiplication complex product; lanes and selects as in FPGA 2020,
"Reuse Kernels or Activations?".
"""

from __future__ import annotations

import functools
import operator

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from rtl.ecp5 import Accumulate, is_ecp5, multiplier
from rtl.places import Places
from rtl.signatures import Complex, Event, LaneSums, Step, SumsTag

__all__ = ["TILE_LATENCY", "Mac", "MacLane", "MacArray"]

#: Cycles from `MacArray.tile_en` to the data at `MacArray.tile_data` (RAM, output register).
TILE_LATENCY = 2


class Mac(wiring.Component):
    """One multiplier with registers before and behind, and an accumulator or a file of them.

    The only place of the accelerator's lanes with a ``*``: replace this class to use a vendor's
    primitive. The registers are where multipliers of all vendors have some of their own. The
    product of the operands is added ``PRODUCT_LATENCY`` cycles later; ``first``, given in the cycle
    of the addition, loads instead of adding.

    Parameters
    ----------
    a_bits, b_bits : int
        Width of the signed operands.
    acc_bits : int
        Width of the accumulator, which wraps.
    window : int
        Accumulators. A file of several is a RAM with asynchronous read (distributed RAM), so that
        a place may be added to in every cycle.

    Attributes
    ----------
    a, b : In(signed(a_bits)), In(signed(b_bits))
        Operands; zero to add nothing.
    first : In(1)
        Start a new sum, aligned with the product (two cycles after its operands).
    acc : Out(signed(acc_bits))
        Sum including the operands of ``LATENCY`` cycles ago.
    place, out_place : In(range(window)), only with a window
        Accumulator to add to, aligned with ``first``; the one ``acc`` shows now.
    """

    PRODUCT_LATENCY = 2
    LATENCY = 3

    def __init__(self, *, a_bits: int, b_bits: int, acc_bits: int, window: int = 1) -> None:
        for name, bits in (("a_bits", a_bits), ("b_bits", b_bits)):
            if not 2 <= bits <= 18:
                raise ValueError(f"{name} must be 2 to 18 (one multiplier), not {bits!r}")
        self._product_bits, self._window = a_bits + b_bits, window
        super().__init__({
            "a": In(signed(a_bits)), "b": In(signed(b_bits)), "first": In(1),
            "acc": Out(signed(acc_bits)), **_places(window),
        })

    def elaborate(self, platform) -> Module:
        """Stage s1 holds the operands, s2 the product; then one adder."""
        m = Module()
        product = Signal(signed(self._product_bits), name="s2_product", reset_less=True)
        if is_ecp5(platform):
            m.submodules.multiplier = multiplier(self.a, self.b, product)
        else:
            s1_a = Signal(self.a.shape(), reset_less=True)
            s1_b = Signal(self.b.shape(), reset_less=True)
            m.d.sync += [s1_a.eq(self.a), s1_b.eq(self.b), product.eq(s1_a * s1_b)]
        if self._window == 1:
            total = Signal(self.acc.shape(), name="total", reset_less=True)
            m.d.comb += self.acc.eq(total)
            if is_ecp5(platform):
                m.submodules.sum = adder = Accumulate(width=len(total))
                m.d.comb += [adder.a.eq(product), adder.b.eq(total), adder.first.eq(self.first)]
                m.d.sync += total.eq(adder.o)
            else:
                m.d.sync += total.eq(Mux(self.first, 0, total) + product)
            return m
        m.submodules.file = file = memory.Memory(
            shape=self.acc.shape(), depth=self._window, init=[]
        )
        write, read, out = (
            file.write_port(), file.read_port(domain="comb"), file.read_port(domain="comb")
        )
        m.d.comb += [
            read.addr.eq(self.place), write.addr.eq(self.place), write.en.eq(1),
            write.data.eq(Mux(self.first, 0, read.data) + product),
            out.addr.eq(self.out_place), self.acc.eq(out.data),
        ]
        return m


def _places(window: int) -> dict:
    """Members of a component with a file of accumulators."""
    if window == 1:
        return {}
    return {"place": In(range(window)), "out_place": In(range(window))}


class MacLane(wiring.Component):
    """One complex lane: bank multiplexer, word register, pre-add, three `Mac`.

    Parameters
    ----------
    banks, word_bits, weight_bits, acc_bits, window : int
        As in `model.config.AcceleratorConfig`.

    Attributes
    ----------
    words : In(ArrayLayout(Complex(word_bits), banks))
        Data of the lane's tile.
    select : In(banks)
        Bank to take, one-hot, in the cycle of ``words``. AND-OR with a decoded select is smaller
        and shallower than a tree of multiplexers.
    factors : In({c1, c2, c3})
        wr, wi - wr and wr + wi, `FACTOR_LATENCY` cycles after ``words``; all zero if idle.
    first : In(1)
        Start a new sum, two cycles after ``factors``.
    acc : Out(ArrayLayout(signed(acc_bits), 3))
        a1, a2, a3, ``LATENCY`` cycles after ``words``.
    place, out_place : In(range(window)), only with a window
        Of the three `Mac`; ``place`` with ``first``.
    """

    FACTOR_LATENCY = 1
    LATENCY = FACTOR_LATENCY + Mac.LATENCY

    def __init__(self, *, banks: int, word_bits: int, weight_bits: int, acc_bits: int,
                 window: int = 1) -> None:
        self._word_bits, self._acc_bits, self._window = word_bits, acc_bits, window
        self._factor_bits = [weight_bits, weight_bits + 1, weight_bits + 1]
        super().__init__({
            "words": In(data.ArrayLayout(Complex(word_bits), banks)),
            "select": In(banks),
            "factors": In(Factors(weight_bits)),
            "first": In(1),
            "acc": Out(data.ArrayLayout(signed(acc_bits), 3)), **_places(window),
        })

    def elaborate(self, platform) -> Module:
        """Stage s1 holds the chosen word; the operands of the products follow in `Mac`."""
        m = Module()
        s1_x = Signal(Complex(self._word_bits), reset_less=True)
        m.d.sync += s1_x.eq(functools.reduce(operator.or_, (
            bank.as_value() & chosen.replicate(2 * self._word_bits)
            for bank, chosen in zip(self.words, self.select, strict=True)
        )))
        operands = (
            (self.factors.c1, s1_x.re + s1_x.im), (self.factors.c2, s1_x.re),
            (self.factors.c3, s1_x.im),
        )
        for index, (factor, x) in enumerate(operands):
            mac = Mac(a_bits=len(factor), b_bits=len(x), acc_bits=self._acc_bits,
                      window=self._window)
            m.submodules[f"mac{index + 1}"] = mac
            m.d.comb += [
                mac.a.eq(factor), mac.b.eq(x), mac.first.eq(self.first),
                self.acc[index].eq(mac.acc),
                *(getattr(mac, name).eq(getattr(self, name)) for name in _places(self._window)),
            ]
        return m


def Factors(weight_bits: int) -> data.StructLayout:  # noqa: N802
    """Three factors that stand for a weight: wr, wi - wr and wr + wi of a complex word."""
    return data.StructLayout({
        "c1": signed(weight_bits), "c2": signed(weight_bits + 1), "c3": signed(weight_bits + 1),
    })


class MacArray(wiring.Component):
    """``tile_lanes`` x ``kernel_lanes`` complex lanes, their delays and the way to the drain.

    Takes a step every cycle. Words are broadcast along the kernel lanes and weights along the
    tile lanes.

    Parameters
    ----------
    config : AcceleratorConfig
        Lanes and widths.

    Attributes
    ----------
    i : In(Event(Step(config)))
        Steps; ``first`` opens and ``last`` completes the sums of a frequency, if there is no
        window.
    read_out : In(Event(SumsTag)), only with a window
        A place of the accumulator files to hand on, as it is before the step of this cycle
        (`rtl.readout`).
    tile_en : Out(1)
        Read enable of the tile buffer, in the cycle of the step.
    tile_addr : Out(ArrayLayout(range(tile_depth), banks))
        Address of each bank, the same for all tile lanes.
    tile_data : In(ArrayLayout(ArrayLayout(Complex(word_bits), banks), tile_lanes))
        Words read, `TILE_LATENCY` cycles after ``tile_en``.
    o : Out(LaneSums(config))
        Accumulators, valid for one cycle, ``LATENCY`` cycles after a step with ``last``, or
        ``LATENCY`` - 1 after ``read_out``; those of kernels D·q to D·q + D - 1 q cycles later.
    """

    LATENCY = TILE_LATENCY + MacLane.LATENCY

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        word = Complex(config.word_bits)
        super().__init__({
            "i": In(Event(Step(config))),
            "tile_en": Out(1),
            "tile_addr": Out(data.ArrayLayout(range(config.tile_depth), config.banks)),
            "tile_data": In(data.ArrayLayout(
                data.ArrayLayout(word, config.banks), config.tile_lanes
            )),
            "o": Out(LaneSums(config)),
            **({"read_out": In(Event(SumsTag))} if config.window > 1 else {}),
        })

    def elaborate(self, platform) -> Module:
        """Delay the step's parts to the stage that needs them; s0 is the step's cycle."""
        m = Module()
        config, step = self._config, self.i.payload
        m.d.comb += [self.tile_en.eq(self.i.valid), self.tile_addr.eq(step.addr)]

        selects = self._selects(m)
        cycles = TILE_LATENCY + MacLane.FACTOR_LATENCY
        kinds = self._kinds(m, cycles)
        factors = [self._factors(m, lane, kind, cycles) for lane, kind in enumerate(kinds)]
        words = [
            self._each(m, self.tile_data[tile], f"words{tile}") for tile in range(config.tile_lanes)
        ]
        windowed = config.window > 1
        if windowed:
            firsts, empties, places, out_places = self._files(m)
        else:
            first = self._delay(m, step.first & self.i.valid, self.LATENCY - 1, "first")
            firsts = self._each(m, first, "first")

        for tile in range(config.tile_lanes):
            for kernel in range(config.kernel_lanes):
                lane = MacLane(
                    banks=config.banks, word_bits=config.word_bits,
                    weight_bits=config.weight_bits, acc_bits=config.acc_bits,
                    window=config.window,
                )
                m.submodules[f"lane{tile}_{kernel}"] = lane
                m.d.comb += [
                    lane.words.eq(words[tile][kernel]),
                    lane.select.eq(selects[min(tile, config.dot_lanes - 1)][kernel]),
                    lane.factors.eq(factors[kernel]),
                    lane.first.eq(firsts[kernel]),
                ]
                if windowed:
                    m.d.comb += [
                        lane.place.eq(places[kernel]), lane.out_place.eq(out_places[kernel]),
                        self.o.acc[tile][kernel].eq(Mux(empties[kernel], 0, lane.acc.as_value())),
                    ]
                else:
                    m.d.comb += self.o.acc[tile][kernel].eq(lane.acc)

        if windowed:
            return m
        last = self._delay(m, step.last & self.i.valid, self.LATENCY, "last", reset_less=False)
        m.d.comb += self.o.valid.eq(last)
        for name in ("real", "dot", "spread", "sum_shift", "frequency", "slot", "block_last"):
            m.d.comb += self.o.payload[name].eq(self._delay(m, step[name], self.LATENCY, name))
        return m

    @staticmethod
    def _delay(m: Module, value, cycles: int, name: str, start: int = 0, reset_less: bool = True):
        """Register ``value``, at hand in stage ``start``, ``cycles`` times."""
        for stage in range(start + 1, start + cycles + 1):
            delayed = Signal(value.shape(), name=f"s{stage}_{name}", reset_less=reset_less)
            m.d.sync += delayed.eq(value)
            value = delayed
        return value

    def _each(self, m: Module, value, name: str) -> list:
        """``value`` for every kernel lane, a cycle later for each D lanes."""
        drained, taps = self._config.drained, [value]
        for quad in range(1, self._config.kernel_lanes // drained):
            taps.append(self._delay(m, taps[-1], 1, f"quad{quad}_{name}"))
        return [taps[lane // drained] for lane in range(self._config.kernel_lanes)]

    def _late(self, lane: int) -> int:
        """Cycles that a kernel lane is behind the first ones."""
        return lane // self._config.drained

    def _files(self, m: Module):
        """First use, emptiness, place and place read out of every kernel lane."""
        step, read_out = self.i.payload, self.read_out
        m.submodules.places = places = Places(self._config)
        m.d.comb += [
            places.valid.eq(self.i.valid), places.place.eq(step.place),
            places.read_out.valid.eq(read_out.valid), places.read_out.payload.eq(read_out.payload),
        ]
        cycles, rest = self.LATENCY - 1, self.LATENCY - 1 - Places.LATENCY
        tag = self._delay(m, read_out.payload, cycles, "tag")
        m.d.comb += [
            self.o.valid.eq(self._delay(m, read_out.valid, cycles, "read_out", reset_less=False)),
            self.o.payload.eq(tag),
        ]
        parts = [
            [self._delay(m, value[lane], stages + self._late(lane), f"{name}{lane}", start=start)
             for lane in range(self._config.kernel_lanes)]
            for name, value, stages, start in (
                ("first", places.first, rest, Places.LATENCY),
                ("empty", places.empty, rest, Places.LATENCY),
                ("place", step.place, cycles, 0),
            )
        ]
        return *parts, self._each(m, tag.frequency, "out_place")

    def _kinds(self, m: Module, cycles: int) -> list:
        """Kind of each kernel lane's word, one cycle before its factors are formed."""
        step, lanes = self.i.payload, self._config.kernel_lanes
        shape = data.StructLayout({"real": 1, "negate": 1})
        if self._config.window == 1:
            kind = Signal(shape, reset_less=True)
            m.d.sync += [kind.real.eq(step.real & ~step.dot), kind.negate.eq(step.real)]
            return self._each(m, self._delay(m, kind, cycles - 2, "kind", start=1), "kind")
        kinds = []
        for lane in range(lanes):
            kind = Signal(shape, name=f"kind{lane}", reset_less=True)
            place = step.place[lane]
            real = (place[:2] == 0) & (place < 8)
            m.d.sync += [kind.real.eq(real & ~step.dot), kind.negate.eq(real | step.dot)]
            kinds.append(
                self._delay(m, kind, cycles - 2 + self._late(lane), f"kind{lane}", start=1)
            )
        return kinds

    def _selects(self, m: Module) -> list:
        """Decode each kernel lane's select in the last cycle of the tile buffer's read.

        For each of the ``dot_lanes`` first tile lanes; what the others sum up of a dot layer's
        words is used by nobody.
        """
        config, step = self._config, self.i.payload

        def early(value, lane, name):
            return self._delay(m, value, TILE_LATENCY - 1 + self._late(lane), f"{name}{lane}")

        selects = [
            Signal(
                data.ArrayLayout(config.banks, config.kernel_lanes),
                name=f"s{TILE_LATENCY}_onehot{tile}", reset_less=True,
            ) for tile in range(config.dot_lanes)
        ]
        for lane in range(config.kernel_lanes):
            select = early(step.select[lane], lane, "select")
            bits = Cat(select == bank for bank in range(config.banks))
            if config.spread:
                tile_lane = early(step.lane[lane], lane, "lane")
                everywhere = early(~step.spread, lane, "everywhere")
            for tile, onehot in enumerate(selects):
                here = everywhere | (tile_lane == tile) if config.spread else Const(1)
                m.d.sync += onehot[lane].eq(bits & here.replicate(config.banks))
        return selects

    def _factors(self, m: Module, lane: int, kind, cycles: int):
        """Zero the weight of a disabled lane; in the last of ``cycles`` form its factors."""
        step = self.i.payload
        weight = Signal(Complex(self._config.weight_bits), name=f"s1_weight{lane}", reset_less=True)
        m.d.sync += weight.eq(
            Mux(self.i.valid & step.enable[lane], step.weight[lane].as_value(), 0)
        )
        weight = self._delay(
            m, weight, cycles - 2 + self._late(lane), f"weight{lane}", start=1
        )
        factors = Signal(
            Factors(self._config.weight_bits), name=f"s{cycles}_factors{lane}", reset_less=True
        )
        m.d.sync += [
            factors.c1.eq(Mux(kind.real, 0, weight.re)),
            factors.c2.eq(Mux(kind.real, weight.re, weight.im - weight.re)),
            factors.c3.eq(
                Mux(kind.real, 0, weight.re) + Mux(kind.negate, -weight.im, weight.im)
            ),
        ]
        return factors
