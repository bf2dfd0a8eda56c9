"""AXI4-Lite slave in front of the registers: word address = byte address / 4.

One access at a time, a write before a read. A write needs all four bytes: the registers have no
byte enables, so a partial one is refused with SLVERR and changes nothing.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.axi.signatures import RESP_OKAY, RESP_SLVERR, Axi4LiteSignature
from rtl.csr import ADDRESS_BITS, READ_LATENCY

__all__ = ["AxiLite"]


class AxiLite(wiring.Component):
    """Register access by AXI4-Lite.

    AW and W may come in any order and wait for each other; the lowest two address bits do not
    count. Latency: a write is answered 2 cycles after the later of AW and W, a read 5 cycles after
    AR. Throughput: a write every 2 cycles, a read every 5 (a master that takes its answer at once).

    Attributes
    ----------
    axi : In(Axi4LiteSignature(addr_bits=12))
        Bus side.
    csr_addr, csr_w_en, csr_w_data, csr_r_data : Out(10), Out(1), Out(32), In(32)
        Registers; data `READ_LATENCY` cycles after the address, see `rtl.csr`.
    """

    #: Byte addresses: 4 KiB.
    ADDR_BITS = ADDRESS_BITS + 2

    def __init__(self) -> None:
        super().__init__({
            "axi": In(Axi4LiteSignature(addr_bits=self.ADDR_BITS)),
            "csr_addr": Out(ADDRESS_BITS), "csr_w_en": Out(1), "csr_w_data": Out(32),
            "csr_r_data": In(32),
        })

    def elaborate(self, platform) -> Module:
        """Fill a register per channel; access when they are full and the answer is free."""
        m = Module()
        axi = self.axi
        aw_full, w_full, ar_full = (
            Signal(name=name) for name in ("aw_full", "w_full", "ar_full")
        )
        looked_up = Signal(READ_LATENCY)    # a read, by its age
        aw_addr, ar_addr = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        strobe = Signal(4)
        write, read = Signal(), Signal()
        m.d.comb += [
            axi.awready.eq(~aw_full), axi.wready.eq(~w_full), axi.arready.eq(~ar_full),
            write.eq(aw_full & w_full & (~axi.bvalid | axi.bready)),
            read.eq(ar_full & ~write & ~looked_up.any() & ~axi.rvalid),
            self.csr_addr.eq(Mux(write, aw_addr, ar_addr)),
            self.csr_w_en.eq(write & strobe.all()),
        ]
        with m.If(axi.awvalid & axi.awready):
            m.d.sync += [aw_full.eq(1), aw_addr.eq(axi.awaddr[2:])]
        with m.If(axi.wvalid & axi.wready):
            m.d.sync += [w_full.eq(1), self.csr_w_data.eq(axi.wdata), strobe.eq(axi.wstrb)]
        with m.If(axi.bready):
            m.d.sync += axi.bvalid.eq(0)
        with m.If(write):
            m.d.sync += [
                aw_full.eq(0), w_full.eq(0), axi.bvalid.eq(1),
                # No strobe at all: nothing to write, nothing refused.
                axi.bresp.eq(Mux(strobe.all() | ~strobe.any(), RESP_OKAY, RESP_SLVERR)),
            ]

        with m.If(axi.arvalid & axi.arready):
            m.d.sync += [ar_full.eq(1), ar_addr.eq(axi.araddr[2:])]
        with m.If(axi.rready):
            m.d.sync += axi.rvalid.eq(0)
        m.d.sync += looked_up.eq(Cat(read, looked_up))
        with m.If(read):
            m.d.sync += ar_full.eq(0)
        with m.If(looked_up[-1]):
            m.d.sync += [axi.rvalid.eq(1), axi.rdata.eq(self.csr_r_data)]
        return m
