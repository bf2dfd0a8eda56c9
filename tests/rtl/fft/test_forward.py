# amaranth: UnusedElaboratable=no
"""ForwardFFT against model.fft.forward, bit for bit."""

import numpy as np
import pytest

from model import fft
from model.config import PRESETS
from rtl.fft.forward import ForwardFFT, ForwardInput, ForwardOutput
from rtl.signatures import Column, RowPair
from tests.rtl.helpers import collect, drive, pack, simulate, unpack

CONFIG = PRESETS["tiny"]
ALL_ROWS = pytest.mark.parametrize("rows", [1, 2, 4, 8])


def run(rows, transfers):
    """Feed transfers (None: idle cycle); return the latency and [(cycle, output)]."""
    dut = ForwardFFT(CONFIG, rows=rows)
    i, o = ForwardInput(CONFIG, rows), ForwardOutput(CONFIG, rows)
    items = [transfer if transfer is None else pack(i, transfer) for transfer in transfers]
    got, stamps = [], []
    simulate(
        dut, drive(dut.i, items + [None] * (dut.LATENCY + 2)),
        monitors=[collect(dut.o, got, stamps)],
    )
    return dut.LATENCY, [(cycle, unpack(o, bits)) for cycle, bits in zip(stamps, got, strict=True)]


def words_of(output):
    return [[word.re, word.im] for word in output.words]


def tag_of(rng, bypass=0):
    return {
        "lane": int(rng.integers(CONFIG.tile_lanes)), "channel_low": int(rng.integers(8)),
        "addr": int(rng.integers(CONFIG.tile_depth)), "bypass": bypass,
        "block_last": int(rng.integers(2)),
    }


def transfers_of(tile, rows, tag):
    return [{"rows": tile[y : y + rows], "tag": tag} for y in range(0, 8, rows)]


def outputs_of(rows):
    """For every output of a tile: the transfer it follows, and its first column."""
    follows = {1: [1, 3, 5, 7], 2: [0, 1, 2, 3], 4: [0, 1], 8: [0]}[rows]
    return [(t, n * max(1, rows // 2)) for n, t in enumerate(follows)]


def check(rows, tiles, gaps, seed):
    """Send tiles with idle cycles before each; compare words, index, tag and cycle."""
    rng = np.random.default_rng(seed)
    transfers, expected = [], []
    words = fft.forward(tiles).tolist()
    for n, (tile, gap) in enumerate(zip(tiles.tolist(), gaps, strict=True)):
        transfers += [None] * gap
        tag = tag_of(rng)
        expected += [
            (len(transfers) + t, v, words[n][8 * v : 8 * v + 8 * max(1, rows // 2)], tag)
            for t, v in outputs_of(rows)
        ]
        transfers += transfers_of(tile, rows, tag)
    latency, got = run(rows, transfers)
    assert [
        (cycle - latency, output.index, words_of(output), {k: output.tag[k] for k in tag})
        for cycle, output in got
    ] == expected


def worst_tiles():
    """Sign patterns that maximise each component of the words and of packed column 0."""
    identity = np.eye(64).reshape(64, 8, 8)
    words = np.fft.fft2(identity)
    packed = words[:, :, 0] + 1j * words[:, :, 4]  # Z(u) of the column with bins 0 and 4
    forms = np.concatenate([words[:, :, :4].reshape(64, 32), packed], axis=1)
    forms = np.concatenate([forms.real, forms.imag], axis=1).T
    tiles = np.where(forms > 1e-9, 255, np.where(forms < -1e-9, -256, 0)).reshape(-1, 8, 8)
    return np.concatenate([tiles, ~tiles])


@ALL_ROWS
def test_back_to_back(rows):
    tiles = np.random.default_rng(1).integers(-256, 256, (40, 8, 8))
    check(rows, tiles, [0] * 40, seed=1)


@ALL_ROWS
@pytest.mark.parametrize("seed", [2, 3])
def test_spaced(rows, seed):
    rng = np.random.default_rng(seed)
    check(rows, rng.integers(-256, 256, (40, 8, 8)), rng.integers(0, 9, 40).tolist(), seed)


@ALL_ROWS
def test_worst_tiles(rows):
    tiles = worst_tiles()
    check(rows, tiles, [0] * len(tiles), seed=4)


@ALL_ROWS
def test_deltas(rows):
    check(rows, 255 * np.eye(64, dtype=int).reshape(64, 8, 8), [0] * 64, seed=5)


@ALL_ROWS
def test_bypass_between_tiles(rows):
    """Vectors in bursts with gaps, of one transfer each, or of two with one row."""
    rng = np.random.default_rng(6)
    tiles, tags = rng.integers(-256, 256, (3, 8, 8)), [tag_of(rng) for _ in range(3)]
    spectra = fft.forward(tiles).tolist()
    taken = max(2, rows)
    idle = [None] * ForwardFFT(CONFIG, rows=rows).LATENCY
    transfers, expected = [], []
    for tile, spectrum, tag in zip(tiles.tolist(), spectra, tags, strict=True):
        expected += [
            (len(transfers) + t, v, spectrum[8 * v : 8 * v + 8 * max(1, rows // 2)], tag["addr"])
            for t, v in outputs_of(rows)
        ]
        transfers += transfers_of(tile, rows, tag) + idle
        for vector in rng.choice([-256, 255, -1, 77], (20, taken, 8)).tolist():
            transfers += [None] * int(rng.choice([0, 0, 0, 1, 2]))
            tag = tag_of(rng, bypass=1)
            transfers += [
                {"rows": vector[k : k + rows], "tag": tag} for k in range(0, taken, rows)
            ]
            words = np.array(vector).reshape(-1, 2).tolist()
            expected.append((len(transfers) - 1, 0, words, tag["addr"]))
        transfers += idle
    latency, got = run(rows, transfers)
    assert [
        (cycle - latency, output.index, words_of(output), output.tag.addr) for cycle, output in got
    ] == expected


def test_latency():
    assert [ForwardFFT(CONFIG, rows=rows).LATENCY for rows in (1, 2, 4, 8)] == [17, 14, 12, 11]


def test_ports_of_the_core():
    dut = ForwardFFT(CONFIG)
    assert dut.rows == CONFIG.forward_rows == 2
    assert dut.i.payload.shape() == RowPair(CONFIG) and dut.o.payload.shape() == Column(CONFIG)


def test_bad_arguments():
    with pytest.raises(TypeError, match=r"^config must be an AcceleratorConfig, not 'tiny'$"):
        ForwardFFT("tiny")
    with pytest.raises(ValueError, match=r"^rows must be 1, 2, 4 or 8, not 3$"):
        ForwardFFT(CONFIG, rows=3)
    with pytest.raises(TypeError, match=r"^rows must be an integer, not '2'$"):
        ForwardFFT(CONFIG, rows="2")
