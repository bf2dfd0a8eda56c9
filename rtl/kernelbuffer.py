"""Kernel buffer: rings of weights and selects, written by prefetch, read entry by entry.

The reader walks the blocks in the issue unit's order by itself (`rtl.passes`). A kernel block
that is multiplied with several resident tile blocks is replayed: its rows are given back only in
the last pass.
"""

from __future__ import annotations

from functools import reduce
from operator import or_

from amaranth.hdl import Assert, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from model.descriptor import WINDOW_CODE
from model.stream import ENTRY_BITS, chunk_entries, entry_bits, select_codes
from rtl.largeram import large_ram
from rtl.passes import Passes
from rtl.queue import Level
from rtl.signatures import Descriptor, KernelEntry
from rtl.slice import RegisterSlice

__all__ = ["KernelBuffer", "KernelWriteSignature", "Ring"]


class KernelWriteSignature(wiring.Signature):
    """Prefetch to kernel buffer: entry counts, select beats, beats of weights of a row.

    ``count.ready``, once given, stays until a count is taken. The beat of a row's selects comes
    before the last of its weights.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__({
            "count": Out(stream.Signature(ENTRY_BITS)),
            "select": Out(stream.Signature(config.port_bits)),
            "weight": Out(stream.Signature(data.StructLayout({
                "data": config.port_bits, "last": 1,
            }))),
        })

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KernelWriteSignature) and self._config == other._config


class Ring(wiring.Component):
    """Pointers of a ring whose rows are read, and read again, before they are given back.

    Parameters
    ----------
    depth : int
        Rows, a power of two.

    Attributes
    ----------
    room : Out(1)
        A row may be written. A register.
    write, w_addr : In(1), Out
        A row is written at ``w_addr``.
    available : Out(1)
        The row at ``r_addr`` is written and was not passed yet. A register.
    read, r_addr : In(1), Out
        Pass the row at ``r_addr``.
    end : In(1)
        With ``read``: the row is the last of its kernel block, which begins again if ``keep``.
    keep : In(1)
        The rows of the kernel block are kept; else they are given back as they are passed. Changes
        only while ``r_addr`` is the first of them.
    """

    def __init__(self, *, depth: int) -> None:
        if not isinstance(depth, int) or depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two of at least 2, not {depth!r}")
        self._depth = depth
        super().__init__({
            "room": Out(1, init=1), "write": In(1), "w_addr": Out(range(depth)),
            "available": Out(1), "read": In(1), "r_addr": Out(range(depth)),
            "end": In(1), "keep": In(1),
        })
        # State; pointers carry one bit more than the address, so that full and empty differ.
        pointer = range(2 * depth)
        self._w_ptr, self._marked = Signal(pointer), Signal(pointer)
        self._r_ptr, self._r_next = Signal(pointer), Signal(pointer, init=1)
        # Rows in use, without what the last cycle changed: one more, one less.
        self._used, self._more, self._less = Signal(range(depth + 1)), Signal(), Signal()

    def elaborate(self, platform) -> Module:
        """Find ``room`` and ``available`` while the pointers change.

        ``write`` comes late, from a beat of the memory port, and ``read`` waits for ``available``:
        neither has an adder or a comparison behind it.
        """
        m = Module()
        w_ptr, r_ptr, r_next, marked = self._w_ptr, self._r_ptr, self._r_next, self._marked
        used, more, less, depth = self._used, self._more, self._less, self._depth
        give, rewind = Signal(), Signal()
        target = Signal.like(r_ptr)
        m.d.comb += [
            self.w_addr.eq(w_ptr), self.r_addr.eq(r_ptr),
            give.eq(self.read & ~self.keep), rewind.eq(self.end & self.keep),
            target.eq(Mux(rewind, marked, r_next)),
        ]
        full = ((used == depth) & ~less) | ((used == depth - 1) & more)
        one_left = (
            ((used == depth) & less) | ((used == depth - 1) & ~(more | less))
            | ((used == depth - 2) & more)
        )
        m.d.sync += [
            more.eq(self.write & ~give), less.eq(give & ~self.write), used.eq(used + more - less),
            self.room.eq(give | ~(full | (one_left & self.write))),
        ]
        with m.If(self.write):
            m.d.sync += w_ptr.eq(w_ptr + 1)
        with m.If(self.read):
            m.d.sync += [r_ptr.eq(target), r_next.eq(target + 1)]
            with m.If(self.end & ~self.keep):
                m.d.sync += marked.eq(r_next)
        # What is kept was written.
        m.d.sync += self.available.eq(
            self.write | Mux(self.read, rewind | (w_ptr != r_next), self.available)
        )
        return m


class KernelBuffer(wiring.Component):
    """Weights and selects of the kernel stream, delivered one entry per cycle.

    Latency `LATENCY` cycles from the last beat of a row to its entry. An entry per cycle, also
    into a replay, a new kernel block or a new layer, if a pass has two entries or more
    (`rtl.passes`). ``entries.valid`` and every ``ready`` of ``write`` are registers; of the entries
    those bits that the issue unit decides by are, too. Lanes that the last kernel block does not
    have deliver whatever the row held before. A replayed block must fit both memories.

    Parameters
    ----------
    config : AcceleratorConfig
        Uses ``kernel_lanes``, ``weight_bits``, ``port_bits``, ``kernel_depth``, ``select_depth``.

    Attributes
    ----------
    desc : In(stream.Signature(Descriptor))
        The layers.
    write : In(KernelWriteSignature(config))
        From prefetch.
    entries : Out(stream.Signature(KernelEntry(config)))
        Entries in issue order.
    """

    LATENCY = 5
    _QUEUE = 8

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__({
            "desc": In(stream.Signature(Descriptor)),
            "write": In(KernelWriteSignature(config)),
            "entries": Out(stream.Signature(KernelEntry(config))),
        })

    def elaborate(self, platform) -> Module:
        """Rings, the walk over entries, and the read pipeline.

        Stages: s0 address, s1 RAM of selects, s2 RAM of weights, s3 all of an entry. Behind it is
        the queue (`_queue`).
        """
        m = Module()
        m.submodules.passes = passes = Passes()
        m.submodules.rows = Ring(depth=self._config.kernel_depth)
        m.submodules.selects = Ring(depth=self._config.select_depth)
        wiring.connect(m, wiring.flipped(self.desc), passes.desc)
        wiring.connect(m, wiring.flipped(self.write.count), passes.count)
        s0_read, s0_place, code = self._walk(m, passes.o)
        s1_read = Signal()
        m.d.sync += s1_read.eq(s0_read)
        simulated = platform is None or platform == "formal"    # a board has no cell to assert
        s3_row, s3_found = self._read(m, s0_read, s1_read, s0_place, code, simulated)
        self._queue(m, s1_read, s3_row, s3_found)
        return m

    def _walk(self, m: Module, passes):
        """Entries of the passes; returns entry strobe, its place in the chunk, select code."""
        rows, selects = m.submodules.rows, m.submodules.selects
        m.submodules.credit = credit = Level(depth=self._QUEUE)     # entries on their way
        following = passes.payload
        valid = Signal()
        # What ``valid`` is not: a register of its own for the way to the next pass, which would
        # else be found behind the enable of this one.
        idle = Signal(init=1)
        left = Signal(ENTRY_BITS, reset_less=True)
        code, keep = Signal(3, reset_less=True), Signal(reset_less=True)
        place = Signal(range(chunk_entries(self._config, 1)), reset_less=True)
        # Found while they change: whether ``left`` is 1 or there is nothing, ``place`` is the last
        # of a chunk, and either of them, if there are selects.
        end, chunk_end = Signal(init=1), Signal(reset_less=True)
        beat_end = Signal(reset_less=True)
        s0_read = Signal()

        chunk_before = Signal.like(place)           # last place of a chunk but one
        with m.Switch(code):
            for value, bits in _selecting(self._config):
                with m.Case(value):
                    m.d.comb += chunk_before.eq(chunk_entries(self._config, bits) - 2)

        m.d.comb += [
            s0_read.eq(valid & credit.room & rows.available), credit.write.eq(s0_read),
            passes.ready.eq(end & (idle | s0_read)),
            rows.read.eq(s0_read), rows.end.eq(end), rows.keep.eq(keep),
            selects.read.eq(s0_read & beat_end), selects.end.eq(end), selects.keep.eq(keep),
        ]
        ends, chunk_ends = Signal(), Signal()       # of the entry after this
        m.d.comb += [
            ends.eq(Mux(end, ~passes.valid | following.single, left == 2)),
            chunk_ends.eq(
                Mux(end | chunk_end, self._alone(Mux(end, following.code, code)),
                    place == chunk_before)
            ),
        ]
        with m.If(~valid | s0_read):
            m.d.sync += [
                end.eq(ends), chunk_end.eq(chunk_ends),
                left.eq(Mux(end, following.entries, left - 1)),
                place.eq(Mux(end | chunk_end, 0, place + 1)),
                beat_end.eq((Mux(end, following.code, code) != 0) & (ends | chunk_ends)),
            ]
            with m.If(end):
                m.d.sync += [
                    valid.eq(passes.valid), idle.eq(~passes.valid),
                    code.eq(following.code), keep.eq(following.keep),
                ]
        return s0_read, place, code

    def _alone(self, code):
        """Whether a beat of selects is for one entry."""
        return Cat(code == value for value, bits in _selecting(self._config)
                   if chunk_entries(self._config, bits) == 1).any()

    def _read(self, m: Module, s0_read, s1_read, s0_place, code, simulated: bool):
        """RAMs; returns the row of weights and what was found in the beat of selects, both s3."""
        config, write = self._config, self.write
        rows, selects = m.submodules.rows, m.submodules.selects
        bits = config.port_bits

        # A bank is a beat wide and made of RAMs of at most 512 bits: yosys takes minutes to read an
        # initial value of many megabits.
        width = min(bits, 512)
        s3_row = []
        # Whether a beat comes is known late, so that the place it goes to, which nobody reads if
        # there is room, is written in any case: enables hang on registers alone. All is written a
        # cycle later (w1), as the RAMs are many and far apart. In that cycle the row may be read:
        # its selects came a beat before its weights, which are read a cycle after them (s1).
        w_bank = Signal(range(max(2, config.row_beats)))
        w1_weight_en = Signal(config.row_beats)
        w1_weight_addr = Signal.like(rows.w_addr, name="w1_weight_addr", reset_less=True)
        w1_weight = Signal(bits, reset_less=True)
        s1_addr = Signal.like(rows.r_addr, name="s1_addr", reset_less=True)
        m.d.sync += [
            w1_weight_en.eq(Cat(rows.room & (w_bank == bank) for bank in range(config.row_beats))),
            w1_weight_addr.eq(rows.w_addr), w1_weight.eq(write.weight.payload.data),
            s1_addr.eq(rows.r_addr),
        ]
        if simulated:   # what an ECP5's block RAM would read is not defined
            m.d.sync += Assert(~(s1_read & w1_weight_en.any() & (s1_addr == w1_weight_addr)))
        with m.If(write.weight.valid & rows.room):
            m.d.sync += w_bank.eq(Mux(write.weight.payload.last, 0, w_bank + 1))
        for index in range(config.row_beats * bits // width):
            bank, part = divmod(index, bits // width)
            m.submodules[f"weights{index}"] = ram = Memory(
                shape=width, depth=config.kernel_depth, init=[], attrs=large_ram(config)
            )
            port, out = ram.write_port(), ram.read_port()
            m.d.comb += [
                port.addr.eq(w1_weight_addr), port.data.eq(w1_weight.word_select(part, width)),
                port.en.eq(w1_weight_en[bank]), out.addr.eq(s1_addr), out.en.eq(s1_read),
            ]
            s3_row.append(Signal(width, name=f"s3_row{index}", reset_less=True))
            m.d.sync += s3_row[-1].eq(out.data)
        m.submodules.select_ram = ram = Memory(shape=bits, depth=config.select_depth, init=[])
        port, out = ram.write_port(), ram.read_port()
        w1_select = Signal(bits, reset_less=True)
        w1_select_en = Signal()
        w1_select_addr = Signal.like(selects.w_addr, name="w1_select_addr", reset_less=True)
        m.d.sync += [
            w1_select.eq(write.select.payload), w1_select_en.eq(selects.room),
            w1_select_addr.eq(selects.w_addr),
        ]
        m.d.comb += [
            write.weight.ready.eq(rows.room), write.select.ready.eq(selects.room),
            rows.write.eq(write.weight.valid & rows.room & write.weight.payload.last),
            selects.write.eq(write.select.valid & selects.room),
            port.addr.eq(w1_select_addr), port.data.eq(w1_select), port.en.eq(w1_select_en),
            out.addr.eq(selects.r_addr), out.en.eq(s0_read),
        ]
        if simulated:
            m.d.sync += Assert(~(
                s0_read & (code != 0) & w1_select_en & (selects.r_addr == w1_select_addr)
            ))

        s1_place, s1_code = Signal.like(s0_place, reset_less=True), Signal(3, reset_less=True)
        s2_beat = Signal(bits, reset_less=True)
        found = Signal(data.StructLayout(_found(config)), name="s3_found", reset_less=True)
        m.d.sync += [s1_place.eq(s0_place), s1_code.eq(code), s2_beat.eq(out.data)]
        # AND-OR over all places of all formats: the more bits of an entry, the fewer in a beat.
        selects = [[] for _ in range(config.kernel_lanes)]
        for value, each in _selecting(config):
            size = entry_bits(config, each)
            others = []         # in a window: what is not the lanes' own
            for place in range(chunk_entries(config, each)):
                here = Signal(name=f"s2_code{value}_place{place}", reset_less=True)
                m.d.sync += here.eq((s1_code == value) & (s1_place == place))
                word = s2_beat.word_select(place, size)
                for lane, terms in enumerate(selects):
                    terms.append(word.word_select(lane, each) & here.replicate(each))
                other = word[each * config.kernel_lanes:]
                others.append(other & here.replicate(len(other)))
            if value == WINDOW_CODE:
                m.d.sync += Cat(found.addr, found.last).eq(reduce(or_, others))
        for select, terms in zip(found.select, selects, strict=True):
            m.d.sync += select.eq(reduce(or_, terms))
        return Cat(s3_row), found

    def _queue(self, m: Module, s1_read, s3_row, s3_found) -> None:
        """Entries that wait for the issue unit.

        They are read out of distributed RAM where they lie. Where that is, and what the issue unit
        decides by, goes through a slice, which may lie beside that unit: its late ``ready`` does
        not reach the queue.
        """
        out = self.entries.payload
        windowed = self._config.window > 1
        decisive = Cat(s3_found.select[0][7], *(
            s3_found[name] for name in ("addr", "last") if windowed
        ))
        token = data.StructLayout({"place": range(self._QUEUE), "head": len(decisive)})
        m.submodules.level = level = Level(depth=self._QUEUE)
        m.submodules.front = front = RegisterSlice(token)
        s2_valid, s3_valid, taken = Signal(), Signal(), Signal()
        s3_addr, r_addr = Signal(range(self._QUEUE)), Signal(range(self._QUEUE))
        m.d.comb += [
            # An entry is told of while it is in s3.
            level.write.eq(s2_valid), front.i.valid.eq(level.some),
            level.read.eq(level.some & front.i.ready),
            self.entries.valid.eq(front.o.valid), front.o.ready.eq(self.entries.ready),
            m.submodules.credit.read.eq(taken),
        ]
        m.d.sync += [
            s2_valid.eq(s1_read), s3_valid.eq(s2_valid),
            s3_addr.eq(s3_addr + s3_valid), r_addr.eq(r_addr + level.read),
            taken.eq(front.o.valid & front.o.ready),
        ]

        def storage(name, value, place):
            """Keep what comes in s3; what lies at ``place``."""
            m.submodules[name] = ram = Memory(shape=len(value), depth=self._QUEUE, init=[])
            write, read = ram.write_port(), ram.read_port(domain="comb")
            m.d.comb += [
                write.addr.eq(s3_addr), write.data.eq(value), write.en.eq(s3_valid),
                read.addr.eq(place),
            ]
            return read.data

        place = front.o.payload.place
        weights = storage("weight_queue", s3_row, place)
        selects = storage("select_queue", s3_found.select.as_value(), place)
        head = storage("head_queue", decisive, r_addr)
        m.d.comb += [
            front.i.payload.place.eq(r_addr),
            front.i.payload.head.eq(Mux(s3_valid & ~level.many, decisive, head)),
            out.weight.as_value().eq(weights), out.select.as_value().eq(selects),
            out.select[0][7].eq(front.o.payload.head[0]),
        ]
        if windowed:
            m.d.comb += Cat(out.addr, out.last).eq(front.o.payload.head[1:])


def _found(config: AcceleratorConfig) -> dict:
    """Members of an entry that come out of a beat of selects."""
    return {
        name: shape for name, shape in KernelEntry(config).members.items() if name != "weight"
    }


def _selecting(config: AcceleratorConfig) -> list[tuple[int, int]]:
    """Select codes with selects, and their bits per lane."""
    return [(code, bits) for code, bits in select_codes(config).items() if bits]
