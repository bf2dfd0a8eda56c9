"""The commands end, whatever state they are in, and none gets what another one asked for."""

import pytest
from amaranth.hdl import Assert, Assume, Cat, Const, Cover, Module, Mux, Signal

from rtl.control import Controller
from rtl.memory import ReadArbiter
from rtl.watchdog import Watchdog
from tests.formal.helpers import FROM_SCRATCH, assert_formal

pytestmark = pytest.mark.formal

#: Cycles within which a command ends on a quiet port.
ENDS = 7


class EndSpec:
    """The controller alone from any state, on a port with nothing under way, without commands.

    ``by`` "abort": in the first cycle; LOAD and the output DMA have ended, which they do by
    themselves. ``by`` "watchdog": nothing ends, but the watchdog has expired (three cycles, since
    nothing is owed in the two in which a run begins).
    """

    def __init__(self, by, controller=Controller):
        self.m = m = Module()
        m.submodules.dut = dut = controller()
        age = Signal(range(ENDS + 2))
        with m.If(age <= ENDS):
            m.d.sync += age.eq(age + 1)
        m.d.comb += [Assume(~dut.load), Assume(~dut.run), dut.idle.eq(1)]
        self.inputs = [dut.load, dut.run, dut.clear, dut.checker_error, dut.bus_error, dut.w_error,
                       dut.finished]
        if by == "abort":
            m.d.comb += [dut.abort.eq(age == 0), dut.checker_done.eq(1), dut.output_done.eq(1)]
        else:
            m.d.comb += [dut.expired.eq(age < 3)]
            self.inputs += [dut.abort, dut.w_busy]
        m.d.comb += Assert((age < ENDS) | ~(dut.busy | dut.owing | dut.flush))


#: Takes the controller's reset values away: every state is a first one.
ANY_STATE = "prep; setattr -unset init *dut*/w:*"


@pytest.mark.parametrize("by", ["abort", "watchdog"])
def test_every_state_ends_on_a_quiet_port(by, tmp_path):
    spec = EndSpec(by)
    assert_formal(spec.m, spec.inputs, tmp_path, depth=ENDS + 2, passes=ANY_STATE)


class Deaf(Controller):
    """Misses an abort in the cycle in which a run begins."""

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = Controller()
        for name, member in self.signature.members.items():
            mine, theirs = getattr(self, name), getattr(inner, name)
            if name == "abort":
                m.d.comb += theirs.eq(mine & ~self.engine_reset)
            else:
                m.d.comb += mine.eq(theirs) if member.flow.name == "Out" else theirs.eq(mine)
        return m


def test_a_missed_abort_is_found(tmp_path):
    spec = EndSpec("abort", Deaf)
    with pytest.raises(AssertionError, match=r"^property fails \(exit 2\)"):
        assert_formal(spec.m, spec.inputs, tmp_path, depth=ENDS + 2, passes=ANY_STATE)


#: One module, without what nothing depends on.
FLAT = "prep -flatten; memory_map"
OUTSTANDING, TIMEOUT = 2, 2
DEEP = 15


class PortSpec:
    """Controller, arbiter and watchdog as the core wires them, for reads.

    The host and two clients are free: the checker may ask during a LOAD, the engine from its start
    to its reset. So is the memory: it answers in order, when it likes or never. A burst bears the
    number of the command it was asked in, its beats bring it back.
    """

    def __init__(self, *, idle=None, moved=None):
        self.m = m = Module()
        m.submodules.control = self.control = control = Controller()
        m.submodules.arbiter = arbiter = ReadArbiter(clients=2, outstanding=OUTSTANDING)
        m.submodules.watchdog = watchdog = Watchdog()
        ar, r = arbiter.mem_ar, arbiter.mem_r
        self.inputs = [control.load, control.run, control.clear, control.abort, control.finished,
                       control.checker_done, control.output_done, ar.ready, r.valid]
        m.d.comb += [
            arbiter.flush.eq(control.flush),
            control.idle.eq(arbiter.idle if idle is None else idle),
            watchdog.timeout.eq(TIMEOUT), control.expired.eq(watchdog.expired),
            watchdog.owed.eq(~arbiter.idle & ~r.valid),
            watchdog.moved.eq(ar.valid & ar.ready if moved is None else moved),
        ]
        command = Signal(3)
        begins = control.checker_start | control.engine_start
        m.d.sync += command.eq(command + begins)

        checking, running = Signal(), Signal()
        with m.If(control.checker_start):
            m.d.sync += checking.eq(1)
        with m.If(control.checker_done | control.checker_reset):
            m.d.sync += checking.eq(0)
        with m.If(control.engine_start):
            m.d.sync += running.eq(1)
        with m.If(control.engine_reset):
            m.d.sync += running.eq(0)
        m.d.comb += [
            # Who has asked takes its beats; the checker is done when it has all of them, the
            # engine when it has read everything.
            Assume(~control.checker_done | (checking & arbiter.idle)),
            Assume(~control.finished | arbiter.idle),
        ]
        for index, active in enumerate((checking, running)):
            asks, two, takes = (Signal(name=f"{name}{index}") for name in ("asks", "two", "takes"))
            self.inputs += [asks, two, takes]
            client, back = arbiter.ar[index], arbiter.r[index]
            m.d.comb += [
                client.valid.eq(asks & active), client.payload.addr.eq(command),
                client.payload.len.eq(two), back.ready.eq(takes),
                # Nothing late, nothing for who is not at work.
                Assert(~back.valid | ((back.payload.data == command) & active)),
            ]
        self._memory(arbiter, begins)

        # A command does not wait for a silent memory; an ABORT in the cycle of the alarm costs one.
        still = Signal(4)
        waits = control.busy & ~arbiter.idle & ~r.valid & ~(ar.valid & ar.ready)
        m.d.sync += still.eq(Mux(waits, still + 1, 0))
        m.d.comb += Assert(still <= TIMEOUT + watchdog.LATENCY + 1)

        # For the cover: a command ended by the watchdog, then a beat of a later one.
        self.slept, self.served = Signal(), Signal()
        with m.If(control.owing):
            m.d.sync += self.slept.eq(1)
        with m.If(self.slept & ~control.owing & Cat(back.valid for back in arbiter.r).any()):
            m.d.sync += self.served.eq(1)

    def _memory(self, arbiter, begins):
        m, ar, r = self.m, arbiter.mem_ar, arbiter.mem_r
        numbers = [Signal(3, name=f"number{i}") for i in range(OUTSTANDING)]
        twos = [Signal(name=f"long{i}") for i in range(OUTSTANDING)]
        count, second, held = Signal(2), Signal(), Signal()
        taken = r.valid & r.ready
        ends = taken & r.payload.last
        left = Signal(2)
        m.d.comb += [
            Assume(~r.valid | (count != 0)), Assume(~held | r.valid),
            r.payload.data.eq(numbers[0]), r.payload.last.eq(second | ~twos[0]),
            left.eq(count - ends), Assert(~begins | (count == 0)),
        ]
        m.d.sync += [
            held.eq(r.valid & ~r.ready), count.eq(left + (ar.valid & ar.ready)),
            second.eq(Mux(taken, ~r.payload.last, second)),
        ]
        with m.If(ends):
            m.d.sync += [now.eq(behind) for row in (numbers, twos)
                         for now, behind in zip(row, [*row[1:], Const(0)], strict=True)]
        with m.If(ar.valid & ar.ready):
            with m.Switch(left):
                for place in range(OUTSTANDING):
                    with m.Case(place):
                        m.d.sync += [numbers[place].eq(ar.payload.addr),
                                     twos[place].eq(ar.payload.len[0])]


def test_no_command_waits_for_a_silent_memory_or_gets_late_beats(tmp_path):
    spec = PortSpec()
    assert_formal(spec.m, spec.inputs, tmp_path, depth=DEEP, engine=FROM_SCRATCH,
                  passes=FLAT)


def test_a_command_after_a_silent_memory_within_these_cycles(tmp_path):
    spec = PortSpec()
    spec.m.d.comb += Cover(spec.served)
    assert_formal(spec.m, spec.inputs, tmp_path, mode="cover", depth=DEEP + 9,
                  passes=FLAT)


@pytest.mark.parametrize("fault", [{"idle": Const(1)}, {"moved": Const(1)}])
def test_a_planted_fault_is_found(fault, tmp_path):
    """Ends before the port has run dry; a watchdog that sees life everywhere."""
    spec = PortSpec(**fault)
    with pytest.raises(AssertionError, match=r"^property fails \(exit 2\)"):
        assert_formal(spec.m, spec.inputs, tmp_path, depth=DEEP, engine=FROM_SCRATCH,
                      passes=FLAT)
