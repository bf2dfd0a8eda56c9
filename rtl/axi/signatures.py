"""Ports of AXI4 and AXI4-Lite, and the streams on the core's side of them.

Signal names, widths and rules: Arm IHI 0022H, "AMBA AXI and ACE Protocol Specification", chapters
A2 (signals), A3 (handshakes, bursts, responses) and B1 (AXI4-Lite).
"""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = [
    "Axi4LiteSignature", "Axi4ReadSignature", "Axi4Signature", "Axi4WriteSignature",
    "BURST_INCR", "BoundaryBeats", "CACHE_BUFFERABLE", "DATA_BITS", "RESP_OKAY", "RESP_SLVERR",
    "ReadBeat", "ReadBurst", "WriteBeat", "connect_pins", "pins",
]

#: Widths of the memory port.
DATA_BITS = (64, 128, 256, 512)
#: AxBURST of an incrementing burst.
BURST_INCR = 1
#: AxCACHE: normal memory, not cacheable, bufferable.
CACHE_BUFFERABLE = 0b0011
#: xRESP; bit 1 is set in both errors (SLVERR, DECERR).
RESP_OKAY, RESP_SLVERR = 0, 2
#: No burst crosses a multiple of this many bytes, and none is longer than 256 beats (A3.4.1).
BOUNDARY_BYTES, LONGEST = 4096, 256


def ReadBurst(len_bits: int = 8) -> data.StructLayout:  # noqa: N802
    """Burst of ``len``+1 beats from beat address ``addr``; with 8 bits `rtl`'s ReadRequest."""
    return data.StructLayout({"addr": 32, "len": len_bits})


def ReadBeat(data_bits: int) -> data.StructLayout:  # noqa: N802
    """Beat read; ``last`` ends a burst, ``error`` is a bus error."""
    return data.StructLayout({"data": data_bits, "last": 1, "error": 1})


def WriteBeat(data_bits: int) -> data.StructLayout:  # noqa: N802
    """Write of one beat, posted."""
    return data.StructLayout({"addr": 32, "data": data_bits})


def BoundaryBeats(data_bits: int) -> int:  # noqa: N802
    """Beats of the longest burst that can begin and end at multiples of its own length."""
    return min(LONGEST, BOUNDARY_BYTES * 8 // data_bits)


def _check(data_bits: int, addr_bits: int, id_bits: int) -> None:
    if data_bits not in DATA_BITS:
        raise ValueError(f"data_bits must be 64, 128, 256 or 512, not {data_bits!r}")
    if not isinstance(addr_bits, int) or not 32 <= addr_bits <= 64:
        raise ValueError(f"addr_bits must be 32 to 64, not {addr_bits!r}")
    if not isinstance(id_bits, int) or not 1 <= id_bits <= 16:
        raise ValueError(f"id_bits must be 1 to 16, not {id_bits!r}")


def _address(channel: str, addr_bits: int, id_bits: int) -> dict:
    fields = {"id": id_bits, "addr": addr_bits, "len": 8, "size": 3, "burst": 2, "lock": 1,
              "cache": 4, "prot": 3, "qos": 4, "valid": 1}
    return {channel + name: Out(bits) for name, bits in fields.items()} | {
        channel + "ready": In(1)}


class Axi4ReadSignature(wiring.Signature):
    """Master side of the channels AR and R.

    Parameters
    ----------
    data_bits : int
        64, 128, 256 or 512.
    addr_bits : int
        32 to 64; byte addresses.
    id_bits : int
        1 to 16.
    """

    def __init__(self, *, data_bits: int, addr_bits: int = 64, id_bits: int = 1) -> None:
        _check(data_bits, addr_bits, id_bits)
        super().__init__(_address("ar", addr_bits, id_bits) | {
            "rid": In(id_bits), "rdata": In(data_bits), "rresp": In(2), "rlast": In(1),
            "rvalid": In(1), "rready": Out(1),
        })


class Axi4WriteSignature(wiring.Signature):
    """Master side of the channels AW, W and B; parameters as `Axi4ReadSignature`."""

    def __init__(self, *, data_bits: int, addr_bits: int = 64, id_bits: int = 1) -> None:
        _check(data_bits, addr_bits, id_bits)
        super().__init__(_address("aw", addr_bits, id_bits) | {
            "wdata": Out(data_bits), "wstrb": Out(data_bits // 8), "wlast": Out(1),
            "wvalid": Out(1), "wready": In(1),
            "bid": In(id_bits), "bresp": In(2), "bvalid": In(1), "bready": Out(1),
        })


class Axi4Signature(wiring.Signature):
    """Master side of all five channels; parameters as `Axi4ReadSignature`."""

    def __init__(self, *, data_bits: int, addr_bits: int = 64, id_bits: int = 1) -> None:
        halves = (half(data_bits=data_bits, addr_bits=addr_bits, id_bits=id_bits)
                  for half in (Axi4WriteSignature, Axi4ReadSignature))
        super().__init__({name: member for half in halves
                          for name, member in half.members.items()})


class Axi4LiteSignature(wiring.Signature):
    """Master side of AXI4-Lite with 32 data bits.

    Parameters
    ----------
    addr_bits : int
        3 to 64; byte addresses.
    """

    def __init__(self, *, addr_bits: int) -> None:
        if not isinstance(addr_bits, int) or not 3 <= addr_bits <= 64:
            raise ValueError(f"addr_bits must be 3 to 64, not {addr_bits!r}")
        super().__init__({
            "awaddr": Out(addr_bits), "awprot": Out(3), "awvalid": Out(1), "awready": In(1),
            "wdata": Out(32), "wstrb": Out(4), "wvalid": Out(1), "wready": In(1),
            "bresp": In(2), "bvalid": In(1), "bready": Out(1),
            "araddr": Out(addr_bits), "arprot": Out(3), "arvalid": Out(1), "arready": In(1),
            "rdata": In(32), "rresp": In(2), "rvalid": In(1), "rready": Out(1),
        })


def pins(prefix: str, signature: wiring.Signature) -> dict:
    """Members ``<prefix>_<signal>`` of a component that brings the port out.

    As a member of its own the port would have two underscores in Verilog, and IP packagers would
    not recognise it.
    """
    return {f"{prefix}_{name}": member for name, member in signature.members.items()}


def connect_pins(m: Module, component, prefix: str, port) -> None:
    """Connect the members that `pins` made to the inner port they stand for."""
    for name, member in port.signature.members.items():
        inner, outer = getattr(port, name), getattr(component, f"{prefix}_{name}")
        m.d.comb += outer.eq(inner) if member.flow is Out else inner.eq(outer)
