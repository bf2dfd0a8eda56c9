# amaranth: UnusedElaboratable=no
"""Descriptors reach every unit in order, and units may run ahead of each other."""

import random

import pytest
from amaranth.hdl import Module
from amaranth.lib import memory

from model.config import PRESETS
from model.descriptor import BEATS, FIELDS
from model.descriptor import pack as pack_descriptor
from rtl.sequencer import Sequencer
from rtl.signatures import Descriptor
from tests.rtl.helpers import contract, raw, simulate, sink, unpack

CONFIG = PRESETS["tiny"]


def bench_module(layers, clients):
    rng = random.Random(layers)
    descriptors = [{name: rng.getrandbits(bits) for name, bits in FIELDS} for _ in range(layers)]
    beats = [beat for descriptor in descriptors for beat in pack_descriptor(descriptor)]
    m = Module()
    m.submodules.dut = dut = Sequencer(config=CONFIG, clients=clients)
    m.submodules.store = store = memory.Memory(
        shape=64, depth=CONFIG.max_layers * BEATS, init=beats)
    port = store.read_port()
    m.d.comb += [port.addr.eq(dut.store_addr), dut.store_data.eq(port.data),
                 dut.layers.eq(layers)]
    return m, dut, descriptors


def start(dut):
    async def bench(ctx):
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
    return bench


@pytest.mark.parametrize("layers", [1, CONFIG.max_layers])
def test_every_unit_gets_every_layer(layers):
    m, dut, descriptors = bench_module(layers, 3)
    got = [[] for _ in range(3)]
    simulate(
        m, start(dut),
        *(sink(dut.desc[i], got[i], layers, p, seed=i) for i, p in enumerate((1, 0.1, 0.3))),
        monitors=[contract(client) for client in dut.desc],
    )
    for items in got:
        fields = [unpack(Descriptor, item) for item in items]
        assert [{name: field[name] for name, _ in FIELDS} for field in fields] == descriptors


def test_how_far_units_run_ahead():
    m, dut, _ = bench_module(6, 2)
    taken = []

    async def greedy(ctx):
        ctx.set(dut.desc[0].ready, 1)
        for _ in range(100):
            _, _, valid, _ = await ctx.tick().sample(dut.desc[0].valid, raw(dut.desc[0].payload))
            taken.append(valid)

    simulate(m, start(dut), greedy)
    # The other unit took none: it is offered layer 0, layer 1 waits in the sequencer.
    assert sum(taken) == 2
    assert taken.index(1) == 12


def test_arguments():
    with pytest.raises(TypeError, match="config must be an AcceleratorConfig, not None"):
        Sequencer(config=None, clients=1)
    with pytest.raises(ValueError, match="clients must be a positive integer, not 0"):
        Sequencer(config=CONFIG, clients=0)
