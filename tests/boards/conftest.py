import dataclasses
import threading
from contextlib import contextmanager

import pytest

from model.config import PRESETS
from sim.board import Noise, SimulatedBoard

CONFIG = dataclasses.replace(PRESETS["tiny"], onchip_kib=16)


@pytest.fixture
def board():
    """Context manager of a simulated board that runs in a thread: ``board(rate, seed)``.

    Replies are a few bytes; for a hit now and then they get three times the noise.
    """
    @contextmanager
    def running(rate=0.0, seed=1, config=CONFIG):
        simulated = SimulatedBoard(config, to_board=Noise(rate, seed),
                                   to_host=Noise(min(1, 3 * rate), seed + 100))
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
