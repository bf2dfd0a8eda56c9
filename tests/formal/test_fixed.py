"""Rounding and saturation, proved for the widths of the hardware."""

import pytest
from amaranth.hdl import Assert, Module, Signal, signed, unsigned

from rtl.fixed import round_shift, round_shift_dynamic, saturate
from tests.formal.helpers import assert_formal

pytestmark = pytest.mark.formal


def check_half_up(m, value, shift, result, room):
    """Assert ``result = floor(value / 2**shift + 1/2)``."""
    wide = signed(len(value) + room)
    scaled, nearest = Signal(wide), Signal(wide)
    m.d.comb += [
        scaled.eq(result << shift),
        nearest.eq(value + ((1 << shift) >> 1)),
        Assert(scaled <= nearest),
        Assert(nearest < scaled + (1 << shift)),
    ]


@pytest.mark.parametrize("shape,shift", [(signed(24), 2), (signed(34), 11), (signed(17), 1)])
def test_round_shift(shape, shift, tmp_path):
    m = Module()
    value = Signal(shape)
    check_half_up(m, value, shift, round_shift(value, shift), shift + 2)
    assert_formal(m, [value], tmp_path)


def test_round_shift_dynamic(tmp_path):
    m = Module()
    value, shift = Signal(signed(20)), Signal(4)
    result = Signal(signed(22))
    m.d.comb += result.eq(round_shift_dynamic(value, shift))
    check_half_up(m, value, shift, result, 20)
    assert_formal(m, [value, shift], tmp_path)


@pytest.mark.parametrize("shape,width,is_signed", [
    (signed(25), 24, True), (signed(34), 18, True), (signed(33), 8, False), (signed(19), 18, True),
    (unsigned(7), 8, True),
])
def test_saturate(shape, width, is_signed, tmp_path):
    m = Module()
    value = Signal(shape)
    result = Signal(signed(width) if is_signed else unsigned(width))
    limit = 1 << (width - is_signed)
    low = -limit if is_signed else 0
    m.d.comb += result.eq(saturate(value, width, is_signed))
    with m.If(value >= limit):
        m.d.comb += Assert(result == limit - 1)
    with m.Elif(value < low):
        m.d.comb += Assert(result == low)
    with m.Else():
        m.d.comb += Assert(result == value)
    assert_formal(m, [value], tmp_path)


def test_a_wrong_rounding_is_found(tmp_path):
    m = Module()
    value = Signal(signed(12))
    check_half_up(m, value, 3, (value >> 3), 5)
    with pytest.raises(AssertionError, match=r"^property fails \(exit 2\)"):
        assert_formal(m, [value], tmp_path)
