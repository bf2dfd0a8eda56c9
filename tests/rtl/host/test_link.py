# amaranth: UnusedElaboratable=no
"""Every command and every refusal of the link, against registers and a memory of Python."""

import dataclasses
import random
import zlib

import pytest

from model.config import PRESETS
from model.hostlink import REPLY, Command, Decoder, Frame, Info, Status, encode
from rtl.csr import READ_LATENCY
from rtl.host.link import HostLink
from rtl.memory import OnChipMemory
from tests.rtl.helpers import simulate

CONFIG = dataclasses.replace(PRESETS["tiny"], onchip_kib=1, clock_hz=12_345_678)


def exchange(lines, registers=None, memory=None):
    """Send each piece, wait until all is quiet; replies, writes in order."""
    dut = HostLink(config=CONFIG, timeout=100)
    registers, memory = registers or {}, memory or {}
    replies, writes, decoder = [], [], Decoder()

    async def host(ctx):
        ctx.set(dut.tx.ready, 1)
        for line in lines:
            for byte in line:
                ctx.set(dut.rx_data, byte)
                ctx.set(dut.rx_valid, 1)
                await ctx.tick()
                ctx.set(dut.rx_valid, 0)
                await ctx.tick().repeat(5)
            quiet = 0
            while quiet < 40:
                quiet = 0 if ctx.get(dut.tx.valid) or ctx.get(dut.host_en) else quiet + 1
                await ctx.tick()

    async def core(ctx):
        # What is read comes as late as it may, and stays.
        coming = [None] * (OnChipMemory.HOST_LATENCY - 1)
        answers = [0] * (READ_LATENCY - 1)
        seen = ctx.tick().sample(dut.tx.valid, dut.tx.payload, dut.csr_addr, dut.csr_w_en,
                                 dut.csr_w_data, dut.host_addr, dut.host_en, dut.host_w_en,
                                 dut.host_w_data)
        async for _, _, valid, byte, addr, w_en, w_data, place, en, host_w_en, word in seen:
            if valid:
                replies.extend(decoder.feed(bytes([byte])))
            answers.append(registers.get(addr, 0))
            ctx.set(dut.csr_r_data, answers.pop(0))
            coming.append(memory.get(place, 0) if en and not host_w_en else None)
            if (word_read := coming.pop(0)) is not None:
                ctx.set(dut.host_r_data, word_read)
            if w_en:
                writes.append(("register", addr, w_data))
            if en and host_w_en:
                writes.append(("memory", place, word))

    simulate(dut, host, monitors=[core], limit=400_000)
    assert decoder.dropped == 0
    return replies, writes


def answer(request, status=Status.OK, payload=b""):
    return Frame(request.command | REPLY, request.sequence, status, request.address, payload)


def test_information():
    request = Frame(Command.READ_INFO, 9, 8, 0)
    bad = bytearray(encode(request))
    bad[3] ^= 4
    (reply,), writes = exchange([bytes(bad) + encode(request)])
    words = [int.from_bytes(reply.payload[at:at + 4], "little") for at in range(0, 32, 4)]
    assert reply == answer(request, payload=reply.payload) and not writes
    assert words == [0x53504543, 1, CONFIG.digest, 128, 12_345_678, 1024, 1, 1]
    assert len(Info) == len(words)


def test_registers_and_memory():
    rng = random.Random(1)
    registers = {addr: rng.randrange(2**32) for addr in range(1024)}
    memory = {addr: rng.randrange(2**64) for addr in range(128)}
    values = [rng.randrange(2**32) for _ in range(3)]
    words = [rng.randrange(2**64) for _ in range(128)]
    requests = [
        Frame(Command.READ_REGISTERS, 1, 5, 4),
        Frame(Command.READ_REGISTERS, 2, 1, 1023),
        Frame(Command.READ_REGISTERS, 2, 256, 512),
        Frame(Command.WRITE_REGISTERS, 3, 3, 6, b"".join(v.to_bytes(4, "little") for v in values)),
        Frame(Command.READ_MEMORY, 4, 128, 0),
        Frame(Command.READ_MEMORY, 5, 1, 127),
        Frame(Command.WRITE_MEMORY, 65535, 128, 0,
              b"".join(word.to_bytes(8, "little") for word in words)),
        Frame(Command.READ_INFO, 0, 1, Info.CONFIG),
    ]
    replies, writes = exchange(map(encode, requests), registers, memory)

    def read(table, start, count, size):
        return b"".join(table[start + i].to_bytes(size, "little") for i in range(count))

    assert replies == [
        answer(requests[0], payload=read(registers, 4, 5, 4)),
        answer(requests[1], payload=read(registers, 1023, 1, 4)),
        answer(requests[2], payload=read(registers, 512, 256, 4)),
        answer(requests[3]),
        answer(requests[4], payload=read(memory, 0, 128, 8)),
        answer(requests[5], payload=read(memory, 127, 1, 8)),
        answer(requests[6]),
        answer(requests[7], payload=CONFIG.digest.to_bytes(4, "little")),
    ]
    assert writes == [("register", 6 + i, value) for i, value in enumerate(values)] + [
        ("memory", i, word) for i, word in enumerate(words)
    ]


@pytest.mark.parametrize("status, request_", [
    (Status.VERSION, Frame(Command.READ_INFO, 1, 1, 0, version=2)),
    (Status.COMMAND, Frame(1, 1, 1, 0, bytes(4))),
    (Status.COMMAND, Frame(6, 1, 1, 0)),
    (Status.COMMAND, Frame(0x80, 1, 1, 0)),
    (Status.LENGTH, Frame(Command.READ_INFO, 1, 0, 0)),
    (Status.LENGTH, Frame(Command.READ_REGISTERS, 1, 257, 0)),
    (Status.LENGTH, Frame(Command.READ_MEMORY, 1, 129, 0)),
    (Status.LENGTH, Frame(Command.READ_MEMORY, 1, 0x2001, 0)),
    (Status.LENGTH, Frame(Command.READ_REGISTERS, 1, 1, 0, bytes(4))),
    (Status.LENGTH, Frame(Command.WRITE_MEMORY, 1, 2, 0, bytes(8))),
    (Status.LENGTH, Frame(Command.WRITE_REGISTERS, 1, 1, 5, bytes(8))),
    (Status.ADDRESS, Frame(Command.READ_INFO, 1, 1, 8)),
    (Status.ADDRESS, Frame(Command.READ_REGISTERS, 1, 2, 1023)),
    (Status.ADDRESS, Frame(Command.READ_MEMORY, 1, 1, 128)),
    (Status.ADDRESS, Frame(Command.WRITE_MEMORY, 1, 2, 127, bytes(16))),
    (Status.ADDRESS, Frame(Command.WRITE_MEMORY, 1, 1, 2**32 - 1, bytes(8))),
], ids=lambda value: value.name if isinstance(value, Status) else f"{value.command}")
def test_refusals(status, request_):
    good = Frame(Command.READ_INFO, 2, 1, 0)
    replies, writes = exchange([encode(request_), encode(good)])
    assert replies[0] == answer(request_, status)
    assert not writes
    assert replies[1].sequence == 2 and replies[1].count == Status.OK


def test_a_frame_whose_length_field_lies_is_refused():
    request = Frame(Command.READ_MEMORY, 1, 1, 0)
    line = encode(dataclasses.replace(request, payload=bytes(8)))
    content = bytearray(line[1:-5])
    content[4] = 0
    content += zlib.crc32(content).to_bytes(4, "little")
    assert not {0x7E, 0x7D} & set(content)
    replies, _ = exchange([b"\x7e" + bytes(content) + b"\x7e"])
    assert [reply.count for reply in replies] == [Status.LENGTH]


def test_needs_a_memory():
    with pytest.raises(ValueError, match="config tiny has no on-chip memory .* set onchip_kib"):
        HostLink(config=PRESETS["tiny"], timeout=1)
