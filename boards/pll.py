"""The PLL of an ECP5: dividers for a frequency, and the primitive.

Limits: Lattice, ECP5 and ECP5-5G Family Data Sheet (FPGA-DS-02012), table of the
sysCLOCK PLL timing: input 8 to 400 MHz, phase detector 3.125 to 400 MHz, VCO 400 to 800 MHz.
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Instance, Signal

from model.errors import UserError

__all__ = ["Pll"]

_INPUT = 8_000_000, 400_000_000
_DETECTOR = 3_125_000, 400_000_000
_VCO = 400_000_000, 800_000_000
_OUTPUT = 3_125_000, 400_000_000
_MOST = 128


@dataclass(frozen=True)
class Pll:
    """Dividers, with the output fed back: output = input · feedback / reference.

    Attributes
    ----------
    input_hz : int
        Frequency of the input.
    reference, feedback, output : int
        Dividers (CLKI_DIV, CLKFB_DIV, CLKOP_DIV).
    """

    input_hz: int
    reference: int
    feedback: int
    output: int

    @property
    def output_hz(self) -> int:
        """Frequency of the output, rounded to Hz."""
        return round(self.input_hz * self.feedback / self.reference)

    @property
    def vco_hz(self) -> float:
        """Frequency of the oscillator."""
        return self.input_hz * self.feedback / self.reference * self.output

    @classmethod
    def find(cls, input_hz: int, wanted_hz: int) -> Pll:
        """Dividers for the output nearest to ``wanted_hz``, by preference a VCO near 600 MHz."""
        if not _INPUT[0] <= input_hz <= _INPUT[1]:
            raise ValueError(f"input_hz must be 8 to 400 MHz, not {input_hz!r}")
        if not _OUTPUT[0] <= wanted_hz <= _OUTPUT[1]:
            raise UserError(f"the clock must be 3.125 to 400 MHz, not {wanted_hz / 1e6:g} MHz")
        found = []
        for reference in range(1, _MOST + 1):
            if not _DETECTOR[0] <= input_hz / reference <= _DETECTOR[1]:
                continue
            feedback = min(max(1, round(wanted_hz * reference / input_hz)), _MOST)
            hz = input_hz * feedback / reference
            output = min(max(1, round(600e6 / hz)), _MOST)
            pll = cls(input_hz, reference, feedback, output)
            if _VCO[0] <= pll.vco_hz <= _VCO[1]:
                found.append((abs(hz - wanted_hz), reference, pll))
        if not found:
            raise UserError(f"no PLL setting makes {wanted_hz / 1e6:g} MHz of "
                            f"{input_hz / 1e6:g} MHz")
        return min(found, key=lambda item: item[:2])[2]

    def circuit(self, clock: Signal, out: Signal, locked: Signal) -> Instance:
        """EHXPLLL with its output ``out`` fed back; ``clock`` is its input."""
        return Instance(
            "EHXPLLL",
            a_FREQUENCY_PIN_CLKI=f"{self.input_hz / 1e6:g}",
            a_FREQUENCY_PIN_CLKOP=f"{self.output_hz / 1e6:g}",
            # Loop filter: what Project Trellis' ecppll sets for any frequency.
            a_ICP_CURRENT="12", a_LPF_RESISTOR="8",
            a_MFG_ENABLE_FILTEROPAMP="1", a_MFG_GMCREF_SEL="2",
            p_PLLRST_ENA="DISABLED", p_INTFB_WAKE="DISABLED", p_STDBY_ENABLE="DISABLED",
            p_DPHASE_SOURCE="DISABLED",
            p_CLKI_DIV=self.reference, p_CLKFB_DIV=self.feedback, p_FEEDBK_PATH="CLKOP",
            p_CLKOP_ENABLE="ENABLED", p_CLKOP_DIV=self.output, p_CLKOP_CPHASE=self.output // 2 - 1
            if self.output > 1 else 0, p_CLKOP_FPHASE=0,
            i_CLKI=clock, i_CLKFB=out, o_CLKOP=out, o_LOCK=locked,
            i_RST=0, i_STDBY=0, i_PHASESEL0=0, i_PHASESEL1=0, i_PHASEDIR=1, i_PHASESTEP=1,
            i_PHASELOADREG=1, i_PLLWAKESYNC=0, i_ENCLKOP=0,
        )
