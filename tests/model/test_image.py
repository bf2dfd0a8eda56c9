"""Program image: round trip, every check with its section and the core's error code."""

import dataclasses
import zlib

import numpy as np
import pytest

from model.config import PRESETS
from model.descriptor import FIELDS
from model.errors import UserError
from model.image import (
    HEADER_WORDS,
    ErrorCode,
    ImageError,
    ProgramImage,
    build_image,
    load_image,
    save_image,
)
from tests.model.wide import CONFIGS

CONFIG = PRESETS["tiny"]


def program(layers=2, seed=0, config=CONFIG):
    rng = np.random.default_rng(seed)
    descriptors = [
        {name: int(rng.integers(1 << bits)) for name, bits in FIELDS
         if not name.startswith("stream")}
        for _ in range(layers)
    ]
    streams = [rng.integers(1 << 63, size=config.port_words * (5 + 3 * index), dtype=np.uint64)
               for index in range(layers)]
    return descriptors, streams


def image_of(layers=2, config=CONFIG):
    descriptors, streams = program(layers, config=config)
    return descriptors, streams, build_image(config, descriptors, streams, 3, 40, 100, 7)


def with_header(image, word, value):
    """The image with a header word replaced and the header CRC put right again."""
    image = image.copy()
    image[word] = value
    image[15] = zlib.crc32(image[:15].tobytes())
    return image


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_round_trip(name):
    config = CONFIGS[name]
    descriptors, streams, image = image_of(config=config)
    parsed = ProgramImage.parse(image.tobytes(), config)
    assert parsed.config_digest == config.digest
    assert list(parsed.descriptors) == descriptors
    assert [d["stream_offset"] for d in descriptors] == [0, 5]
    for layer, stream in enumerate(streams):
        np.testing.assert_array_equal(parsed.stream(layer), stream)
    assert (parsed.input_base, parsed.input_rows) == (3, 40)
    assert (parsed.output_base, parsed.output_rows) == (100, 7)
    assert bytes(image[:1].tobytes()) == b"SPECTRAL"
    beats = -(-16 // config.port_words), -(-16 // config.port_words), 5 + 8   # the sections
    assert len(image) == config.port_words * sum(beats)
    assert int(image[2]) == 2 | sum(beats) << 32
    assert int(image[5]) == beats[0] + beats[1] | beats[2] << 32


def test_rows_of_a_large_feature_memory():
    config = dataclasses.replace(CONFIG, feature_depth=1 << 20)
    image = build_image(config, *program(), 5, 1 << 19, (1 << 20) - 3, 3)
    parsed = ProgramImage.parse(image.tobytes(), config)
    assert (parsed.input_base, parsed.input_rows) == (5, 1 << 19)
    assert (parsed.output_base, parsed.output_rows) == ((1 << 20) - 3, 3)


def test_build_is_deterministic():
    np.testing.assert_array_equal(image_of()[2], image_of()[2])


@pytest.mark.parametrize("mutate, code, text", [
    (lambda i: i[:15], ErrorCode.TRUNCATED, "section HEADER needs 128 bytes"),
    (lambda i: with_header(i, 0, 1), ErrorCode.MAGIC, "section HEADER does not begin"),
    (lambda i: np.concatenate([i[:3], i[3:4] + np.uint64(1), i[4:]]), ErrorCode.HEADER_CRC,
     "section HEADER is corrupt"),
    (lambda i: with_header(i, 1, int(i[1]) + 1), ErrorCode.VERSION, "version 4"),
    (lambda i: with_header(i, 1, int(i[1]) ^ 1 << 40), ErrorCode.CONFIG, "config digest"),
    (lambda i: with_header(i, 2, 17 | len(i) << 32), ErrorCode.LAYERS, "17 layers instead of 1"),
    (lambda i: with_header(i, 2, 0 | len(i) << 32), ErrorCode.LAYERS, "0 layers"),
    (lambda i: i[:-1], ErrorCode.TRUNCATED, "section HEADER announces"),
    (lambda i: with_header(i, 3, 0xFFFFFFFF | 16 << 32), ErrorCode.TRUNCATED, "section DESC"),
    (lambda i: with_header(i, 5, 33 | 13 << 32), ErrorCode.TRUNCATED, "section KERN"),
    (lambda i: with_header(i, 3, 16 | 15 << 32), ErrorCode.TRUNCATED, "DESC has 15 beats"),
    (lambda i: i ^ (np.arange(len(i)) == 14).astype(np.uint64), ErrorCode.HEADER_CRC,
     "section HEADER is corrupt"),
    (lambda i: i ^ (np.arange(len(i)) == 15).astype(np.uint64) << np.uint64(32),
     ErrorCode.HEADER_CRC, "section HEADER is corrupt"),
    (lambda i: i ^ (np.arange(len(i)) == HEADER_WORDS).astype(np.uint64),
     ErrorCode.DESCRIPTOR_CRC, "section DESC is corrupt"),
    (lambda i: i ^ (np.arange(len(i)) == len(i) - 1).astype(np.uint64),
     ErrorCode.KERNEL_CRC, "section KERN is corrupt"),
])
def test_parse_names_the_section(mutate, code, text):
    with pytest.raises(ImageError, match=text) as caught:
        ProgramImage.parse(mutate(image_of()[2]).tobytes(), CONFIG)
    assert caught.value.code == code


def test_parse_without_config_takes_any():
    _, _, image = image_of()
    other = dataclasses.replace(CONFIG, tile_lanes=3)
    with pytest.raises(ImageError, match="tiny has"):
        ProgramImage.parse(image.tobytes(), other)
    ProgramImage.parse(image.tobytes())


def test_build_rejects_bad_arguments():
    descriptors, streams = program()
    with pytest.raises(ValueError, match=r"^2 descriptors, 1 kernel streams$"):
        build_image(CONFIG, descriptors, streams[:1], 0, 1, 0, 1)
    with pytest.raises(ValueError, match=r"^2 descriptors, 2 kernel streams$"):
        build_image(CONFIG, descriptors, streams, 0, 1, 0, 1, stream_of=[0, 0])
    with pytest.raises(ValueError, match=r"stream of 5 words is not whole beats of 4 words"):
        build_image(CONFIGS["tiny-wide"], descriptors, streams, 0, 1, 0, 1)
    with pytest.raises(ValueError, match=r"^a program has 1 to 16 layers, not 17$"):
        build_image(CONFIG, *program(17), 0, 1, 0, 1)
    with pytest.raises(ValueError, match=r"^output rows 500\.\.529 lie outside"):
        build_image(CONFIG, descriptors, streams, 0, 1, 500, 30)


def test_save_and_load(tmp_path):
    image = image_of()[2]
    path = tmp_path / "net.bin"
    save_image(path, image)
    np.testing.assert_array_equal(load_image(path, CONFIG), image)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match="cannot write program image .*No such file"):
        save_image(tmp_path / "missing" / "net.bin", image)
    with pytest.raises(UserError, match="cannot read program image .*No such file"):
        load_image(tmp_path / "other.bin")
    path.write_bytes(b"x" * 200)
    with pytest.raises(ImageError, match="net.bin: section HEADER does not begin"):
        load_image(path)
