"""Frames as bytes: nothing wrong comes through, everything right does, in any pieces."""

import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.hostlink import (
    ESCAPE,
    FLAG,
    MAX_PAYLOAD,
    RESIDUE,
    Command,
    Decoder,
    Frame,
    encode,
    item_bytes,
)

FRAMES = st.builds(
    Frame, command=st.integers(0, 255), sequence=st.integers(0, 65535),
    count=st.integers(0, 65535), address=st.integers(0, 2**32 - 1),
    payload=st.binary(max_size=80) | st.just(bytes([FLAG, ESCAPE] * 20)),
)


def test_example_of_the_document():
    frame = Frame(Command.READ_INFO, 0x1234, 8, 0)
    assert encode(frame).hex() == "7e010034120000080000000000d8400def7e"


def test_residue():
    assert RESIDUE == 0x2144DF1C
    for content in (b"", b"spectral"):
        assert zlib.crc32(content + zlib.crc32(content).to_bytes(4, "little")) == RESIDUE


@settings(deadline=None, derandomize=True)
@given(st.lists(FRAMES, max_size=4), st.integers(1, 30), st.binary(max_size=20))
def test_round_trip_in_pieces_after_garbage(frames, size, garbage):
    stream = garbage + b"".join(encode(frame) for frame in frames)
    decoder, got = Decoder(), []
    for start in range(0, len(stream), size):
        got += decoder.feed(stream[start:start + size])
    assert got == frames


def test_flags_only_frame():
    assert encode(Frame(0, 0, 0, 0, bytes([FLAG] * 9))).count(FLAG) == 2
    assert Decoder().feed(bytes([FLAG] * 9)) == []


def test_damage_is_dropped_and_the_next_frame_found():
    rng = random.Random(3)
    frame = Frame(Command.WRITE_MEMORY, 7, 2, 100, bytes(range(110, 126)))
    line = encode(frame)
    for _ in range(2000):
        damaged = bytearray(line)
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(len(damaged))
            match rng.randrange(3):
                case 0:
                    del damaged[place]
                case 1:
                    damaged[place] ^= 1 << rng.randrange(8)
                case 2:
                    damaged.insert(place, damaged[place])
        decoder = Decoder()
        # The damage may undo itself, or double a flag; it never makes another frame.
        assert decoder.feed(bytes(damaged)) in ([], [frame])
        assert decoder.feed(line)[-1:] == [frame]


def test_endless_garbage_is_forgotten():
    decoder = Decoder()
    decoder.feed(bytes([FLAG]))
    for _ in range(100):
        decoder.feed(b"x" * 1000)
    assert len(decoder._piece) < 4 * MAX_PAYLOAD
    assert decoder.dropped >= 1


def test_too_long_a_payload():
    with pytest.raises(ValueError, match="at most 1024 bytes, not 1025"):
        encode(Frame(0, 0, 0, 0, bytes(MAX_PAYLOAD + 1)))


def test_item_sizes():
    assert [item_bytes(command) for command in Command] == [4, 4, 4, 8, 8]
