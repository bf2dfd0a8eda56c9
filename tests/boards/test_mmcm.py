"""Dividers within the limits of data sheet and user guide."""

import pytest

from boards.mmcm import Mmcm
from model.errors import UserError


@pytest.mark.parametrize("source, wanted, speed, dividers", [
    (100_000_000, 50_000_000, 1, (1, 12, 24)),
    (200_000_000, 100_000_000, 2, (1, 7, 14)),
    (200_000_000, 150_000_000, 2, (1, 6, 8)),
    # Without eighths; or with them where nothing else is exact.
    (100_000_000, 156_250_000, 1, (4, 25, 4)),
    (100_000_000, 148_500_000, 1, (5, 37.125, 5)),
    (100_000_000, 66_666_667, 1, (1, 12, 18)),
])
def test_dividers(source, wanted, speed, dividers):
    mmcm = Mmcm.find(source, wanted, speed=speed)
    assert (mmcm.reference, mmcm.feedback8 / 8, mmcm.divider8 / 8) == dividers
    assert abs(mmcm.output_hz - wanted) <= 1


@pytest.mark.parametrize("source", [12_000_000, 100_000_000, 200_000_000])
@pytest.mark.parametrize("speed, highest", [(1, 1200e6), (2, 1440e6), (3, 1600e6)])
def test_every_frequency_is_near_and_within_the_limits(source, speed, highest):
    for megahertz in (5, 7, 13, 48, 99, 123, 200, 250):
        mmcm = Mmcm.find(source, 1_000_000 * megahertz, speed=speed)
        assert abs(mmcm.output_hz / 1e6 / megahertz - 1) < 0.01
        assert 600e6 <= mmcm.vco_hz <= highest
        assert 10e6 <= source / mmcm.reference <= 450e6 and mmcm.reference <= 106
        assert 2 <= mmcm.feedback8 / 8 <= 64 and 2 <= mmcm.divider8 / 8 <= 128
        assert mmcm.output_hz == round(mmcm.vco_hz / (mmcm.divider8 / 8))


def test_out_of_range():
    with pytest.raises(UserError, match="clock must be 4.69 to 464 MHz, not 500 MHz"):
        Mmcm.find(100_000_000, 500_000_000)
    with pytest.raises(UserError, match="no MMCM setting makes 464 MHz of 10 MHz"):
        Mmcm.find(10_000_000, 464_000_000)
    with pytest.raises(ValueError, match="input_hz must be 10 to 800 MHz, not 1000000"):
        Mmcm.find(1_000_000, 50_000_000)
    with pytest.raises(ValueError, match="speed must be 1, 2 or 3, not 4"):
        Mmcm.find(100_000_000, 50_000_000, speed=4)
