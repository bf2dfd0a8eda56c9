# amaranth: UnusedElaboratable=no
"""Framing against `model.hostlink`, with damage, pauses and a host that is held off."""

import random

import pytest
from amaranth.hdl import Value

from model.hostlink import FLAG, MAX_PAYLOAD, Decoder, Frame, encode
from rtl.host.framing import MOST_BYTES, FrameReceiver, FrameSender, LastByte
from tests.rtl.helpers import contract, pack, simulate, sink

TIMEOUT = 60


def receive(events):
    """Contents of the accepted frames, and how many were dropped.

    ``events``: bytes, pauses (negative), ``("error", byte)``, ``("hold", cycles)``.
    """
    dut = FrameReceiver(timeout=TIMEOUT)
    frames, content, dropped = [], bytearray(), [0]

    async def drive(ctx):
        for event in events:
            if isinstance(event, tuple) and event[0] == "hold":
                ctx.set(dut.hold, 1)
                await ctx.tick().repeat(event[1])
                ctx.set(dut.hold, 0)
                continue
            if not isinstance(event, tuple) and event < 0:
                await ctx.tick().repeat(-event)
                continue
            ctx.set(dut.i_error, isinstance(event, tuple))
            ctx.set(dut.i_data, event[1] if isinstance(event, tuple) else event)
            ctx.set(dut.i_valid, 1)
            await ctx.tick()
            ctx.set(dut.i_valid, 0)
            await ctx.tick().repeat(4)

    async def watch(ctx):
        seen = ctx.tick().sample(dut.content_valid, dut.content, dut.index, dut.done, dut.size,
                                 dut.dropped)
        async for _, _, valid, byte, index, done, size, lost in seen:
            if valid:
                del content[index:]
                content.append(byte)
                assert len(content) == index + 1
            if done:
                frames.append(bytes(content[:size]))
            dropped[0] += lost

    simulate(dut, drive, monitors=[watch], limit=40 * len(events) + 20000)
    return frames, dropped[0]


def plain(frame):
    """Content of a frame without stuffing, CRC included."""
    line = encode(frame)[1:-1]
    out, escaped = bytearray(), False
    for byte in line:
        if byte == 0x7D and not escaped:
            escaped = True
        else:
            out.append(byte ^ (0x20 if escaped else 0))
            escaped = False
    return bytes(out)


def some(count, seed=0):
    rng = random.Random(seed)
    return [
        Frame(rng.randrange(6), rng.randrange(65536), rng.randrange(9), rng.randrange(2**32),
              bytes(rng.choice([FLAG, 0x7D, 0x5E, rng.randrange(256)])
                    for _ in range(rng.randrange(40))))
        for _ in range(count)
    ]


def test_frames_after_garbage():
    frames = some(12)
    line = [1, 2, 0x7D, 3]
    for frame in frames:
        line += encode(frame)
    assert receive(line) == ([plain(frame) for frame in frames], 0)


def test_one_flag_between_frames_is_enough():
    first, second = some(2)
    line = encode(first) + encode(second)[1:]
    assert receive(list(line)) == ([plain(first), plain(second)], 0)


def test_random_damage_as_the_decoder():
    rng = random.Random(5)
    frames = some(80, seed=1)
    line = []
    for byte in b"".join(map(encode, frames)):
        match rng.randrange(240):
            case 0:
                continue
            case 1:
                line.append(byte ^ 1 << rng.randrange(8))
            case 2:
                line += [byte, byte]
            case _:
                line.append(byte)
    decoder = Decoder()
    expected = decoder.feed(bytes(line))
    got, dropped = receive(line)
    # The decoder also compares the length field, which in hardware the link does.
    assert [plain(frame) for frame in expected] == got
    assert dropped == decoder.dropped
    assert 10 < len(got) < 70


def test_a_truncated_frame_times_out_and_the_next_needs_only_its_flags():
    frame, = some(1)
    line = list(encode(frame))
    assert receive([*line[:9], -2 * TIMEOUT, *line]) == ([plain(frame)], 1)
    # A pause within the time-out is none of its business.
    assert receive([*line[:9], -TIMEOUT // 2, *line[9:]]) == ([plain(frame)], 0)
    # Neither is silence between frames.
    assert receive([*line, -5 * TIMEOUT, *line[1:]]) == ([plain(frame)] * 2, 0)
    # What comes after the time-out is not taken for the rest.
    assert receive([*line[:9], -2 * TIMEOUT, *line[9:], *line]) == ([plain(frame)], 1)


def test_a_byte_without_stop_bit_drops_the_frame():
    frame, = some(1)
    line = list(encode(frame))
    assert receive([*line[:5], ("error", line[5]), *line[6:], *line]) == ([plain(frame)], 1)


def test_held_off():
    frame, = some(1)
    line = list(encode(frame))
    assert receive([*line[:5], ("hold", 3), *line[5:-1], *line]) == ([plain(frame)], 0)


def test_longest_and_too_long():
    frame = Frame(5, 0, 128, 0, bytes(MAX_PAYLOAD))
    line = list(encode(frame))
    assert len(plain(frame)) == MOST_BYTES
    assert receive([*line, FLAG, *[1] * (MOST_BYTES + 1), *line]) == ([plain(frame)] * 2, 1)


@pytest.mark.parametrize("p", [1.0, 0.3])
def test_sender(p):
    frames = some(10, seed=2)
    dut, got = FrameSender(), []
    expected = b"".join(map(encode, frames))

    async def drive(ctx):
        rng = random.Random(1)
        for frame in frames:
            content = plain(frame)[:-4]
            for index, byte in enumerate(content):
                while rng.random() >= p:
                    await ctx.tick()
                last = index == len(content) - 1
                ctx.set(Value.cast(dut.i.payload), pack(LastByte(), {"data": byte, "last": last}))
                ctx.set(dut.i.valid, 1)
                await ctx.tick().until(dut.i.ready)
                ctx.set(dut.i.valid, 0)

    simulate(dut, drive, sink(dut.o, got, len(expected), p), monitors=[contract(dut.o)])
    assert bytes(got) == expected


def test_timeout_is_checked():
    with pytest.raises(ValueError, match="timeout must be a positive number of cycles, not 0"):
        FrameReceiver(timeout=0)
