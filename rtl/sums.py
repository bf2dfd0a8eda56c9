"""Sum buffer: turns sums that arrive frequency by frequency into tiles for the inverse FFT.

The drain delivers D (``drained``: 4 or 8) kernels of one frequency per cycle, the inverse FFT takes
D frequencies of one kernel per cycle.  Word f of kernel n lies in bank ``(f + n) % D``, so both are
one access to each of D banks.  `SUM_SLOTS` slots: the array fills blocks ahead of the one being
read.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from model.config import AcceleratorConfig
from rtl.blockorder import next_group
from rtl.queue import Level
from rtl.requantise import delayed
from rtl.signatures import (
    POSITION_BITS,
    SUM_SLOTS,
    Complex,
    Descriptor,
    Event,
    KernelParameters,
    StoreTag,
    SumWrite,
    TileMarks,
)

__all__ = ["SumBuffer", "SumReader", "SEGMENT_ROWS", "tile_reads"]

#: Entries (rows, or pairs of them) a queue behind the inverse FFT holds: one LUT RAM.
SEGMENT_ROWS = 16


def tile_reads(config: AcceleratorConfig) -> int:
    """Count the reads of the sum buffer for a tile: 32 words, D at a time."""
    return config.words // config.drained


class SumBuffer(wiring.Component):
    """Memory of `SUM_SLOTS` blocks of sums for all tile lanes.

    A block is written to one slot and read after ``complete``, so a read never meets a write of
    the same address.  Both rotations take log2 D stages of 2:1 multiplexers: half the LUTs of 4:1.

    Parameters
    ----------
    config : AcceleratorConfig
        P' tile lanes, N' kernel lanes and D sums of a lane per cycle.

    Attributes
    ----------
    i : In(Event(SumWrite(config)))
        D kernels of one frequency; taken every cycle.
    complete : Out(Event(range(SUM_SLOTS)))
        A slot (payload) may be read from the cycle after the next on.
    r_en, r_slot, r_kernel, r_index : In
        Read words D·index .. D·index + D - 1 of a kernel.
    o : Out(P' x D x Complex(18))
        These words, `latency` cycles after ``r_en``.
    """

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        self._words = data.ArrayLayout(
            data.ArrayLayout(Complex(config.sum_bits), config.drained), config.tile_lanes
        )
        self._stages = exact_log2(config.drained)       # of a rotation
        super().__init__({
            "i": In(Event(SumWrite(config))),
            "complete": Out(Event(range(SUM_SLOTS))),
            "r_en": In(1), "r_slot": In(range(SUM_SLOTS)),
            "r_kernel": In(range(config.kernel_lanes)),
            "r_index": In(range(tile_reads(config))),
            "o": Out(self._words),
        })

    @staticmethod
    def latency(config: AcceleratorConfig) -> int:
        """Cycles from ``r_en`` to ``o``: the read, a register, and log2 D of the rotation."""
        return 2 + exact_log2(config.drained)

    def elaborate(self, platform) -> Module:
        """Build the write rotation, the banks and the read rotation."""
        m = Module()
        lanes = self._config.tile_lanes
        kernel_bits = exact_log2(self._config.kernel_lanes)
        addr_bits = exact_log2(tile_reads(self._config) * SUM_SLOTS) + kernel_bits
        stages = self._stages

        # Writing: kernel k of the quad goes to bank (k + frequency) % D.
        sums = self.i.payload
        write_valid = delayed(m, self.i.valid, stages, "w_valid")
        write_words = self._rotate(m, sums.sums, sums.frequency[:stages], 1, "w")
        m.d.comb += [
            self.complete.valid.eq(delayed(
                m, self.i.valid & sums.block_last, stages - 1, "complete"
            )),
            self.complete.payload.eq(delayed(m, sums.slot, stages - 1, "slot")),
        ]

        # Reading: word j comes from bank (j + kernel) % D.
        s1_turn = Signal(stages, reset_less=True)
        s2_turn = Signal(stages, reset_less=True)
        s2_words = Signal(self._words, reset_less=True)
        m.d.sync += [s1_turn.eq(self.r_kernel), s2_turn.eq(s1_turn)]
        m.d.comb += self.o.eq(self._rotate(m, s2_words, s2_turn, -1, "r"))

        word = data.ArrayLayout(Complex(self._config.sum_bits), lanes)
        for bank in range(1 << stages):
            memory = Memory(shape=word, depth=1 << addr_bits, init=[])
            m.submodules[f"bank{bank}"] = memory
            write, read = memory.write_port(), memory.read_port()

            kernel = Signal(stages, name=f"kernel{bank}")
            addr = Cat(sums.frequency[stages:], Cat(kernel, sums.quad)[:kernel_bits], sums.slot)
            for stage in range(stages):
                later = Signal(addr_bits, name=f"w{stage}_addr{bank}", reset_less=True)
                m.d.sync += later.eq(addr)
                addr = later
            m.d.comb += [
                kernel.eq(Const(bank, stages) - sums.frequency[:stages]),
                write.en.eq(write_valid), write.addr.eq(addr),
                read.en.eq(self.r_en),
                read.addr.eq(Cat(self.r_index, self.r_kernel, self.r_slot)),
            ]
            for lane in range(lanes):
                m.d.comb += write.data[lane].eq(write_words[lane][bank])
                m.d.sync += s2_words[lane][bank].eq(read.data[lane])
        return m

    def _rotate(self, m: Module, words, turn, sign: int, name: str):
        """Move ``words`` up by ``sign`` x ``turn`` places; a cycle for every bit of ``turn``."""
        for bit in reversed(range(self._stages)):
            stage = self._stages - 1 - bit
            rotated = Signal(self._words, name=f"{name}{stage}_words", reset_less=True)
            for lane in range(self._config.tile_lanes):
                for place in range(1 << self._stages):
                    source = (place - (sign << bit)) % (1 << self._stages)
                    m.d.sync += rotated[lane][place].eq(Mux(
                        turn[bit], words[lane][source].as_value(), words[lane][place].as_value()
                    ))
            words = rotated
            if bit:
                later = Signal(bit, name=f"{name}{stage}_turn", reset_less=True)
                m.d.sync += later.eq(turn)
                turn = later
        return words


class SumReader(wiring.Component):
    """Read finished blocks kernel by kernel and say what each tile is.

    A tile takes 8/R cycles (a dot product 1); kernels follow each other without a gap while the
    queue behind the inverse FFT has room for another tile.  There is a queue per feature bank:
    kernel k of a block goes to bank k mod F, a dot product to the first, which with several banks
    takes one every cycle and needs no room.  Block order: see `rtl.blockorder`.

    The map of a kernel follows that of kernel k - F (dot products follow each other): it is found
    by adding, kernel by kernel, from the start of the kernel block, to which the tile blocks of a
    group come back.

    Parameters
    ----------
    config : AcceleratorConfig
        N' kernel lanes, F feature banks, R rows of an inverse FFT per cycle.

    Attributes
    ----------
    layer : In(Descriptor)
        The layer, constant from ``begin`` until it is completely written. All its kernel blocks are
        multiples of F, but of a dot layer.
    begin : In(1)
        Start a layer; nothing of an earlier one is in flight.
    complete : In(Event(range(SUM_SLOTS)))
        From `SumBuffer`.
    credit : In(F)
        An entry, one row or a pair of rows, has left the queue of a bank.
    param_ready, param_addr, param_data, param_next : In, Out, In, Out
        Parameters of the current kernel block; data 2 cycles after the address; ``param_next``
        releases them; ``param_ready`` and the next block's are asked for in the cycle after it.
    slot_free : Out(1)
        A slot was read for the last time.
    r_en, r_slot, r_kernel, r_index : Out
        To `SumBuffer`.
    o : Out(Event({bypass, tag}))
        Goes with `SumBuffer.o`; constant over the cycles of a tile.
    """

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        self._read_latency = SumBuffer.latency(config)
        super().__init__({
            "layer": In(Descriptor),
            "begin": In(1),
            "complete": In(Event(range(SUM_SLOTS))),
            "credit": In(config.feature_banks),
            "param_ready": In(1),
            "param_addr": Out(range(config.kernel_lanes)),
            "param_data": In(KernelParameters),
            "param_next": Out(1),
            "slot_free": Out(1),
            "r_en": Out(1), "r_slot": Out(range(SUM_SLOTS)),
            "r_kernel": Out(range(config.kernel_lanes)),
            "r_index": Out(range(tile_reads(config))),
            "o": Out(Event(data.StructLayout({"bypass": 1, "tag": StoreTag}))),
        })

    @staticmethod
    def latency(config: AcceleratorConfig) -> int:
        """Cycles from the last sum of a block at `SumBuffer.i` to ``o``, if nothing holds it up."""
        return exact_log2(config.drained) + 1 + SumBuffer.latency(config)

    def elaborate(self, platform) -> Module:
        """Build the choice of blocks, the counters and the tag pipeline."""
        m = Module()
        layer = self.layer
        lanes = self._config.kernel_lanes
        banks = self._config.feature_banks
        bank_bits = exact_log2(banks)

        # A block's end is worked up in the cycle after the start of its last kernel: what follows
        # it, and all that is said about a kernel, is found beside the decisions to start.
        go_on = Signal()            # blocks of this layer are left, and `gap` is over
        gap = Signal()              # block counters and param_ready settle
        next_kernel = Signal(range(lanes))
        first_kernel = Signal(init=1)   # the next kernel is a block's first,
        last_kernel = Signal()      # its last
        kernels_after = Signal(range(lanes))    # kernels of the block after the next one
        blocks_after = Signal(13)   # kernel blocks after this one
        tile_block = Signal(16)     # of the group
        size_less = Signal(16)      # tile blocks of the group but one
        rest = Signal(16)           # those of later groups
        kernels_last = Signal()     # the counters stand at the last block
        tiles_last = Signal()
        group_last = Signal()
        single = Signal()           # a group of one tile block
        one_block, last_follows = Signal(), Signal()    # of the kernel blocks: only one; one more
        lanes_end = Signal(range(lanes))        # last kernel of the last block
        following = Signal(data.StructLayout({"size": 16, "rest": 16}))     # group
        m.d.sync += [
            tiles_last.eq(tile_block == size_less),
            group_last.eq(rest == 0),
            single.eq(size_less == 0),
            one_block.eq(layer.kernel_blocks == 1),
            last_follows.eq(blocks_after == 1),
            lanes_end.eq(layer.lanes_last - 1),
            Cat(following.size, following.rest).eq(Cat(*next_group(rest, layer.resident))),
        ]

        # Complete blocks that nobody has begun to read, and the slot of the first of them.
        m.submodules.waiting = waiting = Level(depth=SUM_SLOTS)
        next_slot = Signal(range(SUM_SLOTS))

        idle = Signal(init=1)       # no tile is being read, or this is its last read
        room = Signal()             # in the queue of the next kernel's bank
        tile_end = Signal()
        opens, start = Signal(), Signal()   # a block may begin; a kernel does
        bank = Mux(layer.dot, 0, next_kernel[:bank_bits]) if bank_bits else Const(0)
        m.d.comb += [
            tile_end.eq(self.r_en & idle),
            opens.eq(first_kernel & go_on & waiting.some & self.param_ready),
            start.eq(idle & room & (~first_kernel | opens)),
        ]
        with m.If(start):
            m.d.sync += idle.eq(layer.dot)
        with m.Elif(self.r_index == tile_reads(self._config) - 2):
            m.d.sync += idle.eq(1)

        # Of the kernel whose first read is issued in this cycle.
        started, block_end = Signal(), Signal()
        started_bank = Mux(layer.dot, 0, self.r_kernel[:bank_bits]) if bank_bits else Const(0)
        bank_last = layer.dot | (started_bank == banks - 1)
        kernels_last_next = Signal()
        kernel_end = Signal(range(lanes))       # last kernel of the block
        last_round = Signal()       # the last kernel of the block for each bank
        m.d.comb += [
            kernels_last_next.eq(Mux(
                tiles_last, Mux(kernels_last, one_block, last_follows), kernels_last
            )),
            last_round.eq(Mux(
                layer.dot, block_end, self.r_kernel[bank_bits:] == kernel_end[bank_bits:]
            )),
        ]

        # Two rows of a cycle, if they are not pooled, are one entry.
        entries = layer.out_step
        if self._config.inverse_rows > 1:
            entries = Mux(layer.pool | layer.dot, layer.out_step, layer.out_step >> 1)
        # A bank's turn comes every F kernels, and between two starts lie `tile_reads` cycles: with
        # several, room may be known a cycle later, and whose it is, too. One dot product after the
        # other has only itself in the way; those of a batch, which are written one by one, leave
        # room for the one before. With one bank, room is found for both cases, with and without a
        # start now.
        free = Signal()
        if banks > 1:
            m.d.sync += free.eq(layer.dot & (layer.tiles == 1))
        needed = Signal(range(SEGMENT_ROWS + 1))
        m.d.sync += needed.eq(entries)
        rooms = Signal(banks)
        for index in range(banks):
            credits = Signal(range(SEGMENT_ROWS + 1), name=f"credits{index}")
            taken, credit = start & (bank == index), self.credit[index]
            # Both decisions come late, so that all four outcomes are found before.
            less = (credits - needed)[:len(credits)]
            with m.If(~free):
                m.d.sync += credits.eq(Mux(
                    taken, Mux(credit, (credits + ~needed + 2)[:len(credits)], less),
                    Mux(credit, credits + 1, credits),
                ))
            if banks > 1:
                m.d.comb += rooms[index].eq((credits >= Mux(layer.dot, 2, entries)) | free)
            else:
                m.d.comb += rooms.eq(Mux(
                    taken,
                    Mux(credit, credits + 1 >= needed << 1, credits >= needed << 1),
                    Mux(credit, credits + 1 >= needed, credits >= needed),
                ))
            with m.If(self.begin):
                m.d.sync += credits.eq(SEGMENT_ROWS)
        m.d.sync += room.eq(rooms.bit_select(bank, 1))
        with m.If(self.begin):
            m.d.sync += room.eq(banks == 1)

        # One register stage between the decision and the RAM.
        marks = Signal(TileMarks)
        tile_base = Signal(POSITION_BITS, reset_less=True)
        base = Signal(POSITION_BITS)            # map of the next kernel
        block_base = Signal(POSITION_BITS)      # map of the first kernel of the kernel block
        base_step = Signal(POSITION_BITS)
        base_next = Signal(POSITION_BITS)
        m.d.comb += base_next.eq(base + base_step)
        m.d.sync += base_step.eq(
            Mux(layer.out_vector, layer.out_map << layer.out_wide, layer.out_plane << 4)
        )
        # Of a vector in several banks, `rtl.writer` takes the bank out of the middle.
        origin = Cat(Const(0, 4), layer.out_base)
        if banks > 1:
            origin = Mux(layer.out_vector, origin << bank_bits, origin)
        block_last = Signal()
        m.d.comb += self.param_next.eq(block_end & tiles_last)
        m.d.sync += [
            self.r_index.eq(self.r_index + 1),
            started.eq(start), block_end.eq(start & last_kernel), gap.eq(start & last_kernel),
        ]
        with m.If(tile_end):
            m.d.sync += self.r_en.eq(0)
        with m.If(start):
            m.d.sync += [
                self.r_en.eq(1),
                self.r_index.eq(0),
                self.r_kernel.eq(next_kernel),
                next_kernel.eq(Mux(last_kernel, 0, next_kernel + 1)),
                kernels_after.eq(kernels_after - 1),
                first_kernel.eq(last_kernel),
                go_on.eq(go_on & ~last_kernel),
                last_kernel.eq(kernels_after == 1),
                block_last.eq(last_kernel),
            ]
            with m.If(first_kernel):
                m.d.sync += [self.r_slot.eq(next_slot), next_slot.eq(next_slot + 1)]
        with m.If(gap):
            end = Mux(kernels_last_next, lanes_end, lanes - 1)
            m.d.sync += [
                go_on.eq(~(block_end & kernels_last & tiles_last & group_last)),
                kernels_last.eq(kernels_last_next), kernel_end.eq(end),
                kernels_after.eq(end), last_kernel.eq(end == 0),
            ]
        with m.If(started):
            m.d.sync += [
                marks.commit.eq(group_last & tiles_last),
                marks.final.eq(group_last),
                # A set of places is left at its end, unless the next block has the same tiles.
                marks.advance.eq(last_round & (~single | (kernels_last & ~group_last))),
                marks.turn.eq(last_round & kernels_last & tiles_last & ~group_last),
                marks.layer_last.eq(last_round & kernels_last & tiles_last & group_last),
                tile_base.eq(base),
            ]
            with m.If(block_end & ~tiles_last):
                m.d.sync += base.eq(block_base)
            with m.Elif(block_end & kernels_last):
                m.d.sync += base.eq(origin)
            with m.Elif(bank_last):
                m.d.sync += base.eq(base_next)
        with m.If(block_end):
            m.d.sync += tile_block.eq(tile_block + 1)
            with m.If(tiles_last):
                m.d.sync += [
                    tile_block.eq(0), blocks_after.eq(blocks_after - 1), block_base.eq(base_next),
                ]
                with m.If(kernels_last):
                    m.d.sync += [
                        blocks_after.eq(layer.kernel_blocks - 1), block_base.eq(origin),
                        size_less.eq(following.size - 1), rest.eq(following.rest),
                    ]

        m.d.sync += self.slot_free.eq(tile_end & block_last)
        m.d.comb += [
            waiting.write.eq(self.complete.valid), waiting.read.eq(idle & room & opens),
        ]
        with m.If(self.complete.valid & ~waiting.some):
            m.d.sync += next_slot.eq(self.complete.payload)

        with m.If(self.begin):
            # As after the last block of a kernel block, the last one of a group.
            m.d.sync += [
                go_on.eq(0), gap.eq(1), kernels_last.eq(1), tiles_last.eq(1),
                next_kernel.eq(0), first_kernel.eq(1), tile_block.eq(0),
                blocks_after.eq(layer.kernel_blocks - 1),
                size_less.eq(layer.resident - 1), rest.eq(layer.tile_blocks - layer.resident),
                base.eq(origin), block_base.eq(origin),
            ]

        # The parameters are asked for a cycle before the first read, arrive one after it and are
        # kept for the tile.
        s1_valid = Signal()
        s1_first = Signal()
        s2_tag = Signal(StoreTag, reset_less=True)
        tag = s2_tag
        for stage in range(3, self._read_latency + 1):
            later = Signal(StoreTag, name=f"s{stage}_tag", reset_less=True)
            m.d.sync += later.eq(tag)
            tag = later
        m.d.comb += [
            self.param_addr.eq(next_kernel),
            self.o.valid.eq(delayed(m, s1_valid, self._read_latency - 1, "valid")),
            self.o.payload.bypass.eq(layer.dot),
            self.o.payload.tag.eq(tag),
        ]
        m.d.sync += [
            s1_valid.eq(self.r_en),
            s1_first.eq(started),
        ]
        with m.If(s1_first):
            m.d.sync += [
                s2_tag.bias.eq(self.param_data.bias),
                s2_tag.multiplier.eq(self.param_data.multiplier),
                s2_tag.marks.eq(marks),
                s2_tag.base.eq(tile_base),
            ]
        return m
