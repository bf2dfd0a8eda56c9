"""The real client against the real top in Verilator, over a pseudo-terminal, with noise."""

import dataclasses
import json
import os

import numpy as np
import pytest
from PIL import Image

from boards.host import Accelerator, BoardError, LinkError
from boards.infer import main
from model import golden
from model.compile import compile_network
from model.config import PRESETS
from model.errors import UserError
from model.image import ErrorCode
from sim.backend import CSR
from sim.board import Noise
from sim.faults import flip_bit
from sim.inputs import stored_digits
from tests.boards.conftest import CONFIG, Bursts
from tests.model.toys import toy_image
from tests.sim.toys import two_layers


def expected(program, image):
    return golden.run(program.network, image)[-1].out.reshape(-1)


def test_loads_predicts_and_counts(board):
    program = compile_network(two_layers(), CONFIG)
    other = compile_network(two_layers("channel 1:2"), CONFIG)
    with board() as simulated, Accelerator(simulated.port) as accelerator:
        info = accelerator.info
        assert (info.digest, info.memory_words) == (CONFIG.digest, 2048)
        assert info.clock_hz == CONFIG.clock_hz and accelerator.config.digest == info.digest
        for chosen in (program, other):     # another network, the same "bitstream"
            accelerator.load(chosen)
            for seed in range(2):
                image = toy_image((1, 12, 12), seed)
                found = accelerator.predict(image)
                np.testing.assert_array_equal(found.scores, expected(chosen, image))
                assert found.label == int(found.scores.argmax())
                assert found.seconds == found.cycles / CONFIG.clock_hz
        counters = accelerator.counters()
        assert counters.cycles == found.cycles > 300
        assert counters.profile.shape == (2, 16)
        assert counters.profile[1, 6] < counters.cycles
        assert counters.write_beats == CONFIG.map_row_beats * other.output_region.rows
        assert counters.requests > 20
        with pytest.raises(UserError, match="takes 2 images at a time, this client one"):
            accelerator.load(compile_network(two_layers(), CONFIG, batch=2))
        # A core that stops says why, and takes the next program.
        broken, _ = flip_bit(program.image, CONFIG, "KERN:100")
        with pytest.raises(BoardError, match="refused to load the program: error 7") as caught:
            accelerator.load(dataclasses.replace(program, image=broken))
        assert caught.value.code == ErrorCode.KERNEL_CRC
        with pytest.raises(UserError, match="no program is loaded"):
            accelerator.predict(image)
        with pytest.raises(LinkError, match="refused READ_MEMORY of 1 items .* 2048 .*: ADDRESS"):
            accelerator._move(4, 2048, 1)
        accelerator.load(program)
        np.testing.assert_array_equal(accelerator.predict(image).scores, expected(program, image))


@pytest.mark.parametrize("rate, seed", [
    (0.002, 1), (0.004, 2), pytest.param(0.008, 3, marks=pytest.mark.slow),
])
def test_noise_never_makes_a_wrong_class(board, rate, seed):
    program = compile_network(two_layers(), CONFIG)
    right = reported = repeated = 0
    with board(rate, seed) as simulated:
        for _ in range(3):
            try:
                with Accelerator(simulated.port, timeout=0.1) as accelerator:
                    accelerator.load(program)
                    for index in range(2):
                        image = toy_image((1, 12, 12), index)
                        found = accelerator.predict(image)
                        np.testing.assert_array_equal(found.scores, expected(program, image))
                        right += 1
                repeated = accelerator._repeated
                break
            except LinkError:
                reported += 1
    hit = [sum((noise.dropped, noise.flipped, noise.doubled))
           for noise in (simulated._to_board, simulated._to_host)]
    assert all(hit), "no noise in one of the directions"
    assert right >= 2 and (repeated or reported), f"gave up {reported} times at rate {rate}"


def test_digits_on_a_line_that_hits_every_other_answer(board):
    """Most of it where it matters: inputs, scores and what is said about the run."""
    program = compile_network(two_layers(), CONFIG)
    noise = Noise(0, 21), Noise(0, 22)
    with board(noise=noise) as simulated:
        with Accelerator(simulated.port, timeout=0.05) as accelerator:
            accelerator.load(program)
            noise[0].rate, noise[1].rate = 0.004, 0.02
            for index in range(8):
                image = toy_image((1, 12, 12), index)
                found = accelerator.predict(image)
                np.testing.assert_array_equal(found.scores, expected(program, image))
            assert accelerator._repeated > 8
    assert all(min(side.dropped, side.flipped, side.doubled) > 2 for side in noise)


@pytest.mark.parametrize("rate, seed", [
    (0.1, 1), pytest.param(0.2, 2, marks=pytest.mark.slow),
    pytest.param(0.3, 3, marks=pytest.mark.slow),
])
def test_bursts_never_make_a_wrong_class(board, rate, seed):
    """Frames come twice, cut off, with others' bytes in them, with garbage around them."""
    programs = [compile_network(two_layers(*pattern), CONFIG)
                for pattern in ((), ("channel 1:2",))]
    noise = Bursts(rate, seed), Bursts(rate, seed + 50, late=True)
    right = reported = repeated = 0
    with board(noise=noise) as simulated:
        for attempt in range(3):
            program = programs[attempt % 2]     # what a client before has left must not matter
            try:
                with Accelerator(simulated.port, timeout=0.1) as accelerator:
                    accelerator.load(program)
                    for index in range(2):
                        image = toy_image((1, 12, 12), 10 * attempt + index)
                        found = accelerator.predict(image)
                        np.testing.assert_array_equal(found.scores, expected(program, image))
                        right += 1
                    repeated += accelerator._repeated
            except LinkError:
                reported += 1
    assert right >= 2 and repeated, f"gave up {reported} times at rate {rate}"
    hits = {kind: sum(side.hits.get(kind, 0) for side in noise) for kind in noise[1].hits}
    assert all(hits.values()), f"not every kind of damage came: {hits}"


@pytest.mark.parametrize("left", [
    300, *(pytest.param(left, marks=pytest.mark.slow) for left in (10, 700)),
])
def test_an_upload_that_was_cut_off_does_not_matter(board, left):
    """A client dies in the middle of a frame of the image; the next one has another network."""
    first = compile_network(two_layers("channel 1:2"), CONFIG)
    program, image = compile_network(two_layers(), CONFIG), toy_image((1, 12, 12))
    with board() as simulated:
        with Accelerator(simulated.port) as accelerator:
            accelerator.load(program)
            accelerator.predict(image)
        with Accelerator(simulated.port) as accelerator:
            write, sent = accelerator._line.write, []

            def dying(data):
                sent.append(data)
                if len(data) > 500:
                    write(data[:left])
                    raise OSError("unplugged")
                write(data)

            accelerator._line.write = dying
            with pytest.raises(LinkError, match=r"is gone \(unplugged\): connect"):
                accelerator.load(first)
            assert len(sent[-1]) > 700
        with Accelerator(simulated.port) as accelerator:
            accelerator.load(program)
            found = accelerator.predict(image)
            np.testing.assert_array_equal(found.scores, expected(program, image))


def test_garbage_before_and_half_a_frame(board):
    with board() as simulated:
        client = os.open(simulated.port, os.O_RDWR | os.O_NOCTTY)
        os.write(client, bytes(range(256)) + b"\x7e\x01\x00\x11")
        os.close(client)
        with Accelerator(simulated.port) as accelerator:
            assert accelerator.info.digest == CONFIG.digest


def test_a_run_that_was_left_is_stopped_before_the_next(board, monkeypatch):
    program = compile_network(two_layers(), CONFIG)
    image = toy_image((1, 12, 12))
    with board() as simulated, Accelerator(simulated.port) as accelerator:
        accelerator.load(program)
        read, written = accelerator._read_registers, []
        busy = [1, 1, 0]

        def pretend(address, count):
            values = read(address, count)
            return [values[0] | busy.pop(0)] if address == CSR["status"] and busy else values

        write = accelerator._write_registers

        def note(address, *values):
            written.append((address, *values))
            write(address, *values)

        monkeypatch.setattr(accelerator, "_read_registers", pretend)
        monkeypatch.setattr(accelerator, "_write_registers", note)
        found = accelerator.predict(image)
        np.testing.assert_array_equal(found.scores, expected(program, image))
        assert not busy and written[0] == (CSR["control"], 8)      # ABORT
        busy += [1] * 1000
        with pytest.raises(LinkError, match="did not stop an old run within 0 seconds"):
            accelerator.load(program, allowed=0)


def test_a_dead_line_is_one_line_and_exit_2(board, tmp_path, capsys):
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(tmp_path / "digit.png")
    with board(1.0) as simulated:
        assert main([str(tmp_path / "digit.png"), "--port", simulated.port, "--timeout", "0.02",
                     "--retries", "3"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no answer from" in error and "after 4 attempts" in error


def test_infers_digits(board, tmp_path, capsys):
    digits = stored_digits([0, 1])
    files = []
    for digit in digits:
        files.append(str(tmp_path / f"{digit.label}.png"))
        Image.fromarray(digit.pixels).save(files[-1])
    report = tmp_path / "report.json"
    with board() as simulated:
        assert main([*files, "--port", simulated.port, "--network", "lenet5",
                     "--json", str(report)]) == 0
    out = capsys.readouterr().out
    for digit, file in zip(digits, files, strict=True):
        assert f"{file}: {digit.label}   scores [" in out
    assert [item["class"] for item in json.loads(report.read_text())["results"]] == [7, 2]
    assert json.loads(report.read_text())["digest"] == f"{CONFIG.digest:08x}"


def test_misuse_is_one_line(board, tmp_path):
    with board() as simulated:
        with pytest.raises(UserError, match="holds a core of config digest .* flash another"):
            Accelerator(simulated.port, config=PRESETS["ecp5-85f"])
        with Accelerator(simulated.port) as accelerator:
            with pytest.raises(UserError, match="compiled for ecp5-85f .* the board has"):
                accelerator.load(compile_network(two_layers(), PRESETS["ecp5-85f"]))
            accelerator.info = dataclasses.replace(accelerator.info, memory_words=100)
            with pytest.raises(UserError, match="the board's memory has 800: take a network"):
                accelerator.load(compile_network(two_layers(), CONFIG))
    with pytest.raises(LinkError, match="cannot open /nowhere at 1000000 baud: "
                                        "no such file or device; serial ports here: "):
        Accelerator("/nowhere")
    with board() as simulated:
        with pytest.raises(LinkError, match="cannot open .* at 99999999999999 baud"):
            Accelerator(simulated.port, baud=99999999999999)
        with Accelerator(simulated.port), pytest.raises(LinkError, match="another program has it"):
            Accelerator(simulated.port)
    for arguments, message in (
        ({"baud": 0}, "rate must be positive"), ({"timeout": 0}, "time-out must be positive"),
        ({"timeout": float("nan")}, "time-out must be positive"),
        ({"retries": -1}, "must not be negative"),
    ):
        with pytest.raises(UserError, match=message):
            Accelerator("/nowhere", **arguments)
