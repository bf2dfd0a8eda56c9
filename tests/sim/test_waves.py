"""GTKWave save files: signals found in Verilog and VCD, grouped by unit."""

from model.config import PRESETS
from sim.pysim import PysimBackend
from sim.verilator import design_verilog
from sim.waves import vcd_signals, verilog_signals, write_save_file
from tests.sim.standin import StandIn

CONFIG = PRESETS["tiny"]


def test_groups_follow_the_units(tmp_path):
    names = ["top.core.loader.o__valid", "top.core.mac.lane0.i__valid", "top.core.issue.state",
             "top.core.sums.busy", "top.core.forward.i__valid", "top.core.writer.count",
             "top.core.loader.clk", "top.core.memory.ar__ready", "top.core.loader.unrelated"]
    path = write_save_file(tmp_path / "x.vcd", [(name, 8) for name in names])
    lines = path.read_text().splitlines()
    assert path.name == "x.gtkw" and lines[0] == f'[dumpfile] "{tmp_path / "x.vcd"}"'
    group = {}
    for line in lines:
        if line.startswith("-"):
            current = line[1:]
        elif line.startswith("top."):
            group[line] = current
    assert group == {
        "top.core.loader.o__valid[7:0]": "loader", "top.core.mac.lane0.i__valid[7:0]": "mac",
        "top.core.issue.state[7:0]": "mac", "top.core.sums.busy[7:0]": "sums",
        "top.core.forward.i__valid[7:0]": "fft", "top.core.writer.count[7:0]": "writer",
        "top.core.memory.ar__ready[7:0]": "memory",
    }


def test_both_sources_know_the_ports(tmp_path):
    with PysimBackend(StandIn(CONFIG), config=CONFIG, memory_beats=64,
                      trace=tmp_path / "x.vcd") as backend:
        backend.csr_read(0)
    in_vcd = {name.rpartition(".")[2]: width for name, width in vcd_signals(tmp_path / "x.vcd")}
    in_verilog = {name.rpartition(".")[2]: width
                  for name, width in verilog_signals(design_verilog(StandIn(CONFIG)))}
    for name, width in (("mem__ar__valid", 1), ("csr_r_data", 32), ("reg7", 32)):
        assert in_verilog[name] == width
        assert in_vcd[name] == width
