"""Runs inside the simulator, started by test_cocotb.py: a program through cocotbext-axi's models.

`AxiLiteMaster` plays the host, an `AxiRam` at each port the memory, both by people who do not know
this project.
"""

import os
import random

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam, AxiResp

CONTROL, STATUS, IRQ_ENABLE, ADDRESSES = 3, 4, 5, (6, 7, 8, 9)
#: Byte addresses at each port: the image and the output lie across a multiple of 4 KiB.
IMAGE, INPUT, OUTPUT, SIZE = 0x1E00, 0x8000, 0xAFF0, 1 << 16


def pauses(seed, p, longest=1):
    """Pauses of up to so many cycles, as a slow memory makes, begun with chance p."""
    rng = random.Random(seed)
    while True:
        if rng.random() < p:
            yield from [True] * rng.randint(1, longest)
        yield False


class Rams:
    """The memory: 8-byte word i of what is stored lies in port i mod P, from p * SIZE on."""

    def __init__(self, dut, ports):
        self.ports = ports
        names = ["m_axi"] if ports == 1 else [f"m_axi_{port}" for port in range(ports)]
        self.each = [AxiRam(AxiBus.from_prefix(dut, name), dut.aclk, dut.aresetn,
                            reset_active_level=False, size=ports * SIZE) for name in names]

    def write(self, address, data):
        words = np.frombuffer(data, dtype="<u8").reshape(-1, self.ports)
        for port, ram in enumerate(self.each):
            ram.write(port * SIZE + address, words[:, port].tobytes())

    def read(self, address, length):
        return np.stack([
            np.frombuffer(ram.read(port * SIZE + address, length // self.ports), dtype="<u8")
            for port, ram in enumerate(self.each)
        ], axis=1).tobytes()


@cocotb.test()
async def program(dut):
    job = np.load(os.environ["JOB"])
    image, rows = (job[name].tobytes() for name in ("image", "rows"))
    ports, written, outputs = int(job["ports"]), int(job["written"]), []
    cocotb.start_soon(Clock(dut.aclk, 10, "ns").start())
    host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.aclk, dut.aresetn,
                         reset_active_level=False)
    memory = Rams(dut, ports)
    dut.aresetn.value = 0
    await ClockCycles(dut.aclk, 5)
    dut.aresetn.value = 1
    # With the longest pause of each: the ports get slower from first to last.
    channels = [(getattr(half, f"{channel}_channel"), 1 + 8 * max(0, place - 1))
                for place, side in enumerate((host, *memory.each))
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
        await with_timeout(RisingEdge(dut.irq), 2000, "us")
        answer = await host.read(4 * STATUS, 4)
        return int.from_bytes(answer.data, "little")

    memory.write(IMAGE, image)
    memory.write(INPUT, rows)
    for turn, p in enumerate((0.0, 0.2, 0.5)):
        for index, (channel, longest) in enumerate(channels):
            channel.set_pause_generator(pauses(100 * turn + index, p, longest))
        await write(IRQ_ENABLE, 1)
        for register, value in zip(ADDRESSES, (IMAGE // 8, len(image) // 8 // ports,
                                               INPUT // 8, OUTPUT // 8), strict=True):
            await write(register, value)
        answer = await host.write(4 * ADDRESSES[0] + 1, b"\xff")
        assert answer.resp == AxiResp.SLVERR        # a partial write
        answer = await host.read(4 * ADDRESSES[0], 4)
        assert int.from_bytes(answer.data, "little") == IMAGE // 8
        memory.write(OUTPUT, bytes(written + 64 * ports))
        assert await command(1) == 0x10006
        assert await command(2) == 0x10006
        # Nothing is waited for: done means that the outputs are in the memory.
        outputs.append(np.frombuffer(memory.read(OUTPUT, written), dtype="<u8"))
        assert memory.read(OUTPUT + written // ports, 64 * ports) == bytes(64 * ports)
    assert memory.read(IMAGE, len(image)) == image and memory.read(INPUT, len(rows)) == rows
    np.save(os.environ["OUTPUTS"], outputs)
