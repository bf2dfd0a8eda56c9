"""docs/host-link.md is enough to write a client: one that has only that, against the real top."""

import dataclasses
import os
import re
import tty
from pathlib import Path

import numpy as np
import pytest

from boards.table import BOARDS, Board
from model import golden
from model.compile import compile_network
from model.config import PRESETS
from model.image import save_image
from model.zoo import zoo_network
from sim.inputs import as_input, stored_digits
from tests.boards.client import Client
from tests.boards.conftest import CONFIG

WIDE = dataclasses.replace(CONFIG, kernel_lanes=8, port_bits=128)


@pytest.mark.parametrize("config, rate", [
    (CONFIG, 0), (WIDE, 0), pytest.param(CONFIG, 0.0005, marks=pytest.mark.slow)])
def test_a_client_written_from_the_document(board, tmp_path, config, rate):
    program = compile_network(zoo_network("lenet5", "channel", 16), config)
    save_image(tmp_path / "lenet5.bin", program.image)
    with board(rate, seed=5, config=config) as simulated:
        client = Client(simulated.port, beats={WIDE.digest: 2})
        try:
            client.load((tmp_path / "lenet5.bin").read_bytes())
            for digit in stored_digits([0, 1]):
                pixels = as_input(digit, (1, 32, 32))
                out, cycles = client.run(pixels[0].tolist())
                expected = golden.run(program.network, pixels)[-1].out.reshape(-1)
                np.testing.assert_array_equal(np.frombuffer(out, "<i2")[:10], expected)
                assert expected.argmax() == digit.label and cycles > 1000
        finally:
            client.close()


def test_the_digests_in_the_document():
    """All boards with a host link, what they hold, and the width of its port."""
    text = (Path(__file__).parents[2] / "docs" / "host-link.md").read_text()
    rows = re.findall(r"\| `([0-9a-f]{8})` \| `(.*?)` \| .* \| (\d) \|", text)
    assert {row[1] for row in rows} == {
        board.config for board in BOARDS.values() if isinstance(board, Board)}
    for digest, name, words in rows:
        config = PRESETS[name]
        assert (f"{config.digest:08x}", config.port_bits) == (digest, 64 * int(words))
        assert Client.BEATS.get(config.digest, 1) == int(words)


def test_the_frame_in_the_document(board):
    """The bytes it shows are a request, answered with what its tables say."""
    text = (Path(__file__).parents[2] / "docs" / "host-link.md").read_text()
    frame = bytes.fromhex(re.search(r"`(7e 01 00 .*? 7e)`", text)[1])
    with board() as simulated:
        line = os.open(simulated.port, os.O_RDWR | os.O_NOCTTY)
        try:
            tty.setraw(line)
            os.write(line, frame)
            reply = b""
            while reply.count(b"\x7e") < 2:
                reply += os.read(line, 4096)
        finally:
            os.close(line)
    assert reply[:1] == b"\x7e" and reply[1:13] == bytes.fromhex("01803412 2000 0000 00000000")
    assert reply[13:17] == 0x53504543.to_bytes(4, "little")
