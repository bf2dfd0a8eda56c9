"""Parameter memory: bias and multiplier of the kernel blocks between prefetch and store stage."""

from __future__ import annotations

from amaranth.hdl import Array, Assert, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from model.stream import param_beats
from rtl.queue import Level
from rtl.signatures import KernelParameters

__all__ = ["ParamMemory"]


class ParamMemory(wiring.Component):
    """Ring of `BLOCKS` kernel blocks, 32 bits a kernel.

    Parameters
    ----------
    config : AcceleratorConfig
        Uses ``kernel_lanes`` and ``port_bits``.

    Attributes
    ----------
    room : Out(1)
        A block may be written. A register.
    w_en, w_data, w_last : In
        A beat of the block being written, its first kernel low; ``w_last`` completes the block.
    ready : Out(1)
        The parameters of the current block are there. A register, since the store stage is far
        away: a cycle after they are; ``next`` shows at once.
    r_addr : In
        Kernel lane.
    r_data : Out(KernelParameters)
        Its parameters, `LATENCY` cycles later, behind a multiplexer.
    next : In(1)
        Release the current block; not in the cycle after another ``next``.
    """

    #: Kernel blocks the ring holds: how far the kernel stream may run ahead of the store stage.
    BLOCKS = 16
    #: Cycles from ``r_addr`` to ``r_data``.
    LATENCY = 2

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__({
            "room": Out(1),
            "w_en": In(1), "w_data": In(config.port_bits), "w_last": In(1),
            "ready": Out(1), "r_addr": In(range(config.kernel_lanes)),
            "r_data": Out(KernelParameters), "next": In(1),
        })

    def elaborate(self, platform) -> Module:
        """One RAM of beats, a register, and the kernel of its beat."""
        m = Module()
        config = self._config
        beats = param_beats(config)
        # Kernels of a beat, and bits of a lane that say which of them it is.
        in_beat = config.kernel_lanes // beats
        low = in_beat.bit_length() - 1
        # Few wide rows would leave most of a block RAM empty.
        m.submodules.ram = ram = Memory(
            shape=config.port_bits, depth=self.BLOCKS * beats, init=[],
            attrs={"ram_style": "distributed"} if self.BLOCKS * beats <= 32 else {},
        )
        write, read = ram.write_port(), ram.read_port()

        w_block, r_block = Signal(range(self.BLOCKS)), Signal(range(self.BLOCKS))
        beat = Signal(range(beats))
        # Room is taken up at once. What is written is a cycle later, so that the RAM may lie far
        # from Prefetch, and so is what the store stage sees of it.
        w1_en, w1_last = Signal(), Signal(reset_less=True)
        w1_data = Signal(config.port_bits, reset_less=True)
        released = Signal()
        m.submodules.space = space = Level(depth=self.BLOCKS)
        m.submodules.level = level = Level(depth=self.BLOCKS)
        m.d.sync += [
            w1_en.eq(self.w_en), w1_last.eq(self.w_last), w1_data.eq(self.w_data),
        ]
        m.d.comb += [
            write.en.eq(w1_en), write.data.eq(w1_data), write.addr.eq(Cat(beat, w_block)),
            read.en.eq(1), read.addr.eq(Cat(self.r_addr[low:], r_block)),
            space.write.eq(self.w_en & self.w_last), space.read.eq(self.next),
            self.room.eq(space.room),
            level.write.eq(w1_en & w1_last), level.read.eq(released),
        ]
        # The level hears of a release a cycle late. It does not have those of this cycle and of the
        # one before, but there is at most one of them.
        m.d.sync += [
            released.eq(self.next),
            self.ready.eq(Mux(self.next | released, level.many, level.some)),
        ]
        if platform is None or platform == "formal":    # a board has no cell to assert
            w_first = Signal(init=1)
            with m.If(self.w_en):
                m.d.sync += w_first.eq(self.w_last)
            m.d.sync += [
                Assert(~(self.next & released)),
                Assert(~(self.w_en & w_first & ~space.room)), Assert(~(self.next & ~self.ready)),
            ]
        with m.If(w1_en):
            m.d.sync += beat.eq(Mux(w1_last, 0, beat + 1))
            with m.If(w1_last):
                m.d.sync += w_block.eq(w_block + 1)
        with m.If(self.next):
            m.d.sync += r_block.eq(r_block + 1)

        # Chosen behind the register: half of a cycle at 100 MHz is the block RAM's.
        s1_place = Signal(range(in_beat), reset_less=True)
        s2_place = Signal(range(in_beat), reset_less=True)
        s2_beat = Signal(config.port_bits, reset_less=True)
        m.d.sync += [s1_place.eq(self.r_addr), s2_place.eq(s1_place), s2_beat.eq(read.data)]
        m.d.comb += self.r_data.eq(
            Array(s2_beat[at:at + 32] for at in range(0, config.port_bits, 32))[s2_place]
        )
        return m
