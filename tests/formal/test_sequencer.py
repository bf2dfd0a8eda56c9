"""The sequencer: each unit gets every layer, once and in order, and an offer never changes."""

import dataclasses

import pytest
from amaranth.hdl import Assert, C, Cat, Module, Signal

from model.config import PRESETS
from model.descriptor import BEATS
from rtl.sequencer import Sequencer
from rtl.signatures import Descriptor
from tests.formal.helpers import FROM_SCRATCH, assert_formal

pytestmark = pytest.mark.formal

LAYERS, CLIENTS = 2, 2
#: Cycles in which units that are never busy get every layer.
ENOUGH = 12 * LAYERS + 2


class Spec:
    """The sequencer, a store whose beats say where they lie, units that are free."""

    def __init__(self, sequencer=Sequencer):
        self.m = m = Module()
        config = dataclasses.replace(PRESETS["tiny"], max_layers=LAYERS)
        m.submodules.dut = dut = sequencer(config=config, clients=CLIENTS)
        started = Signal()
        m.d.sync += [started.eq(1), dut.store_data.eq(dut.store_addr + 1)]
        m.d.comb += [dut.start.eq(~started), dut.layers.eq(LAYERS)]
        self.inputs = [desc.ready for desc in dut.desc]
        eager = Signal(init=1)
        m.d.sync += eager.eq(eager & Cat(self.inputs).all())
        taken = [self._unit(index, desc) for index, desc in enumerate(dut.desc)]
        self.all_taken = Cat(count == LAYERS for count in taken).all()
        age = Signal(6)
        m.d.sync += age.eq(age + 1)
        m.d.comb += Assert(~eager | (age != ENOUGH) | self.all_taken)

    def _unit(self, index, desc):
        m = self.m
        taken, waiting = Signal(range(LAYERS + 1), name=f"taken{index}"), Signal()
        m.d.sync += waiting.eq(desc.valid & ~desc.ready)
        m.d.comb += Assert(desc.valid | ~waiting)
        with m.If(desc.valid):
            m.d.comb += Assert(taken != LAYERS)
            for layer in range(LAYERS):
                beats = Cat(C(BEATS * layer + beat + 1, 64) for beat in range(BEATS))
                with m.If(taken == layer):
                    m.d.comb += Assert(desc.payload.as_value() == beats[:Descriptor.size])
            with m.If(desc.ready):
                m.d.sync += taken.eq(taken + 1)
        return taken


def test_every_unit_gets_every_layer_once(tmp_path):
    spec = Spec()
    assert_formal(spec.m, spec.inputs, tmp_path, mode="bmc", depth=ENOUGH + 4, engine=FROM_SCRATCH)


class Forgetful(Sequencer):
    """Withdraws an offer that is not taken at once."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.desc[1].valid):
            m.d.sync += self.desc[1].valid.eq(0)
        return m


class Restless(Sequencer):
    """Changes the descriptor under a unit that waits."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.sync += self.desc[0].payload.channels.eq(self.store_data)
        return m


@pytest.mark.parametrize("sequencer", [Forgetful, Restless])
def test_a_planted_fault_is_found(sequencer, tmp_path):
    spec = Spec(sequencer)
    with pytest.raises(AssertionError, match=r"^property fails \(exit 2\)"):
        assert_formal(spec.m, spec.inputs, tmp_path, mode="bmc", depth=ENOUGH, engine=FROM_SCRATCH)
