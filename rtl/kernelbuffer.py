"""Kernel buffer: rings of weights and selects, written by prefetch, read entry by entry.

The reader walks the blocks in the issue unit's order by itself (`rtl.blockorder`). A kernel block
that is multiplied with several resident tile blocks is replayed: its rows are given back only in
the last pass.
"""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from model.stream import ENTRY_BITS, chunk_entries, entry_bits, select_codes
from rtl.blockorder import next_group
from rtl.largeram import large_ram
from rtl.signatures import Descriptor, KernelEntry

__all__ = ["KernelBuffer", "KernelWriteSignature", "Ring"]


class KernelWriteSignature(wiring.Signature):
    """Prefetch to kernel buffer: entry counts, select beats, beats of weights of a row."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__({
            "count": Out(stream.Signature(ENTRY_BITS)),
            "select": Out(stream.Signature(config.port_bits)),
            "weight": Out(stream.Signature(data.StructLayout({
                "data": config.port_bits, "bank": range(max(2, config.row_beats)), "last": 1,
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
        A row may be written.
    write, w_addr : In(1), Out
        A row is written at ``w_addr``.
    available : Out(1)
        The row at ``r_addr`` is written and was not passed yet.
    read, r_addr : In(1), Out
        Pass the row at ``r_addr``.
    mark : In(1)
        The next kernel block begins at the row that is next after this cycle.
    rewind : In(1)
        Go back to the marked row (wins over ``read``); only while rows are kept.
    keep : In(1)
        Rows since the mark are kept; else they are given back as they are passed. Changes only
        while ``r_addr`` is the marked row, or with ``mark`` or ``rewind``.
    """

    def __init__(self, *, depth: int) -> None:
        if not isinstance(depth, int) or depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two of at least 2, not {depth!r}")
        super().__init__({
            "room": Out(1), "write": In(1), "w_addr": Out(range(depth)),
            "available": Out(1), "read": In(1), "r_addr": Out(range(depth)),
            "mark": In(1), "rewind": In(1), "keep": In(1),
        })
        # State; pointers carry one bit more than the address, so that full and empty differ.
        pointer = range(2 * depth)
        self._w_ptr, self._r_ptr, self._marked = Signal(pointer), Signal(pointer), Signal(pointer)
        self._used = Signal(range(depth + 1))
        self._available = Signal()

    def elaborate(self, platform) -> Module:
        """Count rows in use: ``room`` reaches the memory port, so it is a bit of a register.

        ``available`` says whether ``w_ptr`` and ``r_ptr`` differ, found while they change, because
        every entry waits for it.
        """
        m = Module()
        w_ptr, r_ptr, marked, used = self._w_ptr, self._r_ptr, self._marked, self._used
        r_next = Signal.like(r_ptr)
        m.d.comb += [
            self.room.eq(~used[-1]),
            self.available.eq(self._available),
            r_next.eq(r_ptr + 1),
            self.w_addr.eq(w_ptr), self.r_addr.eq(r_ptr),
        ]
        m.d.sync += [
            w_ptr.eq(w_ptr + self.write),
            r_ptr.eq(Mux(self.rewind, marked, Mux(self.read, r_next, r_ptr))),
            self._available.eq(self.write | Mux(
                self.rewind, w_ptr != marked, Mux(self.read, w_ptr != r_next, self._available)
            )),
            used.eq(used + self.write - (self.read & ~self.keep)),
        ]
        with m.If(self.mark):
            m.d.sync += marked.eq(Mux(self.read, r_next, r_ptr))
        return m


class KernelBuffer(wiring.Component):
    """Weights and selects of the kernel stream, delivered one entry per cycle.

    Latency `LATENCY` cycles from the last beat of a row to its entry. An entry per cycle, also
    into a replay or a new kernel block; two idle cycles before a new layer. Lanes that the last
    kernel block does not have deliver whatever the row held before. A replayed block must fit both
    memories.

    Parameters
    ----------
    config : AcceleratorConfig
        Uses ``kernel_lanes``, ``weight_bits``, ``port_bits``, ``kernel_depth``, ``select_depth``.

    Attributes
    ----------
    start : In(1)
        Begin a run: empty rings.
    desc : In(stream.Signature(Descriptor))
        The layers.
    write : In(KernelWriteSignature(config))
        From prefetch.
    entries : Out(stream.Signature(KernelEntry(config)))
        Entries in issue order.
    """

    LATENCY = 5
    #: Kernel blocks whose entry count may wait.
    COUNTS = 32
    _FIFO = 8

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__({
            "start": In(1), "desc": In(stream.Signature(Descriptor)),
            "write": In(KernelWriteSignature(config)),
            "entries": Out(stream.Signature(KernelEntry(config))),
        })

    def elaborate(self, platform) -> Module:
        """Rings, the walk over blocks, and the read pipeline s0 address, s1 RAM, s2 registers."""
        m = Module()
        m.submodules.counts = SyncFIFOBuffered(width=ENTRY_BITS, depth=self.COUNTS)
        m.submodules.rows = Ring(depth=self._config.kernel_depth)
        m.submodules.selects = Ring(depth=self._config.select_depth)
        counts, write = m.submodules.counts, self.write
        m.d.comb += [
            counts.w_data.eq(write.count.payload), counts.w_en.eq(write.count.valid),
            write.count.ready.eq(counts.w_rdy),
        ]
        s0_read, s0_place, code = self._walk(m)
        self._read(m, s0_read, s0_place, code)
        return ResetInserter(self.start)(m)

    def _walk(self, m: Module):
        """Blocks in issue order; returns entry strobe, its place in the chunk, select code."""
        rows, selects, counts = m.submodules.rows, m.submodules.selects, m.submodules.counts
        desc = self.desc.payload
        code = Signal(3)
        blocks, blocks_each = Signal(13), Signal(13)
        # Passes of the kernel block left: as many as the group has tile blocks. Tile blocks of a
        # full group, and those after this group.
        tiles, tiles_each = Signal(16), Signal(16)
        resident, rest = Signal(16), Signal(16)
        left, entries = Signal(ENTRY_BITS), Signal(ENTRY_BITS)
        # Whether ``left``, ``entries``, ``tiles`` and ``blocks`` are 1, found while they change.
        left_last, single = Signal(), Signal()
        last_pass, last_block = Signal(), Signal()
        place = Signal(range(chunk_entries(self._config, 1)))
        chunk_last = Signal.like(place)
        next_block = Signal()                       # take the entry count of a kernel block
        s0_read, s0_place = Signal(), Signal.like(place)
        go = Signal()                               # the read pipeline has room
        m.submodules.credit = credit = _Credit(depth=self._FIFO)
        m.d.comb += [credit.take.eq(s0_read), go.eq(credit.room)]
        with m.Switch(code):
            for value, bits in _selecting(self._config):
                with m.Case(value):
                    m.d.comb += chunk_last.eq(chunk_entries(self._config, bits) - 1)

        m.d.comb += [rows.keep.eq(~last_pass), selects.keep.eq(~last_pass)]
        with m.FSM():
            with m.State("LAYER"):
                m.d.comb += self.desc.ready.eq(1)
                with m.If(self.desc.valid):
                    m.d.sync += [
                        code.eq(desc.select_code),
                        blocks.eq(desc.kernel_blocks), blocks_each.eq(desc.kernel_blocks),
                        tiles.eq(desc.resident), tiles_each.eq(desc.resident),
                        resident.eq(desc.resident),
                        rest.eq(desc.tile_blocks - desc.resident),
                        last_block.eq(desc.kernel_blocks == 1), last_pass.eq(desc.resident == 1),
                    ]
                    m.next = "BLOCK"
            with m.State("BLOCK"):
                # The first kernel block of a layer, or one whose count was not there in time.
                m.d.comb += next_block.eq(1)
                with m.If(counts.r_rdy):
                    m.next = "ENTRIES"
            with m.State("ENTRIES"):
                m.d.comb += [s0_read.eq(go & rows.available), s0_place.eq(place)]
                end_of_chunk = (place == chunk_last) | left_last
                with m.If(s0_read):
                    m.d.comb += [rows.read.eq(1), selects.read.eq((code != 0) & end_of_chunk)]
                    m.d.sync += [
                        left.eq(left - 1), left_last.eq(left == 2),
                        place.eq(Mux(end_of_chunk, 0, place + 1)),
                    ]
                    with m.If(left_last):
                        m.d.comb += [
                            rows.rewind.eq(~last_pass), selects.rewind.eq(~last_pass),
                            rows.mark.eq(last_pass), selects.mark.eq(last_pass),
                        ]
                        with m.If(~last_pass):
                            m.d.sync += [
                                tiles.eq(tiles - 1), last_pass.eq(tiles == 2),
                                left.eq(entries), left_last.eq(single),
                            ]
                        with m.Elif(last_block & (rest == 0)):
                            m.next = "LAYER"
                        with m.Else():
                            m.d.comb += next_block.eq(1)
                            m.d.sync += [
                                blocks.eq(blocks - 1), last_block.eq(blocks == 2),
                                tiles.eq(tiles_each), last_pass.eq(tiles_each == 1),
                            ]
                            with m.If(~counts.r_rdy):
                                m.next = "BLOCK"
                            with m.If(last_block):
                                size, after = next_group(rest, resident)
                                m.d.sync += [
                                    blocks.eq(blocks_each), last_block.eq(blocks_each == 1),
                                    tiles.eq(size), tiles_each.eq(size), rest.eq(after),
                                    last_pass.eq((rest == 1) | (resident == 1)),
                                ]
        m.d.comb += counts.r_en.eq(next_block)
        with m.If(next_block):
            m.d.sync += [
                left.eq(counts.r_data), entries.eq(counts.r_data), place.eq(0),
                left_last.eq(counts.r_data == 1), single.eq(counts.r_data == 1),
            ]
        return s0_read, s0_place, code

    def _read(self, m: Module, s0_read, s0_place, code) -> None:
        """RAMs, select extraction and the output FIFO."""
        config, write = self._config, self.write
        rows, selects = m.submodules.rows, m.submodules.selects
        lanes, bits = config.kernel_lanes, config.port_bits

        # A bank is a beat wide and made of RAMs of at most 512 bits: yosys takes minutes to read an
        # initial value of many megabits.
        width = min(bits, 512)
        s2_row = []
        for index in range(config.row_beats * bits // width):
            bank, part = divmod(index, bits // width)
            m.submodules[f"weights{index}"] = ram = Memory(
                shape=width, depth=config.kernel_depth, init=[], attrs=large_ram(config)
            )
            port, out = ram.write_port(), ram.read_port()
            m.d.comb += [
                port.addr.eq(rows.w_addr),
                port.data.eq(write.weight.payload.data.word_select(part, width)),
                port.en.eq(write.weight.valid & rows.room & (write.weight.payload.bank == bank)),
                out.addr.eq(rows.r_addr), out.en.eq(s0_read),
            ]
            s2_row.append(Signal(width, name=f"s2_row{index}", reset_less=True))
            m.d.sync += s2_row[-1].eq(out.data)
        m.submodules.select_ram = ram = Memory(shape=bits, depth=config.select_depth, init=[])
        port, out = ram.write_port(), ram.read_port()
        m.d.comb += [
            write.weight.ready.eq(rows.room), write.select.ready.eq(selects.room),
            rows.write.eq(write.weight.valid & rows.room & write.weight.payload.last),
            selects.write.eq(write.select.valid & selects.room),
            port.addr.eq(selects.w_addr), port.data.eq(write.select.payload),
            port.en.eq(selects.write),
            out.addr.eq(selects.r_addr), out.en.eq(s0_read),
        ]

        s1_valid, s2_valid = Signal(), Signal()
        s1_place = Signal.like(s0_place, reset_less=True)
        s2_place = Signal.like(s0_place, reset_less=True)
        s1_code, s2_code = Signal(3, reset_less=True), Signal(3, reset_less=True)
        s2_beat = Signal(bits, reset_less=True)
        m.d.sync += [
            s1_valid.eq(s0_read), s2_valid.eq(s1_valid), s1_place.eq(s0_place),
            s2_place.eq(s1_place), s1_code.eq(code), s2_code.eq(s1_code), s2_beat.eq(out.data),
        ]
        # The more bits of an entry, the fewer places in a beat.
        s2_word = Signal(max(entry_bits(config, width) for _, width in _selecting(config)))
        with m.Switch(s2_code):
            for value, width in _selecting(config):
                step = entry_bits(config, width)
                with m.Case(value):
                    places = Array(s2_beat[at:at + step] for at in range(0, bits - step + 1, step))
                    m.d.comb += s2_word.eq(places[s2_place[:(len(places) - 1).bit_length()]])

        fifo = SyncFIFOBuffered(width=KernelEntry(config).size, depth=self._FIFO)
        m.submodules.fifo = fifo
        entry = data.View(KernelEntry(config), Signal(KernelEntry(config).size, name="s2_entry"))
        for lane in range(lanes):
            with m.Switch(s2_code):
                for value, width in _selecting(config):
                    with m.Case(value):
                        m.d.comb += entry.select[lane].eq(s2_word.word_select(lane, width))
        if config.window > 1:
            m.d.comb += Cat(entry.addr, entry.last).eq(s2_word[3 * lanes:])
        m.d.comb += [
            entry.weight.as_value().eq(Cat(s2_row)),
            fifo.w_data.eq(entry.as_value()), fifo.w_en.eq(s2_valid),
            self.entries.valid.eq(fifo.r_rdy),
            self.entries.payload.as_value().eq(fifo.r_data),
            fifo.r_en.eq(self.entries.ready),
            m.submodules.credit.give.eq(self.entries.valid & self.entries.ready),
        ]


def _selecting(config: AcceleratorConfig) -> list[tuple[int, int]]:
    """Select codes with selects, and their bits per lane."""
    return [(code, bits) for code, bits in select_codes(config).items() if bits]


class _Credit(wiring.Component):
    """Counts the entries between the read strobe and the consumer, at most ``depth``."""

    def __init__(self, *, depth: int) -> None:
        self._depth = depth
        super().__init__({"room": Out(1), "take": In(1), "give": In(1)})

    def elaborate(self, platform) -> Module:
        """Up with ``take``, down with ``give``."""
        m = Module()
        level = Signal(range(self._depth + 1))
        m.d.comb += self.room.eq(level != self._depth)
        m.d.sync += level.eq(level + self.take - self.give)
        return m
