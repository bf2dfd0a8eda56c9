# amaranth: UnusedElaboratable=no
"""Arty A7-100T and KC705: files of the build, run by a stand-in for Vivado."""

import json
import re

import pytest

from boards import build
from boards.build import make_plan
from boards.table import find_board
from model.config import PRESETS
from rtl.build import main
from rtl.resources import run_yosys
from tests.boards.echo import Echo

pytest.importorskip("tkinter")
from tests.boards.tcl import Batch, Constraints  # noqa: E402

#: Pin, standard and period of each port as the boards' makers publish them. Arty: Digilent,
#: Arty-A7-100-Master.xdc (CLK100MHZ, ck_rst, uart_txd_in, uart_rxd_out). KC705: AMD UG810 (SYSCLK,
#: CPU_RESET, USB_TX and USB_RX as the bridge calls them); the same in litex-boards and in
#: VLSI-EDA/PoC, ucf/KC705.
PUBLISHED = {
    "arty-a7-100": {
        "clk100_0__io": ("E3", "LVCMOS33", 10), "rst_0__io": ("C2", "LVCMOS33", None),
        "uart_0__rx__io": ("A9", "LVCMOS33", None), "uart_0__tx__io": ("D10", "LVCMOS33", None),
    },
    "kc705": {
        "clk200_0__p": ("AD12", "LVDS", 5), "clk200_0__n": ("AD11", "LVDS", None),
        "rst_0__io": ("AB7", "LVCMOS15", None),
        "uart_0__rx__io": ("M19", "LVCMOS25", None), "uart_0__tx__io": ("K24", "LVCMOS25", None),
    },
}
PARTS = {"arty-a7-100": "xc7a100tcsg324-1", "kc705": "xc7k325tffg900-2"}
BOARDS = pytest.mark.parametrize("name", PUBLISHED)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(build, "HostedTop", lambda config, **parameters: Echo())
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("VIVADO", raising=False)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write a board's files; the folder."""
    def write(name):
        assert main(["--board", name, "--plan-only", "--out", str(tmp_path)]) == 0
        return tmp_path
    monkeypatch.chdir(tmp_path)     # back to where it was, after the scripts' `cd`
    return write


@BOARDS
def test_constraints_are_the_published_ones(name, files):
    folder, design = files(name), find_board(name).design
    xdc = Constraints()
    xdc.source(folder / f"{design}.xdc")
    ports = {port: (held["loc"], held["iostandard"], held.get("period"))
             for port, held in xdc.properties.items() if port != "design"}
    assert ports == PUBLISHED[name]
    verilog = (folder / f"{design}.v").read_text()
    declared = re.search(rf"module {design}\((.*?)\);", verilog, re.DOTALL)[1]
    assert set(re.split(r"[,\s]+", declared)) == set(ports)
    assert xdc.properties["design"] == {
        "cfgbvs": "VCCO", "config_voltage": "3.3" if name.startswith("arty") else "2.5"}


@BOARDS
def test_the_script_runs_to_a_bitstream(name, files):
    folder, design = files(name), find_board(name).design
    vivado = Batch(setup=0.25)
    vivado.source(folder / f"{design}.tcl")
    assert vivado.top == design and (folder / f"{design}.bit").exists()
    assert vivado.called("create_project") == [
        ("-force", "-name", design, "-part", PARTS[name])]
    assert (folder / f"{design}.slack").read_text() == "0.25 0.05\n"
    assert vivado.called("route_design") and vivado.called("report_utilization")


@pytest.mark.parametrize("slack", [{"setup": -0.01}, {"hold": -0.01}])
def test_timing_that_does_not_close_leaves_no_bitstream(slack, files):
    folder = files("kc705")
    with pytest.raises(Exception, match="timing does not close: slack of setup"):
        Batch(**slack).source(folder / "spectralcnn_kc705.tcl")
    assert not list(folder.glob("*.bit"))


@BOARDS
def test_clock_and_netlist(name):
    board = find_board(name)
    plan, mmcm = make_plan(board, PRESETS["ecp5-85f"], core=Echo())
    assert mmcm.output_hz == board.clock_hz and board.accelerator().onchip_kib
    verilog = plan.files[f"{board.design}.v"]
    verilog = verilog if isinstance(verilog, str) else verilog.decode()
    for what in ("MMCME2_BASE", "BUFG", f".CLKFBOUT_MULT_F({mmcm.feedback8 / 8})",
                 f".CLKOUT0_DIVIDE_F({mmcm.divider8 / 8})", "FDPE"):
        assert what in verilog
    # Vivado reads Verilog-2005, which has no assertions.
    assert not re.search(r"^ +(assert|assume|cover)\b", verilog, re.MULTILINE)
    again, _ = make_plan(board, PRESETS["ecp5-85f"], core=Echo())
    slower, _ = make_plan(board, PRESETS["ecp5-85f"], core=Echo(), clock_hz=25_000_000)
    assert plan.digest() == again.digest() != slower.digest()


@pytest.mark.synth
@BOARDS
def test_primitives_have_these_ports(name, files):
    """yosys knows the ports of AMD's primitives, and reads the netlist as Verilog."""
    folder, design = files(name), find_board(name).design
    script = ("read_verilog -lib +/xilinx/cells_sim.v +/xilinx/cells_xtra.v; read_verilog {}; "
              f"hierarchy -check -top {design}; flatten; tee -q -o stat.json stat -json")
    run_yosys(script.format(f"{design}.v"), folder)
    cells = json.loads((folder / "stat.json").read_text())["design"]["num_cells_by_type"]
    assert {cell: cells[cell] for cell in cells if not cell.startswith("$")} == {
        "MMCME2_BASE": 1, "BUFG": 1, "FDPE": 3, "OBUFT": 1,
        **({"IBUFDS": 1, "IBUF": 2} if name == "kc705" else {"IBUF": 3})}
    wrong = (folder / f"{design}.v").read_text().replace(".CLKIN1(", ".CLKIN(")
    (folder / "wrong.v").write_text(wrong)
    with pytest.raises(RuntimeError, match="does not have a port named 'CLKIN'"):
        run_yosys(script.format("wrong.v"), folder)


def test_without_vivado_the_files_are_there(tmp_path, capsys):
    (tmp_path / "spectralcnn_kc705.bit").write_text("of other sources")
    assert main(["--board", "kc705", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith(
        f"error: Vivado is not on the PATH: {tmp_path} has the files of the build, and no "
        "bitstream; run sh build_spectralcnn_kc705.sh there")
    for name in ("build_spectralcnn_kc705.sh", "spectralcnn_kc705.v", "spectralcnn_kc705.tcl",
                 "spectralcnn_kc705.xdc"):
        assert (tmp_path / name).exists()
    # What was built of other sources must not be flashed.
    assert not list(tmp_path.glob("*.bit"))


@pytest.fixture
def vivado(tmp_path, monkeypatch):
    """A program called vivado that runs this shell text in the folder of the build."""
    def install(text):
        tool = tmp_path / "bin" / "vivado"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f"#!/bin/sh\necho \"$@\" >> called\n{text}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
        return tmp_path / "out"
    return install


def test_a_build_is_run_once(vivado, tmp_path, capsys):
    folder = vivado("echo bits > spectralcnn_kc705.bit; echo 0.5 0.1 > spectralcnn_kc705.slack")
    command = ["--board", "kc705", "--out", str(folder), "--json", str(tmp_path / "r.json")]
    assert main(command) == 0
    assert "clock 100 MHz, timing closes at 105.3 MHz" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["built"] is True
    assert main(command) == 0
    assert json.loads((tmp_path / "r.json").read_text())["built"] is False
    assert (folder / "called").read_text() == (
        "-notrace -nojournal -mode batch -log spectralcnn_kc705.log -source "
        "spectralcnn_kc705.tcl\n")
    assert main([*command, "--clock", "50"]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["built"] is True


@pytest.mark.parametrize("text, message", [
    ("echo 'INFO: x'; echo 'ERROR: [Place 30-640] too full'; exit 1", "ERROR: [Place 30-640]"),
    ("echo 'timing does not close: slack of setup -1 ns'; exit 1", "timing does not close"),
    ("echo done", "done"),
])
def test_a_failing_build_is_one_line(vivado, text, message, capsys):
    folder = vivado(text)
    assert main(["--board", "kc705", "--out", str(folder)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert f"the build failed, see {folder / 'build.log'}" in error
    assert not list(folder.glob("*.bit"))


@pytest.mark.parametrize("arguments, message", [
    (["--board", "kc705", "--seed", "2"], "--seed is for nextpnr, kc705 is built by Vivado"),
    (["--board", "kc705", "--clock", "900"], "clock must be 4.69 to 464 MHz, not 900 MHz"),
    (["--board", "arty-a7-100", "--baud", "30000000"], "50 MHz does not make 30000000 baud"),
    (["--board", "arty-a7-100", "--bus", "axi"], "--bus, its options and --no-report are not"),
])
def test_misuse_is_one_line(arguments, message, tmp_path, capsys):
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
