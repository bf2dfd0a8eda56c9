# amaranth: UnusedElaboratable=no
"""ForwardFFT against model.fft.forward, bit for bit."""

import numpy as np
import pytest

from model import fft
from model.config import PRESETS
from rtl.fft.forward import ForwardFFT
from rtl.signatures import Column, RowPair
from tests.rtl.helpers import collect, drive, pack, simulate, unpack

CONFIG = PRESETS["tiny"]
ROW, COLUMN = RowPair(CONFIG), Column(CONFIG)


def run(transfers):
    """Feed row pairs (None: idle cycle); return [(cycle, column)]."""
    dut = ForwardFFT(CONFIG)
    items = [transfer if transfer is None else pack(ROW, transfer) for transfer in transfers]
    got, stamps = [], []
    simulate(
        dut, drive(dut.i, items + [None] * (dut.LATENCY + 2)),
        monitors=[collect(dut.o, got, stamps)],
    )
    return [(cycle, unpack(COLUMN, bits)) for cycle, bits in zip(stamps, got, strict=True)]


def words_of(column):
    return [[word.re, word.im] for word in column.words]


def tag_of(rng, bypass=0):
    return {
        "lane": int(rng.integers(CONFIG.tile_lanes)), "channel_low": int(rng.integers(8)),
        "addr": int(rng.integers(CONFIG.tile_depth)), "bypass": bypass,
        "block_last": int(rng.integers(2)),
    }


def check(tiles, gaps, seed):
    """Send tiles with idle cycles before each; compare words, index, tag and cycle."""
    rng = np.random.default_rng(seed)
    transfers, starts, tags = [], [], []
    for tile, gap in zip(tiles.tolist(), gaps, strict=True):
        transfers += [None] * gap
        starts.append(len(transfers))
        tags.append(tag_of(rng))
        transfers += [{"rows": tile[2 * i : 2 * i + 2], "tag": tags[-1]} for i in range(4)]
    got = run(transfers)
    assert len(got) == 4 * len(tiles)
    expected = fft.forward(tiles).reshape(-1, 8, 2)
    for n, (cycle, column) in enumerate(got):
        tile, v = divmod(n, 4)
        assert cycle == starts[tile] + v + ForwardFFT.LATENCY, f"tile {tile}, seed {seed}"
        assert column.index == v
        assert words_of(column) == expected[n].tolist(), f"tile {tile} column {v} seed {seed}"
        assert {name: getattr(column.tag, name) for name in tags[tile]} == tags[tile]


def worst_tiles():
    """Sign patterns that maximise each component of the words and of packed column 0."""
    identity = np.eye(64).reshape(64, 8, 8)
    words = np.fft.fft2(identity)
    packed = words[:, :, 0] + 1j * words[:, :, 4]  # Z(u) of the column with bins 0 and 4
    forms = np.concatenate([words[:, :, :4].reshape(64, 32), packed], axis=1)
    forms = np.concatenate([forms.real, forms.imag], axis=1).T
    tiles = np.where(forms > 1e-9, 255, np.where(forms < -1e-9, -256, 0)).reshape(-1, 8, 8)
    return np.concatenate([tiles, ~tiles])


def test_back_to_back():
    tiles = np.random.default_rng(1).integers(-256, 256, (60, 8, 8))
    check(tiles, [0] * 60, seed=1)


@pytest.mark.parametrize("seed", [2, 3])
def test_spaced(seed):
    rng = np.random.default_rng(seed)
    check(rng.integers(-256, 256, (60, 8, 8)), rng.integers(0, 7, 60).tolist(), seed)


def test_worst_tiles():
    tiles = worst_tiles()
    check(tiles, [0] * len(tiles), seed=4)


def test_deltas():
    check(255 * np.eye(64, dtype=int).reshape(64, 8, 8), [0] * 64, seed=5)


def test_bypass_between_tiles():
    rng = np.random.default_rng(6)
    idle = [None] * ForwardFFT.LATENCY
    tiles = rng.integers(-256, 256, (2, 8, 8))
    vectors = rng.integers(-256, 256, (20, 2, 8))
    tags = [tag_of(rng, bypass=1) for _ in vectors]
    rows = [
        [{"rows": tile[2 * i : 2 * i + 2], "tag": tag_of(rng)} for i in range(4)]
        for tile in tiles.tolist()
    ]
    bypassed = [
        {"rows": vector, "tag": tag} for vector, tag in zip(vectors.tolist(), tags, strict=True)
    ]
    transfers = rows[0] + idle + bypassed + idle + rows[1]
    got = run(transfers)
    sent = [cycle for cycle, transfer in enumerate(transfers) if transfer is not None]
    assert [cycle - ForwardFFT.LATENCY for cycle, _ in got] == sent
    columns = [column for _, column in got]
    words = [words_of(column) for column in columns]
    expected = fft.forward(tiles).reshape(2, 4, 8, 2).tolist()
    assert words[:4] == expected[0] and words[-4:] == expected[1]
    assert words[4:-4] == vectors.reshape(-1, 8, 2).tolist()
    assert [column.index for column in columns] == [0, 1, 2, 3, *[0] * 20, 0, 1, 2, 3]
    assert [column.tag.addr for column in columns[4:-4]] == [tag["addr"] for tag in tags]
    assert all(column.tag.bypass for column in columns[4:-4])


def test_bad_config():
    with pytest.raises(TypeError, match=r"^config must be an AcceleratorConfig, not 'tiny'$"):
        ForwardFFT("tiny")
