"""What a user can get wrong: one clear line and exit code 2, before anything is built."""

import numpy as np
import pytest
from PIL import Image

from model.config import PRESETS
from model.errors import UserError
from model.image import ErrorCode, ImageError, ProgramImage
from sim.faults import flip_bit, sections
from sim.inputs import as_input, image_files, parse_indices, stored_digits
from sim.run import main
from tests.model.test_image import image_of
from tests.model.wide import CONFIGS


def picture(path, size=(28, 28), mode="L"):
    Image.new(mode, size, 0).save(path)
    return str(path)


def errors(capsys, *argv):
    assert main(list(argv)) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    return text


@pytest.mark.parametrize(("arguments", "message"), [
    (["--images", "{tmp}/none.png"], "none.png does not exist"),
    (["--images", "{tmp}/text.png"], "text.png is of no known format"),
    (["--images", "{tmp}/cut.png"], "cut.png cannot be read"),
    (["--images", "{tmp}/large.png"], "is 32x28 pixels, the network takes 28x28"),
    (["--index", "x"], "'x' is neither a number nor a range"),
    (["--index", "5:5"], "range '5:5' is empty"),
    (["--index", "100000"], "beyond the test set of 300 digits"),
    (["--index", "0:99999999999999999999"], "asks for more digits than there are"),
    (["nonet"], "invalid choice: 'nonet' (choose from"),
    (["--index", "1", "--images", "{tmp}/large.png"], "not allowed with argument --index"),
    (["--config", "huge"], "unknown config 'huge'"),
    (["--network", "{tmp}/none.npz"], "none.npz does not exist"),
    (["--network", "{tmp}/text.npz"], "text.npz cannot be used"),
    (["--alpha", "77"], "the zoo has no lenet-channel-a77"),
    (["--vcd", "{tmp}/wave.txt"], "must end in .vcd or .fst"),
    (["--vcd", "{tmp}/none/wave.vcd"], "folder {tmp}/none does not exist"),
    (["--backend", "pysim", "--vcd", "{tmp}/wave.fst"], "must end in .vcd"),
    (["--json", "{tmp}/none/x.json"], "does not exist"),
    (["--json", "{tmp}/folder.json"], "folder.json is a folder, not a file"),
    (["--stall", "1"], "stall must be at least 0 and below 1"),
    (["--latency", "0"], "latency must be at least 1"),
    (["--bandwidth", "0"], "bandwidth must be above 0"),
    (["--bandwidth", "1.5"], "at most 1 beat per cycle, not 1.5"),
    (["--gaps", "100"], "--gaps 100: give a period and a length in cycles"),
    (["--gaps", "-5:1"], "expected one argument"),
    (["--gaps", "10:10"], "gaps must be shorter than their period"),
    (["--max-cycles", "0"], "--max-cycles must be positive"),
    (["--fix-crc"], "--fix-crc needs --flip-bit"),
])
def test_mistakes_are_one_line(tmp_path, capsys, arguments, message):
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "text.npz").write_text("not a network")
    (tmp_path / "folder.json").mkdir()
    picture(tmp_path / "large.png", (32, 28))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:300])
    arguments = [text.format(tmp=tmp_path) for text in arguments]
    assert message.format(tmp=tmp_path) in errors(capsys, *arguments)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPECTRALCNN_CACHE", str(tmp_path / "file" / "cache"))
    assert "set SPECTRALCNN_CACHE to another" in errors(capsys, "lenet5")


def test_colour_pictures_are_converted(tmp_path):
    (digit,) = image_files([picture(tmp_path / "rgb.png", mode="RGB")])
    assert digit.pixels.shape == (28, 28) and digit.label is None


def test_indices():
    assert parse_indices(["3", "5:8", "0:10:5"]) == [3, 5, 6, 7, 0, 5]


def test_digits_are_padded_in_the_middle():
    (digit,) = stored_digits([4])
    assert digit.label in range(10)
    for shape in ((1, 28, 28), (1, 32, 32)):
        assert as_input(digit, shape).sum() == digit.pixels.sum()
    np.testing.assert_array_equal(as_input(digit, (1, 32, 32))[0, 2:30, 2:30], digit.pixels)
    with pytest.raises(UserError, match="takes 3x28x28"):
        as_input(digit, (3, 28, 28))


def test_flip_bit_positions():
    config = PRESETS["tiny"]
    image = np.zeros(16 + 8 + 5, dtype="<u8")
    image[3], image[5] = 16 | 8 << 32, 24 | 5 << 32
    assert sections(image, config)["KERN"] == slice(24, 29)
    for where, word, bit in (("65", 1, 1), ("DESC:64", 17, 0), ("kern:3", 24, 3)):
        flipped, text = flip_bit(image, config, where)
        assert np.flatnonzero(flipped ^ image).tolist() == [word]
        assert int((flipped ^ image)[word]) == 1 << bit
        assert f"bit {bit} of word" in text
    assert "section KERN" in text
    fixed, _ = flip_bit(image, config, "KERN:3", fix_crc=True)
    assert fixed[4] != 0 and fixed[15] != 0
    for wrong in ("-1", "KERN:320", "NONE:1", "x", str(29 * 64)):
        with pytest.raises(UserError):
            flip_bit(image, config, wrong)


@pytest.mark.parametrize("section, code", [
    ("HEADER", ErrorCode.HEADER_CRC), ("DESC", ErrorCode.DESCRIPTOR_CRC),
    ("KERN", ErrorCode.KERNEL_CRC),
])
def test_flip_bit_of_a_wide_image(section, code):
    config = CONFIGS["port-2048"]
    image = image_of(config=config)[2]
    flipped, text = flip_bit(image, config, f"{section}:300")
    assert text == f"flipped bit 44 of word 4 of section {section}"
    with pytest.raises(ImageError) as caught:
        ProgramImage.parse(flipped.tobytes(), config)
    assert caught.value.code == code
    fixed, _ = flip_bit(image, config, "KERN:300", fix_crc=True)
    ProgramImage.parse(fixed.tobytes(), config)
