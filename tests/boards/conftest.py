import dataclasses
import random
import threading
from contextlib import contextmanager

import pytest

from model.config import PRESETS
from sim.board import Noise, SimulatedBoard

CONFIG = dataclasses.replace(PRESETS["tiny"], onchip_kib=16)


class Bursts:
    """What happens to several bytes at once: repeated, cut off, replaced, garbage around them.

    What comes at a time is a frame mostly, towards the host a piece of one. With ``late``, pieces
    also come again after what follows them: a line does not do that, but it must not be fatal
    towards the host.
    """

    KINDS = ("repeated", "cut", "replaced", "garbage")

    def __init__(self, rate, seed, late=False):
        self.rate, self.rng, self.late = rate, random.Random(seed), late
        self.hits = dict.fromkeys(self.KINDS + ("late",) * late, 0)
        self.kept = b""

    def __call__(self, data):
        before, self.kept = self.kept, b""
        if self.rng.random() >= self.rate:
            return data + before
        kind = self.rng.choice(list(self.hits))
        self.hits[kind] += 1
        start, stop = sorted(self.rng.randrange(len(data) + 1) for _ in range(2))
        # Half of it flags and escapes, which make the most of a mess.
        noise = bytes(self.rng.choice((0x7E, 0x7D, self.rng.randrange(256)))
                      for _ in range(self.rng.randrange(1, 40)))
        if kind == "late":
            self.kept = data
        return before + {
            "repeated": data + data, "cut": data[:start], "late": data,
            "replaced": data[:start] + noise + data[stop:], "garbage": noise + data + noise[::-1],
        }[kind]


@pytest.fixture
def board():
    """Context manager of a simulated board that runs in a thread: ``board(rate, seed)``.

    Replies are a few bytes; for a hit now and then they get three times the noise.
    """
    @contextmanager
    def running(rate=0.0, seed=1, config=CONFIG, noise=None):
        to_board, to_host = noise or (Noise(rate, seed), Noise(min(1, 3 * rate), seed + 100))
        simulated = SimulatedBoard(config, to_board=to_board, to_host=to_host)
        stop = threading.Event()
        thread = threading.Thread(target=simulated.serve, args=(stop,))
        thread.start()
        try:
            yield simulated
        finally:
            stop.set()
            thread.join()
            simulated.close()
    return running
