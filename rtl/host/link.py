"""Commands of the host on the core's registers and its on-chip memory (docs/host-link.md)."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from model.hostlink import (
    CRC_BYTES,
    HEADER_BYTES,
    INFO_WORDS,
    MAX_PAYLOAD,
    REPLY,
    VERSION,
    Command,
    Info,
    Space,
    Status,
)
from rtl.csr import ADDRESS_BITS, ID, READ_LATENCY
from rtl.host.framing import FrameReceiver, FrameSender, LastByte
from rtl.memory import OnChipMemory

__all__ = ["Header", "HostLink"]

#: Cycles that a request is judged for.
_JUDGING = 2
#: Cycles from an address to the data of either side.
_READING = max(OnChipMemory.HOST_LATENCY, READ_LATENCY)


class Header(data.StructLayout):
    """Header of a frame, first byte lowest."""

    def __init__(self) -> None:
        super().__init__({
            "version": 8, "command": 8, "sequence": 16, "length": 16, "count": 16, "address": 32,
        })


class HostLink(wiring.Component):
    """Receive requests, execute them one after the other, reply to each.

    Bytes that come while a request is executed or its reply is sent are ignored.

    Throughput: a written 64-bit word in 17 cycles, a register in 9; a reply as fast as the line.

    Parameters
    ----------
    config : AcceleratorConfig
        Uses ``digest``, ``onchip_kib`` and ``clock_hz``.
    timeout : int
        See `rtl.host.framing.FrameReceiver`.

    Attributes
    ----------
    rx_valid, rx_data, rx_error : In(1), In(8), In(1)
        Bytes from the host.
    tx : Out(stream.Signature(8))
        Bytes to the host.
    csr_addr, csr_w_en, csr_w_data, csr_r_data : Out(10), Out(1), Out(32), In(32)
        Registers of the core.
    host_addr, host_en, host_w_en, host_w_data, host_r_data
        On-chip memory, see `rtl.memory.OnChipMemory`.
    """

    def __init__(self, *, config: AcceleratorConfig, timeout: int) -> None:
        if not isinstance(config, AcceleratorConfig):
            raise TypeError(f"config must be an AcceleratorConfig, not {config!r}")
        if not config.onchip_kib:
            raise ValueError(
                f"config {config.name} has no on-chip memory for the host: set onchip_kib"
            )
        self._config, self._timeout = config, timeout
        self._words = 128 * config.onchip_kib
        super().__init__({
            "rx_valid": In(1), "rx_data": In(8), "rx_error": In(1),
            "tx": Out(stream.Signature(8)),
            "csr_addr": Out(ADDRESS_BITS), "csr_w_en": Out(1), "csr_w_data": Out(32),
            "csr_r_data": In(32),
            "host_addr": Out(range(self._words)), "host_en": Out(1), "host_w_en": Out(1),
            "host_w_data": Out(64), "host_r_data": In(64),
        })

    def elaborate(self, platform) -> Module:
        """Receiver, payload memory, state machine, sender."""
        m = Module()
        m.submodules.receiver = receiver = FrameReceiver(timeout=self._timeout)
        m.submodules.sender = sender = FrameSender()
        m.submodules.payload = payload = memory.Memory(shape=8, depth=MAX_PAYLOAD, init=[])
        write_port, read_port = payload.write_port(), payload.read_port()
        wiring.connect(m, sender.o, wiring.flipped(self.tx))

        header = Signal(Header())
        shifted = header.as_value()
        m.d.comb += [
            receiver.i_valid.eq(self.rx_valid), receiver.i_data.eq(self.rx_data),
            receiver.i_error.eq(self.rx_error),
            write_port.addr.eq(receiver.index - HEADER_BYTES),
            write_port.data.eq(receiver.content),
            write_port.en.eq(receiver.content_valid & (receiver.index >= HEADER_BYTES)
                             & (receiver.index < HEADER_BYTES + MAX_PAYLOAD)),
        ]
        with m.If(receiver.content_valid & (receiver.index < HEADER_BYTES)):
            m.d.sync += shifted.eq(Cat(shifted[8:], receiver.content))

        accepted, dropped = Signal(32), Signal(32)
        s1_done, s1_dropped = Signal(), Signal()        # a cycle late, because found late
        m.d.sync += [
            s1_done.eq(receiver.done), s1_dropped.eq(receiver.dropped),
            accepted.eq(accepted + s1_done), dropped.eq(dropped + s1_dropped),
        ]
        # A byte waits in a register, where the way from the state to the line is cut.
        waiting, byte = stream.Signature(LastByte()).create(), Signal(LastByte())
        full = Signal()
        m.d.comb += [
            waiting.ready.eq(~full), sender.i.valid.eq(full), sender.i.payload.eq(byte),
        ]
        with m.If(~full):
            m.d.sync += [full.eq(waiting.valid), byte.eq(waiting.payload)]
        with m.Elif(sender.i.ready):
            m.d.sync += full.eq(0)
        busy = sender.busy | full
        self._execute(m, header, receiver, s1_done, waiting, busy, read_port,
                      self._info(accepted, dropped))
        return m

    def _info(self, accepted: Signal, dropped: Signal) -> dict:
        return {
            Info.ID: ID, Info.LINK_VERSION: VERSION, Info.CONFIG: self._config.digest,
            Info.MEMORY_WORDS: self._words, Info.CLOCK_HZ: self._config.clock_hz,
            Info.MAX_PAYLOAD: MAX_PAYLOAD, Info.ACCEPTED: accepted, Info.DROPPED: dropped,
        }

    def _check(self, m: Module, header, size: Signal) -> tuple[Signal, Signal]:
        """Status of the request in ``header`` and bytes of its items.

        Right when both inputs have been there for `_JUDGING` cycles; the first failure counts.
        """
        status = Signal(Status)
        space = header.command >> 1
        s1_length, s1_end = Signal(19), Signal(33)
        m.d.sync += [
            s1_length.eq(Mux(space == Space.MEMORY, header.count << 3, header.count << 2)),
            s1_end.eq(header.address + header.count),
        ]
        limits = {
            Space.INFO: INFO_WORDS, Space.REGISTERS: 1 << ADDRESS_BITS, Space.MEMORY: self._words,
        }
        s1_limit = Signal(range(max(limits.values()) + 1))
        m.d.sync += s1_limit.eq(0)
        with m.Switch(space):
            for key, value in limits.items():
                with m.Case(key):
                    m.d.sync += s1_limit.eq(value)
        s1_whole = Signal(17)
        m.d.sync += s1_whole.eq(header.length + (HEADER_BYTES + CRC_BYTES))
        s2_known, s2_version, s2_beyond = Signal(), Signal(), Signal()
        s2_lengths = Signal(4)      # what is wrong with them
        m.d.sync += [
            s2_version.eq(header.version == VERSION), s2_known.eq(0),
            s2_lengths.eq(Cat(
                header.count == 0, s1_length > MAX_PAYLOAD,
                header.length != Mux(header.command[0], s1_length, 0), size != s1_whole,
            )),
            s2_beyond.eq(s1_end > s1_limit),
        ]
        with m.Switch(header.command):
            with m.Case(*Command):
                m.d.sync += s2_known.eq(1)
        with m.If(~s2_version):
            m.d.comb += status.eq(Status.VERSION)
        with m.Elif(~s2_known):
            m.d.comb += status.eq(Status.COMMAND)
        with m.Elif(s2_lengths.any()):
            m.d.comb += status.eq(Status.LENGTH)
        with m.Elif(s2_beyond):
            m.d.comb += status.eq(Status.ADDRESS)
        return status, s1_length

    def _execute(self, m: Module, header, receiver: FrameReceiver, received, out, busy, payload,
                 info: dict) -> None:
        """One request at a time: check, write, reply, read while replying."""
        size = Signal.like(receiver.size)
        status = Signal(Status)
        found, length = self._check(m, header, size)
        memory_side, info_side = Signal(), Signal()
        last_byte = Mux(memory_side, 7, 3)
        address, left = Signal(32), Signal(16)
        word, place, fetched = Signal(64), Signal(4), Signal(range(MAX_PAYLOAD))
        reply = Signal(Header())
        reading = Signal()
        m.d.comb += [
            payload.addr.eq(fetched), payload.en.eq(1),
            self.csr_addr.eq(address), self.csr_w_data.eq(word[32:]),
            self.host_addr.eq(address), self.host_w_data.eq(word),
        ]
        fixed = Signal(32)      # of the address one cycle before, which stands for several
        with m.Switch(address[:3]):
            for key, value in info.items():
                with m.Case(key):
                    m.d.sync += fixed.eq(value)

        m.d.sync += [self.csr_w_en.eq(0), self.host_en.eq(0), self.host_w_en.eq(0)]
        with m.If(receiver.done):
            m.d.sync += size.eq(receiver.size)
        with m.FSM() as fsm:
            m.d.comb += receiver.hold.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                with m.If(received):
                    m.next = "JUDGE"
            with m.State("JUDGE"):
                m.d.sync += [
                    status.eq(found), memory_side.eq(header.command >> 1 == Space.MEMORY),
                    info_side.eq(header.command == Command.READ_INFO),
                ]
                m.d.sync += place.eq(place + 1)
                with m.If(place == _JUDGING):
                    m.next = "CHECK"
            with m.State("CHECK"):
                good = status == Status.OK
                m.d.sync += [
                    address.eq(header.address), left.eq(header.count), place.eq(0), fetched.eq(0),
                    reading.eq(good & ~header.command[0]), reply.eq(header),
                    reply.version.eq(VERSION), reply.command.eq(header.command | REPLY),
                    reply.count.eq(status),
                    reply.length.eq(Mux(good & ~header.command[0], length, 0)),
                ]
                m.next = "HEADER"
                with m.If(good & header.command[0]):
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.sync += fetched.eq(fetched + 1)
                m.next = "COLLECT"
            with m.State("COLLECT"):
                m.d.sync += [word.eq(Cat(word[8:], payload.data)), place.eq(place + 1)]
                m.next = "FETCH"
                with m.If(place == last_byte):
                    m.next = "WRITE"
            with m.State("WRITE"):
                m.d.sync += [
                    self.csr_w_en.eq(~memory_side),
                    self.host_en.eq(memory_side), self.host_w_en.eq(memory_side),
                ]
                m.next = "WRITTEN"
            with m.State("WRITTEN"):
                m.d.sync += [address.eq(address + 1), left.eq(left - 1), place.eq(0)]
                m.next = "FETCH"
                with m.If(left == 1):
                    m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += [
                    out.valid.eq(1), out.payload.data.eq(reply.as_value()[:8]),
                    out.payload.last.eq((place == HEADER_BYTES - 1) & ~reading),
                ]
                with m.If(out.ready):
                    m.d.sync += [reply.as_value().eq(reply.as_value() >> 8), place.eq(place + 1)]
                    with m.If(place == HEADER_BYTES - 1):
                        m.d.sync += place.eq(0)
                        m.next = "END"
                        with m.If(reading):
                            m.next = "READ"
            with m.State("READ"):
                m.d.sync += [self.host_en.eq(memory_side & (place == 0)), place.eq(place + 1)]
                # Taken over in every cycle, the last time when it is right: few enables.
                with m.If(memory_side):
                    m.d.sync += word.eq(self.host_r_data)
                with m.Elif(info_side):
                    m.d.sync += word.eq(fixed)
                with m.Else():
                    m.d.sync += word.eq(self.csr_r_data)
                with m.If(place == 1 + _READING):
                    m.d.sync += [place.eq(0), address.eq(address + 1), left.eq(left - 1)]
                    m.next = "ITEM"
            with m.State("ITEM"):
                m.d.comb += [
                    out.valid.eq(1), out.payload.data.eq(word[:8]),
                    out.payload.last.eq((place == last_byte) & (left == 0)),
                ]
                with m.If(out.ready):
                    m.d.sync += [word.eq(word >> 8), place.eq(place + 1)]
                    with m.If(place == last_byte):
                        m.d.sync += place.eq(0)
                        m.next = "READ"
                        with m.If(left == 0):
                            m.next = "END"
            with m.State("END"):
                with m.If(~busy):
                    m.next = "IDLE"
