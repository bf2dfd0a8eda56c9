"""Command line of the area and speed measurement; the figures themselves are in fft/test_area."""

import json

import pytest

from rtl import measure

COUNTS = {"COMB": 7, "FF": 3, "MULT18": 0, "BRAM": 0, "LUTRAM": 0}


@pytest.fixture
def tools(monkeypatch, tmp_path):
    """No yosys and no nextpnr: what was asked of them."""
    asked = []
    monkeypatch.setattr(measure, "GROUPS", {"toy": {"block": lambda: "built"}})
    monkeypatch.setattr(measure, "synth_ecp5", lambda block: asked.append(block) or dict(COUNTS))
    monkeypatch.setattr(measure, "_nextpnr", lambda: "nextpnr")
    monkeypatch.setattr(measure, "ecp5_fmax", lambda block, seeds: [90.0, 100.04, 200.0][:seeds])
    return asked


def test_numbers_are_printed_and_written(tools, tmp_path, capsys):
    target = tmp_path / "toy.json"
    assert measure.main(["toy", "--pnr", "--seeds", "3", "--json", str(target)]) == 0
    assert json.loads(target.read_text()) == {"block": COUNTS | {"Fmax": 100.0}}
    assert [path.name for path in tmp_path.iterdir()] == ["toy.json"]
    assert "100.0" in capsys.readouterr().out and tools == ["built"]


@pytest.mark.parametrize(("arguments", "message"), [
    (["none"], "invalid choice: 'none'"),
    (["toy", "--seeds", "0"], "--seeds must be at least 1, not 0"),
    (["toy", "--seeds", "x"], "invalid int value: 'x'"),
    (["toy", "--json", "{tmp}/none/x.json"], "none does not exist"),
    (["toy", "--json", "{tmp}"], "is a folder, not a file"),
])
def test_mistakes_are_one_line_before_the_work(tools, tmp_path, capsys, arguments, message):
    assert measure.main([text.format(tmp=tmp_path) for text in arguments]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1 and message in text
    assert tools == []


def test_a_write_that_fails_leaves_the_old_file(tools, tmp_path, capsys, monkeypatch):
    target = tmp_path / "toy.json"
    target.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("model.files.os.replace", full)
    assert measure.main(["toy", "--json", str(target)]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert target.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
