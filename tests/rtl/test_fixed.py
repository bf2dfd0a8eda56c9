"""rtl.fixed against model.fixed, exhaustive over small widths."""

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, Value, signed, unsigned
from amaranth.sim import Simulator

from model import fixed as model
from rtl import fixed

SHAPES = [signed(1), signed(2), signed(5), signed(7), unsigned(1), unsigned(4), unsigned(6)]


def sweep(shape, functions):
    """Values of every expression ``functions[n](input)`` for every input, [n, input]."""
    m = Module()
    value = Signal(shape)
    outs = []
    for n, function in enumerate(functions):
        result = Value.cast(function(value))
        out = Signal(result.shape(), name=f"out_{n}")
        m.d.comb += out.eq(result)
        outs.append(out)
    low, high = model.int_range(shape.width, shape.signed)
    got = []

    async def testbench(ctx):
        for item in range(low, high + 1):
            ctx.set(value, item)
            await ctx.delay(1e-9)
            got.append([ctx.get(out) for out in outs])

    simulator = Simulator(m)
    simulator.add_testbench(testbench)
    simulator.run()
    return np.arange(low, high + 1), np.array(got).T


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_round_shift(shape):
    shifts = range(10)
    items, got = sweep(shape, [lambda v, s=s: fixed.round_shift(v, s) for s in shifts])
    for shift in shifts:
        assert np.array_equal(got[shift], model.round_shift(items, shift)), f"shift {shift}"


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_round_shift_dynamic(shape):
    def at(shift, bits):
        return lambda v: fixed.round_shift_dynamic(v, Signal(bits, init=shift, name=f"s{shift}"))

    shifts = range(16)
    items, got = sweep(shape, [at(shift, 4) for shift in shifts])
    for shift in shifts:
        assert np.array_equal(got[shift], model.round_shift(items, shift)), f"shift {shift}"


@pytest.mark.parametrize("is_signed", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_saturate(shape, is_signed):
    widths = range(1, 10)
    items, got = sweep(shape, [lambda v, w=w: fixed.saturate(v, w, is_signed) for w in widths])
    for width, result in zip(widths, got, strict=True):
        assert np.array_equal(result, model.saturate(items, width, is_signed)), f"width {width}"


def test_results_are_as_narrow_as_promised():
    assert fixed.round_shift(Signal(signed(10)), 3).shape() == signed(8)
    assert fixed.round_shift_dynamic(Signal(signed(10)), Signal(4)).shape() == signed(11)
    assert fixed.saturate(Signal(signed(10)), 7).shape() == signed(7)
    assert fixed.saturate(Signal(signed(10)), 7, is_signed=False).shape() == unsigned(7)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"^shift must be non-negative, not -1$"):
        fixed.round_shift(Signal(4), -1)
    with pytest.raises(ValueError, match=r"^width must be a positive integer, not 0$"):
        fixed.saturate(Signal(4), 0)
