# amaranth: UnusedElaboratable=no
"""The whole core on Amaranth's simulator: commands, errors, and recovery from them."""

import dataclasses

import numpy as np
import pytest
from amaranth.lib.wiring import In, Out

from model.compile import compile_network
from model.config import PRESETS
from model.image import ErrorCode
from model.network import Conv, Linear
from rtl.core import Core, Top
from sim.backend import CSR, CoreError
from sim.memory import MemoryOptions
from sim.session import open_backend, simulate_image
from tests.model.test_image import with_header
from tests.model.toys import toy_image, toy_network
from tests.sim.toys import two_layers

CONFIG = PRESETS["tiny"]


@pytest.fixture(scope="module")
def program():
    return compile_network(two_layers(), CONFIG)


@pytest.fixture(scope="module")
def backend():
    with open_backend("pysim", CONFIG, options=MemoryOptions(latency=3), max_cycles=3000) as opened:
        yield opened


def flip(image, beat, bit):
    image = image.copy()
    image[beat] ^= np.uint64(1 << bit)
    return image


def load(backend, image):
    """Error code of a LOAD."""
    try:
        backend.load(image.astype("<u8").tobytes())
    except CoreError as error:
        return error.code
    return 0


def test_commands_errors_and_recovery(backend, program):
    image = program.image
    pixels = toy_image((1, 12, 12))
    with pytest.raises(CoreError, match="NOT_LOADED"):
        backend.run(b"")
    assert load(backend, flip(image, 0, 3)) == ErrorCode.MAGIC
    assert load(backend, flip(image, 2, 3)) == ErrorCode.HEADER_CRC
    assert load(backend, with_header(image, 1, int(image[1]) ^ 1 << 32)) == ErrorCode.CONFIG
    assert load(backend, flip(image, 17, 60)) == ErrorCode.DESCRIPTOR_CRC
    assert load(backend, flip(image, len(image) - 1, 0)) == ErrorCode.KERNEL_CRC
    backend.inject(error_beat=len(image) - 3)
    assert load(backend, image) == ErrorCode.BUS
    with pytest.raises(CoreError, match="NOT_LOADED"):      # none of these loaded anything
        backend.run(program.pack_input(pixels).tobytes())
    assert backend.csr_read(CSR["status"]) == ErrorCode.NOT_LOADED << 8

    backend.csr_write(CSR["irq_enable"], 1)
    assert load(backend, image) == 0
    assert backend.csr_read(CSR["layers"]) == 2
    assert backend.csr_read(CSR["status"]) == 1 << 16 | 0b110
    input_beats = 2 * program.input_region.rows
    for beats in (3, input_beats + 5, input_beats + 60):    # input, kernels of either layer
        backend.inject(error_beat=beats)
        with pytest.raises(CoreError, match="BUS"):
            backend.run(program.pack_input(pixels).tobytes())
        assert backend.csr_read(CSR["status"]) == 1 << 16 | ErrorCode.BUS << 8 | 0b100

    backend.take_events()
    result = simulate_image(backend, program, pixels)       # as if nothing had been
    assert not result.failure and result.comparison.difference is None
    run = result.run
    assert run.write_beats == 2 * program.output_region.rows
    assert run.read_beats == input_beats + sum(layer.stream_beats for layer in program.layers)
    assert run.profile[:, 4].tolist() == [layer.stream_beats for layer in program.layers]
    assert run.profile[1, 6] < run.cycles < 600

    backend.csr_write(CSR["control"], 4)
    assert backend.csr_read(CSR["status"]) == 1 << 16 | 0b100


def ports(component):
    return {"__".join(map(str, path)): member.flow
            for path, member, _ in component.signature.flatten(component)}


def test_ports():
    core = ports(Core(CONFIG))
    assert core["mem__ar__valid"] is Out and core["mem__r__payload"] is In
    probes = ports(Core(CONFIG, probe=True))
    assert {name for name in probes if name not in core} == {
        f"probe_{name}__{part}" for name in ("tile__0", "sum", "write__0")
        for part in ("valid", "payload")}
    host = {"csr_addr", "csr_w_en", "csr_w_data", "csr_r_data", "irq"}
    assert ports(Top(CONFIG)) == core
    closed = Top(dataclasses.replace(CONFIG, onchip_kib=4))
    assert set(ports(closed)) == host | {
        "host_addr", "host_en", "host_w_en", "host_w_data", "host_r_data"}
    assert len(closed.host_addr) == 9


@pytest.mark.parametrize("component", [Core, Top])
def test_config_type(component):
    with pytest.raises(TypeError, match="config must be an AcceleratorConfig, not 'tiny'"):
        component("tiny")


def test_beats_that_wait_for_the_core_are_no_timeout():
    """A full kernel buffer keeps the memory waiting for longer than it may keep the core."""
    config = dataclasses.replace(CONFIG, kernel_depth=64)
    network = toy_network(
        [Conv("conv1", 1, 6, 5, pool=2), Linear("fc1", 96, 40, relu=False)],
        ["channel 1:4", "channel 1:2"], (1, 12, 12), seed=7,
    )
    program = compile_network(network, config)
    timeout = 15
    with open_backend("pysim", config, options=MemoryOptions(latency=8)) as backend:
        backend.load(program.image.astype("<u8").tobytes())
        backend.csr_write(CSR["timeout"], timeout)
        result = simulate_image(backend, program, toy_image((1, 12, 12)))
    assert result.comparison.exact, result.failure
    assert result.run.profile[1][5] > 2 * timeout       # in one piece
