# amaranth: UnusedElaboratable=no
"""CRC-32 against zlib."""

import zlib

import numpy as np
import pytest

from rtl.crc import Crc32
from tests.rtl.helpers import simulate


@pytest.mark.parametrize("width", [8, 64, 2048])
def test_equals_zlib(width):
    dut = Crc32(width=width)
    rng = np.random.default_rng(width)

    async def bench(ctx):
        for words in (0, 1, 20):
            content = rng.bytes(words * width // 8)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            for at in range(0, len(content), width // 8):
                while rng.random() < 0.3:
                    ctx.set(dut.valid, 0)
                    ctx.set(dut.data, int.from_bytes(rng.bytes(width // 8), "little"))
                    await ctx.tick()
                ctx.set(dut.valid, 1)
                ctx.set(dut.data, int.from_bytes(content[at:at + width // 8], "little"))
                await ctx.tick()
            ctx.set(dut.valid, 0)
            await ctx.tick().repeat(dut.LATENCY - 1)
            assert ctx.get(dut.crc) == zlib.crc32(content)

    simulate(dut, bench)


@pytest.mark.parametrize("width", [0, 12, "8"])
def test_width(width):
    with pytest.raises(ValueError, match="width must be a positive multiple of 8, not"):
        Crc32(width=width)
