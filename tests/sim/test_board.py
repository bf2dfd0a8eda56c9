"""`python -m sim.board` as a process; what it does to bytes."""

import random
import signal
import subprocess
import sys

import pytest

from boards.host import Accelerator
from sim.board import Noise, main
from tests.boards.conftest import CONFIG


def ignore():
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("number, before", [
    (signal.SIGINT, None), (signal.SIGINT, ignore), (signal.SIGTERM, None),
])
def test_prints_a_terminal_that_answers_and_ends_when_interrupted(number, before):
    """Also where a shell has started it in the background, with SIGINT ignored."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sim.board", "--config", "tiny", "--memory-kib", "16"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=before,
    )
    try:
        port = process.stdout.readline().strip()
        assert port, process.stderr.read()
        for _ in range(2):      # a client that leaves does not end it
            with Accelerator(port) as accelerator:
                assert accelerator.info.digest == CONFIG.digest
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0 and "error" not in errors
        assert f"python -m boards.infer --port {port}" in errors
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("arguments, message", [
    (["--noise", "2"], "noise must be a probability from 0 to 1, not 2.0"),
    (["--memory-kib", "0"], "config tiny has no on-chip memory: give --memory-kib"),
    (["--memory-kib", "-1"], "onchip_kib must be positive, not -1"),
    (["--config", "none"], "unknown config 'none'"),
])
def test_misuse_is_one_line(arguments, message, capsys):
    assert main(["--config", "tiny", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_noise():
    rng = random.Random(1)
    data = rng.randbytes(20_000)
    noise = Noise(0.03)
    damaged = noise(data)
    hits = noise.dropped, noise.flipped, noise.doubled
    assert all(150 < hit < 250 for hit in hits)
    assert len(damaged) == len(data) + noise.doubled - noise.dropped
    assert Noise(0.03)(data) == damaged and Noise(0.03, seed=2)(data) != damaged
    assert Noise(0)(data) == data
