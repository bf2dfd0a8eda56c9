"""ABORT on the whole core: a run is stopped under random back-pressure, the next one is right."""

import dataclasses
import random

import pytest

from model.compile import compile_network
from model.config import PRESETS
from model.image import ErrorCode
from model.network import Conv, Pool
from sim.backend import CSR, CoreError, Watchdog
from sim.faults import flip_bit
from sim.memory import MemoryOptions
from sim.session import open_backend, simulate_image
from tests.model.toys import toy_image, toy_network
from tests.sim.toys import two_layers

CONFIG = PRESETS["tiny"]
PATIENCE = 1500

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program():
    return compile_network(two_layers(), CONFIG)


@pytest.fixture
def backend():
    options = MemoryOptions(latency=9, stall=0.5, seed=5)
    with open_backend("pysim", CONFIG, options=options, max_cycles=PATIENCE) as opened:
        yield opened


def load(backend, image):
    backend.load(image.astype("<u8").tobytes())


def stop_after(backend, cycles, rows):
    """Abort a run; whether the memory still owed it beats, and the error code."""
    backend.max_cycles = cycles
    with pytest.raises(Watchdog):
        backend.run(rows)
    backend.max_cycles = PATIENCE
    owed = bool(backend._model._requests)
    code = backend.abort()
    assert not backend._model._requests and not backend._model.r_valid      # drained
    return owed, code


def complete_run(backend, program, pixels):
    result = simulate_image(backend, program, pixels)
    assert not result.failure and result.comparison.difference is None
    assert result.run.read_beats == 2 * program.input_region.rows + sum(
        layer.stream_beats for layer in program.layers)


def test_a_complete_run_after_aborted_ones(backend, program):
    pixels = toy_image((1, 12, 12))
    rows = program.pack_input(pixels).tobytes()
    rng = random.Random(2)
    load(backend, program.image)
    owed = set()
    for first in (1, 40, 80, 160, 240, 320):        # of about 450 cycles
        outstanding, code = stop_after(backend, first + rng.randrange(40), rows)
        assert code == ErrorCode.ABORTED
        assert backend.csr_read(CSR["status"]) == ErrorCode.ABORTED << 8 | 0b100
        owed.add(outstanding)
    assert True in owed
    complete_run(backend, program, pixels)
    assert backend.abort() == 0     # nothing to stop
    assert backend.csr_read(CSR["status"]) == 0b110


def test_a_program_that_hangs_is_stopped_and_replaced(backend, program):
    """The CRCs are right, but layer 0 waits for input channels that nobody writes."""
    pixels = toy_image((1, 12, 12))
    wrong, _ = flip_bit(program.image, program.config, "DESC:20", fix_crc=True)
    load(backend, wrong)
    with pytest.raises(Watchdog):
        backend.run(program.pack_input(pixels).tobytes())
    assert backend.abort() == ErrorCode.ABORTED
    with pytest.raises(CoreError, match="HEADER_CRC"):
        load(backend, flip_bit(program.image, program.config, "130")[0])
    load(backend, program.image)
    complete_run(backend, program, pixels)


def test_aborts_while_maps_are_pooled():
    """Pooling shares the ports of the feature memory: whatever it was at, the next run is right."""
    config = dataclasses.replace(CONFIG, name="tiny-pool", map_pool=1)
    layers = (Conv("a", 1, 3, 3, pooling=Pool("max", 3, 2)),
              Conv("b", 3, 2, 3, relu=False, pooling=Pool("average", 2, 1)))
    pooled = compile_network(toy_network(layers, ["channel 1:1"] * 2, (1, 12, 12)), config)
    pixels = toy_image((1, 12, 12))
    rows = pooled.pack_input(pixels).tobytes()
    options = MemoryOptions(latency=9, stall=0.5, seed=5)
    with open_backend("pysim", config, options=options, max_cycles=PATIENCE) as backend:
        load(backend, pooled.image)
        whole = simulate_image(backend, pooled, pixels)
        assert not whole.failure and whole.comparison.difference is None
        for cycles in range(60, whole.run.cycles - 1, 23):
            assert stop_after(backend, cycles, rows)[1] == ErrorCode.ABORTED
        again = simulate_image(backend, pooled, pixels)
        assert not again.failure and again.comparison.difference is None
