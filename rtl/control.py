"""Commands: the order of events of LOAD and RUN, and their outcome.

LOAD: the checker reads the image. RUN: reset the engine, start it together with the input DMA, wait
for the last layer, then the output DMA and the acknowledgement of all it wrote. Both end with the
read port drained, so that a command that failed leaves nothing behind. ABORT ends a run as a bus
error does, up to its last layer; LOAD and the output DMA end by themselves.

A memory that does nothing any more ends every command (``expired``). What it owes cannot be taken
back: it is awaited and dropped while the core is idle for the host, and no command begins before.
"""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from model.image import ErrorCode

__all__ = ["Controller"]


class Controller(wiring.Component):
    """State of the core.

    Attributes
    ----------
    load, run, clear : In(1)
        Commands; the first two are ignored while busy. ``load`` goes before ``run``.
    abort : In(1)
        Stop the run, if its last layer is not written yet; else ignored.
    expired : In(1)
        The memory has done nothing for too long (`rtl.watchdog`). A last acknowledgement in the
        same cycle is too late.
    busy, done, loaded : Out(1)
        At work; the last command ended well; a program is loaded.
    owing : Out(1)
        The memory owes answers to a command that ``expired`` ended: another one is refused.
    error : Out(4)
        `ErrorCode` of the last command, none while busy.
    checker_start : Out(1)
        Begin to load.
    checker_done, checker_error : In(1), In(4)
        The load has ended.
    checker_reset : Out(1)
        Reset the checker: its load was given up. With the domain's reset as ``engine_reset``.
    engine_reset : Out(1)
        Reset everything that takes part in a run; also from the second cycle of the domain's reset
        to the first after it.
    engine_start : Out(1)
        Begin a run (engine and input DMA).
    bus_error : In(1)
        A read of the run failed.
    finished : In(1)
        The last layer is written.
    output_start, output_done : Out(1), In(1)
        Output DMA; done is a level that falls with ``engine_reset``.
    flush, idle : Out(1), In(1)
        Drop what is read, offer no write; nothing is under way.
    w_busy, w_error : In(1), In(1)
        Writes are not yet acknowledged; one has failed (see `MemorySignature`).
    r_taken, w_taken : In(1)
        A beat is read, written.
    cycles, read_beats, write_beats : Out(32)
        Of the present or last run.
    """

    load: In(1)
    run: In(1)
    clear: In(1)
    abort: In(1)
    expired: In(1)
    busy: Out(1)
    done: Out(1)
    loaded: Out(1)
    owing: Out(1)
    error: Out(4)
    checker_start: Out(1)
    checker_done: In(1)
    checker_error: In(4)
    checker_reset: Out(1, init=1)
    engine_reset: Out(1, init=1)
    engine_start: Out(1)
    bus_error: In(1)
    finished: In(1)
    output_start: Out(1)
    output_done: In(1)
    flush: Out(1)
    idle: In(1)
    w_busy: In(1)
    w_error: In(1)
    r_taken: In(1)
    w_taken: In(1)
    cycles: Out(32)
    read_beats: Out(32)
    write_beats: Out(32)

    def elaborate(self, platform) -> Module:
        """Build the state machine and the counters."""
        m = Module()
        running = Signal()
        outcome = Signal(4)
        with m.If(self.clear):
            m.d.sync += [self.done.eq(0), self.error.eq(0)]
        with m.If(running):
            m.d.sync += self.cycles.eq(self.cycles + 1)
        # Counted a cycle later: whether a beat is taken is known late. A run never ends with one.
        s1_read, s1_written = Signal(), Signal()
        m.d.sync += [
            s1_read.eq(running & self.r_taken), s1_written.eq(running & self.w_taken),
            self.read_beats.eq(self.read_beats + s1_read),
            self.write_beats.eq(self.write_beats + s1_written),
        ]

        # Registered: they reach most flip-flops of the core.
        reset, start = Signal(), Signal()
        m.d.sync += [
            self.engine_reset.eq(reset), self.engine_start.eq(start), self.output_start.eq(0),
            self.checker_reset.eq(0),
        ]
        aborted = Signal()
        with m.If(self.abort):
            m.d.sync += aborted.eq(1)

        written = Signal()      # the output, and acknowledged; a cycle late
        m.d.sync += written.eq(self.output_done & ~self.w_busy)

        # ``flush`` reaches all of the port: a register of its own, as long as DRAIN and OWING.
        m.d.sync += self.flush.eq(0)
        # The engine is silent and the port has run dry, and stays so; a cycle late. Without the
        # reset a unit might ask for a last burst, which nobody takes.
        drained = Signal()
        m.d.sync += drained.eq(self.flush & self.idle & self.engine_reset)

        def drain():
            m.d.sync += self.flush.eq(1)
            m.next = "DRAIN"

        def give_up():
            m.d.sync += [self.error.eq(ErrorCode.TIMEOUT), self.flush.eq(1)]
            m.next = "OWING"

        def end():
            m.d.sync += self.flush.eq(0)
            m.next = "IDLE"

        with m.FSM() as fsm:
            m.d.comb += [
                self.owing.eq(fsm.ongoing("OWING")),
                self.busy.eq(~fsm.ongoing("IDLE") & ~self.owing),
            ]
            with m.State("IDLE"):
                m.d.sync += [outcome.eq(ErrorCode.NONE), aborted.eq(0)]
                with m.If(self.load):
                    m.d.comb += self.checker_start.eq(1)
                    m.d.sync += [self.done.eq(0), self.error.eq(0), self.loaded.eq(0)]
                    m.next = "LOAD"
                with m.Elif(self.run):
                    m.d.sync += [self.done.eq(0), self.error.eq(0)]
                    with m.If(self.loaded):
                        m.d.sync += [
                            self.cycles.eq(0), self.read_beats.eq(0), self.write_beats.eq(0),
                        ]
                        m.next = "RESET"
                    with m.Else():
                        m.d.sync += self.error.eq(ErrorCode.NOT_LOADED)
            with m.State("LOAD"):
                with m.If(self.checker_done):
                    m.d.sync += [
                        outcome.eq(self.checker_error),
                        self.loaded.eq(self.checker_error == ErrorCode.NONE),
                    ]
                    drain()
                with m.Elif(self.expired):
                    m.d.sync += self.checker_reset.eq(1)
                    give_up()
            with m.State("RESET"):
                m.d.comb += [running.eq(1), reset.eq(1)]
                m.next = "START"
            with m.State("START"):
                m.d.comb += [running.eq(1), start.eq(1)]
                m.next = "LAYERS"
            with m.State("LAYERS"):
                m.d.comb += running.eq(1)
                with m.If(self.bus_error):
                    m.d.sync += outcome.eq(ErrorCode.BUS)
                    drain()
                with m.Elif(aborted):
                    m.d.sync += outcome.eq(ErrorCode.ABORTED)
                    drain()
                with m.Elif(self.expired):
                    give_up()
                with m.Elif(self.finished):
                    m.d.sync += self.output_start.eq(1)
                    m.next = "OUTPUT"
            with m.State("OUTPUT"):
                m.d.comb += running.eq(1)
                with m.If(self.w_error):
                    m.d.sync += outcome.eq(ErrorCode.BUS)
                with m.If(written):
                    drain()
                with m.Elif(self.expired):
                    give_up()
            with m.State("DRAIN"):
                m.d.comb += reset.eq(1)
                m.d.sync += self.flush.eq(1)
                with m.If(drained):
                    m.d.sync += [self.error.eq(outcome), self.done.eq(outcome == ErrorCode.NONE)]
                    end()
                with m.Elif(self.expired):
                    give_up()
            with m.State("OWING"):
                # As DRAIN, but the host has its answer.
                m.d.comb += reset.eq(1)
                m.d.sync += self.flush.eq(1)
                with m.If(self.load | self.run):
                    m.d.sync += self.error.eq(ErrorCode.OWING)
                with m.If(drained):
                    end()
        return m
