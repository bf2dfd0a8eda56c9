"""Feature memory: the activations of all layers, on chip.

Sixteen byte-wide memories, two parity banks (even and odd map rows) of eight byte columns, so that
a read takes eight pixels from any column of two adjacent map rows, and a write puts up to eight
values at any byte offset of one row, or of an even and the odd one below. Layout: see
`rtl.signatures.FeatureReadSignature` and `FeatureWrite`.

Latency: read 2 cycles (RAM, then register; the rotation follows in the same cycle, since a block
RAM takes more than half of a cycle at 100 MHz); a read ``WRITE_LATENCY`` cycles after a write sees
it. Throughput: one read and one write per cycle. ECP5 cost: 16 DP16KD at a depth of
2048, no multiplier.
"""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In
from amaranth.utils import ceil_log2

from model.config import AcceleratorConfig
from rtl.rotate import rotate
from rtl.signatures import Event, FeatureReadSignature, FeatureWrite

__all__ = ["FeatureMemory"]

COLUMNS = 8


class FeatureMemory(wiring.Component):
    """Two parity banks of eight byte columns of ``feature_depth`` rows.

    A row that is read in the very cycle it is written gives undefined bytes; the layers' order
    excludes it for every byte that is used. Beyond the depth, which the compiler excludes too,
    nothing is written and undefined bytes are read (the padding of a map reaches there).

    Parameters
    ----------
    config : AcceleratorConfig
        Uses ``feature_depth``.

    Attributes
    ----------
    read : In(FeatureReadSignature())
        Read port, ``LATENCY`` cycles.
    write : In(Event(FeatureWrite))
        Write port, one event per cycle.
    fill : In(Event(FeatureWrite))
        Whole rows from byte 0 on, which need no rotation: ``offset``, ``count`` and ``vector`` are
        not looked at. Never in the same cycle as ``write``.
    """

    #: Cycles from ``read.en`` to ``read.even`` and ``read.odd``.
    LATENCY = 2
    #: Cycles from ``write.valid`` to the first ``read.en`` that sees the data.
    WRITE_LATENCY = 2

    def __init__(self, *, config: AcceleratorConfig) -> None:
        if not isinstance(config, AcceleratorConfig):
            raise TypeError(f"config must be an AcceleratorConfig, not {config!r}")
        self._depth = config.feature_depth
        super().__init__({
            "read": In(FeatureReadSignature()),
            "write": In(Event(FeatureWrite)),
            "fill": In(Event(FeatureWrite)),
        })

    def elaborate(self, platform) -> Module:
        """Build the write stage, the sixteen memories and the rotation of what was read."""
        m = Module()
        read, write = self.read, self.write.payload
        bits = ceil_log2(self._depth)

        # s1: the write rotated to its byte columns, or what fills a row.
        fills, fill = self.fill.valid, self.fill.payload
        turn = (-write.offset)[:3]
        s1_data = rotate([write.data[i] for i in range(COLUMNS)], turn)
        s1_below = rotate(
            [Mux(write.pair, write.below[i], write.data[i]) for i in range(COLUMNS)], turn
        )
        s1_columns = []
        w_onward = Signal(bits)
        m.d.comb += w_onward.eq(write.addr + 1)
        for column in range(COLUMNS):
            wrapped = Signal(name=f"wrapped{column}")
            byte = Signal(data.ArrayLayout(8, 2), reset_less=True, name=f"s1_byte{column}")
            row = Signal(bits, reset_less=True, name=f"s1_row{column}")
            enable = Signal(2, name=f"s1_enable{column}")
            # A vector goes on in the odd bank of the same row, then in the even one of the next.
            onward = wrapped & (~write.vector | write.parity)
            parity = write.parity ^ (write.vector & wrapped)
            present = self.write.valid & ((column - write.offset)[:3] < write.count)
            m.d.comb += wrapped.eq(column < write.offset)
            m.d.sync += [
                byte[0].eq(Mux(fills, fill.data[column], s1_data[column])),
                byte[1].eq(Mux(
                    fills, Mux(fill.pair, fill.below[column], fill.data[column]), s1_below[column]
                )),
                row.eq(Mux(fills, fill.addr, Mux(onward, w_onward, write.addr))),
                enable[0].eq((fills & ~fill.parity) | (present & ~parity)),
                enable[1].eq(
                    (fills & (fill.parity | fill.pair)) | (present & (parity | write.pair))
                ),
            ]
            s1_columns.append((byte, row, enable))

        s1_offset, s2_offset = Signal(3, reset_less=True), Signal(3, reset_less=True)
        m.d.sync += [s1_offset.eq(read.offset), s2_offset.eq(s1_offset)]
        for parity, name in enumerate(("even", "odd")):
            addr = (read.even_addr, read.odd_addr)[parity][:bits]
            onward = (read.even_next, read.odd_next)[parity][:bits]
            fetched = []
            for column, (byte, row, enable) in enumerate(s1_columns):
                ram = memory.Memory(shape=8, depth=self._depth, init=[])
                m.submodules[f"{name}{column}"] = ram
                write_port, read_port = ram.write_port(), ram.read_port()
                m.d.comb += [
                    write_port.addr.eq(row),
                    write_port.data.eq(byte[parity]),
                    write_port.en.eq(enable[parity]),
                    read_port.addr.eq(Mux(column < read.offset, onward, addr)),
                    read_port.en.eq(read.en),
                ]
                s2_byte = Signal(8, reset_less=True, name=f"s2_{name}{column}")
                m.d.sync += s2_byte.eq(read_port.data)
                fetched.append(s2_byte)
            pixels = (read.even, read.odd)[parity]
            m.d.comb += [
                pixels[column].eq(byte) for column, byte in enumerate(rotate(fetched, s2_offset))
            ]
        return m
