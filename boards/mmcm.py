"""The clock manager of the 7 series: dividers for a frequency, and the primitives.

Limits: AMD DS181 (Artix-7) and DS182 (Kintex-7), tables "MMCM Specification"; dividers: UG472,
7 Series FPGAs Clocking Resources, "MMCM Attributes". The lowest of both families and of all speed
grades (the output: of the global buffers), but for the oscillator, whose limit depends on the speed
grade.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor

from amaranth.hdl import Instance, Module, Signal

from model.errors import UserError

__all__ = ["Mmcm"]

_INPUT = 10_000_000, 800_000_000
_DETECTOR = 10_000_000, 450_000_000
#: Of speed grades 1 (and 1L), 2 and 3.
_VCO_LOWEST = 600_000_000
_VCO_HIGHEST = {1: 1_200_000_000, 2: 1_440_000_000, 3: 1_600_000_000}
_OUTPUT = 4_690_000, 464_000_000
_MOST_REFERENCE = 106
#: Feedback and first output divide by eighths; in eighths: 2 to 64, and 2 to 128.
_FEEDBACK = 16, 512
_DIVIDER = 16, 1024


@dataclass(frozen=True)
class Mmcm:
    """Dividers: VCO = input / reference · feedback, output = VCO / divider.

    Attributes
    ----------
    input_hz : int
        Frequency of the input.
    reference : int
        DIVCLK_DIVIDE.
    feedback8, divider8 : int
        Eighths: CLKFBOUT_MULT_F and CLKOUT0_DIVIDE_F.
    """

    input_hz: int
    reference: int
    feedback8: int
    divider8: int

    @property
    def output_hz(self) -> int:
        """Frequency of the output, rounded to Hz."""
        return round(self.input_hz * self.feedback8 / (self.reference * self.divider8))

    @property
    def vco_hz(self) -> float:
        """Frequency of the oscillator."""
        return self.input_hz * self.feedback8 / (8 * self.reference)

    @classmethod
    def find(cls, input_hz: int, wanted_hz: int, *, speed: int = 1) -> Mmcm:
        """Dividers for the output nearest to ``wanted_hz``.

        Of equally near ones those without eighths, then the fastest phase detector and
        oscillator: the least jitter (UG472). ``speed`` is the speed grade, 1 to 3.
        """
        if speed not in _VCO_HIGHEST:
            raise ValueError(f"speed must be 1, 2 or 3, not {speed!r}")
        if not _INPUT[0] <= input_hz <= _INPUT[1]:
            raise ValueError(f"input_hz must be 10 to 800 MHz, not {input_hz!r}")
        if not _OUTPUT[0] <= wanted_hz <= _OUTPUT[1]:
            raise UserError(f"the clock must be 4.69 to 464 MHz, not {wanted_hz / 1e6:g} MHz")

        def rank(mmcm: Mmcm) -> tuple:
            error = abs(mmcm.input_hz * mmcm.feedback8 / (mmcm.reference * mmcm.divider8)
                        - wanted_hz)
            eighths = bool(mmcm.feedback8 % 8) + bool(mmcm.divider8 % 8)
            return round(error, 3), eighths, mmcm.reference, -mmcm.vco_hz

        found = list(cls._candidates(input_hz, wanted_hz, _VCO_HIGHEST[speed]))
        if not found:
            raise UserError(f"no MMCM setting makes {wanted_hz / 1e6:g} MHz of "
                            f"{input_hz / 1e6:g} MHz")
        return min(found, key=rank)

    @classmethod
    def _candidates(cls, input_hz: int, wanted_hz: int, highest: int) -> Iterator[Mmcm]:
        for reference in range(1, _MOST_REFERENCE + 1):
            detector = input_hz / reference
            if not _DETECTOR[0] <= detector <= _DETECTOR[1]:
                continue
            least = max(_FEEDBACK[0], ceil(8 * _VCO_LOWEST / detector))
            for feedback8 in range(least, min(_FEEDBACK[1], floor(8 * highest / detector)) + 1):
                divider8 = round(detector * feedback8 / wanted_hz)
                if _DIVIDER[0] <= divider8 <= _DIVIDER[1]:
                    yield cls(input_hz, reference, feedback8, divider8)

    def circuit(self, clock: Signal, out: Signal, locked: Signal) -> Module:
        """MMCME2_BASE, fed back to itself, and a global buffer to ``out``."""
        m = Module()
        feedback, output = Signal(), Signal()
        m.submodules.mmcm = Instance(
            "MMCME2_BASE", p_BANDWIDTH="OPTIMIZED", p_STARTUP_WAIT="FALSE",
            p_CLKIN1_PERIOD=1e9 / self.input_hz, p_DIVCLK_DIVIDE=self.reference,
            p_CLKFBOUT_MULT_F=self.feedback8 / 8, p_CLKOUT0_DIVIDE_F=self.divider8 / 8,
            i_CLKIN1=clock, i_CLKFBIN=feedback, o_CLKFBOUT=feedback, o_CLKOUT0=output,
            o_LOCKED=locked, i_RST=0, i_PWRDWN=0,
        )
        m.submodules.buffer = Instance("BUFG", i_I=output, o_O=out)
        return m
