"""Program image: round trip, every check with its section and the core's error code."""

import dataclasses
import zlib

import numpy as np
import pytest

from model.config import PRESETS
from model.descriptor import FIELDS
from model.errors import UserError
from model.image import (
    HEADER_BEATS,
    ErrorCode,
    ImageError,
    ProgramImage,
    build_image,
    load_image,
    save_image,
)

CONFIG = PRESETS["tiny"]


def program(layers=2, seed=0):
    rng = np.random.default_rng(seed)
    descriptors = [
        {name: int(rng.integers(1 << bits)) for name, bits in FIELDS
         if not name.startswith("stream")}
        for _ in range(layers)
    ]
    streams = [rng.integers(1 << 63, size=5 + 3 * index, dtype=np.uint64)
               for index in range(layers)]
    return descriptors, streams


def image_of(layers=2):
    descriptors, streams = program(layers)
    return descriptors, streams, build_image(CONFIG, descriptors, streams, 3, 40, 100, 7)


def with_header(image, beat, value):
    """The image with a header beat replaced and the header CRC put right again."""
    image = image.copy()
    image[beat] = value
    image[7] = zlib.crc32(image[:7].tobytes())
    return image


def test_round_trip():
    descriptors, streams, image = image_of()
    parsed = ProgramImage.parse(image.tobytes(), CONFIG)
    assert parsed.config_digest == CONFIG.digest
    assert list(parsed.descriptors) == descriptors
    assert [d["stream_offset"] for d in descriptors] == [0, 5]
    for layer, stream in enumerate(streams):
        np.testing.assert_array_equal(parsed.stream(layer), stream)
    assert (parsed.input_base, parsed.input_rows) == (3, 40)
    assert (parsed.output_base, parsed.output_rows) == (100, 7)
    assert bytes(image[:1].tobytes()) == b"SPECTRAL"


def test_build_is_deterministic():
    np.testing.assert_array_equal(image_of()[2], image_of()[2])


@pytest.mark.parametrize("mutate, code, text", [
    (lambda i: i[:7], ErrorCode.TRUNCATED, "section HEADER needs 64 bytes"),
    (lambda i: with_header(i, 0, 1), ErrorCode.MAGIC, "section HEADER does not begin"),
    (lambda i: np.concatenate([i[:3], i[3:4] + np.uint64(1), i[4:]]), ErrorCode.HEADER_CRC,
     "section HEADER is corrupt"),
    (lambda i: with_header(i, 1, int(i[1]) + 1), ErrorCode.VERSION, "version 2"),
    (lambda i: with_header(i, 1, int(i[1]) ^ 1 << 40), ErrorCode.CONFIG, "config digest"),
    (lambda i: with_header(i, 2, 17 | len(i) << 32), ErrorCode.LAYERS, "17 layers instead of 1"),
    (lambda i: with_header(i, 2, 0 | len(i) << 32), ErrorCode.LAYERS, "0 layers"),
    (lambda i: i[:-1], ErrorCode.TRUNCATED, "section HEADER announces"),
    (lambda i: with_header(i, 3, 0xFFFFFFFF | 16 << 32), ErrorCode.TRUNCATED, "section DESC"),
    (lambda i: with_header(i, 5, 25 | 13 << 32), ErrorCode.TRUNCATED, "section KERN"),
    (lambda i: with_header(i, 3, 8 | 15 << 32), ErrorCode.TRUNCATED, "DESC has 15 beats"),
    (lambda i: i ^ (np.arange(len(i)) == HEADER_BEATS).astype(np.uint64),
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
    path.write_bytes(b"x" * 100)
    with pytest.raises(ImageError, match="net.bin: section HEADER does not begin"):
        load_image(path)
