"""Memory port: arbiter of its readers, and an on-chip memory to put behind it.

`ReadArbiter` shares the read channels of a `MemorySignature` between clients, burst by burst.
`OnChipMemory` answers a `MemorySignature` from block RAM, for boards without external memory.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, fifo, memory, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.queue import Level, Queue
from rtl.signatures import MemorySignature, ReadData, ReadRequest
from rtl.slice import AlternatingSlice, RegisterSlice

__all__ = ["ReadArbiter", "OnChipMemory"]


class ReadArbiter(wiring.Component):
    """Share one in-order read port between clients.

    The lowest-numbered client that asks goes first: it is chosen in one cycle and accepted in the
    next, so that ``ready`` comes from registers and nothing goes through from a client to another
    or to the port. A request waits in a register, so that the port never sees it change. Data go to
    the clients in the order of the accepted bursts; a client that does not take its beat blocks
    those behind it.

    Latency: 2 cycles for a request, 0 for data. Throughput: a request every `INTERVAL` cycles, one
    beat a cycle.

    Parameters
    ----------
    clients : int
        Number of clients.
    outstanding : int
        Bursts under way, beyond which requests wait.
    port_bits : int
        Width of the port.

    Attributes
    ----------
    ar : In(stream.Signature(ReadRequest)).array(clients)
        Requests.
    r : Out(stream.Signature(ReadData(port_bits))).array(clients)
        Data for each client.
    mem_ar, mem_r : Out(stream.Signature(ReadRequest)), In(stream.Signature(ReadData(port_bits)))
        The port.
    flush : In(1)
        Accept no request, and take and drop all data.
    idle : Out(1)
        Nothing is under way.
    """

    #: Cycles from request to request, on a port that takes them at once.
    INTERVAL = 3

    def __init__(self, *, clients: int, outstanding: int = 8, port_bits: int = 64) -> None:
        if not isinstance(clients, int) or clients < 1:
            raise ValueError(f"clients must be a positive integer, not {clients!r}")
        if not isinstance(outstanding, int) or outstanding < 2:
            raise ValueError(f"outstanding must be an integer of at least 2, not {outstanding!r}")
        self._clients, self._outstanding = clients, outstanding
        super().__init__({
            "ar": In(stream.Signature(ReadRequest)).array(clients),
            "r": Out(stream.Signature(ReadData(port_bits))).array(clients),
            "mem_ar": Out(stream.Signature(ReadRequest)),
            "mem_r": In(stream.Signature(ReadData(port_bits))),
            "flush": In(1),
            "idle": Out(1),
        })

    def elaborate(self, platform) -> Module:
        """Choose, accept into the request register, remember whose burst it is, route by that."""
        m = Module()
        # Whose bursts are under way: all of them in a queue, the present one and the next in
        # registers, because their readers hang on it. How many: a burst's end counts a cycle later.
        m.submodules.queue = queue = Queue(
            self._clients, depth=1 << (self._outstanding - 1).bit_length()
        )
        m.submodules.under_way = under_way = Level(depth=self._outstanding)
        owner, following = Signal(self._clients), Signal(self._clients)     # one bit, or none
        chosen, choice, ended = Signal(self._clients), Signal(), Signal()   # one of them is chosen
        asking = Cat(client.valid for client in self.ar)
        m.d.sync += [chosen.eq(0), choice.eq(0)]
        with m.If(~self.flush & under_way.room & ~choice & ~self.mem_ar.valid):
            # The lowest one only.
            m.d.sync += [chosen.eq(asking & -asking), choice.eq(asking.any())]

        with m.If(self.mem_ar.ready):
            m.d.sync += self.mem_ar.valid.eq(0)
        for mine, client in zip(chosen, self.ar, strict=True):
            m.d.comb += client.ready.eq(mine & ~self.flush)
            with m.If(mine):
                m.d.sync += self.mem_ar.payload.eq(client.payload)
        accepted = choice & ~self.flush
        with m.If(accepted):
            m.d.sync += self.mem_ar.valid.eq(1)
        m.d.comb += [
            queue.i.valid.eq(accepted), queue.i.payload.eq(chosen),
            under_way.write.eq(accepted), under_way.read.eq(ended),
            self.idle.eq(~under_way.some),
        ]

        ends, queued = Signal(), Signal(self._clients)
        m.d.comb += [
            queued.eq(Mux(queue.o.valid, queue.o.payload, 0)), queue.o.ready.eq(following == 0),
        ]
        with m.If(ends | (owner == 0)):
            m.d.sync += [owner.eq(following | Mux(queue.o.ready, queued, 0)), following.eq(0)]
        with m.Elif(queue.o.ready):
            m.d.sync += following.eq(queued)
        for mine, client in zip(owner, self.r, strict=True):
            m.d.comb += [
                client.payload.eq(self.mem_r.payload),
                client.valid.eq(self.mem_r.valid & mine & ~self.flush),
            ]
        ready = Cat(client.ready for client in self.r)
        m.d.comb += [
            self.mem_r.ready.eq((owner & ready).any() | (self.flush & (owner != 0))),
            ends.eq(self.mem_r.valid & self.mem_r.ready & self.mem_r.payload.last),
        ]
        m.d.sync += ended.eq(ends)
        return m


#: A beat of a burst.
_Place = data.StructLayout({"addr": 32, "last": 1})


class OnChipMemory(wiring.Component):
    """Block RAM behind a memory port, with a port for the host.

    One access a cycle: the host's first (to a 64-bit word), then a write, then the next beat of a
    read burst. Reads and writes share the address and exclude each other, which maps to bare block
    RAM. Beats beyond the memory are read as errors and not written. What an access does is
    registered before the RAM, because its blocks are many and lie far apart.

    Latency: first beat 8 cycles after its request. Throughput: one beat a cycle.

    Parameters
    ----------
    kib : int
        Size in KiB.
    port_bits : int
        Width of a beat, a multiple of 64.

    Attributes
    ----------
    bus : In(MemorySignature(port_bits))
        Memory port, addressed in beats.
    host_addr : In(range(128 * kib))
        Word address of the host.
    host_en, host_w_en, host_w_data : In(1), In(1), In(64)
        Access by the host, and whether it writes: ``host_w_en`` only with ``host_en``.
    host_r_data : Out(64)
        Word read, ``HOST_LATENCY`` cycles after ``host_en``; held until the next.
    """

    HOST_LATENCY = 4
    #: Beats of room behind the RAM: covers the way from the RAM and back to the credit.
    QUEUE = 8

    def __init__(self, *, kib: int, port_bits: int = 64) -> None:
        if not isinstance(kib, int) or kib < 1:
            raise ValueError(f"kib must be a positive integer, not {kib!r}")
        if not isinstance(port_bits, int) or port_bits not in (64, 128, 256, 512, 1024, 2048):
            raise ValueError(f"port_bits must be a power of two from 64 to 2048, not {port_bits!r}")
        self._port_bits = port_bits
        #: Beats.
        self.depth = kib * 8192 // port_bits
        super().__init__({
            "bus": In(MemorySignature(port_bits)),
            "host_addr": In(range(kib * 128)),
            "host_en": In(1), "host_w_en": In(1), "host_w_data": In(64),
            "host_r_data": Out(64),
        })

    def elaborate(self, platform) -> Module:
        """Burst counter, one shared RAM port, queue with credits."""
        m = Module()
        bits, words = self._port_bits, self._port_bits // 64
        m.submodules.ram = ram = memory.Memory(shape=bits, depth=self.depth, init=[])
        m.submodules.beats = beats = fifo.SyncFIFO(width=bits + 2, depth=self.QUEUE)
        write_port, read_port = ram.write_port(granularity=64), ram.read_port()
        bus = self.bus

        # The beats of the bursts, one after the other.
        m.submodules.walk = walk = RegisterSlice(_Place)
        active = Signal()
        addr, left = Signal(32), Signal(8)
        last = Signal()                         # ``left`` is 0
        m.d.comb += [
            bus.ar.ready.eq(~active | (last & walk.i.ready)),
            walk.i.valid.eq(active), walk.i.payload.addr.eq(addr), walk.i.payload.last.eq(last),
        ]
        with m.If(bus.ar.ready):
            m.d.sync += [
                active.eq(bus.ar.valid), addr.eq(bus.ar.payload.addr),
                left.eq(bus.ar.payload.len), last.eq(bus.ar.payload.len == 0),
            ]
        with m.Elif(walk.i.ready):
            m.d.sync += [addr.eq(addr + 1), left.eq(left - 1), last.eq(left == 1)]

        m.submodules.credit = credit = Level(depth=self.QUEUE)     # beats on their way
        place = walk.o.payload
        writing = ~self.host_en & bus.w.valid
        reading = ~self.host_en & ~bus.w.valid & walk.o.valid & credit.room
        m.d.comb += walk.o.ready.eq(~self.host_en & ~bus.w.valid & credit.room)

        place_bits = (words - 1).bit_length()
        host_place = self.host_addr[:place_bits]        # word of the beat
        s1_addr = Signal(range(self.depth), reset_less=True)
        s1_write, s1_data = Signal(words), Signal(bits, reset_less=True)
        m.d.comb += [
            bus.w.ready.eq(~self.host_en),
            write_port.addr.eq(s1_addr), write_port.data.eq(s1_data), write_port.en.eq(s1_write),
            read_port.addr.eq(s1_addr), read_port.en.eq(~s1_write.any()),
        ]
        m.d.sync += [
            s1_addr.eq(Mux(self.host_en, self.host_addr[place_bits:],
                           Mux(bus.w.valid, bus.w.payload.addr, place.addr))),
            s1_data.eq(Mux(self.host_w_en, self.host_w_data.replicate(words), bus.w.payload.data)),
            s1_write.eq(Mux(self.host_en, self.host_w_en << host_place,
                            (writing & (bus.w.payload.addr < self.depth)).replicate(words))),
        ]

        # s1: at the RAM; s2: its output.
        names = ("host", "read", "last", "error")
        s1_host, s1_read, s1_last, s1_error = (Signal(name=f"s1_{name}") for name in names)
        s2_host, s2_read, s2_last, s2_error = (Signal(name=f"s2_{name}") for name in names)
        s3_host, s3_read, s3_last, s3_error = (Signal(name=f"s3_{name}") for name in names)
        s1_place = Signal.like(host_place, reset_less=True)
        s2_place = Signal.like(host_place, reset_less=True)
        s3_place = Signal.like(host_place, reset_less=True)
        s3_data = Signal(bits, reset_less=True)
        m.d.sync += [
            s1_host.eq(self.host_en & ~self.host_w_en), s1_place.eq(host_place),
            s1_read.eq(reading), s1_last.eq(place.last), s1_error.eq(place.addr >= self.depth),
            s2_host.eq(s1_host), s2_place.eq(s1_place),
            s2_read.eq(s1_read), s2_last.eq(s1_last), s2_error.eq(s1_error),
            s3_host.eq(s2_host), s3_place.eq(s2_place),
            s3_read.eq(s2_read), s3_last.eq(s2_last), s3_error.eq(s2_error),
            s3_data.eq(read_port.data),
        ]
        with m.If(s3_host):
            m.d.sync += self.host_r_data.eq(s3_data.word_select(s3_place, 64))

        # Behind the queue two registers, so that neither its data nor its state are on the way of
        # a beat's reader, which is long; and two more half-way, as the blocks are far from there.
        m.submodules.slice = behind = AlternatingSlice(ReadData(bits))
        m.submodules.half_way = half_way = AlternatingSlice(ReadData(bits))
        m.d.comb += [
            beats.w_en.eq(s3_read),
            beats.w_data.eq(Cat(s3_data, s3_last, s3_error)),
            behind.i.valid.eq(beats.r_rdy), behind.i.payload.eq(beats.r_data),
            beats.r_en.eq(behind.i.ready),
            credit.write.eq(reading), credit.read.eq(beats.r_rdy & behind.i.ready),
        ]
        connect(m, behind.o, half_way.i)
        connect(m, half_way.o, flipped(bus.r))
        return m
