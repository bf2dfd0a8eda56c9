# amaranth: UnusedElaboratable=no
"""LOAD: the checker's verdict on whole and broken images, against `model.image`."""

import dataclasses

import numpy as np
import pytest

from model.config import PRESETS
from model.descriptor import BEATS
from model.image import ErrorCode, ImageError, ProgramImage, build_image
from rtl.checker import Checker
from sim.memory import MemoryModel, MemoryOptions
from tests.model.test_image import image_of, program, with_header
from tests.model.wide import CONFIGS
from tests.rtl.helpers import contract, memory_port, simulate

CONFIG = PRESETS["tiny"]
BASE = 24
#: Of each width one.
WIDTHS = ["tiny", "port-128", "tiny-wide", "port-512", "port-2048"]


class Port:
    """A memory that is exchanged between loads."""

    def __init__(self, config):
        self.config = config
        self.exchange(np.zeros(0, np.uint64), MemoryOptions())

    def exchange(self, image, options):
        memory = np.concatenate([np.zeros(BASE * self.config.port_words, np.uint64), image,
                                 np.zeros(300 * self.config.port_words, np.uint64)])
        self.model = MemoryModel(memory, options, self.config.port_bits)

    def __getattr__(self, name):
        return getattr(self.model, name)


def loads(cases, config=CONFIG):
    """Load images one after the other; (error, store, header outputs, cycles) of each."""
    dut, port, found = Checker(config=config), Port(config), []

    async def bench(ctx):
        for image, options in cases:
            port.exchange(image, options)
            ctx.set(dut.image_addr, BASE)
            ctx.set(dut.image_beats, len(image) // config.port_words)
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


@pytest.mark.parametrize("name", WIDTHS)
def test_good_images(name):
    config = CONFIGS[name]
    _, _, image = image_of(config=config)
    longer = np.concatenate([image, image[:5 * config.port_words]])     # longer than the image
    descriptors, _ = program(1)
    big = np.random.default_rng(5).integers(
        1 << 63, size=700 * config.port_words, dtype=np.uint64)
    big = build_image(config, descriptors, [big], 0, 1, 0, 1)
    plain, slow, fast = loads([
        (image, MemoryOptions(latency=1)),
        (longer, MemoryOptions(latency=9, stall=0.5, bandwidth=0.5, seed=3)),
        (big, MemoryOptions(latency=2)),
    ], config)
    desc = -(-16 // config.port_words)      # where DESC begins, and how long it is
    for error, store, header, _ in (plain, slow):
        assert error == ErrorCode.NONE
        words = config.port_words * desc
        assert store == image[words:words + 2 * BEATS].tolist()
        assert header == [2, BASE + 2 * desc, 3, 40, 100, 7]
    assert fast[0] == ErrorCode.NONE
    # A beat of KERN a cycle (of two words, two); header and descriptors word by word.
    assert fast[3] <= 700 * (1 + (config.port_words == 2)) + 2 * max(16, config.port_words) + 60


def test_large_rows():
    config = dataclasses.replace(CONFIG, feature_depth=1 << 20)
    rows = [3, 1 << 19, (1 << 20) - 77, 77]
    image = build_image(config, *program(), *rows)
    (error, _, header, _), = loads([(image, MemoryOptions())], config)
    assert error == ErrorCode.NONE and header[2:] == rows


def test_as_many_layers_as_the_core_holds():
    # Descriptors end within a beat: its last words must not overwrite the first descriptor.
    config = dataclasses.replace(CONFIGS["port-2048"], max_layers=3)
    image = build_image(config, *program(3, config=config), 0, 1, 0, 1)
    (error, store, header, _), = loads([(image, MemoryOptions())], config)
    assert error == ErrorCode.NONE and header[0] == 3
    assert store == image[32:32 + 2 * BEATS].tolist()


def broken(config):
    """Images with one fault each, and the code of the check that finds it."""
    words = config.port_words
    head = -(-16 // words)
    desc, layers = words * head, -(-16 // words)        # word of DESC; its beats

    def pair(low, high):
        return low | high << 32

    return [
        (lambda i: i[:words * (head - 1)], ErrorCode.TRUNCATED),
        (lambda i: with_header(i, 0, 1), ErrorCode.MAGIC),
        (lambda i: xor(i, 0, 1), ErrorCode.MAGIC),      # magic before CRC
        (lambda i: xor(i, 3, 1 << 63), ErrorCode.HEADER_CRC),
        (lambda i: xor(i, 7, 1), ErrorCode.HEADER_CRC),
        (lambda i: xor(i, 8, 1), ErrorCode.HEADER_CRC),         # reserved words are covered
        (lambda i: xor(i, 14, 1 << 63), ErrorCode.HEADER_CRC),
        (lambda i: xor(i, 15, 1), ErrorCode.HEADER_CRC),
        (lambda i: xor(i, 15, 1 << 40), ErrorCode.HEADER_CRC),
        (lambda i: with_header(i, 1, (int(i[1]) + 1) ^ 1 << 50), ErrorCode.VERSION),
        (lambda i: with_header(i, 1, int(i[1]) ^ 1 << 40), ErrorCode.CONFIG),
        (lambda i: with_header(i, 2, 17 | int(i[2]) >> 32 << 32), ErrorCode.LAYERS),
        (lambda i: with_header(i, 2, 0), ErrorCode.LAYERS),
        (lambda i: i[:-words], ErrorCode.TRUNCATED),
        (lambda i: with_header(i, 3, pair(0xFFFFFFFF, layers)), ErrorCode.TRUNCATED),
        (lambda i: with_header(i, 5, int(i[5]) + 1), ErrorCode.TRUNCATED),
        (lambda i: with_header(i, 3, pair(head, layers - 1)), ErrorCode.TRUNCATED),
        (lambda i: with_header(i, 3, pair(head, layers + 1)), ErrorCode.TRUNCATED),
        (lambda i: xor(i, desc, 1), ErrorCode.DESCRIPTOR_CRC),
        (lambda i: xor(i, desc + words * layers - 1, 1 << 63), ErrorCode.DESCRIPTOR_CRC),
        (lambda i: xor(i, desc + words * layers, 1), ErrorCode.KERNEL_CRC),
        (lambda i: xor(i, len(i) - 1, 1 << 33), ErrorCode.KERNEL_CRC),
    ]


@pytest.mark.parametrize("name", WIDTHS)
def test_broken_images_give_the_code_of_the_model(name):
    config = CONFIGS[name]
    good = image_of(config=config)[2]
    cases = broken(config)
    images = [mutate(good) for mutate, _ in cases]
    for image, (_, code) in zip(images, cases, strict=True):
        with pytest.raises(ImageError) as caught:
            ProgramImage.parse(image.tobytes(), config)
        assert caught.value.code == code
    found = loads([(image, MemoryOptions()) for image in [*images, good]], config)
    assert [error for error, *_ in found] == [*(code for _, code in cases), ErrorCode.NONE]


@pytest.mark.parametrize("name", ["tiny", "tiny-wide", "port-2048"])
def test_every_flipped_bit_is_refused(name):
    config = CONFIGS[name]
    image = image_of(config=config)[2]
    rng = np.random.default_rng(9)
    filled = 16 * 64, -(-16 // config.port_words) * config.port_bits    # fill of the header
    bits = [int(bit) for bit in rng.integers(64 * len(image), size=60)
            if not filled[0] <= bit < filled[1]]
    found = loads([(xor(image, bit // 64, 1 << bit % 64), MemoryOptions()) for bit in bits], config)
    assert all(error != ErrorCode.NONE for error, *_ in found)


@pytest.mark.parametrize("name, beats", [("tiny", (0, 15, 20, 38)), ("port-2048", (0, 1, 2, 14))])
def test_bus_errors(name, beats):
    config = CONFIGS[name]
    image = image_of(config=config)[2]
    found = loads([
        *((image, MemoryOptions(latency=3, error_beat=beat)) for beat in beats),
        (image, MemoryOptions(latency=3)),
    ], config)
    assert [error for error, *_ in found] == [ErrorCode.BUS] * 4 + [ErrorCode.NONE]


def test_config_type():
    with pytest.raises(TypeError, match="config must be an AcceleratorConfig, not 3"):
        Checker(config=3)
