"""A client written from docs/host-link.md alone: nothing of `boards`, `model` or `rtl` in it."""

import os
import random
import select
import struct
import termios
import time
import tty
import zlib

READ_INFO, READ_REGISTERS, WRITE_REGISTERS, READ_MEMORY, WRITE_MEMORY = 0, 2, 3, 4, 5
CONTROL, STATUS, IMAGE_ADDR, INPUT_ADDR, CYCLES = 3, 4, 6, 8, 10


class Client:
    #: Words of a beat by config digest, if not one.
    BEATS = {0xE9D9B700: 2}

    def __init__(self, port, beats=BEATS):
        self.words_of = beats
        self.line = os.open(port, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self.line)
        termios.tcflush(self.line, termios.TCIFLUSH)
        self.sequence = random.randrange(65536)
        self.pending = b""

    def close(self):
        os.close(self.line)

    def replies(self, seconds):
        """Contents of the frames that come in a time, as they come."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([self.line], [], [], left)[0]:
                return
            *pieces, self.pending = (self.pending + os.read(self.line, 4096)).split(b"\x7e")
            for piece in pieces:
                content = piece.replace(b"\x7d\x5e", b"\x7e").replace(b"\x7d\x5d", b"\x7d")
                if len(content) >= 16 and zlib.crc32(content[:-4]) == int.from_bytes(
                        content[-4:], "little"):
                    yield content[:-4]

    def request(self, command, address, count, payload=b""):
        self.sequence = self.sequence + 1 & 0xFFFF
        head = struct.pack("<BBHHHI", 1, command, self.sequence, len(payload), count, address)
        content = head + payload
        content += zlib.crc32(content).to_bytes(4, "little")
        line = content.replace(b"\x7d", b"\x7d\x5d").replace(b"\x7e", b"\x7d\x5e")
        for attempt in range(10):
            os.write(self.line, b"\x7e" + line + b"\x7e")
            for reply in self.replies(0.5 * 2**attempt):
                version, got, sequence, length, status, where = struct.unpack("<BBHHHI", reply[:12])
                if (got, sequence, where) == (command | 0x80, self.sequence, address):
                    assert version == 1 and status == 0 and length == len(reply) - 12
                    return reply[12:]
        raise TimeoutError

    def registers(self, address, count=1):
        return struct.unpack(f"<{count}I", self.request(READ_REGISTERS, address, count))

    def set(self, address, *values):
        data = struct.pack(f"<{len(values)}I", *values)
        self.request(WRITE_REGISTERS, address, len(values), data)

    def write(self, word, data):
        for at in range(0, len(data), 1024):
            part = data[at:at + 1024]
            self.request(WRITE_MEMORY, word + at // 8, len(part) // 8, part)

    def start(self, command):
        self.set(CONTROL, 4)
        self.set(CONTROL, command)
        while (status := self.registers(STATUS)[0]) & 1:
            pass
        assert status >> 8 & 15 == 0 and status & 2, f"error {status >> 8 & 15}"
        return status

    def load(self, image):
        """Steps 1 to 4; ``image`` is the content of the file."""
        info = struct.unpack("<8I", self.request(READ_INFO, 0, 8))
        assert info[0] == 0x53504543 and info[1] == 1
        assert info[2] == int.from_bytes(image[12:16], "little"), "image for another config"
        if self.registers(STATUS)[0] & 1:
            self.set(CONTROL, 8)
            while self.registers(STATUS)[0] & 1:
                pass
        self.write(0, image)
        self.beat = self.words_of.get(info[2], 1)
        self.set(IMAGE_ADDR, 0, len(image) // 8 // self.beat)
        assert self.start(1) & 4
        self.input = len(image) // 8
        self.input_words = 2 * int.from_bytes(image[52:56], "little")
        self.output_words = 2 * int.from_bytes(image[60:64], "little")

    def run(self, pixels):
        """Steps 5 to 7: a picture (rows of bytes) in, bytes of the outputs out, and the cycles."""
        pitch = 8
        while pitch < len(pixels[0]):
            pitch *= 2
        rows = [bytes(row).ljust(pitch, b"\0") for row in pixels]
        if len(rows) % 2:
            rows.append(bytes(pitch))
        data = b"".join(rows[y][x:x + 8] + rows[y + 1][x:x + 8]
                        for y in range(0, len(rows), 2) for x in range(0, pitch, 8))
        assert len(data) == 8 * self.input_words
        self.write(self.input, data)
        output = self.input + self.input_words
        self.set(INPUT_ADDR, self.input // self.beat, output // self.beat)
        self.start(2)
        return (self.request(READ_MEMORY, output, self.output_words), self.registers(CYCLES)[0])
