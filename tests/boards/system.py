"""A stand-in for Vivado's block designs: cells with the pins their IP has, and what is connected.

Pins of the processing systems: AMD PG201 (Zynq UltraScale+) and PG082 (Zynq-7000); of
SmartConnect PG247, of the reset block PG164.
"""

from pathlib import Path

from tests.boards.tcl import Tcl

RESETS = {"slowest_sync_clk", "ext_reset_in", "peripheral_aresetn", "interconnect_aresetn"}


class System(Tcl):
    """Block design and the run behind it.

    Parameters
    ----------
    core : Packager
        The packaged core.
    files : list of str
        Board files that this Vivado has.
    setup : float
        Slack the run ends with.
    """

    def __init__(self, core, files=("xilinx.com:zcu104:part0:1.1", "xilinx.com:zc706:part0:1.4"),
                 setup=0.1):
        super().__init__()
        self.core, self.files = core, files
        self.cells, self.nets, self.buses, self.assigned = {}, {}, {}, []
        self.properties["run"] = {
            "progress": "100%", "status": "write_bitstream Complete!", "directory": "project",
            "stats.wns": str(setup), "stats.whs": "0.02",
        }

    def do_get_board_parts(self, *words):
        pattern = words[-1].removesuffix("*")
        return " ".join(name for name in self.files if name.startswith(pattern))

    def do_update_ip_catalog(self):
        assert Path(self.properties["project"]["ip_repo_paths"]) == Path("ip").resolve()

    def do_create_bd_design(self, name):
        assert name == "system"

    def do_create_bd_cell(self, *words):
        assert words[:3] == ("-type", "ip", "-vlnv") and words[4] not in self.cells
        self.cells[words[4]] = words[3]
        self.properties[words[4]] = {}
        return words[4]

    def do_apply_bd_automation(self, *words):
        options = self.words(words[3])
        assert words[1].endswith(self.cells["ps"].split(":")[-1])
        assert dict(zip(options[::2], options[1::2], strict=True))["apply_board_preset"] == "1"

    def has(self, cell):
        """Pins and buses of a cell, with what its parameters switch on."""
        set_to, vlnv = self.properties[cell], self.cells[cell]
        if vlnv.startswith("spectralcnn:"):
            assert vlnv == "spectralcnn:accelerator:{name}:{version}".format(
                **self.core.properties["core"])
            buses = {name for name in self.core.interfaces if "axi" in name}
            return {"aclk", "aresetn", "irq"}, buses
        if vlnv == "xilinx.com:ip:smartconnect":
            clocks = {"aclk", "aclk1"} if set_to["config.num_clks"] == "2" else {"aclk"}
            return (clocks | {"aresetn"}, {f"S{n:02}_AXI" for n in range(int(
                set_to["config.num_si"]))} | {f"M{n:02}_AXI" for n in range(int(
                    set_to["config.num_mi"]))})
        if vlnv == "xilinx.com:ip:proc_sys_reset":
            return RESETS, set()
        pins, buses = set(), set()
        if vlnv == "xilinx.com:ip:zynq_ultra_ps_e":
            pins |= {"pl_clk0", "pl_resetn0"} if set_to["config.psu__fpga_pl0_enable"] else set()
            pins |= {"pl_clk1"} if set_to.get("config.psu__fpga_pl1_enable") == "1" else set()
            pins |= {"pl_ps_irq0"} if set_to["config.psu__use__irq0"] == "1" else set()
            names = [("config.psu__use__m_axi_gp0", "M_AXI_HPM0_FPD", "maxihpm0_fpd_aclk")] + [
                (f"config.psu__use__s_axi_gp{n + 2}", f"S_AXI_HP{n}_FPD", f"saxihp{n}_fpd_aclk")
                for n in range(4)]
        else:
            assert vlnv == "xilinx.com:ip:processing_system7"
            pins |= {"FCLK_CLK0"} if set_to["config.pcw_en_clk0_port"] == "1" else set()
            pins |= {"FCLK_CLK1"} if set_to.get("config.pcw_en_clk1_port") == "1" else set()
            pins |= {"FCLK_RESET0_N"} if set_to["config.pcw_en_rst0_port"] == "1" else set()
            if set_to["config.pcw_use_fabric_interrupt"] == set_to["config.pcw_irq_f2p_intr"]:
                pins |= {"IRQ_F2P"}
            names = [("config.pcw_use_m_axi_gp0", "M_AXI_GP0", "M_AXI_GP0_ACLK")] + [
                (f"config.pcw_use_s_axi_hp{n}", f"S_AXI_HP{n}", f"S_AXI_HP{n}_ACLK")
                for n in range(4)]
        for option, bus, clock in names:
            if set_to.get(option) == "1":
                buses.add(bus)
                pins.add(clock)
        return pins, buses

    def _pin(self, name, side):
        cell, pin = name.split("/")
        assert pin in self.has(cell)[side], f"{name} does not exist"
        return name

    def do_get_bd_pins(self, name):
        return self._pin(name, 0)

    def do_get_bd_intf_pins(self, name):
        return self._pin(name, 1)

    def do_connect_bd_net(self, source, sink):
        assert sink not in self.nets, f"{sink} is connected twice"
        self.nets[sink] = source

    def do_connect_bd_intf_net(self, source, sink):
        assert source not in self.buses and sink not in self.buses.values(), (
            f"{source} or {sink} is connected twice")
        self.buses[source] = sink

    def do_get_bd_addr_spaces(self, name):
        return name

    do_get_bd_addr_segs = do_get_bd_addr_spaces

    def do_assign_bd_address(self, *words):
        self.assigned.append(words)

    def do_validate_bd_design(self):
        """Nothing is left open, and every bus has one clock."""
        sources = set(self.nets.values())
        for cell in self.cells:
            pins, buses = self.has(cell)
            for pin in pins:
                assert f"{cell}/{pin}" in self.nets.keys() | sources, f"{cell}/{pin} is open"
            for bus in buses:
                ends = self.buses.keys() | self.buses.values()
                assert f"{cell}/{bus}" in ends, f"{cell}/{bus} is open"

    def do_save_bd_design(self):
        pass

    def do_get_files(self, name):
        return name

    def do_make_wrapper(self, *words):
        assert words == ("-files", "system.bd", "-top")
        Path("system_wrapper.v").write_text("")
        return "system_wrapper.v"

    def do_launch_runs(self, *words):
        assert words[:3] == ("impl_1", "-to_step", "write_bitstream")

    def do_wait_on_run(self, name):
        Path("project").mkdir(exist_ok=True)
        Path("project/system_wrapper.bit").write_text("bits")

    def do_get_runs(self, name):
        return "run"

    def do_write_hw_platform(self, *words):
        assert "-include_bit" in words
        Path(words[-1]).write_text("platform")
