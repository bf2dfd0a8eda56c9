"""The whole flow on a toy in seconds, without a compiler: the first test to run."""

import json

import numpy as np

from model.compile import compile_network
from model.config import PRESETS
from sim.inputs import Digit
from sim.memory import MemoryOptions
from sim.report import as_json
from sim.session import layer_figures, open_backend, simulate_image
from tests.model.toys import toy_image
from tests.sim.toys import two_layers

CONFIG = PRESETS["tiny"]


def test_two_layers_are_bit_exact():
    program = compile_network(two_layers(), CONFIG)
    image = toy_image((1, 12, 12))
    with open_backend("pysim", CONFIG, max_cycles=20_000) as backend:
        backend.load(program.image.tobytes())
        result = simulate_image(backend, program, image)
    assert not result.failure, f"{result.failure}\n{result.comparison.difference}"
    assert result.comparison.exact, str(result.comparison.difference)
    assert result.comparison.words > 1000
    assert result.run is not None
    figures = layer_figures(program, result.run)
    assert [item.name for item in figures] == ["conv1", "fc1"]
    assert sum(item.cycles for item in figures) <= result.run.cycles
    for item in figures:
        assert 0 < item.mac_utilisation <= 1 and 0 < item.lanes_filled <= 1
    assert sum(item.bytes_read for item in figures) == 8 * result.run.read_beats
    assert sum(item.bytes_written for item in figures) == 8 * result.run.write_beats
    digit = Digit("toy", np.zeros((28, 28), np.uint8))
    text = json.dumps(as_json(program, [digit], [result], "pysim", "channel 4", MemoryOptions()))
    assert json.loads(text)["bit_exact"] is True
