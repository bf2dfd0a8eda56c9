# amaranth: UnusedElaboratable=no
"""The parts of the transforms against the parts of model.fft; the integer units bit for bit."""

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, signed

from model import fft
from rtl.fft.complex8 import ColumnTransform
from rtl.fft.pipeline import DelayLine, add_rounded, sqrt_half, sub_rounded
from rtl.fft.real8 import InverseRow, RowTransform
from rtl.fft.transposer import Transposer
from rtl.signatures import Complex
from tests.rtl.helpers import pack, raw, simulate, unpack


def stream(dut, i, o, items, latency):
    """Set ``i`` to one item per cycle; return the packed ``o`` of ``latency`` cycles later."""
    got = []

    async def testbench(ctx):
        for item in [*items, *[items[-1]] * latency]:
            ctx.set(raw(i), item)
            got.append(ctx.get(raw(o)))
            await ctx.tick()

    simulate(dut, testbench)
    return got[latency:]


def values(rng, width, shape):
    """Random values with as many extreme ones."""
    low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
    extreme = rng.choice([low, high, 0, -1], shape)
    return np.where(rng.random(shape) < 0.5, extreme, rng.integers(low, high + 1, shape))


def complexes(rows):
    return [[{"re": re, "im": im} for re, im in row] for row in rows.tolist()]


def transform(dut, items):
    i, o = dut.i.shape(), dut.o.shape()
    got = stream(dut, dut.i, dut.o, [pack(i, item) for item in items], dut.LATENCY)
    return [unpack(o, bits) for bits in got]


def test_sqrt_half_with_its_rounding_adders():
    """Exhaustive over 12-bit operands."""
    m = Module()
    value, other = Signal(signed(12)), Signal(signed(12))
    total, difference = Signal(signed(16)), Signal(signed(16))
    product = sqrt_half(m, value, "p")
    m.d.comb += [
        total.eq(add_rounded(other, product)), difference.eq(sub_rounded(other, product))
    ]
    operands = np.arange(-2048, 2048)
    got = []

    async def testbench(ctx):
        for n in [*operands.tolist(), 0, 0]:
            ctx.set(value, n)
            ctx.set(other, 700)
            got.append((ctx.get(total), ctx.get(difference)))
            await ctx.tick()

    simulate(m, testbench)
    expected = fft.sqrt_half(operands)
    assert np.array_equal(np.array(got)[2:], np.stack([700 + expected, 700 - expected], axis=1))


@pytest.mark.parametrize("width", [4, 9])
def test_row(width):
    rows = values(np.random.default_rng(1), width, (300, 8))
    expected = np.array(fft._rows(list(2 * rows.T))).transpose(2, 0, 1)
    got = [
        [[w.re, w.im] for w in word] for word in transform(RowTransform(width=width), rows.tolist())
    ]
    assert got == expected.tolist()


@pytest.mark.parametrize("width,inverse", [(6, False), (13, False), (19, True)])
def test_column(width, inverse):
    columns = values(np.random.default_rng(2), width, (300, 8, 2))
    expected = fft._columns([tuple(columns[:, k].T) for k in range(8)], inverse)
    dut = ColumnTransform(width=width, inverse=inverse)
    got = [[[w.re, w.im] for w in word] for word in transform(dut, complexes(columns))]
    assert got == np.array(expected).transpose(2, 0, 1).tolist()


def test_inverse_row():
    # Three quarters of full scale: what a column of 18-bit words can reach is 0.61 of 22 bits.
    bins = np.fix(values(np.random.default_rng(3), 22, (300, 4, 2)) * 0.61).astype(int)
    expected = np.array(fft._inverse_row([tuple(bins[:, k].T) for k in range(4)])).T
    assert [list(row) for row in transform(InverseRow(width=22), complexes(bins))] == (
        expected.tolist()
    )


@pytest.mark.parametrize("size,hold", [(4, 1), (4, 2), (2, 1), (2, 4)])
def test_transposer(size, hold):
    rng = np.random.default_rng(hold)
    dut = Transposer(8, size=size, hold=hold)
    blocks = rng.integers(0, 256, (40, size, hold, size)).tolist()
    plan, starts = [], []
    for block in blocks:
        plan += [(0, [0xEE] * size)] * int(rng.choice([0, 0, 1, 2, 3, 5, 9]))
        starts.append(len(plan))
        plan += [(t, block[t][k]) for t in range(size) for k in range(hold)]
    got = []

    async def testbench(ctx):
        for phase, words in plan + [(0, [0xEE] * size)] * dut.latency:
            ctx.set(dut.phase, phase)
            ctx.set(dut.i, words)
            got.append(list(ctx.get(dut.o)))
            await ctx.tick()

    simulate(dut, testbench)
    for start, block in zip(starts, blocks, strict=True):
        start += dut.latency
        expected = [
            [block[lane][k][t] for lane in range(size)] for t in range(size) for k in range(hold)
        ]
        assert got[start : start + size * hold] == expected


@pytest.mark.parametrize("cycles", [2, 13, 17, 19])
def test_delay_line(cycles):
    items = np.random.default_rng(cycles).integers(0, 2**16, 80).tolist()
    dut = DelayLine(Complex(8), cycles=cycles)
    assert stream(dut, dut.i, dut.o, items, cycles) == items


def test_delay_line_clear():
    dut = DelayLine(signed(8), cycles=5)
    got = []

    async def testbench(ctx):
        ctx.set(dut.i, -3)
        for cycle in range(30):
            ctx.set(dut.clear, cycle % 3 == 0)
            got.append(ctx.get(dut.o))
            await ctx.tick()

    simulate(dut, testbench)
    assert got[20:] == [0 if (cycle - 1) % 3 == 0 else -3 for cycle in range(20, 30)]


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"^cycles must be an integer of at least 2, not 1$"):
        DelayLine(signed(8), cycles=1)
    with pytest.raises(ValueError, match=r"^hold must be 1, 2 or 4, not 3$"):
        Transposer(8, hold=3)
    with pytest.raises(ValueError, match=r"^size must be 1, 2 or 4, not 8$"):
        Transposer(8, size=8)
