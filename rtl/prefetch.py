"""Prefetch: reads the kernel streams over the memory port, ahead of use, and takes them apart.

Two halves run through the layers by themselves: one requests bursts, the other sorts the beats that
come back (docs/program-image.md) into the kernel buffer and the parameter memory. A layer's stream
is read once for every group of ``resident`` tile blocks (`rtl.blockorder`). A beat without
room waits on the read channel. That cannot lock up the core: the only other reads of a run are the
input DMA's, and everything that makes room needs no read. Before the first input no more is
requested than there is room for (`rtl.core.first_bursts`); before a later one of a batch, nothing
of the layers that need it, so that all there is will be used up without it.
"""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from model.config import AcceleratorConfig
from model.stream import ENTRY_BITS, chunk_entries, param_beats, select_codes
from rtl.blockorder import next_group
from rtl.kernelbuffer import KernelWriteSignature
from rtl.queue import Level
from rtl.signatures import Descriptor, Event, LayerStats, ReadData, ReadRequest
from rtl.slice import AlternatingSlice

__all__ = ["Prefetch", "burst_beats"]

#: What the sorting half needs of a layer.
_Format = data.StructLayout({
    "kernel_blocks": 13, "tile_blocks": 16, "resident": 16, "select_code": 3, "row_beats_last": 8,
})


def burst_beats(config: AcceleratorConfig) -> int:
    """Count the beats of a full burst.

    What is on its way covers bandwidth times latency: 128 beats are enough for a latency of 100
    cycles, but behind a wide port lies an interconnect with more than that.
    """
    return 16 if config.port_bits == 64 else 64


class Prefetch(wiring.Component):
    """Reader of section KERN.

    Parameters
    ----------
    config : AcceleratorConfig
        Uses ``kernel_lanes``, ``weight_bits``, ``port_bits``.

    Attributes
    ----------
    kernel_base : In(32)
        Beat address of section KERN.
    desc : In(stream.Signature(Descriptor))
        The layers.
    ar, r : memory read channels
        Bursts of up to `burst` beats, at most `OUTSTANDING` on their way.
    inputs, asking : In(6), In(1)
        Inputs of the run wanted so far (`rtl.loader`); the last one has not been asked for wholly.
    dot_next : Out(1)
        Level: the next request is of a dot layer, or a request of one was made.
    kernels : Out(KernelWriteSignature(config))
        To the kernel buffer.
    param_room, param_en, param_data, param_last
        To the parameter memory. Room, once there, stays until parameters are written.
    stats : Out(Event(LayerStats))
        Two cycles after a layer's last beat: beats, cycles a beat waited for room.
    error : Out(1)
        A beat arrived with a bus error.
    """

    OUTSTANDING = 8

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        self.burst = burst_beats(config)
        super().__init__({
            "kernel_base": In(32),
            "desc": In(stream.Signature(Descriptor)),
            "ar": Out(stream.Signature(ReadRequest)),
            "r": In(stream.Signature(ReadData(config.port_bits))),
            "inputs": In(6), "asking": In(1), "dot_next": Out(1),
            "kernels": Out(KernelWriteSignature(config)),
            "param_room": In(1), "param_en": Out(1), "param_data": Out(config.port_bits),
            "param_last": Out(1),
            "stats": Out(Event(LayerStats)), "error": Out(1),
        })

    def elaborate(self, platform) -> Module:
        """Build both halves, and the slice that keeps what the beats wait for off the port."""
        m = Module()
        formats = stream.Signature(_Format).create()
        m.submodules.slice = beats = AlternatingSlice(self.r.payload.shape())
        connect(m, flipped(self.r), beats.i)
        self._request(m, formats)
        self._sort(m, formats, beats.o)
        m.d.sync += self.error.eq(self.r.valid & self.r.ready & self.r.payload.error)
        return m

    def _request(self, m: Module, formats) -> None:
        """Burst requests of one layer after the other; hands each layer's format on."""
        desc = self.desc.payload
        addr, beats = Signal(32), Signal(32)        # rest of the present pass
        first, length = Signal(32), Signal(32)      # the pass
        rest, resident = Signal(16), Signal(16)     # tile blocks of later passes, of a pass
        held, held_valid = Signal(_Format), Signal()
        asking, wants = Signal(), Signal()          # ``beats`` is not 0; a layer is wanted
        inputs, closed = Signal.like(self.inputs), Signal()     # `closed`: the input goes before
        # Found while they change, since the port waits for what hangs on them: the burst is the
        # pass's last, so would be its first; there are later passes.
        last, single, again = Signal(), Signal(), Signal()
        size = Mux(last, beats[:self.burst.bit_length()], self.burst)
        issued, returned = self.ar.valid & self.ar.ready, Signal()
        m.submodules.in_flight = in_flight = Level(depth=self.OUTSTANDING)     # bursts
        m.d.comb += [
            self.ar.valid.eq(asking & in_flight.room & ~closed),
            self.ar.payload.addr.eq(addr),
            self.ar.payload.len.eq(size - 1),
            self.desc.ready.eq(wants),
            formats.valid.eq(held_valid), formats.payload.eq(held),
            in_flight.write.eq(issued), in_flight.read.eq(returned),
        ]
        m.d.sync += returned.eq(self.r.valid & self.r.ready & self.r.payload.last)
        rest_next = Signal.like(rest)
        m.d.comb += rest_next.eq(next_group(rest, resident)[1])
        with m.If(issued):
            m.d.sync += [
                addr.eq(addr + self.burst), beats.eq(beats - self.burst),
                last.eq(beats <= 2 * self.burst), asking.eq(~last | again),
            ]
            with m.If(last):
                m.d.sync += [
                    addr.eq(first), beats.eq(length), last.eq(single),
                    rest.eq(rest_next), again.eq(rest > resident),
                ]
        with m.If((self.inputs >= inputs) & ~self.asking):
            m.d.sync += closed.eq(0)
        with m.If(formats.ready):
            m.d.sync += held_valid.eq(0)
        m.d.sync += wants.eq(~asking & ~held_valid & ~(self.desc.valid & wants))
        with m.If(self.desc.valid & self.desc.ready):
            begin = self.kernel_base + desc.stream_offset
            m.d.sync += [
                self.dot_next.eq(self.dot_next | desc.dot),
                inputs.eq(inputs + desc.input), closed.eq(desc.input & (inputs != 0)),
                addr.eq(begin), first.eq(begin),
                beats.eq(desc.stream_beats), length.eq(desc.stream_beats),
                last.eq(desc.stream_beats <= self.burst),
                single.eq(desc.stream_beats <= self.burst),
                asking.eq(desc.stream_beats != 0),
                resident.eq(desc.resident), rest.eq(desc.tile_blocks - desc.resident),
                again.eq(desc.tile_blocks != desc.resident),
                held_valid.eq(1),
                *(held[name].eq(desc[name]) for name in _Format.members),
            ]

    def _sort(self, m: Module, formats, beat) -> None:
        """Header, parameters, then chunks of one select beat and the weights of its entries."""
        config, kernels = self._config, self.kernels
        value = beat.payload.data
        param_last = param_beats(config) - 1

        form, selects = Signal(_Format), Signal()       # ``selects``: there are select beats
        blocks = Signal(13)         # kernel blocks of this pass still to come
        rest, again = Signal(16), Signal()          # tile blocks of later passes; there are some
        entries = Signal(ENTRY_BITS)
        param = Signal(range(param_last + 1))
        row_beat = Signal(range(max(2, config.row_beats)))
        in_chunk = Signal(range(chunk_entries(config, 1) + 1))
        counted, stalled = Signal(32), Signal(32)
        layer = Signal(8)

        chunk = Signal.like(in_chunk)               # entries of a chunk
        with m.Switch(form.select_code):
            for code, bits in select_codes(config).items():
                if bits:
                    with m.Case(code):
                        m.d.comb += chunk.eq(chunk_entries(config, bits))
        # Found beforehand, since the memory waits for what hangs on it: whether this is the last
        # kernel block of the pass, or ``entries`` or ``in_chunk`` is 1, and the last beat of a row.
        # Between a new block and its first weights lie its header and parameters.
        block_last, entries_end, chunk_end = Signal(), Signal(), Signal()
        chunk_single = Signal()
        row_last = Signal.like(row_beat)
        m.d.sync += [
            block_last.eq(blocks == 1), chunk_single.eq(chunk == 1),
            row_last.eq(Mux(blocks == 1, form.row_beats_last, config.row_beats) - 1),
        ]
        row_done = row_beat == row_last
        taken = Signal()
        # What the next beat is; none of them: a layer's format is awaited. It is taken a cycle late
        # (``load``), with the first header: nothing hangs on it sooner.
        load, idle = Signal(), Signal()
        at_header, at_param, at_select, at_weight = Signal(), Signal(), Signal(), Signal()
        # Room for the parameters is asked for with the header, so that they never wait. It may be a
        # cycle old: what fills it comes before the header.
        header_room = Signal()
        m.d.sync += header_room.eq(kernels.count.ready & self.param_room)
        m.d.comb += [
            beat.ready.eq(
                (at_header & header_room) | at_param
                | (at_select & kernels.select.ready) | (at_weight & kernels.weight.ready)
            ),
            taken.eq(beat.valid & beat.ready),
            idle.eq(~(at_header | at_param | at_select | at_weight)), formats.ready.eq(load),
            kernels.count.valid.eq(at_header & beat.valid & header_room),
            self.param_en.eq(at_param & beat.valid),
            kernels.select.valid.eq(at_select & beat.valid),
            kernels.weight.valid.eq(at_weight & beat.valid),
            kernels.count.payload.eq(value[:ENTRY_BITS]),
            kernels.select.payload.eq(value), kernels.weight.payload.data.eq(value),
            kernels.weight.payload.last.eq(row_done),
            self.param_data.eq(value), self.param_last.eq(param == param_last),
        ]
        weighed = at_weight & beat.valid & kernels.weight.ready
        block_ended = weighed & row_done & entries_end
        ended = Signal()        # the beat is the layer's last
        m.d.comb += ended.eq(block_ended & block_last & ~again)
        m.d.comb += [
            self.stats.payload.layer.eq(layer),
            self.stats.payload.counts[0].eq(counted), self.stats.payload.counts[1].eq(stalled),
        ]
        s1_ended, s1_taken, s1_stalled = Signal(), Signal(), Signal()
        m.d.sync += [
            s1_ended.eq(ended), s1_taken.eq(taken),
            s1_stalled.eq(beat.valid & ~beat.ready & ~idle),
            self.stats.valid.eq(s1_ended),
            layer.eq(layer + self.stats.valid),
            counted.eq(Mux(self.stats.valid, 0, counted) + s1_taken),
            stalled.eq(Mux(self.stats.valid, 0, stalled) + s1_stalled),
        ]

        with m.If(idle & formats.valid):
            m.d.sync += [load.eq(1), at_header.eq(1)]
        with m.If(load):
            m.d.sync += load.eq(0)
        # What a header or a select beat sets is set until it comes: its coming is known late.
        with m.If(at_header):
            m.d.sync += [entries.eq(value[:ENTRY_BITS]), param.eq(0), row_beat.eq(0)]
            with m.If(beat.valid & header_room):
                m.d.sync += [at_header.eq(0), at_param.eq(1)]
        with m.If(at_param):
            m.d.sync += entries_end.eq(entries == 1)
            with m.If(beat.valid):
                m.d.sync += param.eq(param + 1)
                with m.If(self.param_last):
                    m.d.sync += [at_param.eq(0), at_select.eq(selects), at_weight.eq(~selects)]
        with m.If(at_select):
            m.d.sync += [in_chunk.eq(chunk), chunk_end.eq(chunk_single)]
            with m.If(beat.valid & kernels.select.ready):
                m.d.sync += [at_select.eq(0), at_weight.eq(1)]
        with m.If(weighed):
            m.d.sync += row_beat.eq(Mux(row_done, 0, row_beat + 1))
            with m.If(row_done):
                m.d.sync += [
                    entries.eq(entries - 1), entries_end.eq(entries == 2),
                    in_chunk.eq(in_chunk - 1), chunk_end.eq(in_chunk == 2),
                ]
                with m.If(entries_end):
                    m.d.sync += [
                        at_weight.eq(0), at_header.eq(~block_last | again | formats.valid),
                        load.eq(block_last & ~again & formats.valid),
                    ]
                with m.Elif(selects & chunk_end):
                    m.d.sync += [at_weight.eq(0), at_select.eq(1)]

        # The block after, or the next pass, a cycle later.
        s1_block_ended = Signal()
        m.d.sync += s1_block_ended.eq(block_ended)
        with m.If(s1_block_ended):
            m.d.sync += blocks.eq(Mux(block_last, form.kernel_blocks, blocks - 1))
            with m.If(block_last):
                m.d.sync += [
                    rest.eq(next_group(rest, form.resident)[1]), again.eq(rest > form.resident),
                ]
        with m.If(load):
            m.d.sync += [
                form.eq(formats.payload), blocks.eq(formats.payload.kernel_blocks),
                selects.eq(formats.payload.select_code != 0),
                rest.eq(formats.payload.tile_blocks - formats.payload.resident),
                again.eq(formats.payload.tile_blocks != formats.payload.resident),
            ]
