# amaranth: UnusedElaboratable=no
"""ZCU104 and ZC706: the scripts, run from the Verilog to the bitstream by stand-ins for Vivado."""

import dataclasses
import json
import re
import shutil

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring

from boards import zynq
from boards.table import ZYNQ_BOARDS
from model.compile import compile_network
from model.config import PRESETS, AcceleratorConfig
from model.network import NETWORKS
from model.synthetic import synthetic_network
from rtl.axi.top import AxiIp
from rtl.build import main, top_name, verilog_of
from rtl.convert import convert

pytest.importorskip("tkinter")
from tests.boards.system import System  # noqa: E402
from tests.boards.tcl import Packager  # noqa: E402

BOARDS = pytest.mark.parametrize("name", ZYNQ_BOARDS)
#: What the core drives: all but these of a master, these of a slave.
MASTER_IN = re.compile(r"(AW|AR|W)READY|(R|B)(ID|DATA|RESP|LAST|VALID)")
asked = []


def hollow(config, bus, **axi):
    """Verilog with the ports of the core and nothing behind them."""
    asked.append(axi)

    class Hollow(wiring.Component):
        def elaborate(self, platform):
            return Module()

    return convert(Hollow(AxiIp(config, **axi).signature), name=top_name(config, bus))


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    asked.clear()
    monkeypatch.setattr(zynq, "verilog_of", hollow)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("VIVADO", raising=False)
    monkeypatch.chdir(tmp_path)     # back to where it was, after the scripts' `cd`


def written(folder, name, *options):
    assert main(["--board", name, "--plan-only", "--out", str(folder), *options]) == 0
    return folder


def ports_of(verilog, top):
    """Direction and width of each port of the top module."""
    begin = verilog.index(f"module {top}(")
    text = verilog[begin:verilog.index("endmodule", begin)]
    return {name: (side, int(high or 0) + 1) for side, high, name in re.findall(
        r"^ +(input|output) (?:\[(\d+):0\] )?(\w+);", text, re.MULTILINE)}


def packaged(folder, top):
    core = Packager()
    core.source(folder / "package.tcl")
    return core, ports_of((folder / f"{top}.v").read_text(), top)


def check(core, ports, masters, addr_bits):
    """Every port of the Verilog is in one interface, in the right direction."""
    assert set(core.interfaces) == {*masters, "s_axi", "aclk", "aresetn", "irq"}
    found = [port for name in core.interfaces for port in core.ports(name).values()]
    assert sorted(found) == sorted(ports)
    for name in (*masters, "s_axi"):
        master = name != "s_axi"
        assert core.of(name) == {
            "abstraction_type_vlnv": "xilinx.com:interface:aximm_rtl:1.0",
            "bus_type_vlnv": "xilinx.com:interface:aximm:1.0",
            "interface_mode": "master" if master else "slave",
            **({"master_address_space_ref": name} if master else
               {"slave_memory_map_ref": "s_axi"}),
        }
        for logical, port in core.ports(name).items():
            assert port == f"{name}_{logical.lower()}"
            given = bool(MASTER_IN.fullmatch(logical)) == master
            assert ports[port][0] == ("input" if given else "output"), port
        if master:
            assert ports[f"{name}_araddr"][1] == ports[f"{name}_awaddr"][1] == addr_bits
            space = core.properties[f"space:{name}"]
            assert (int(space["range"]), int(space["width"])) == (1 << addr_bits, addr_bits)
        widths = core.parameters(name)
        assert int(widths["ADDR_WIDTH"]) == ports[f"{name}_araddr"][1]
        assert int(widths["DATA_WIDTH"]) == ports[f"{name}_rdata"][1]
    assert core.spaces == list(masters) and core.maps == ["s_axi"]
    assert core.parameters("s_axi")["PROTOCOL"] == "AXI4LITE"
    assert int(core.properties["map:s_axi:reg0"]["range"]) == 1 << ports["s_axi_awaddr"][1]
    clock = core.parameters("aclk")
    assert set(clock["ASSOCIATED_BUSIF"].split(":")) == {*masters, "s_axi"}
    assert clock["ASSOCIATED_RESET"] == "aresetn"
    assert core.parameters("aresetn") == {"POLARITY": "ACTIVE_LOW"}
    assert core.parameters("irq") == {"SENSITIVITY": "LEVEL_HIGH"}
    assert core.saved == 1


@BOARDS
def test_from_the_verilog_to_the_bitstream(name, tmp_path, capsys):
    board = ZYNQ_BOARDS[name]
    folder = written(tmp_path, name)
    assert "run it with vivado on the PATH" in capsys.readouterr().out
    top = f"spectralcnn_{name}_axi"
    core, ports = packaged(folder, top)
    masters = [f"m_axi_{port}" for port in range(4)]
    check(core, ports, masters, board.addr_bits)
    assert ports["m_axi_3_rdata"][1] == board.widest
    assert asked == [{"ports": 4, "stride": 32 << 20, "addr_bits": board.addr_bits}]

    system = System(core)
    system.source(folder / "system.tcl")
    design = board.design
    for suffix, content in ((".bit", "bits"), (".xsa", "platform"), (".slack", "0.1 0.02\n")):
        assert (folder / (design + suffix)).read_text() == content
    assert system.called("create_project") == [
        ("-force", design, "project", "-part", board.part)]
    assert name in system.properties["project"]["board_part"]
    # One clock for everything; four memory ports of the width the core has.
    clocks = {sink: source for sink, source in system.nets.items() if "clk" in sink.lower()}
    assert set(clocks.values()) == {"ps/pl_clk0" if name == "zcu104" else "ps/FCLK_CLK0"}
    assert system.nets["core/aresetn"] == "resets/peripheral_aresetn"
    bridges = dict(system.buses)
    for port in range(4):
        assert bridges[f"core/m_axi_{port}"] == f"memory_bus{port}/S00_AXI"
        end = f"S_AXI_HP{port}" + ("_FPD" if name == "zcu104" else "")
        assert bridges[f"memory_bus{port}/M00_AXI"] == f"ps/{end}"
    option = "config.psu__saxigp{}__data_width" if name == "zcu104" else \
        "config.pcw_s_axi_hp{}_data_width"
    first = 2 if name == "zcu104" else 0
    assert [system.properties["ps"][option.format(first + port)] for port in range(4)] == [
        str(board.widest)] * 4
    words = system.assigned[0]
    assert words[:4] == ("-offset", f"{board.registers:#010x}", "-range", "4096")
    assert words[5:7] == ("ps/Data", "core/s_axi/reg0") and system.assigned[1] == ()


def test_a_clock_and_a_config_of_ones_own(tmp_path):
    folder = written(tmp_path, "zcu104", "--config", "tiny", "--clock", "123.5")
    core, ports = packaged(folder, "spectralcnn_tiny_axi")
    check(core, ports, ["m_axi"], 40)
    assert asked == [{"ports": 1, "stride": 0, "addr_bits": 40}]
    system = System(core)
    system.source(folder / "system.tcl")
    assert system.properties["ps"]["config.psu__crl_apb__pl0_ref_ctrl__freqmhz"] == "123.5"
    assert system.properties["ps"]["config.psu__saxigp2__data_width"] == "64"
    assert json.loads((folder / "config.json").read_text())["clock_hz"] == 123_500_000


@pytest.mark.parametrize("name, config, width, clock", [
    ("zcu104", "zcu104-alexnet", 256, "pl_clk1"), ("zc706", "zc706-alexnet", 128, "FCLK_CLK1"),
])
def test_ports_wider_than_the_memorys(name, config, width, clock, tmp_path):
    """The interconnect makes them narrower and brings them to the faster clock of the memory's."""
    board = ZYNQ_BOARDS[name]
    folder = written(tmp_path, name, "--config", config)
    core, ports = packaged(folder, f"spectralcnn_{config}_axi".replace("-", "_"))
    check(core, ports, [f"m_axi_{port}" for port in range(4)], board.addr_bits)
    assert ports["m_axi_0_rdata"][1] == width > board.widest
    system = System(core)
    system.source(folder / "system.tcl")
    settings = system.properties["ps"]
    option = "psu__saxigp{}__data_width" if name == "zcu104" else "pcw_s_axi_hp{}_data_width"
    first = 2 if name == "zcu104" else 0
    assert [settings["config." + option.format(first + port)] for port in range(4)] == [
        str(board.widest)] * 4
    option = "psu__crl_apb__pl1_ref_ctrl__freqmhz" if name == "zcu104" else \
        "pcw_fpga1_peripheral_freqmhz"
    assert float(settings["config." + option]) == board.memory_clock_hz / 1e6
    fast = {sink for sink, source in system.nets.items() if source == f"ps/{clock}"}
    sink = "saxihp{}_fpd_aclk" if name == "zcu104" else "S_AXI_HP{}_ACLK"
    assert fast == {f"memory_bus{port}/aclk1" for port in range(4)} | {
        "ps/" + sink.format(port) for port in range(4)}


def test_the_ports_are_those_of_the_core(tmp_path, monkeypatch):
    """The real Verilog of a small core, as the stand-in of the other tests has it."""
    monkeypatch.setattr(zynq, "verilog_of", verilog_of)
    folder = written(tmp_path, "zc706", "--config", "tiny")
    core, ports = packaged(folder, "spectralcnn_tiny_axi")
    check(core, ports, ["m_axi"], 32)
    text = hollow(PRESETS["tiny"], "axi", ports=1, stride=0, addr_bits=32)
    assert ports == ports_of(text, "spectralcnn_tiny_axi")


@pytest.mark.parametrize("script, old, new, message", [
    ("package.tcl", "$top.v", "other.v", "other.v"),
    ("package.tcl", "ipx::add_port_map", "ipx::add_port", "invalid command name"),
    ("system.tcl", "connect_pins core/irq ps/$interrupt", "", "irq.* is open"),
    ("system.tcl", "connect_pins ps/$clock $name/aclk", "", "aclk is open"),
    ("system.tcl", "CONFIG.NUM_CLKS $clocks", "CONFIG.NUM_CLKS 2", "aclk1 is open"),
    ("system.tcl", "ps/$control core/$slave", "ps/$control core/registers", "does not exist"),
    ("processors.tcl", "return S_AXI_HP${number}_FPD", "return S_AXI_HP0_FPD", "connected twice"),
])
def test_the_stand_ins_find_mistakes(tmp_path, script, old, new, message):
    folder = written(tmp_path, "zcu104")
    text = (folder / script).read_text()
    assert old in text
    (folder / script).write_text(text.replace(old, new))
    with pytest.raises(Exception, match=message):
        core, _ = packaged(folder, "spectralcnn_zcu104_axi")
        System(core).source(folder / "system.tcl")


@pytest.mark.parametrize("options, message", [
    ({"files": ()}, "no board files for xilinx.com:zcu104"),
    ({"setup": -0.5}, "timing does not close: slack of setup -0.5 ns"),
])
def test_what_ends_the_build(tmp_path, options, message):
    folder = written(tmp_path, "zcu104")
    core, _ = packaged(folder, "spectralcnn_zcu104_axi")
    with pytest.raises(Exception, match=message):
        System(core, **options).source(folder / "system.tcl")
    assert not list(folder.glob("*.bit")) and not list(folder.glob("*.xsa"))


def test_without_vivado_the_files_are_there(tmp_path, capsys):
    assert main(["--board", "zcu104", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "error: Vivado is not on the PATH" in error
    assert {path.name for path in tmp_path.iterdir()} == {
        "build.json", "build_spectralcnn_zcu104.sh", "config.json", "package.tcl",
        "processors.tcl", "settings.tcl", "spectralcnn_zcu104_axi.v", "system.tcl"}


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")
def test_vivado_is_called_twice(tmp_path, monkeypatch, capsys):
    tool = tmp_path / "bin" / "vivado"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\necho "$@" >> called\nfor end in bit xsa; do\n'
                    "echo x > spectralcnn_zc706.$end; done\n"
                    "echo 1 0.1 > spectralcnn_zc706.slack\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    folder = tmp_path / "out"
    assert main(["--board", "zc706", "--out", str(folder), "--clock", "100",
                 "--json", str(tmp_path / "r.json")]) == 0
    assert "clock 100 MHz, timing closes at 111.1 MHz" in capsys.readouterr().out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["platform"] == str(folder / "spectralcnn_zc706.xsa") and report["built"]
    calls = (folder / "called").read_text().splitlines()
    assert [call.split()[-1] for call in calls] == ["package.tcl", "system.tcl"]


@BOARDS
def test_a_network_compiles_for_the_presets(name):
    network = synthetic_network(dataclasses.replace(
        NETWORKS["vgg16-cifar-quarter"], layers=NETWORKS["vgg16-cifar-quarter"].layers[:13]))
    program = compile_network(network, PRESETS[name])
    assert len(program.layers) == 13 and all(layer.kernel_passes == 1 for layer in program.layers)


@BOARDS
def test_presets_take_the_ports_and_fit_by_count(name):
    """Multipliers; and RAM as a row of 36 Kbit (or 288) holds words, see docs/boards.md."""
    board = ZYNQ_BOARDS[name]
    config = board.accelerator()
    assert zynq.split(board, config) == (4, board.widest)
    assert config.multipliers <= {"zcu104": 1728, "zc706": 900}[name]
    tiles = config.tile_lanes * config.banks
    kernel_bits = config.kernel_lanes * 2 * config.weight_bits
    shared = config.feature_banks * 16 + 4 * config.tile_lanes      # feature columns, sum buffers
    assert config.feature_depth == 4096     # a column in a block of 4096 x 9
    if name == "zcu104":
        # UltraRAM of 4096 x 72: a tile bank of 8192 x 36, two rows of blocks for the kernels.
        assert config.tile_depth == config.kernel_depth == 8192 and config.ultra_ram
        assert tiles + 2 * -(-kernel_bits // 72) <= 0.9 * 96 and shared <= 0.9 * 312
    else:
        # Blocks of 1024 x 36 for the tiles, 4096 x 9 for the kernels.
        assert config.kernel_depth == 4096 and not config.ultra_ram
        blocks = tiles * config.tile_depth // 1024 + -(-kernel_bits // 9) + shared
        assert blocks <= 0.9 * 545


@pytest.mark.parametrize("arguments, message", [
    (["--baud", "115200"], "--baud is for boards with a serial line, zcu104 is driven by its"),
    (["--seed", "3"], "--seed is for nextpnr, zcu104 is built by Vivado"),
    (["--config", "u200"],
     "config u200 has a memory port of 2048 bits, zcu104 has 4 of 128, or of twice as many"),
])
def test_misuse_is_one_line(arguments, message, tmp_path, capsys):
    assert main(["--board", "zcu104", *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_own_config_that_is_too_wide_for_a_port(tmp_path, capsys):
    config = AcceleratorConfig.from_json(PRESETS["zc706"].to_json().replace(
        '"port_bits": 256', '"port_bits": 1024'))
    (tmp_path / "c.json").write_text(config.to_json())
    assert main(["--board", "zc706", "--config", str(tmp_path / "c.json")]) == 2
    assert "a memory port of 1024 bits, zc706 has 4 of 64" in capsys.readouterr().err
