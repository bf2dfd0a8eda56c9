# amaranth: UnusedElaboratable=no
"""LOAD: the checker's verdict on whole and broken images, against `model.image`."""

import numpy as np
import pytest

from model.config import PRESETS
from model.descriptor import BEATS
from model.image import ErrorCode, ImageError, ProgramImage, build_image
from rtl.checker import Checker
from sim.memory import MemoryModel, MemoryOptions
from tests.model.test_image import image_of, program, with_header
from tests.rtl.helpers import contract, memory_port, simulate

CONFIG = PRESETS["tiny"]
BASE = 24


class Port:
    """A memory that is exchanged between loads."""

    def __init__(self):
        self.exchange(np.zeros(0, np.uint64), MemoryOptions())

    def exchange(self, image, options):
        memory = np.zeros(BASE + len(image) + 300, dtype=np.uint64)
        memory[BASE:BASE + len(image)] = image
        self.model = MemoryModel(memory, options)

    def __getattr__(self, name):
        return getattr(self.model, name)


def loads(cases):
    """Load images one after the other; (error, store, header outputs, cycles) of each."""
    dut, port, found = Checker(config=CONFIG), Port(), []

    async def bench(ctx):
        for image, options in cases:
            port.exchange(image, options)
            ctx.set(dut.image_addr, BASE)
            ctx.set(dut.image_beats, len(image))
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            cycles = 0
            while not ctx.get(dut.done):
                cycles += 1
                await ctx.tick()
            error = ctx.get(dut.error)
            ctx.set(dut.image_addr, 0)      # the host may write it as soon as the load has ended
            await ctx.tick()
            header = [ctx.get(output) for output in (
                dut.layers, dut.kernel_base, dut.input_base, dut.input_rows, dut.output_base,
                dut.output_rows)]
            store = []
            for addr in range(2 * BEATS):
                ctx.set(dut.desc_addr, addr)
                await ctx.tick()
                store.append(ctx.get(dut.desc_data))
            found.append((error, store, header, cycles))

    simulate(dut, bench, monitors=[memory_port(port, dut.ar, dut.r), contract(dut.ar)])
    return found


def xor(image, beat, value):
    image = image.copy()
    image[beat] ^= np.uint64(value)
    return image


def test_good_images():
    _, _, image = image_of()
    longer = np.concatenate([image, image[:5]])      # the file may be longer than the image
    descriptors, _ = program(1)
    big = np.random.default_rng(5).integers(1 << 63, size=700, dtype=np.uint64)
    big = build_image(CONFIG, descriptors, [big], 0, 1, 0, 1)
    plain, slow, fast = loads([
        (image, MemoryOptions(latency=1)),
        (longer, MemoryOptions(latency=9, stall=0.5, bandwidth=0.5, seed=3)),
        (big, MemoryOptions(latency=2)),
    ])
    for error, store, header, _ in (plain, slow):
        assert error == ErrorCode.NONE
        assert store == image[8:8 + 2 * BEATS].tolist()
        assert header == [2, BASE + 24, 3, 40, 100, 7]
    assert fast[0] == ErrorCode.NONE
    assert fast[3] <= len(big) + 60      # one beat a cycle


BROKEN = [
    (lambda i: i[:7], ErrorCode.TRUNCATED),
    (lambda i: with_header(i, 0, 1), ErrorCode.MAGIC),
    (lambda i: xor(i, 0, 1), ErrorCode.MAGIC),      # magic before CRC
    (lambda i: xor(i, 3, 1 << 63), ErrorCode.HEADER_CRC),
    (lambda i: xor(i, 7, 1), ErrorCode.HEADER_CRC),
    (lambda i: with_header(i, 1, (int(i[1]) + 1) ^ 1 << 50), ErrorCode.VERSION),
    (lambda i: with_header(i, 1, int(i[1]) ^ 1 << 40), ErrorCode.CONFIG),
    (lambda i: with_header(i, 2, 17 | len(i) << 32), ErrorCode.LAYERS),
    (lambda i: with_header(i, 2, 0), ErrorCode.LAYERS),
    (lambda i: i[:-1], ErrorCode.TRUNCATED),
    (lambda i: with_header(i, 3, 0xFFFFFFFF | 16 << 32), ErrorCode.TRUNCATED),
    (lambda i: with_header(i, 5, 25 | 13 << 32), ErrorCode.TRUNCATED),
    (lambda i: with_header(i, 3, 8 | 15 << 32), ErrorCode.TRUNCATED),
    (lambda i: xor(i, 8, 1), ErrorCode.DESCRIPTOR_CRC),
    (lambda i: xor(i, 23, 1 << 63), ErrorCode.DESCRIPTOR_CRC),
    (lambda i: xor(i, len(i) - 1, 1 << 33), ErrorCode.KERNEL_CRC),
]


def test_broken_images_give_the_code_of_the_model():
    images = [mutate(image_of()[2]) for mutate, _ in BROKEN]
    for image, (_, code) in zip(images, BROKEN, strict=True):
        with pytest.raises(ImageError) as caught:
            ProgramImage.parse(image.tobytes(), CONFIG)
        assert caught.value.code == code
    found = loads([(image, MemoryOptions()) for image in [*images, image_of()[2]]])
    assert [error for error, *_ in found] == [*(code for _, code in BROKEN), ErrorCode.NONE]


def test_bus_errors():
    image = image_of()[2]
    found = loads([
        *((image, MemoryOptions(latency=3, error_beat=beat)) for beat in (0, 7, 12, 30)),
        (image, MemoryOptions(latency=3)),
    ])
    assert [error for error, *_ in found] == [ErrorCode.BUS] * 4 + [ErrorCode.NONE]


def test_config_type():
    with pytest.raises(TypeError, match="config must be an AcceleratorConfig, not 3"):
        Checker(config=3)
