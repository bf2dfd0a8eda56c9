"""Sum buffer: turns sums that arrive frequency by frequency into tiles for the inverse FFT.

The drain delivers four kernels of one frequency per cycle, the inverse FFT takes four frequencies
of one kernel per cycle.  Word f of kernel n lies in bank ``(f + n) % 4``, so both are one access
to each of four banks.  `SUM_SLOTS` slots: the array fills blocks ahead of the one being read.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from model.config import AcceleratorConfig
from rtl.signatures import (
    SUM_SLOTS,
    Complex,
    Descriptor,
    Event,
    KernelParameters,
    StoreTag,
    SumWrite,
    TileMarks,
)

__all__ = ["SumBuffer", "SumReader", "SEGMENT_ROWS", "parameter_ports"]

#: Rows the queue of `rtl.post.PostArray` holds: one LUT RAM.
SEGMENT_ROWS = 16


def parameter_ports(config: AcceleratorConfig) -> dict:
    """Ports of `SumReader` to the parameter memory, handed on by `rtl.store.StoreStage`."""
    return {
        "param_ready": In(1), "param_addr": Out(range(config.kernel_lanes)),
        "param_data": In(KernelParameters), "param_next": Out(1),
    }


class SumBuffer(wiring.Component):
    """Memory of `SUM_SLOTS` blocks of sums for all tile lanes.

    A block is written to one slot and read after ``complete``, so a read never meets a write of
    the same address.  Both rotations take two stages of 2:1 multiplexers: half the LUTs of 4:1.

    Parameters
    ----------
    config : AcceleratorConfig
        P' tile lanes and N' kernel lanes.

    Attributes
    ----------
    i : In(Event(SumWrite(config)))
        Four kernels of one frequency; taken every cycle.
    complete : Out(Event(range(SUM_SLOTS)))
        A slot (payload) may be read from the cycle after the next on.
    r_en, r_slot, r_kernel, r_index : In
        Read words 4·index .. 4·index+3 of a kernel.
    o : Out(P' x 4 x Complex(18))
        These words, `LATENCY` cycles after ``r_en``.
    """

    #: Cycles from ``r_en`` to ``o``.
    LATENCY = 4

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        self._words = data.ArrayLayout(
            data.ArrayLayout(Complex(config.sum_bits), 4), config.tile_lanes
        )
        super().__init__({
            "i": In(Event(SumWrite(config))),
            "complete": Out(Event(range(SUM_SLOTS))),
            "r_en": In(1), "r_slot": In(range(SUM_SLOTS)),
            "r_kernel": In(range(config.kernel_lanes)),
            "r_index": In(3),
            "o": Out(self._words),
        })

    def elaborate(self, platform) -> Module:
        """Build the write rotation, the banks and the read rotation."""
        m = Module()
        lanes = self._config.tile_lanes
        kernel_bits = exact_log2(self._config.kernel_lanes)
        addr_bits = 3 + kernel_bits + exact_log2(SUM_SLOTS)

        # Writing: kernel k of the quad goes to bank (k + frequency) % 4.
        sums = self.i.payload
        s0_valid, s1_valid = Signal(), Signal()
        s0_words = Signal(self._words, reset_less=True)
        s1_words = Signal(self._words, reset_less=True)
        s0_turn = Signal(reset_less=True)
        m.d.sync += [
            s0_valid.eq(self.i.valid),
            s0_turn.eq(sums.frequency[0]),
            s1_valid.eq(s0_valid),
            self.complete.valid.eq(self.i.valid & sums.block_last),
            self.complete.payload.eq(sums.slot),
        ]
        self._rotate(m, sums.sums, sums.frequency[1], s0_words, 2)
        self._rotate(m, s0_words, s0_turn, s1_words, 1)

        # Reading: word j comes from bank (j + kernel) % 4.
        s1_turn = Signal(2, reset_less=True)
        s2_turn = Signal(2, reset_less=True)
        s3_turn = Signal(reset_less=True)
        s2_words = Signal(self._words, reset_less=True)
        s3_words = Signal(self._words, reset_less=True)
        s4_words = Signal(self._words, reset_less=True)
        m.d.sync += [s1_turn.eq(self.r_kernel), s2_turn.eq(s1_turn), s3_turn.eq(s2_turn)]
        self._rotate(m, s2_words, s2_turn[1], s3_words, 2)
        self._rotate(m, s3_words, s3_turn, s4_words, -1)
        m.d.comb += self.o.eq(s4_words)

        word = data.ArrayLayout(Complex(self._config.sum_bits), lanes)
        for bank in range(4):
            memory = Memory(shape=word, depth=8 * SUM_SLOTS * self._config.kernel_lanes, init=[])
            m.submodules[f"bank{bank}"] = memory
            write, read = memory.write_port(), memory.read_port()

            kernel = Signal(2, name=f"kernel{bank}")
            s0_addr = Signal(addr_bits, name=f"s0_addr{bank}", reset_less=True)
            s1_addr = Signal(addr_bits, name=f"s1_addr{bank}", reset_less=True)
            m.d.comb += [
                kernel.eq(Const(bank, 2) - sums.frequency[:2]),
                write.en.eq(s1_valid), write.addr.eq(s1_addr),
                read.en.eq(self.r_en),
                read.addr.eq(Cat(self.r_index, self.r_kernel, self.r_slot)),
            ]
            m.d.sync += [
                s0_addr.eq(
                    Cat(sums.frequency[2:], Cat(kernel, sums.quad)[:kernel_bits], sums.slot)
                ),
                s1_addr.eq(s0_addr),
            ]
            for lane in range(lanes):
                m.d.comb += write.data[lane].eq(s1_words[lane][bank])
                m.d.sync += s2_words[lane][bank].eq(read.data[lane])
        return m

    def _rotate(self, m: Module, words, enable, rotated, by: int) -> None:
        """Register ``words``, each moved up by ``by`` places if ``enable``."""
        for lane in range(self._config.tile_lanes):
            for place in range(4):
                source = Mux(
                    enable,
                    words[lane][(place - by) % 4].as_value(),
                    words[lane][place].as_value(),
                )
                m.d.sync += rotated[lane][place].eq(source)


class SumReader(wiring.Component):
    """Read finished blocks kernel by kernel and say what each tile is.

    A tile takes 8 cycles (a dot product 1); kernels follow each other without a gap while the
    queue behind the inverse FFT has room for another tile.  Block order: kernel blocks outside,
    tile blocks inside, or the reverse if ``restream``.

    Parameters
    ----------
    config : AcceleratorConfig
        N' kernel lanes.

    Attributes
    ----------
    layer : In(Descriptor)
        The layer, constant from ``begin`` until it is completely written.
    begin : In(1)
        Start a layer; nothing of an earlier one is in flight.
    complete : In(Event(range(SUM_SLOTS)))
        From `SumBuffer`.
    credit : In(1)
        One row has left the queue.
    param_ready, param_addr, param_data, param_next : In, Out, In, Out
        Parameters of the current kernel block; data 1 cycle after the address; ``param_next``
        releases them, ``param_ready`` is looked at again in the second cycle after it.
    slot_free : Out(1)
        A slot was read for the last time.
    r_en, r_slot, r_kernel, r_index : Out
        To `SumBuffer`.
    o : Out(Event({bypass, tag}))
        Goes with `SumBuffer.o`; constant over the cycles of a tile.
    """

    #: Cycles from the last sum of a block at `SumBuffer.i` to ``o``, if nothing holds it up.
    LATENCY = 3 + SumBuffer.LATENCY

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__({
            "layer": In(Descriptor),
            "begin": In(1),
            "complete": In(Event(range(SUM_SLOTS))),
            "credit": In(1),
            **parameter_ports(config),
            "slot_free": Out(1),
            "r_en": Out(1), "r_slot": Out(range(SUM_SLOTS)),
            "r_kernel": Out(range(config.kernel_lanes)),
            "r_index": Out(3),
            "o": Out(Event(data.StructLayout({"bypass": 1, "tag": StoreTag}))),
        })

    def elaborate(self, platform) -> Module:
        """Build the choice of blocks, the counters and the tag pipeline."""
        m = Module()
        layer = self.layer
        lanes = self._config.kernel_lanes

        active = Signal()           # kernels of this layer are left to start
        gap = Signal()              # block counters and param_ready settle
        next_kernel = Signal(range(lanes))
        kernel_block = Signal(13)
        tile_block = Signal(16)
        kernels_last = Signal()     # the counters stand at the last block
        tiles_last = Signal()
        one_tile_block = Signal()
        m.d.sync += [
            gap.eq(0),
            kernels_last.eq(kernel_block + 1 == layer.kernel_blocks),
            tiles_last.eq(tile_block + 1 == layer.tile_blocks),
            one_tile_block.eq(layer.tile_blocks == 1),
        ]

        # Complete blocks that nobody has begun to read, and the slot of the first of them.
        waiting = Signal(range(SUM_SLOTS + 1))
        next_slot = Signal(range(SUM_SLOTS))

        credits = Signal(range(SEGMENT_ROWS + 1))
        tile_end = Signal()
        block_ready = Signal()
        start = Signal()
        last_kernel = Signal()
        m.d.comb += [
            tile_end.eq(self.r_en & ((self.r_index == 7) | layer.dot)),
            block_ready.eq((waiting != 0) & self.param_ready & ~gap),
            start.eq(
                active & (~self.r_en | tile_end) & (credits >= layer.out_step)
                & ((next_kernel != 0) | block_ready)
            ),
            last_kernel.eq(next_kernel + 1 == Mux(kernels_last, layer.lanes_last, lanes)),
        ]
        m.d.sync += credits.eq(credits - Mux(start, layer.out_step, 0) + self.credit)

        # One register stage between the decision and the RAM.
        marks = Signal(TileMarks)
        block_last = Signal()
        m.d.sync += [self.r_index.eq(self.r_index + 1), self.param_next.eq(0)]
        with m.If(tile_end):
            m.d.sync += self.r_en.eq(0)
        with m.If(start):
            m.d.sync += [
                self.r_en.eq(1),
                self.r_index.eq(0),
                self.r_kernel.eq(next_kernel),
                next_kernel.eq(next_kernel + 1),
                block_last.eq(last_kernel),
                marks.rewind.eq(last_kernel & Mux(layer.restream, kernels_last, ~tiles_last)),
                marks.commit.eq(~layer.restream & tiles_last),
                marks.advance.eq(
                    last_kernel
                    & Mux(layer.restream, kernels_last & ~tiles_last, ~one_tile_block)
                ),
                marks.layer_last.eq(last_kernel & kernels_last & tiles_last),
            ]
            with m.If(next_kernel == 0):
                m.d.sync += [self.r_slot.eq(next_slot), next_slot.eq(next_slot + 1)]
            with m.If(last_kernel):
                m.d.sync += [
                    next_kernel.eq(0),
                    gap.eq(1),
                    self.param_next.eq(layer.restream | tiles_last),
                    active.eq(~(kernels_last & tiles_last)),
                ]
                with m.If(layer.restream | tiles_last):
                    m.d.sync += kernel_block.eq(
                        Mux(layer.restream & kernels_last, 0, kernel_block + 1)
                    )
                with m.If(~layer.restream | kernels_last):
                    m.d.sync += tile_block.eq(
                        Mux(~layer.restream & tiles_last, 0, tile_block + 1)
                    )

        m.d.sync += [
            self.slot_free.eq(tile_end & block_last),
            waiting.eq(waiting + self.complete.valid - (start & (next_kernel == 0))),
        ]
        with m.If(self.complete.valid & (waiting == 0)):
            m.d.sync += next_slot.eq(self.complete.payload)

        with m.If(self.begin):
            m.d.sync += [
                active.eq(1), gap.eq(1), credits.eq(SEGMENT_ROWS),
                next_kernel.eq(0), kernel_block.eq(0), tile_block.eq(0),
            ]

        # The parameters arrive one cycle after the first read and are kept for the tile.
        s1_valid = Signal()
        s1_first = Signal()
        s2_valid = Signal()
        s3_valid = Signal()
        s1_marks = Signal(TileMarks, reset_less=True)
        s2_tag = Signal(StoreTag, reset_less=True)
        s3_tag = Signal(StoreTag, reset_less=True)
        m.d.comb += [
            self.param_addr.eq(self.r_kernel),
            self.o.payload.bypass.eq(layer.dot),
        ]
        m.d.sync += [
            s1_valid.eq(self.r_en),
            s1_first.eq(self.r_en & (self.r_index == 0)),
            s1_marks.eq(marks),
            s2_valid.eq(s1_valid),
            s3_valid.eq(s2_valid),
            s3_tag.eq(s2_tag),
            self.o.valid.eq(s3_valid),
            self.o.payload.tag.eq(s3_tag),
        ]
        with m.If(s1_first):
            m.d.sync += [
                s2_tag.bias.eq(self.param_data.bias),
                s2_tag.multiplier.eq(self.param_data.multiplier),
                s2_tag.marks.eq(s1_marks),
            ]
        return m
