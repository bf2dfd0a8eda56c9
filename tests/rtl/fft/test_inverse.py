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
IN, OUT = InverseInput(TAG), InverseOutput(TAG)


def run(transfers):
    """Feed words (None: idle cycle); return [(cycle, row, index, kernel)]."""
    dut = InverseFFT(TAG)
    items = [transfer if transfer is None else pack(IN, transfer) for transfer in transfers]
    got, stamps = [], []
    simulate(
        dut, drive(dut.i, items + [None] * (dut.LATENCY + 2)),
        monitors=[collect(dut.o, got, stamps)],
    )
    words = [unpack(OUT, bits) for bits in got]
    return [
        (cycle, list(word.row), word.index, word.tag.kernel)
        for cycle, word in zip(stamps, words, strict=True)
    ]


def transfer_of(words, kernel, bypass=0):
    return {
        "words": [{"re": re, "im": im} for re, im in words], "bypass": bypass,
        "tag": {"kernel": kernel, "last": 0},
    }


def tile_of(words, kernel):
    """Eight transfers; only the first one carries the tag."""
    return [
        transfer_of(words[4 * i : 4 * i + 4], kernel if i == 0 else ~kernel & 31) for i in range(8)
    ]


def check(tiles, gaps):
    transfers, expected = [], []
    rows = fft.inverse(tiles).tolist()
    for n, (words, gap) in enumerate(zip(tiles.tolist(), gaps, strict=True)):
        transfers += [None] * gap
        start = len(transfers) + InverseFFT.LATENCY
        expected += [(start + y, rows[n][y], y, n % 32) for y in range(8)]
        transfers += tile_of(words, n % 32)
    assert run(transfers) == expected


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


def test_back_to_back():
    check(np.random.default_rng(1).integers(-20000, 20000, (30, 32, 2)), [0] * 30)


@pytest.mark.parametrize("seed", [2, 3])
def test_spaced(seed):
    rng = np.random.default_rng(seed)
    check(rng.integers(-(2**17), 2**17, (30, 32, 2)), rng.integers(0, 12, 30).tolist())


def test_worst_words_saturate():
    words = worst_words()
    assert fft.inverse(words).max() == 2**23 - 1
    check(words, [0] * len(words))


def test_deltas():
    check(2**16 * np.eye(64, dtype=int).reshape(64, 32, 2), [0] * 64)


def test_round_trip():
    tiles = np.random.default_rng(4).integers(0, 256, (10, 8, 8))
    transfers = []
    for words in fft.forward(tiles).tolist():
        transfers += tile_of(words, 0)
    rows = np.array([row for _, row, _, _ in run(transfers)]).reshape(-1, 8, 8)
    assert np.array_equal(np.rint(rows / 128), tiles)


def test_bypass_between_tiles():
    rng = np.random.default_rng(5)
    idle = [None] * InverseFFT.LATENCY
    tiles = rng.integers(-20000, 20000, (2, 32, 2))
    vectors = rng.integers(-(2**17), 2**17, (20, 4, 2)).tolist()
    rows = fft.inverse(tiles).tolist()
    transfers = [
        *tile_of(tiles[0].tolist(), 9), *idle,
        *[transfer_of(words, n, bypass=1) for n, words in enumerate(vectors)], *idle,
        *tile_of(tiles[1].tolist(), 10),
    ]
    got = run(transfers)
    sent = [cycle for cycle, transfer in enumerate(transfers) if transfer is not None]
    assert [cycle - InverseFFT.LATENCY for cycle, *_ in got] == sent
    assert [g[1:] for g in got[:8]] == [(row, y, 9) for y, row in enumerate(rows[0])]
    assert [g[1:] for g in got[-8:]] == [(row, y, 10) for y, row in enumerate(rows[1])]
    assert [(g[1][7], g[2], g[3]) for g in got[8:-8]] == [
        (words[0][0] << POST_SHIFT, 7, n) for n, words in enumerate(vectors)
    ]


def test_plain_tag():
    dut = InverseFFT(unsigned(3))
    assert dut.o.payload.shape() == InverseOutput(unsigned(3))
