"""Runs inside the simulator, started by test_cocotb.py: a program through cocotbext-axi's models.

`AxiLiteMaster` plays the host, `AxiRam` the memory, both by people who do not know this project.
"""

import os
import random

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam, AxiResp

CONTROL, STATUS, IRQ_ENABLE, ADDRESSES = 3, 4, 5, (6, 7, 8, 9)
#: Byte addresses: the image and the output lie across a multiple of 4 KiB.
IMAGE, INPUT, OUTPUT, SIZE = 0x1E00, 0x8000, 0xAFF0, 1 << 16


def pauses(seed, p):
    rng = random.Random(seed)
    while True:
        yield rng.random() < p


@cocotb.test()
async def program(dut):
    job = np.load(os.environ["JOB"])
    image, rows, expected = (job[name].tobytes() for name in ("image", "rows", "outputs"))
    written = int(job["written"])
    cocotb.start_soon(Clock(dut.aclk, 10, "ns").start())
    host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.aclk, dut.aresetn,
                         reset_active_level=False)
    ram = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.aclk, dut.aresetn,
                 reset_active_level=False, size=SIZE)
    dut.aresetn.value = 0
    await ClockCycles(dut.aclk, 5)
    dut.aresetn.value = 1
    channels = [getattr(half, f"{channel}_channel") for side in (host, ram)
                for half, names in ((side.write_if, ("aw", "w", "b")), (side.read_if, ("ar", "r")))
                for channel in names]

    async def write(register, value):
        answer = await host.write(4 * register, value.to_bytes(4, "little"))
        assert answer.resp == AxiResp.OKAY

    async def command(control):
        """Status at the interrupt."""
        await write(CONTROL, 4)
        await ClockCycles(dut.aclk, 4)
        assert not int(dut.irq.value)
        await write(CONTROL, control)
        await with_timeout(RisingEdge(dut.irq), 200, "us")
        answer = await host.read(4 * STATUS, 4)
        return int.from_bytes(answer.data, "little")

    ram.write(IMAGE, image)
    ram.write(INPUT, rows)
    for turn, p in enumerate((0.0, 0.2, 0.5)):
        for index, channel in enumerate(channels):
            channel.set_pause_generator(pauses(100 * turn + index, p))
        await write(IRQ_ENABLE, 1)
        for register, value in zip(ADDRESSES, (IMAGE // 8, len(image) // 8, INPUT // 8,
                                               OUTPUT // 8), strict=True):
            await write(register, value)
        answer = await host.write(4 * ADDRESSES[0] + 1, b"\xff")
        assert answer.resp == AxiResp.SLVERR        # a partial write
        answer = await host.read(4 * ADDRESSES[0], 4)
        assert int.from_bytes(answer.data, "little") == IMAGE // 8
        ram.write(OUTPUT, bytes(written + 64))
        assert await command(1) == 0x10006
        assert await command(2) == 0x10006
        # Nothing is waited for: done means that the outputs are in the memory.
        assert ram.read(OUTPUT, len(expected)) == expected
        assert ram.read(OUTPUT + written, 64) == bytes(64)
    assert ram.read(IMAGE, len(image)) == image and ram.read(INPUT, len(rows)) == rows
