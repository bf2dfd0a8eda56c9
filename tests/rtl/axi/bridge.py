"""AXI4 slave in hardware in front of a memory port: the core behind AXI on the fast backend."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.axi.port import AxiPort
from rtl.axi.signatures import Axi4Signature, BoundaryBeats
from rtl.core import Core
from rtl.signatures import MemorySignature


class Bridge(wiring.Component):
    """One burst of writes at a time; errors: SLVERR at even beat addresses, DECERR at odd ones."""

    def __init__(self, *, data_bits, addr_bits=64):
        self._beat_log2 = (data_bits // 8).bit_length() - 1
        self._edge = BoundaryBeats(data_bits)
        super().__init__({
            "axi": In(Axi4Signature(data_bits=data_bits, addr_bits=addr_bits)),
            "mem": Out(MemorySignature(data_bits)),
        })

    def elaborate(self, platform):
        m = Module()
        axi, mem = self.axi, self.mem
        beat_at = slice(self._beat_log2, self._beat_log2 + 32)
        # Parity of the first beat of the bursts under way, oldest first.
        odd, count = Signal(16), Signal(range(17))
        asked, ended = axi.arvalid & axi.arready, axi.rvalid & axi.rready & axi.rlast
        present = Signal()
        m.d.comb += [
            mem.ar.valid.eq(axi.arvalid & (count != 16)),
            axi.arready.eq(mem.ar.ready & (count != 16)),
            mem.ar.payload.addr.eq(axi.araddr[beat_at]), mem.ar.payload.len.eq(axi.arlen),
            axi.rvalid.eq(mem.r.valid), mem.r.ready.eq(axi.rready),
            axi.rdata.eq(mem.r.payload.data), axi.rlast.eq(mem.r.payload.last),
            axi.rresp.eq(Cat(odd[0] ^ present, 1) & mem.r.payload.error.replicate(2)),
        ]
        with m.If(axi.rvalid & axi.rready):
            m.d.sync += present.eq(~present & ~axi.rlast)
        left = Signal.like(count)
        m.d.comb += left.eq(count - ended)
        m.d.sync += [count.eq(left + asked), odd.eq(odd >> ended)]
        with m.If(asked):
            m.d.sync += odd.bit_select(left, 1).eq(axi.araddr[self._beat_log2])

        addr, failed = Signal(32), Signal()
        with m.If(mem.w_error):
            m.d.sync += failed.eq(1)
        with m.FSM():
            with m.State("ADDRESS"):
                m.d.comb += axi.awready.eq(1)
                with m.If(axi.awvalid):
                    m.d.sync += [addr.eq(axi.awaddr[beat_at]), failed.eq(0)]
                    m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += [mem.w.valid.eq(axi.wvalid), axi.wready.eq(mem.w.ready)]
                with m.If(axi.wvalid & axi.wready):
                    m.d.sync += addr.eq(addr + 1)
                    with m.If(axi.wlast):
                        m.next = "SETTLE"
            with m.State("SETTLE"):
                with m.If(~mem.w_busy):
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += [axi.bvalid.eq(1), axi.bresp.eq(Cat(addr[0], 1) & failed.replicate(2))]
                with m.If(axi.bready):
                    m.next = "ADDRESS"
        m.d.comb += [mem.w.payload.addr.eq(addr), mem.w.payload.data.eq(axi.wdata)]
        return m


class BridgedCore(wiring.Component):
    """A core with probes; between its memory port and the outer one lies AXI."""

    def __init__(self, config):
        self._core = Core(config, probe=True)
        self._bits = config.port_bits
        super().__init__(self._core.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.core = core = self._core
        m.submodules.port = port = AxiPort(port_bits=self._bits)
        m.submodules.bridge = bridge = Bridge(data_bits=self._bits)
        connect(m, core.mem, port.mem)
        connect(m, port.axi[0], bridge.axi)
        connect(m, bridge.mem, flipped(self.mem))
        for name in self.signature.members:
            if name.startswith("probe"):
                ports, outer = getattr(core, name), getattr(self, name)
                pairs = [(ports, outer)] if name == "probe_sum" else zip(ports, outer, strict=True)
                for inner, out in pairs:
                    connect(m, inner, flipped(out))
        m.d.comb += [
            *(getattr(core, name).eq(getattr(self, name))
              for name in ("csr_addr", "csr_w_en", "csr_w_data")),
            *(getattr(self, name).eq(getattr(core, name)) for name in ("csr_r_data", "irq")),
        ]
        return m
