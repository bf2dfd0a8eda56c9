"""LOAD: read a program image, check it, keep its descriptors.

The checks and their order are those of `model.image.ProgramImage.parse`; the first that fails is
reported as `model.image.ErrorCode`. The image is read once, section by section (HEADER, DESC,
KERN), each with its CRC-32 on the fly; only the descriptors are stored.

Throughput: a beat of KERN per cycle, a 64-bit word of HEADER and DESC. A load takes about as many
cycles as the image has beats. Beats of two words also go word by word, which costs those who load
an image little, and saves the CRC of a beat.
"""

from __future__ import annotations

from math import ceil

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from model.config import ROW_BITS, AcceleratorConfig
from model.descriptor import BEATS
from model.image import HEADER_WORDS, MAGIC, VERSION, ErrorCode
from rtl.crc import Crc32
from rtl.signatures import ReadData, ReadRequest

__all__ = ["Checker"]

#: Beats of a read burst.
BURST = 64


class Checker(wiring.Component):
    """Reader of program images.

    Parameters
    ----------
    config : AcceleratorConfig
        Uses ``digest``, ``max_layers`` and ``port_bits``.

    Attributes
    ----------
    start : In(1)
        Begin to load.
    image_addr, image_beats : In(32), In(32)
        Where the image lies and how many beats it has according to the host; held during the load.
    ar, r : Out(stream.Signature(ReadRequest)), In(stream.Signature(ReadData(port_bits)))
        Memory reads.
    done : Out(1)
        Pulse: the load has ended, see ``error``.
    error : Out(4)
        `ErrorCode` of the load, valid with ``done``.
    layers : Out(range(max_layers + 1))
        Layers of the program; this and the following are right after a load without error.
    kernel_base : Out(32)
        Beat address of the section KERN, taken during the load.
    input_base, input_rows, output_base, output_rows : Out(ROW_BITS)
        Feature-memory rows of the input and of the output map.
    desc_addr, desc_data : In(range(max_layers * BEATS)), Out(64)
        Descriptor store; data one cycle after the address.
    """

    def __init__(self, *, config: AcceleratorConfig) -> None:
        if not isinstance(config, AcceleratorConfig):
            raise TypeError(f"config must be an AcceleratorConfig, not {config!r}")
        self._config = config
        super().__init__({
            "start": In(1), "image_addr": In(32), "image_beats": In(32),
            "ar": Out(stream.Signature(ReadRequest)),
            "r": In(stream.Signature(ReadData(config.port_bits))),
            "done": Out(1), "error": Out(4),
            "layers": Out(range(config.max_layers + 1)), "kernel_base": Out(32),
            "input_base": Out(ROW_BITS), "input_rows": Out(ROW_BITS),
            "output_base": Out(ROW_BITS), "output_rows": Out(ROW_BITS),
            "desc_addr": In(range(config.max_layers * BEATS)), "desc_data": Out(64),
        })

    def elaborate(self, platform) -> Module:
        """Build the section reader, the CRCs, the header registers and the checks."""
        m = Module()
        bits, words = self._config.port_bits, self._config.port_words
        m.submodules.crc = word_crc = beat_crc = Crc32(width=64)
        by_beat = words > 2
        if by_beat:
            m.submodules.beat_crc = beat_crc = Crc32(width=bits)
        # Whole beats: the last one may have words beyond the last layer.
        store_depth = words * ceil(self._config.max_layers * BEATS / words)
        m.submodules.store = store = memory.Memory(shape=64, depth=store_depth, init=[])
        write_port, read_port = store.write_port(), store.read_port()
        m.d.comb += [
            read_port.addr.eq(self.desc_addr), read_port.en.eq(1),
            self.desc_data.eq(read_port.data),
        ]

        header = Array(Signal(64, name=f"header{i}", reset_less=True) for i in range(HEADER_WORDS))
        header_beats = ceil(HEADER_WORDS / words)
        section = Signal(2)         # 0 HEADER, 1 DESC, 2 KERN
        offset = Array((0, header[3][:32], header[5][:32]))[section]
        beats = Array((header_beats, header[3][32:], header[5][32:]))[section]
        expected = Array((header[-1], header[4][:32], header[4][32:]))[section]

        # One section: requests run ahead of the data. A beat of KERN is taken whenever it comes (if
        # ``by_beat``), a beat of the others is shifted out word by word.
        ask_addr, ask_left, data_left = Signal(32), Signal(32), Signal(32)
        bus_error = Signal()
        s1_left, s1_data = Signal(range(words + 1)), Signal(bits, reset_less=True)
        s1_valid, s1_word = s1_left != 0, s1_data[:64]
        ready = Signal(init=1)      # ``s1_left`` is at most 1
        s1_index = Signal(range(max(store_depth, HEADER_WORDS, words)))
        # Something is left to ask for, more than a burst, to come: found while it changes.
        asking, more, expecting = Signal(), Signal(), Signal()
        count = Signal(9)
        # Of the section, from BEGIN on: what its words are for.
        kern, describing, heading, covered = Signal(), Signal(), Signal(), Signal()
        m.d.sync += [kern.eq(section == 2), describing.eq(section == 1)]
        m.d.comb += [
            count.eq(Mux(more, BURST, ask_left)),
            self.ar.valid.eq(asking), self.ar.payload.addr.eq(ask_addr),
            self.ar.payload.len.eq(count - 1),
            self.r.ready.eq(ready),
        ]
        m.d.sync += s1_data.eq(Mux(ready, self.r.payload.data, s1_data >> 64))
        with m.If(s1_valid):
            m.d.sync += [
                s1_left.eq(s1_left - 1), ready.eq(s1_left <= 2), s1_index.eq(s1_index + 1),
            ]
            # The last word of the header is the CRC of the others; fill may follow it.
            with m.If(heading & (s1_index[:4] == HEADER_WORDS - 2)):
                m.d.sync += covered.eq(0)
            with m.If(s1_index[:4] == HEADER_WORDS - 1):
                m.d.sync += heading.eq(0)
        with m.If(self.r.valid & ready & expecting):
            most = Mux(kern, 1, words) if by_beat else words
            m.d.sync += [
                data_left.eq(data_left - 1), expecting.eq(data_left != 1),
                s1_left.eq(most), ready.eq(most == 1),
            ]
            with m.If(self.r.payload.error):
                m.d.sync += bus_error.eq(1)
        m.d.comb += [
            word_crc.data.eq(s1_word),
            word_crc.valid.eq(s1_valid & covered & (~kern if by_beat else 1)),
            write_port.addr.eq(s1_index), write_port.data.eq(s1_word),
            write_port.en.eq(s1_valid & describing),
        ]
        if by_beat:
            m.d.comb += [beat_crc.data.eq(s1_data), beat_crc.valid.eq(s1_valid & kern)]
        with m.If(s1_valid & heading):
            m.d.sync += header[s1_index[:4]].eq(s1_word)
        crc_differs, s1_expected = Signal(), Signal(64, reset_less=True)
        m.d.sync += s1_expected.eq(expected)
        m.d.sync += crc_differs.eq(
            (Mux(kern, beat_crc.crc, word_crc.crc) if by_beat else word_crc.crc) != s1_expected
        )

        fault = self._header_fault(m, header, crc_differs)
        failed = Signal(4)
        m.d.sync += failed.eq(Mux(
            bus_error, ErrorCode.BUS,
            Array((
                fault,
                Mux(crc_differs, ErrorCode.DESCRIPTOR_CRC, ErrorCode.NONE),
                Mux(crc_differs, ErrorCode.KERNEL_CRC, ErrorCode.NONE),
            ))[section],
        ))

        settle = Signal(range(5))
        m.d.sync += self.done.eq(0)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [section.eq(0), bus_error.eq(0)]
                with m.If(self.start):
                    with m.If(self.image_beats < header_beats):
                        m.next = "SHORT"
                    with m.Else():
                        m.next = "LOOK"
            with m.State("SHORT"):
                m.d.sync += [self.done.eq(1), self.error.eq(ErrorCode.TRUNCATED)]
                m.next = "IDLE"
            with m.State("LOOK"):
                m.d.comb += [word_crc.start.eq(1), beat_crc.start.eq(1)]
                m.d.sync += [
                    ask_addr.eq(self.image_addr + offset), ask_left.eq(beats),
                    s1_index.eq(0), heading.eq(section == 0), covered.eq(1), settle.eq(4),
                ]
                m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.sync += [
                    asking.eq(ask_left != 0), more.eq(ask_left > BURST),
                    data_left.eq(ask_left), expecting.eq(ask_left != 0),
                ]
                with m.If(kern):
                    m.d.sync += self.kernel_base.eq(ask_addr)
                m.next = "READ"
            with m.State("READ"):
                with m.If(asking & self.ar.ready):
                    m.d.sync += [
                        ask_addr.eq(ask_addr + count), ask_left.eq(ask_left - BURST),
                        asking.eq(more), more.eq(ask_left > 2 * BURST),
                    ]
                with m.If(~expecting & ready):
                    m.next = "SETTLE"
                with m.Elif(bus_error & self.ar.ready):
                    # Ask for no more; who owns the port drops what is under way.
                    m.d.sync += [expecting.eq(0), asking.eq(0)]
            with m.State("SETTLE"):     # last beat, CRC, comparison, choice of the error
                m.d.sync += settle.eq(settle - 1)
                with m.If(settle == 0):
                    m.next = "CHECK"
            with m.State("CHECK"):
                with m.If((failed == ErrorCode.NONE) & ~kern):
                    m.d.sync += section.eq(section + 1)
                    m.next = "LOOK"
                with m.Else():
                    m.d.sync += [self.done.eq(1), self.error.eq(failed)]
                    m.next = "IDLE"

        m.d.comb += [
            self.layers.eq(header[2]),
            self.input_base.eq(header[6][:32]), self.input_rows.eq(header[6][32:]),
            self.output_base.eq(header[7][:32]), self.output_rows.eq(header[7][32:]),
        ]
        return m

    def _header_fault(self, m: Module, header: Array, crc_differs: Signal) -> Signal:
        """First check of the header that fails, three cycles after its last word."""
        words = self._config.port_words
        desc_beats = ((header[2][:32] * BEATS) + (words - 1)) >> (words.bit_length() - 1)
        layers, total = header[2][:32], header[2][32:]
        ends = []
        for name, part in (("desc", header[3]), ("kern", header[5])):
            end = Signal(33, name=f"{name}_end", reset_less=True)
            m.d.sync += end.eq(part[:32] + part[32:])
            ends.append(end)
        checks = (
            ("magic", header[0] != MAGIC, ErrorCode.MAGIC),
            ("crc", None, ErrorCode.HEADER_CRC),
            ("version", header[1][:32] != VERSION, ErrorCode.VERSION),
            ("config", header[1][32:] != self._config.digest, ErrorCode.CONFIG),
            ("layers", (layers == 0) | (layers > self._config.max_layers), ErrorCode.LAYERS),
            ("total", total > self.image_beats, ErrorCode.TRUNCATED),
            ("desc", ends[0] > total, ErrorCode.TRUNCATED),
            ("kern", ends[1] > total, ErrorCode.TRUNCATED),
            ("length", header[3][32:] != desc_beats, ErrorCode.TRUNCATED),
        )
        fault = Signal(4)
        for name, wrong, code in reversed(checks):
            if name == "crc":
                found = crc_differs
            else:
                found = Signal(name=f"wrong_{name}", reset_less=True)
                m.d.sync += found.eq(wrong)
            with m.If(found):
                m.d.comb += fault.eq(code)
        return fault
