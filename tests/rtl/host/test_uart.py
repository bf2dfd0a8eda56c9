# amaranth: UnusedElaboratable=no
"""UART against a model of the line, with a clock that is off, glitches and breaks."""

import random

import pytest

from rtl.host.uart import UartReceiver, UartTransmitter
from tests.rtl.helpers import idle, simulate, source


def levels(byte, cycles, stop=1):
    """Line levels of a byte, ``cycles`` (a float) per bit; the rest of a cycle is not carried."""
    bits = [0, *(byte >> bit & 1 for bit in range(8)), stop]
    return [bits[min(int(at / cycles), 9)] for at in range(round(10 * cycles))]


def receive(line, divisor):
    dut, got = UartReceiver(divisor=divisor), []

    async def drive(ctx):
        for level in [1] * 4 + line + [1] * 20 * divisor:
            ctx.set(dut.rx, level)
            await ctx.tick()

    async def watch(ctx):
        async for _, _, valid, byte, error in ctx.tick().sample(dut.valid, dut.data, dut.error):
            if valid:
                got.append((byte, error))

    simulate(dut, drive, monitors=[watch], limit=len(line) + 100 * divisor)
    return got


@pytest.mark.parametrize("divisor, off", [(4, 1.0), (5, 1.0), (16, 0.97), (16, 1.03), (25, 1.0)])
def test_receives_back_to_back(divisor, off):
    rng = random.Random(1)
    sent = [rng.randrange(256) for _ in range(30)]
    line = [level for byte in sent for level in levels(byte, divisor * off)]
    assert receive(line, divisor) == [(byte, 0) for byte in sent]


def test_a_glitch_is_no_start_bit():
    assert receive([0] * 3 + [1] * 30 + levels(0x5A, 16), 16) == [(0x5A, 0)]


def test_a_break_is_one_error_and_the_line_recovers():
    line = [0] * 16 * 40 + [1] * 16 + levels(0xC3, 16)
    assert receive(line, 16) == [(0, 1), (0xC3, 0)]


@pytest.mark.parametrize("divisor", [4, 7])
def test_transmits(divisor):
    rng = random.Random(2)
    sent = [rng.randrange(256) for _ in range(20)]
    dut, line = UartTransmitter(divisor=divisor), []

    async def watch(ctx):
        async for _, _, level in ctx.tick().sample(dut.tx):
            line.append(level)

    simulate(dut, source(dut.i, sent), idle(len(sent) * (10 * divisor + 3)), monitors=[watch])
    assert receive(line, divisor) == [(byte, 0) for byte in sent]
    assert len(line) <= len(sent) * (10 * divisor + 3) + 1


@pytest.mark.parametrize("unit", [UartReceiver, UartTransmitter])
def test_divisor_is_checked(unit):
    with pytest.raises(ValueError, match="at least 4 cycles per bit, not 3"):
        unit(divisor=3)
