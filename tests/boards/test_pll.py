"""Dividers within the limits of the data sheet."""

import pytest

from boards.pll import Pll
from model.errors import UserError


@pytest.mark.parametrize("source, wanted, dividers", [
    # The first two as Project Trellis' ecppll chooses them.
    (25_000_000, 50_000_000, (1, 2, 12)),
    (48_000_000, 60_000_000, (4, 5, 10)),
    (100_000_000, 50_000_000, (2, 1, 12)),
])
def test_dividers(source, wanted, dividers):
    pll = Pll.find(source, wanted)
    assert (pll.reference, pll.feedback, pll.output) == dividers
    assert pll.output_hz == wanted


@pytest.mark.parametrize("source", [12_000_000, 25_000_000, 48_000_000, 100_000_000])
def test_every_megahertz_is_near_and_within_the_limits(source):
    for megahertz in range(10, 201):
        pll = Pll.find(source, 1_000_000 * megahertz)
        # The phase detector wants 3.125 MHz at least: so coarse are the steps.
        assert abs(pll.output_hz / 1e6 - megahertz) <= 2.1
        assert 400e6 <= pll.vco_hz <= 800e6
        assert source / pll.reference >= 3.125e6
        assert max(pll.reference, pll.feedback, pll.output) <= 128


def test_out_of_range():
    with pytest.raises(UserError, match="clock must be 3.125 to 400 MHz, not 500 MHz"):
        Pll.find(25_000_000, 500_000_000)
    with pytest.raises(ValueError, match="input_hz must be 8 to 400 MHz, not 1000000"):
        Pll.find(1_000_000, 50_000_000)
