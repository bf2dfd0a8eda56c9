"""The core with AXI ports: memory by AXI4, registers by AXI4-Lite."""

from __future__ import annotations

from amaranth.hdl import ClockDomain, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from model.config import AcceleratorConfig
from rtl.axi.lite import AxiLite
from rtl.axi.port import AxiPort, split
from rtl.axi.signatures import Axi4LiteSignature, Axi4Signature, connect_pins, pins
from rtl.core import Core

__all__ = ["AxiIp", "AxiTop"]


def _names(ports: int) -> list[str]:
    return ["m_axi"] if ports == 1 else [f"m_axi_{port}" for port in range(ports)]


def _members(config: AcceleratorConfig, ports: int | None, stride: int, addr_bits: int,
             id_bits: int) -> dict:
    if not isinstance(config, AcceleratorConfig):
        raise TypeError(f"config must be an AcceleratorConfig, not {config!r}")
    count, _ = split(config.port_bits, ports, stride, addr_bits)
    memory = Axi4Signature(
        data_bits=config.port_bits // count, addr_bits=addr_bits, id_bits=id_bits
    )
    registers = Axi4LiteSignature(addr_bits=AxiLite.ADDR_BITS).flip()
    members = pins("s_axi", registers) | {"irq": Out(1)}
    for name in _names(count):
        members |= pins(name, memory)
    return members


class AxiTop(wiring.Component):
    """The core behind AXI, in the ``sync`` domain.

    The memory is always outside; ``onchip_kib`` of the config does not count.

    Parameters
    ----------
    config : AcceleratorConfig
        What to build; ``port_bits`` is the width of the memory port.
    ports, stride, addr_bits, id_bits, outstanding
        See `AxiPort`.

    Attributes
    ----------
    m_axi_*, or m_axi_0_*, m_axi_1_* ... : Axi4Signature
        Memory, master; a beat address of a register is a byte address of each of the ``ports`` /
        (``port_bits`` / ``ports`` / 8).
    s_axi_* : Axi4LiteSignature, flipped
        Registers, slave, see docs/registers.md.
    irq : Out(1)
        Interrupt, level.
    """

    def __init__(self, config: AcceleratorConfig, *, ports: int | None = None, stride: int = 0,
                 addr_bits: int = 64, id_bits: int = 1, outstanding: int = 8) -> None:
        super().__init__(_members(config, ports, stride, addr_bits, id_bits))
        self.config = config
        self._options = {"ports": ports, "stride": stride, "addr_bits": addr_bits,
                         "id_bits": id_bits, "outstanding": outstanding}

    def elaborate(self, platform) -> Module:
        """Core, masters and slave."""
        m = Module()
        m.submodules.core = core = Core(self.config)
        m.submodules.lite = lite = AxiLite()
        m.submodules.port = port = AxiPort(port_bits=self.config.port_bits, **self._options)
        connect(m, core.mem, port.mem)
        for name, axi in zip(_names(len(port.axi)), port.axi, strict=True):
            connect_pins(m, self, name, axi)
        connect_pins(m, self, "s_axi", lite.axi)
        m.d.comb += [
            core.csr_addr.eq(lite.csr_addr), core.csr_w_en.eq(lite.csr_w_en),
            core.csr_w_data.eq(lite.csr_w_data), lite.csr_r_data.eq(core.csr_r_data),
            self.irq.eq(core.irq),
        ]
        return m


class AxiIp(wiring.Component):
    """`AxiTop` with the clock and reset pins AXI demands; what `rtl.build --bus axi` writes.

    Parameters
    ----------
    config, ports, stride, addr_bits, id_bits, outstanding
        See `AxiTop`.

    Attributes
    ----------
    aclk, aresetn : In(1), In(1)
        Clock, and reset: synchronous, active low.
    m_axi_* or m_axi_0_* ..., s_axi_*, irq
        See `AxiTop`.
    """

    def __init__(self, config: AcceleratorConfig, *, ports: int | None = None, stride: int = 0,
                 addr_bits: int = 64, id_bits: int = 1, outstanding: int = 8) -> None:
        super().__init__(
            {"aclk": In(1), "aresetn": In(1)} | _members(config, ports, stride, addr_bits, id_bits)
        )
        self.config = config
        self._options = {"ports": ports, "stride": stride, "addr_bits": addr_bits,
                         "id_bits": id_bits, "outstanding": outstanding}

    def elaborate(self, platform) -> Module:
        """Make a clock domain of the pins and put the top into it."""
        m = Module()
        m.domains.sync = domain = ClockDomain(local=True)
        m.submodules.top = top = AxiTop(self.config, **self._options)
        m.d.comb += [domain.clk.eq(self.aclk), domain.rst.eq(~self.aresetn)]
        for name, member in top.signature.members.items():
            inner, outer = getattr(top, name), getattr(self, name)
            m.d.comb += outer.eq(inner) if member.flow is Out else inner.eq(outer)
        return m
