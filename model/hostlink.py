"""Frames of the host link, as bytes: docs/host-link.md.

A frame is header, payload and CRC-32, byte-stuffed as in RFC 1662 (octet-stuffed framing): `FLAG`
before and after, and a byte that equals `FLAG` or `ESCAPE` is sent as `ESCAPE` and the byte with
bit 5 inverted. So a receiver that has lost its place finds the next frame at the next `FLAG`.
The RTL (`rtl.host`) and every Python client take the constants from here.
"""

from __future__ import annotations

import enum
import struct
import zlib
from dataclasses import dataclass

__all__ = ["CRC_BYTES", "ESCAPE", "FLAG", "FLIP", "HEADER_BYTES", "INFO_WORDS", "MAX_PAYLOAD",
           "REPLY", "RESIDUE", "VERSION", "Command", "Decoder", "Frame", "Info", "Space",
           "Status", "encode", "item_bytes"]

VERSION = 1
FLAG, ESCAPE, FLIP = 0x7E, 0x7D, 0x20
#: version, command, sequence, length of the payload, count or status, address.
_HEADER = struct.Struct("<BBHHHI")
HEADER_BYTES = _HEADER.size
CRC_BYTES = 4
MAX_PAYLOAD = 1024
#: Set in the command of a reply.
REPLY = 0x80
#: CRC-32 of any content that ends in its own CRC-32, least significant byte first.
RESIDUE = zlib.crc32(zlib.crc32(b"").to_bytes(4, "little"))


class Space(enum.IntEnum):
    """What an address counts: 32-bit words of `Info` or registers, 64-bit words of memory."""

    INFO = 0
    REGISTERS = 1
    MEMORY = 2


class Command(enum.IntEnum):
    """Twice the `Space`, plus one for a write."""

    READ_INFO = 0
    READ_REGISTERS = 2
    WRITE_REGISTERS = 3
    READ_MEMORY = 4
    WRITE_MEMORY = 5


class Status(enum.IntEnum):
    """What a reply says about its request."""

    OK = 0
    VERSION = 1
    COMMAND = 2
    LENGTH = 3
    ADDRESS = 4


class Info(enum.IntEnum):
    """32-bit words of space `Space.INFO`."""

    ID = 0
    LINK_VERSION = 1
    CONFIG = 2
    MEMORY_WORDS = 3
    CLOCK_HZ = 4
    MAX_PAYLOAD = 5
    ACCEPTED = 6
    DROPPED = 7


INFO_WORDS = len(Info)


def item_bytes(command: int) -> int:
    """Bytes of one item a command moves."""
    return 8 if command >> 1 == Space.MEMORY else 4


@dataclass(frozen=True)
class Frame:
    """A request, or a reply (``command`` with `REPLY` set).

    Attributes
    ----------
    command : int
        `Command`; with `REPLY` in a reply.
    sequence : int
        16 bits, chosen by the host; a reply has its request's.
    count : int
        Items to move; in a reply its `Status`.
    address : int
        First item.
    payload : bytes
        What is written, or was read.
    version : int
        Of the protocol.
    """

    command: int
    sequence: int
    count: int
    address: int
    payload: bytes = b""
    version: int = VERSION


def encode(frame: Frame) -> bytes:
    """Bytes on the line, both flags included."""
    if len(frame.payload) > MAX_PAYLOAD:
        raise ValueError(f"a payload has at most {MAX_PAYLOAD} bytes, not {len(frame.payload)}")
    content = _HEADER.pack(frame.version, frame.command, frame.sequence, len(frame.payload),
                           frame.count, frame.address) + frame.payload
    content += zlib.crc32(content).to_bytes(CRC_BYTES, "little")
    for special in (ESCAPE, FLAG):
        content = content.replace(bytes([special]), bytes([ESCAPE, special ^ FLIP]))
    return bytes([FLAG]) + content + bytes([FLAG])


class Decoder:
    """Frames out of a stream of bytes; what is not a whole and correct frame is dropped.

    Attributes
    ----------
    dropped : int
        Pieces between two flags that were no frame.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._piece = bytearray()
        self._hunting = True

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes as they come; the frames they complete."""
        frames = []
        first, *rest = bytes(data).split(bytes([FLAG]))
        if not self._hunting:
            self._piece += first
        for piece in rest:
            if self._piece and not self._hunting:
                frame = _parse(bytes(self._piece))
                if frame is None:
                    self.dropped += 1
                else:
                    frames.append(frame)
            self._hunting = False
            self._piece = bytearray(piece)
        # Endless garbage must not fill the memory.
        if len(self._piece) > 2 * (HEADER_BYTES + MAX_PAYLOAD + CRC_BYTES):
            self.dropped += 1
            self._piece.clear()
            self._hunting = True
        return frames


def _parse(piece: bytes) -> Frame | None:
    """Frame between two flags, if it is one."""
    content = bytearray()
    escaped = False
    for byte in piece:
        if byte == ESCAPE and not escaped:
            escaped = True
            continue
        content.append(byte ^ FLIP if escaped else byte)
        escaped = False
    if escaped or len(content) < HEADER_BYTES + CRC_BYTES or zlib.crc32(content) != RESIDUE:
        return None
    version, command, sequence, length, count, address = _HEADER.unpack_from(content)
    payload = bytes(content[HEADER_BYTES:-CRC_BYTES])
    if len(payload) != length:
        return None
    return Frame(command, sequence, count, address, payload, version)
