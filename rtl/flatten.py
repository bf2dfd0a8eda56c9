"""Flatten: the input of a fully connected layer out of several feature banks, sixteen values a row.

A vector lies with sixteen values in each bank's row, bank after bank (`model.layout.vector`): every
cycle a row of it is read from the next bank. A map stays as it was written, channel c in bank c mod
F; it is read in the order of PyTorch's ``flatten``, channel, row, column, up to eight pixels of a
map row a cycle, and the pixels are pushed together. So neither writers nor pooling need to know
what the next layer is. The images of a batch come one after the other, each for a lane of its own.

Throughput: a row of a vector every cycle; of a map, ``min(8, in_width)`` values a cycle; `GAP`
cycles between images. Latency: `Flatten.LATENCY` cycles from a read to the row that it completes.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from model.config import ROW_BITS, AcceleratorConfig
from rtl.feature import FeatureMemory
from rtl.requantise import delayed
from rtl.rotate import rotate
from rtl.signatures import Descriptor, Event, FeatureReadSignature, RowPair

__all__ = ["Flatten"]

#: What goes with a read: the bank, whether it is an odd map row, and how many pixels count.
_Read = data.StructLayout({"bank": 4, "odd": 1, "count": 4})


class Flatten(wiring.Component):
    """Reader of the input of dot layers, for several feature banks.

    Parameters
    ----------
    config : AcceleratorConfig
        F feature banks.

    Attributes
    ----------
    start : In(1)
        Pulse: the input is written, and the ring has room for it.
    desc : In(Descriptor)
        The layer, constant until the last row is out. Uses ``channels``, ``spread``,
        ``in_signed``, ``in_base``, ``in_plane`` (0: a vector), ``in_row_log2``, ``in_height``,
        ``in_width``; ``tiles``, the images, which lie ``out_plane`` rows from each other.
    addr : In(range(tile_depth))
        With ``start``: where the first row of each image goes in the ring.
    busy : Out(1)
        From the cycle after ``start`` to the one before the last row. What was read beyond an
        image's end comes for `LATENCY` cycles more, to no effect.
    read : Out(FeatureReadSignature()).array(feature_banks)
        Read ports of the feature memory, outputs registered; low while not ``busy``.
    o : Out(Event(RowPair(config)))
        Rows, with ``tag.bypass``, for 2^``spread`` tile lanes in turn, or each image's for a lane
        of its own (then ``spread`` is 0). Values beyond an input's
        end are whatever lies there; they meet zero weights.
    """

    #: Cycles from a step of the walk to the row it completes.
    LATENCY = 1 + FeatureMemory.LATENCY + 3
    #: Cycles from the last row of an image to the first read of the next: the pipeline runs empty.
    GAP = LATENCY + 2

    def __init__(self, *, config: AcceleratorConfig) -> None:
        if not isinstance(config, AcceleratorConfig):
            raise TypeError(f"config must be an AcceleratorConfig, not {config!r}")
        self._config = config
        super().__init__({
            "start": In(1), "desc": In(Descriptor), "addr": In(range(config.tile_depth)),
            "busy": Out(1),
            "read": Out(FeatureReadSignature()).array(config.feature_banks),
            "o": Out(Event(RowPair(config))),
        })

    def elaborate(self, platform) -> Module:
        """Choose the bank, push the pixels together, hand rows on."""
        m = Module()
        lanes = self._config.tile_lanes
        vector = Signal()
        m.d.sync += vector.eq(self.desc.in_plane == 0)
        begin, reading = Signal(), Signal()     # an image begins, is being read
        read = self._walk(m, vector, begin, reading)
        valid = reading
        valid = delayed(m, valid, 1 + FeatureMemory.LATENCY, "read_valid")
        read = delayed(m, read, 1 + FeatureMemory.LATENCY, "read")

        # s1: the bank; a map row lies in the first eight.
        half = data.ArrayLayout(8, 8)
        s1_first, s1_second = Signal(half, reset_less=True), Signal(half, reset_less=True)
        s1_valid, s1_count = Signal(), Signal(4, reset_less=True)
        with m.Switch(read.bank):
            for bank, port in enumerate(self.read):
                with m.Case(bank):
                    m.d.sync += [
                        s1_first.eq(Mux(read.odd, port.odd.as_value(), port.even.as_value())),
                        s1_second.eq(port.odd),
                    ]
        m.d.sync += [s1_valid.eq(valid), s1_count.eq(read.count)]

        # s2: turned to their places in a row of sixteen; which places they take in this row and,
        # beyond its end, in the next.
        filled, end = Signal(4), Signal(5)
        s2_first, s2_second = Signal(half, reset_less=True), Signal(half, reset_less=True)
        s2_takes, s2_onward = Signal(16, reset_less=True), Signal(16, reset_less=True)
        s2_valid, s2_full = Signal(), Signal(reset_less=True)
        turned = rotate(list(s1_first), (-filled)[:3])
        m.d.comb += end.eq(filled + s1_count)
        m.d.sync += [
            s2_valid.eq(s1_valid), s2_full.eq(vector | end[4]), s2_second.eq(s1_second),
            *(s2_first[index].eq(turned[index]) for index in range(8)),
            s2_takes.eq(Cat(vector | (filled <= at) & (end > at) for at in range(16))),
            s2_onward.eq(Cat(end > at + 16 for at in range(16))),
        ]
        with m.If(s1_valid & ~vector):
            m.d.sync += filled.eq(end)
        with m.If(begin):
            m.d.sync += filled.eq(0)

        # s3: the row.
        held = Signal(data.ArrayLayout(8, 16), reset_less=True)
        rows = (self.desc.channels + 7)[3:]             # of eight words
        left = Signal(rows.shape())                     # of them to come
        addr, first_addr = (Signal(self.addr.shape(), reset_less=True) for _ in range(2))
        image, more = Signal(range(lanes)), Signal(range(lanes))    # this one; those to come
        turn, turn_end = Signal(self._config.spread), Signal()      # lane, of an only image
        pause = Signal(range(self.GAP))
        full = s2_valid & s2_full & (left != 0)
        row, tag = self.o.payload.rows, self.o.payload.tag
        m.d.comb += [
            reading.eq(left != 0), self.busy.eq(reading | (more != 0)),
            begin.eq(self.start | (pause == self.GAP - 1)),
            turn_end.eq(turn == ((1 << self.desc.spread) - 1)[:len(turn)]),
            tag.bypass.eq(1), tag.addr.eq(addr), tag.lane.eq(image | turn),
            tag.block_last.eq(~self.busy),
        ]
        for at in range(16):
            pixel = s2_first[at % 8]
            if at >= 8:
                pixel = Mux(vector, s2_second[at - 8], pixel)
            here = Mux(s2_takes[at], pixel, held[at])
            m.d.sync += row[at // 8][at % 8].eq(Cat(here, here[7] & self.desc.in_signed))
            with m.If(s2_valid & (s2_takes[at] | s2_onward[at])):
                m.d.sync += held[at].eq(s2_first[at % 8])
        m.d.sync += [self.o.valid.eq(full), left.eq(left - full)]
        with m.If(self.o.valid):
            m.d.sync += [turn.eq(Mux(turn_end, 0, turn + 1)), addr.eq(addr + turn_end)]
        with m.If(~reading & (more != 0)):
            m.d.sync += pause.eq(pause + 1)
        with m.If(begin):
            m.d.sync += [
                left.eq(rows), pause.eq(0), addr.eq(first_addr), image.eq(image + 1),
                more.eq(more - 1), turn.eq(0),
            ]
        with m.If(self.start):
            m.d.sync += [
                addr.eq(self.addr), first_addr.eq(self.addr), image.eq(0),
                more.eq(self.desc.tiles - 1),
            ]
        return m

    def _walk(self, m: Module, vector, begin, reading):
        """Read pixel after pixel, or row after row of a vector: a `_Read`."""
        desc, banks = self.desc, self._config.feature_banks
        bank = Signal(range(banks))
        y, columns = Signal.like(desc.in_height), Signal.like(desc.in_width)    # row; columns left
        addr = Signal(ROW_BITS, reset_less=True)
        # Where the channel and the row pair lie, and, a cycle later, the ones below them.
        channel, pair = Signal(ROW_BITS, reset_less=True), Signal(ROW_BITS, reset_less=True)
        next_channel, next_pair = Signal.like(channel), Signal.like(pair)
        read, row_end = Signal(_Read), Signal()
        m.d.comb += [
            row_end.eq(columns <= 8),
            read.bank.eq(bank), read.odd.eq(y[0]), read.count.eq(Mux(row_end, columns, 8)),
        ]
        m.d.sync += [
            next_channel.eq(channel + Mux(vector, 1, desc.in_plane)),
            next_pair.eq(pair + (1 << desc.in_row_log2)),
        ]
        for number, port in enumerate(self.read):
            m.d.sync += [
                port.en.eq(reading & (bank == number)),
                port.even_addr.eq(addr), port.odd_addr.eq(addr),
            ]

        def go_to(place):
            return [pair.eq(place), addr.eq(place)]

        with m.If(reading):
            with m.If(~row_end):
                m.d.sync += [addr.eq(addr + 1), columns.eq(columns - 8)]
            with m.Else():
                m.d.sync += [columns.eq(desc.in_width), addr.eq(pair), y.eq(y + 1)]
                with m.If(y == desc.in_height - 1):
                    m.d.sync += [y.eq(0), bank.eq(bank + 1)]
                    with m.If(bank == banks - 1):
                        m.d.sync += [channel.eq(next_channel), *go_to(next_channel)]
                    with m.Else():
                        m.d.sync += go_to(channel)
                with m.Elif(y[0]):
                    m.d.sync += go_to(next_pair)
        following = Signal(ROW_BITS, reset_less=True)       # where the next image begins
        place = Mux(self.start, desc.in_base, following)
        with m.If(begin):
            m.d.sync += [
                bank.eq(0), y.eq(0), columns.eq(desc.in_width), channel.eq(place), *go_to(place),
                following.eq(place + desc.out_plane),
            ]
        return read
