"""Registers and profile table of the core. Addresses are of 32-bit words.

======== ============= ======= ===================================================================
address  name          access  meaning
======== ============= ======= ===================================================================
0        ID            r       0x53504543, "SPEC"
1        VERSION       r       version of the register map and the image format
2        CONFIG        r       `AcceleratorConfig.digest`
3        CONTROL       w       bit 0 LOAD, 1 RUN, 2 clear done and error, 3 ABORT a run
4        STATUS        r       busy 0, done 1, loaded 2, owing 3, error 11:8, interrupt enable 16
5        IRQ_ENABLE    rw      bit 0
6, 7     IMAGE_*       rw      beat address and beats of the program image
8, 9     INPUT, OUTPUT rw      beat address of the input and of the output map
10       CYCLES        r       of the present or last run
11, 12   *_BEATS       r       read and written in it
13       LAYERS        r       of the loaded program
14       TIMEOUT       rw      cycles the memory may do nothing; 0: any number
512+16L  profile       r       of layer L in the last run: `PROFILE`
======== ============= ======= ===================================================================

Addresses and TIMEOUT are ignored in writes while the core is busy. Latency of a read:
`READ_LATENCY` cycles; it sees every write of the cycles before it.
"""

from __future__ import annotations

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from model.image import VERSION
from rtl.signatures import Event, LayerStats
from rtl.watchdog import DEFAULT_TIMEOUT

__all__ = [
    "ADDRESS_BITS", "ID", "PROFILE", "PROFILE_BASE", "PROFILE_WORDS", "READ_LATENCY", "Csr",
]

ADDRESS_BITS = 10
#: Cycles from an address to its data.
READ_LATENCY = 3
ID = int.from_bytes(b"SPEC", "big")
PROFILE_BASE, PROFILE_WORDS = 512, 16

#: Words of a layer's profile: (unit, count of its `LayerStats`, name).
PROFILE = (
    ("mac", 0, "steps"),
    ("mac", 1, "cycles waiting for tiles"),
    ("mac", 2, "cycles waiting for weights"),
    ("mac", 3, "cycles waiting for room for sums"),
    ("prefetch", 0, "kernel beats read"),
    ("prefetch", 1, "cycles waiting for room in the kernel buffer"),
    ("store", 0, "run cycle at the end of the layer"),
    ("store", 1, "segments written"),
    ("loader", 0, "cycles waiting for input"),
    ("loader", 1, "cycles waiting for room in the tile buffer"),
    ("loader", 2, "row pairs read"),
)
UNITS = tuple(dict.fromkeys(unit for unit, _, _ in PROFILE))


class Csr(wiring.Component):
    """Register file.

    Parameters
    ----------
    config : AcceleratorConfig
        Uses ``digest`` and ``max_layers``.

    Attributes
    ----------
    addr, w_en, w_data, r_data : In(10), In(1), In(32), Out(32)
        Access by the host; ``r_data`` belongs to the address `READ_LATENCY` cycles before.
    irq : Out(1)
        Done or error, if enabled; level.
    load, run, clear, abort : Out(1)
        Commands, one cycle after the write; the core ignores those it cannot use.
    image_addr, image_beats, input_addr, output_addr, timeout : Out(32)
        Registers.
    busy, done, loaded, owing, error : In(1), In(1), In(1), In(1), In(4)
        State of the core.
    cycles, read_beats, write_beats, layers : In(32)
        Read-only registers.
    mac, prefetch, store, loader : In(Event(LayerStats))
        Counters of the units; ``layer`` is the row of the table.
    """

    def __init__(self, *, config: AcceleratorConfig) -> None:
        if not isinstance(config, AcceleratorConfig):
            raise TypeError(f"config must be an AcceleratorConfig, not {config!r}")
        self._config = config
        super().__init__({
            "addr": In(ADDRESS_BITS), "w_en": In(1), "w_data": In(32), "r_data": Out(32),
            "irq": Out(1), "load": Out(1), "run": Out(1), "clear": Out(1), "abort": Out(1),
            "image_addr": Out(32), "image_beats": Out(32),
            "input_addr": Out(32), "output_addr": Out(32),
            "timeout": Out(32, init=DEFAULT_TIMEOUT),
            "busy": In(1), "done": In(1), "loaded": In(1), "owing": In(1), "error": In(4),
            "cycles": In(32), "read_beats": In(32), "write_beats": In(32), "layers": In(32),
            **{unit: In(Event(LayerStats)) for unit in UNITS},
        })

    def elaborate(self, platform) -> Module:
        """Build the registers, the tables of the units and the way of a read."""
        m = Module()
        irq_enable = Signal()
        status = Cat(self.busy, self.done, self.loaded, self.owing).as_unsigned() \
            | self.error << 8 | irq_enable << 16
        read_only = {
            0: ID, 1: VERSION, 2: self._config.digest, 4: status, 5: irq_enable,
            10: self.cycles, 11: self.read_beats, 12: self.write_beats, 13: self.layers,
        }
        addresses = {
            6: self.image_addr, 7: self.image_beats, 8: self.input_addr, 9: self.output_addr,
            14: self.timeout,
        }

        # s1: reads and writes alike are decoded, so that their order stays.
        s1_data = Signal(32, reset_less=True)
        control = self.w_en & (self.addr == 3)
        m.d.sync += [
            s1_data.eq(self.w_data),
            Cat(self.load, self.run, self.clear, self.abort).eq(
                Mux(control, self.w_data[:4], 0)),
        ]

        def s1_write(address: int) -> Signal:
            write = Signal(name=f"s1_write{address}")
            m.d.sync += write.eq(self.w_en & (self.addr == address))
            return write

        with m.If(s1_write(5)):
            m.d.sync += irq_enable.eq(s1_data)
        for address, register in addresses.items():
            with m.If(s1_write(address) & ~self.busy):
                m.d.sync += register.eq(s1_data)
        m.d.sync += self.irq.eq(irq_enable & (self.done | (self.error != 0)))

        # s2: the word of the register, if it is one, and those of the profile; then one of them.
        s2_register = Signal(32, reset_less=True)
        chosen = []
        for address, value in {**read_only, **addresses}.items():
            s1_read = Signal(name=f"s1_read{address}")
            m.d.sync += s1_read.eq(self.addr == address)
            chosen.append(Mux(s1_read, value, 0))
        m.d.sync += [
            s2_register.eq(reduce(or_, chosen)),
            self.r_data.eq(reduce(or_, self._profile(m), s2_register)),
        ]
        return m

    def _profile(self, m: Module) -> list:
        """Words of the profile table at ``addr`` two cycles before, all 0 but the one meant.

        A RAM per unit, each with a row per layer; one word for every four of a row.
        """
        s1_word, s1_layer = Signal(4), Signal(5)
        s1_in_profile = Signal()
        m.d.sync += [
            Cat(s1_word, s1_layer, s1_in_profile).eq(self.addr),
        ]
        rows = {}
        for unit in UNITS:
            stats = getattr(self, unit)
            counts = sum(of == unit for of, _, _ in PROFILE)
            # Small and read without a clock: lookup tables, not block RAM.
            ram = memory.Memory(
                shape=32 * counts, depth=self._config.max_layers, init=[],
                attrs={"ram_style": "distributed"},
            )
            m.submodules[unit] = ram
            write_port, read_port = ram.write_port(), ram.read_port(domain="comb")
            m.d.comb += [
                write_port.addr.eq(stats.payload.layer),
                write_port.data.eq(stats.payload.counts),
                write_port.en.eq(stats.valid),
                read_port.addr.eq(s1_layer),
            ]
            rows[unit] = read_port.data
        words = []
        for first in range(0, len(PROFILE), 4):
            s2_word = Signal(32, name=f"s2_word{first}", reset_less=True)
            s2_meant = Signal(name=f"s2_meant{first}")
            m.d.sync += s2_meant.eq(s1_in_profile & (s1_word[2:] == first // 4))
            with m.Switch(s1_word[:2]):
                for index, (unit, count, _) in enumerate(PROFILE[first:first + 4]):
                    with m.Case(index):
                        m.d.sync += s2_word.eq(rows[unit].word_select(count, 32))
                with m.Default():
                    m.d.sync += s2_word.eq(0)
            words.append(Mux(s2_meant, s2_word, 0))
        return words
