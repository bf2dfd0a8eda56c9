# amaranth: UnusedElaboratable=no
"""Names and directions of the ports, as IP packagers look for them."""

import re

import pytest
from amaranth.back import verilog

from model.config import PRESETS
from rtl.axi.signatures import Axi4LiteSignature, Axi4Signature
from rtl.axi.top import AxiIp

#: Arm IHI 0022H, tables A2-2 to A2-6: name, driven by the master, bits.
AXI4 = """
awid> 2, awaddr> 40, awlen> 8, awsize> 3, awburst> 2, awlock> 1, awcache> 4, awprot> 3, awqos> 4,
awvalid> 1, awready< 1, wdata> 64, wstrb> 8, wlast> 1, wvalid> 1, wready< 1, bid< 2, bresp< 2,
bvalid< 1, bready> 1, arid> 2, araddr> 40, arlen> 8, arsize> 3, arburst> 2, arlock> 1, arcache> 4,
arprot> 3, arqos> 4, arvalid> 1, arready< 1, rid< 2, rdata< 64, rresp< 2, rlast< 1, rvalid< 1,
rready> 1
"""
LITE = """
awaddr> 12, awprot> 3, awvalid> 1, awready< 1, wdata> 32, wstrb> 4, wvalid> 1, wready< 1, bresp< 2,
bvalid< 1, bready> 1, araddr> 12, arprot> 3, arvalid> 1, arready< 1, rdata< 32, rresp< 2, rvalid< 1,
rready> 1
"""


def expected(table, prefix, driven):
    return {
        (f"{prefix}_{name}", "output" if by == driven else "input", int(bits))
        for name, by, bits in re.findall(r"(\w+)([<>]) (\d+)", table)
    }


def test_ports_in_verilog(monkeypatch):
    """Nothing but these: no further port, no double underscore."""
    monkeypatch.setenv("AMARANTH_USE_YOSYS", "builtin")
    text = verilog.convert(AxiIp(PRESETS["tiny"], addr_bits=40, id_bits=2), name="top",
                           emit_src=False, strip_internal_attrs=True)
    body = re.search(r"^module top\(.*?^endmodule", text, re.MULTILINE | re.DOTALL)[0]
    ports = {
        (name, direction, int(high or 0) + 1)
        for direction, high, name in re.findall(
            r"^  (input|output) (?:\[(\d+):0\] )?(\w+);", body, re.MULTILINE)
    }
    assert ports == (
        expected(AXI4, "m_axi", ">") | expected(LITE, "s_axi", "<")
        | {("aclk", "input", 1), ("aresetn", "input", 1), ("irq", "output", 1)}
    )


@pytest.mark.parametrize(("signature", "arguments", "text"), [
    (Axi4Signature, {"data_bits": 48}, "data_bits must be 64, 128, 256 or 512, not 48"),
    (Axi4Signature, {"data_bits": 64, "addr_bits": 65}, "addr_bits must be 32 to 64, not 65"),
    (Axi4LiteSignature, {"addr_bits": 2}, "addr_bits must be 3 to 64, not 2"),
])
def test_arguments(signature, arguments, text):
    with pytest.raises(ValueError, match=text):
        signature(**arguments)


def test_a_wide_memory_port_has_several_axi_ports():
    """u200's four memories of 512 bits; each port has all that the only one of others has."""
    one, four = (set(AxiIp(PRESETS[name]).signature.members) for name in ("tiny", "u200"))
    names = {name.removeprefix("m_axi_") for name in one if name.startswith("m_axi_")}
    assert four - one == {f"m_axi_{port}_{name}" for port in range(4) for name in names}
    assert AxiIp(PRESETS["u200"]).signature.members["m_axi_3_wdata"].shape == 512


def test_config_type():
    with pytest.raises(TypeError, match="config must be an AcceleratorConfig, not 'tiny'"):
        AxiIp("tiny")
