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

Addresses and TIMEOUT are ignored in writes while the core is busy. Latency of a read: 1 cycle.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from model.image import VERSION
from rtl.signatures import Event, LayerStats
from rtl.watchdog import DEFAULT_TIMEOUT

__all__ = ["ADDRESS_BITS", "ID", "PROFILE", "PROFILE_BASE", "PROFILE_WORDS", "Csr"]

ADDRESS_BITS = 10
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
        Access by the host; ``r_data`` belongs to the address one cycle before.
    irq : Out(1)
        Done or error, if enabled; level.
    load, run, clear, abort : Out(1)
        Commands, in the cycle of the write; the first two only while not busy.
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
        """Build the registers, the tables of the units and the read register."""
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

        control = self.w_en & (self.addr == 3)
        m.d.comb += [
            Cat(self.load, self.run).eq(Mux(control & ~self.busy, self.w_data[:2], 0)),
            self.clear.eq(control & self.w_data[2]), self.abort.eq(control & self.w_data[3]),
        ]
        with m.If(self.w_en):
            with m.Switch(self.addr):
                with m.Case(5):
                    m.d.sync += irq_enable.eq(self.w_data)
                for address, register in addresses.items():
                    with m.Case(address):
                        with m.If(~self.busy):
                            m.d.sync += register.eq(self.w_data)
        m.d.sync += self.irq.eq(irq_enable & (self.done | (self.error != 0)))

        # One register for the profile and one for the others, chosen between after them.
        s1_profile, s1_register = Signal(32), Signal(32)
        s1_in_profile = Signal()
        m.d.sync += [
            s1_profile.eq(self._profile(m)), s1_register.eq(0),
            s1_in_profile.eq(self.addr >= PROFILE_BASE),
        ]
        with m.Switch(self.addr):
            for address, value in {**read_only, **addresses}.items():
                with m.Case(address):
                    m.d.sync += s1_register.eq(value)
        m.d.comb += self.r_data.eq(Mux(s1_in_profile, s1_profile, s1_register))
        return m

    def _profile(self, m: Module) -> Signal:
        """Word of the profile table at ``addr``; a RAM per unit, each with a row per layer."""
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
                read_port.addr.eq(self.addr[4:9]),
            ]
            rows[unit] = read_port.data
        word = Signal(32)
        with m.Switch(self.addr[:4]):
            for index, (unit, count, _) in enumerate(PROFILE):
                with m.Case(index):
                    m.d.comb += word.eq(rows[unit].word_select(count, 32))
        return word
