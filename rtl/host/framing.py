"""Frames between the byte line and the host link: stuffing, CRC-32, time-out (docs/host-link.md).

`rtl.crc.Crc32` needs two cycles for a byte; the bytes of a UART are at least 40 cycles apart.
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from model.hostlink import (
    CRC_BYTES,
    ESCAPE,
    FLAG,
    FLIP,
    HEADER_BYTES,
    MAX_PAYLOAD,
    RESIDUE,
)
from rtl.crc import Crc32

__all__ = ["MOST_BYTES", "FrameReceiver", "FrameSender", "LastByte"]

#: Bytes of the longest frame, without flags and stuffing.
MOST_BYTES = HEADER_BYTES + MAX_PAYLOAD + CRC_BYTES


class LastByte(data.StructLayout):
    """A byte, and whether its frame ends with it."""

    def __init__(self) -> None:
        super().__init__({"data": 8, "last": 1})


class FrameReceiver(wiring.Component):
    """Find frames in a stream of bytes and check them.

    A piece between two flags that is too long or too short, that has a wrong CRC, a byte without
    stop bit or a pause of more than ``timeout`` cycles in it, is dropped, and so is everything up
    to the next flag.

    Latency: content bytes one cycle after the byte, ``done`` one after the last flag.

    Parameters
    ----------
    timeout : int
        Cycles between two bytes of a frame, more of which end it.

    Attributes
    ----------
    i_valid, i_data, i_error : In(1), In(8), In(1)
        Bytes from the line, at least 4 cycles apart.
    hold : In(1)
        Ignore the line; afterwards a frame begins with a flag.
    content_valid, content, index : Out(1), Out(8), Out(range(MOST_BYTES))
        A byte without its stuffing, and its place in the frame.
    done : Out(1)
        The frame is whole and correct.
    size : Out(range(MOST_BYTES + 1))
        Its bytes, with the CRC.
    dropped : Out(1)
        A piece was no frame.
    """

    def __init__(self, *, timeout: int) -> None:
        if not isinstance(timeout, int) or timeout < 1:
            raise ValueError(f"timeout must be a positive number of cycles, not {timeout!r}")
        self._timeout = timeout
        super().__init__({
            "i_valid": In(1), "i_data": In(8), "i_error": In(1), "hold": In(1),
            "content_valid": Out(1), "content": Out(8), "index": Out(range(MOST_BYTES)),
            "done": Out(1), "size": Out(range(MOST_BYTES + 1)), "dropped": Out(1),
        })

    def elaborate(self, platform) -> Module:
        """Remove the stuffing, count, check."""
        m = Module()
        m.submodules.crc = crc = Crc32(width=8)
        inside, escaped = Signal(), Signal()
        # The byte and what it is; those that are held off never come.
        s1_valid, s1_error, s1_flag, s1_escape = (
            Signal(name=f"s1_{name}") for name in ("valid", "error", "flag", "escape")
        )
        s1_hold, s1_data = Signal(), Signal(8, reset_less=True)
        m.d.sync += [
            s1_valid.eq(self.i_valid & ~self.hold), s1_hold.eq(self.hold),
            s1_error.eq(self.i_error), s1_data.eq(self.i_data),
            s1_flag.eq(self.i_data == FLAG), s1_escape.eq(self.i_data == ESCAPE),
        ]
        m.d.comb += [
            self.index.eq(self.size),
            self.content.eq(s1_data ^ Mux(escaped, FLIP, 0)),
            crc.valid.eq(self.content_valid), crc.data.eq(self.content),
        ]

        # Known before the next byte comes.
        begun, long_enough, full, right = Signal(), Signal(), Signal(), Signal()
        m.d.sync += [
            begun.eq(inside & ((self.size != 0) | escaped)),
            long_enough.eq(self.size >= HEADER_BYTES + CRC_BYTES),
            full.eq(self.size == MOST_BYTES), right.eq(crc.crc == RESIDUE),
        ]
        timer, expired = Signal(range(self._timeout)), Signal()
        m.d.sync += expired.eq(begun & ~s1_valid & (timer == 0))
        with m.If(s1_valid | ~begun):
            m.d.sync += timer.eq(self._timeout - 1)
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)

        lost = Signal()
        with m.If(s1_hold):
            m.d.comb += lost.eq(1)
        with m.Elif(s1_valid & s1_error):
            m.d.comb += [lost.eq(1), self.dropped.eq(begun)]
        with m.Elif(s1_valid & s1_flag):
            whole = long_enough & ~escaped & right
            m.d.comb += [
                crc.start.eq(1), self.done.eq(begun & whole), self.dropped.eq(begun & ~whole),
            ]
            m.d.sync += [inside.eq(1), escaped.eq(0), self.size.eq(0)]
        with m.Elif(s1_valid & inside):
            with m.If(s1_escape & ~escaped):
                m.d.sync += escaped.eq(1)
            with m.Elif(full):
                m.d.comb += [lost.eq(1), self.dropped.eq(1)]
            with m.Else():
                m.d.comb += self.content_valid.eq(1)
                m.d.sync += [escaped.eq(0), self.size.eq(self.size + 1)]
        with m.Elif(inside & expired):
            m.d.comb += [lost.eq(1), self.dropped.eq(1)]
        with m.If(lost):
            m.d.sync += [inside.eq(0), escaped.eq(0), self.size.eq(0)]
        return m


class FrameSender(wiring.Component):
    """Send frames: flag, stuffed content, stuffed CRC, flag.

    Throughput: a byte in 3 cycles, far more than a UART takes, and 3 cycles before the CRC.

    Attributes
    ----------
    i : In(stream.Signature(LastByte()))
        Content of the frames; may pause.
    o : Out(stream.Signature(8))
        Bytes for the line.
    busy : Out(1)
        A frame is under way.
    """

    i: In(stream.Signature(LastByte()))
    o: Out(stream.Signature(8))
    busy: Out(1)

    def elaborate(self, platform) -> Module:
        """Flag, content, CRC, flag."""
        m = Module()
        m.submodules.crc = crc = Crc32(width=8)
        trailer = Signal(32, reset_less=True)
        place = Signal(range(CRC_BYTES))

        # A byte is taken when the one before has gone, judged, then sent, in two parts if special.
        taken = stream.Signature(8).create()
        full, flag, special = Signal(), Signal(), Signal()      # ``flag``: stands for itself
        byte = Signal(8, reset_less=True)
        m.d.comb += [taken.ready.eq(~full), self.o.payload.eq(Mux(special, ESCAPE, byte))]
        with m.If(~full):
            m.d.sync += [full.eq(taken.valid), byte.eq(taken.payload), special.eq(0)]
        with m.Elif(~self.o.valid):
            m.d.sync += [
                special.eq(~flag & ((byte == FLAG) | (byte == ESCAPE))), self.o.valid.eq(1),
            ]
        with m.Elif(self.o.ready):
            with m.If(special):
                m.d.sync += [special.eq(0), byte.eq(byte ^ FLIP)]
            with m.Else():
                m.d.sync += [full.eq(0), self.o.valid.eq(0)]

        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE") | full)
            with m.State("IDLE"):
                with m.If(self.i.valid):
                    m.d.comb += crc.start.eq(1)
                    m.next = "FLAG"
            with m.State("FLAG"):
                m.d.comb += [taken.valid.eq(1), taken.payload.eq(FLAG)]
                m.d.sync += flag.eq(1)
                with m.If(taken.ready):
                    m.next = "CONTENT"
            with m.State("CONTENT"):
                m.d.comb += [
                    taken.valid.eq(self.i.valid), taken.payload.eq(self.i.payload.data),
                    self.i.ready.eq(taken.ready),
                    crc.valid.eq(self.i.valid & taken.ready), crc.data.eq(self.i.payload.data),
                ]
                with m.If(taken.ready):
                    m.d.sync += flag.eq(0)
                with m.If(self.i.valid & self.i.payload.last & taken.ready):
                    m.next = "SETTLE"
            with m.State("SETTLE"):
                m.d.sync += place.eq(place + 1)
                with m.If(place == Crc32.LATENCY):
                    m.d.sync += [trailer.eq(crc.crc), place.eq(0)]
                    m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += [taken.valid.eq(1), taken.payload.eq(trailer)]
                with m.If(taken.ready):
                    m.d.sync += [trailer.eq(Cat(trailer[8:], trailer[:8])), place.eq(place + 1)]
                    with m.If(place == CRC_BYTES - 1):
                        m.d.sync += place.eq(0)
                        m.next = "END"
            with m.State("END"):
                m.d.comb += [taken.valid.eq(1), taken.payload.eq(FLAG)]
                with m.If(taken.ready):
                    m.d.sync += flag.eq(1)
                    m.next = "IDLE"
        return m
