# amaranth: UnusedElaboratable=no
"""InverseFFT against model.fft.inverse, bit for bit."""

import numpy as np
import pytest
from amaranth.hdl import unsigned
from amaranth.lib import data

from model import fft, halfplane
from model.config import POST_SHIFT
from rtl.fft.inverse import InverseFFT, InverseInput, InverseOutput
from tests.rtl.helpers import collect, drive, pack, simulate, unpack

TAG = data.StructLayout({"kernel": 5, "last": 1})
ALL_ROWS = pytest.mark.parametrize("rows", [1, 2, 4, 8])


def run(rows, transfers):
    """Feed words (None: idle cycle); return [(cycle after LATENCY, rows, index, kernel)]."""
    dut = InverseFFT(TAG, rows)
    i, o = InverseInput(TAG, rows), InverseOutput(TAG, rows)
    items = [transfer if transfer is None else pack(i, transfer) for transfer in transfers]
    got, stamps = [], []
    simulate(
        dut, drive(dut.i, items + [None] * (dut.LATENCY + 2)),
        monitors=[collect(dut.o, got, stamps)],
    )
    words = [unpack(o, bits) for bits in got]
    return [
        (cycle - dut.LATENCY, list(word.row), word.index, word.tag.kernel)
        for cycle, word in zip(stamps, words, strict=True)
    ]


def transfer_of(words, kernel, bypass=0):
    return {
        "words": [{"re": re, "im": im} for re, im in words], "bypass": bypass,
        "tag": {"kernel": kernel, "last": 0},
    }


def tile_of(words, kernel, rows):
    """Transfers of a tile; only the first one carries the tag."""
    return [
        transfer_of(words[at : at + 4 * rows], ~kernel & 31 if at else kernel)
        for at in range(0, 32, 4 * rows)
    ]


def rows_of(tile, start, kernel, rows):
    """What `run` returns for the tile."""
    return [
        (start + t, np.reshape(tile[y : y + rows], -1).tolist(), y, kernel)
        for t, y in enumerate(range(0, 8, rows))
    ]


def check(rows, tiles, gaps):
    transfers, expected = [], []
    pixels = fft.inverse(tiles).tolist()
    for n, (words, gap) in enumerate(zip(tiles.tolist(), gaps, strict=True)):
        transfers += [None] * gap
        expected += rows_of(pixels[n], len(transfers), n % 32, rows)
        transfers += tile_of(words, n % 32, rows)
    assert run(rows, transfers) == expected


def worst_words():
    """Sign patterns that maximise each pixel, and packed column 0 after the columns."""
    basis = np.eye(64).reshape(64, 32, 2)
    spectrum = halfplane.unpack(basis[..., 0] + 1j * basis[..., 1])
    columns = np.fft.ifft(spectrum, axis=1)
    forms = np.concatenate([
        np.fft.ifft(columns, axis=2).real.reshape(64, 64),
        columns[:, :, 0].real, columns[:, :, 4].real,
        columns[:, :, 1].real, columns[:, :, 3].imag,
    ], axis=1).T
    words = np.where(forms > 1e-9, 2**17 - 1, np.where(forms < -1e-9, -(2**17), 0))
    return np.concatenate([words, ~words]).reshape(-1, 32, 2)


@ALL_ROWS
def test_back_to_back(rows):
    words = np.random.default_rng(1).integers(-20000, 20000, (30, 32, 2))
    check(rows, words, [0] * 30)


@ALL_ROWS
@pytest.mark.parametrize("seed", [2, 3])
def test_spaced(rows, seed):
    rng = np.random.default_rng(seed)
    check(rows, rng.integers(-(2**17), 2**17, (30, 32, 2)), rng.integers(0, 12, 30).tolist())


@ALL_ROWS
def test_worst_words_saturate(rows):
    words = worst_words()
    assert fft.inverse(words).max() == 2**23 - 1
    check(rows, words, [0] * len(words))


@ALL_ROWS
def test_deltas(rows):
    check(rows, 2**16 * np.eye(64, dtype=int).reshape(64, 32, 2), [0] * 64)


@ALL_ROWS
def test_round_trip(rows):
    tiles = np.random.default_rng(4).integers(0, 256, (10, 8, 8))
    transfers = []
    for words in fft.forward(tiles).tolist():
        transfers += tile_of(words, 0, rows)
    got = np.array([row for _, row, _, _ in run(rows, transfers)]).reshape(-1, 8, 8)
    assert np.array_equal(np.rint(got / 128), tiles)


@ALL_ROWS
def test_bypass_between_tiles(rows):
    rng = np.random.default_rng(5)
    idle = [None] * InverseFFT(TAG, rows).LATENCY
    tiles = rng.integers(-20000, 20000, (3, 32, 2))
    transfers, expected = [], []
    pixels = fft.inverse(tiles).tolist()
    for n, words in enumerate(tiles.tolist()):
        expected += rows_of(pixels[n], len(transfers), n, rows)
        transfers += tile_of(words, n, rows) + idle
        for kernel, vector in enumerate(
            rng.integers(-(2**17), 2**17, (20, 4 * rows, 2)).tolist()
        ):
            transfers += [None] * int(rng.choice([0, 0, 1]))
            expected.append(
                (len(transfers), [vector[0][0] << POST_SHIFT], 8 - rows, kernel)
            )
            transfers.append(transfer_of(vector, kernel, bypass=1))
        transfers += idle
    got = [
        (cycle, row[-len(wanted[1]):], index, kernel)
        for (cycle, row, index, kernel), wanted in zip(run(rows, transfers), expected, strict=True)
    ]
    assert got == expected


def test_plain_tag():
    dut = InverseFFT(unsigned(3))
    assert dut.o.payload.shape() == InverseOutput(unsigned(3))


def test_latency():
    assert [InverseFFT(TAG, rows).LATENCY for rows in (1, 2, 4, 8)] == [18, 14, 12, 11]
    assert InverseFFT.LATENCY == InverseFFT(TAG).LATENCY == 18


def test_bad_rows():
    with pytest.raises(ValueError, match=r"^rows must be 1, 2, 4 or 8, not 16$"):
        InverseFFT(TAG, 16)
    with pytest.raises(TypeError, match=r"^rows must be an integer, not True$"):
        InverseFFT(TAG, True)
