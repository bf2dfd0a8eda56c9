"""Issue unit with a file of accumulators: steps, and what is read out between them."""

import dataclasses
from types import SimpleNamespace

import pytest
from amaranth.hdl import Value

from model.config import PRESETS
from rtl.issue import Issue
from rtl.signatures import SUM_SLOTS, Descriptor, KernelEntry, LayerStats, Step, SumsTag
from tests.rtl.helpers import collect, contract, pack, simulate, source, unpack
from tests.rtl.test_issue import (
    Network,
    Surroundings,
    block_words,
    layer,
    random_weights,
)

#: A frequency leaves in each cycle, or every four cycles.
FAST = PRESETS["tiny-window"]
SLOW = dataclasses.replace(FAST, name="slow", kernel_lanes=16, inverse_rows=1)


class WindowNetwork(Network):
    """Entries, expected steps and read-outs."""

    def __init__(self, config, layers, seed, early=0.0):
        self.early = early      # share of scatter words of frequencies that may not have left yet
        self.reads = []         # packed tags
        self.block_of = []      # block of each step
        super().__init__(config, layers, seed)

    def _kernel_block(self, fields):
        if not fields["scatter"]:
            return [
                [entry | {"addr": [self.rng.randrange(1 << 12) for _ in range(8)],
                          "last": self.rng.randrange(2)} for entry in entries]
                for entries in super()._kernel_block(fields)
            ]
        rng, config = self.rng, self.config
        count = fields.get("scatter_entries") or rng.randint(1, 60)
        entries = []
        for index in range(count):
            opened = 32 if rng.random() < self.early else index // config.drain_interval + 1
            entries.append({
                "weight": random_weights(rng, config),
                "select": [rng.randrange(8) for _ in range(config.kernel_lanes)],
                "addr": [rng.randrange(fields["groups"]) << 5 | rng.randrange(min(32, opened))
                         for _ in range(8)],
                "last": int(index == count - 1),
            })
        return [entries]

    def _block(self, fields, frequencies, base, loaded):
        slot = self.blocks % SUM_SLOTS
        lanes, depth = self.config.kernel_lanes, self.config.tile_depth
        for f, entries in enumerate(frequencies):
            self.entries += [pack(KernelEntry(self.config), entry) for entry in entries]
            if fields["scatter"]:
                steps = [{
                    "addr": [(base + addr) % depth for addr in entry["addr"]],
                    "select": entry["select"], "enable": [1] * lanes, "weight": entry["weight"],
                    "place": [entry["addr"][bank] & 31 for bank in entry["select"]],
                } for entry in entries]
            else:
                steps = [step | {"place": [f] * lanes}
                         for step in self._implicit(fields, entries, base, f)]
            for step in steps:
                self.steps.append(pack(Step(self.config), step | {"dot": fields["dot"]}))
                self.needs.append((loaded, max(0, self.blocks - SUM_SLOTS + 1)))
                self.block_of.append(self.blocks)
        count = 1 if fields["dot"] else 32
        self.reads += [pack(SumsTag, {
            "real": int(fields["dot"] or f in (0, 4)), "dot": fields["dot"], "frequency": f,
            "sum_shift": fields["sum_shift"], "slot": slot, "block_last": int(f == count - 1),
        }) for f in range(count)]
        self.blocks += 1


def run(config, layers, seed=1, p_entry=1.0, p_tile=1.0, p_slot=1.0, early=0.0):
    """Simulate and check; the stamps of the steps, the ends of the layers, the statistics."""
    network = WindowNetwork(config, layers, seed, early)
    dut = Issue(config)
    # A block is complete with its last read-out; `Surroundings` looks for it beside the steps.
    complete = dut.read_out.valid & dut.read_out.payload.block_last
    around = Surroundings(SimpleNamespace(
        o=SimpleNamespace(valid=dut.o.valid, payload=SimpleNamespace(block_last=Value.cast(0))),
        freed=dut.freed, block_loaded=dut.block_loaded, slot_free=dut.slot_free,
    ), network, seed + 1, p_tile, p_slot)
    descriptors = [
        pack(Descriptor, {k: v for k, v in fields.items()
                          if k not in ("select_bits", "scatter_entries")})
        for fields in layers
    ]
    steps, stamps, reads, read_stamps, stats = [], [], [], [], []

    async def completed(ctx):
        async for _, _, pulse in ctx.tick().sample(complete):
            around.complete += pulse

    async def end(ctx):
        while len(stats) < len(layers) or len(reads) < len(network.reads):
            await ctx.tick()
        await ctx.tick().repeat(Issue.LATENCY + 1)

    simulate(
        dut, source(dut.desc, descriptors, 1.0, seed + 2),
        source(dut.entries, network.entries, p_entry, seed + 3), end,
        monitors=[
            around.run, completed, collect(dut.o, steps, stamps),
            collect(dut.read_out, reads, read_stamps), collect(dut.stats, stats),
            contract(dut.entries),
        ],
        limit=60000,
    )
    assert steps == network.steps and reads == network.reads
    check_order(config, network, stamps, read_stamps)
    assert around.room == config.tile_depth and not around.blocks
    stats = [unpack(LayerStats, bits) for bits in stats]
    ends = [0, *network.ends]
    assert [entry.counts[0] for entry in stats] == [
        b - a for a, b in zip(ends, ends[1:], strict=False)
    ]
    return stamps, network.ends, [list(entry.counts) for entry in stats]


def check_order(config, network, stamps, read_stamps):
    """No place is used by a block before the sums of the block before have left it."""
    gaps = [b - a for a, b in zip(read_stamps, read_stamps[1:], strict=False)]
    assert min(gaps, default=config.drain_interval) >= config.drain_interval
    tags = [unpack(SumsTag, bits) for bits in network.reads]
    left, block = {}, 0         # (block, place): cycle of its read-out
    for tag, stamp in zip(tags, read_stamps, strict=True):
        left[block, tag.frequency] = stamp
        block += tag.block_last
    last = {}
    for number, stamp, bits in zip(network.block_of, stamps, network.steps, strict=True):
        last[number] = stamp
        for place in unpack(Step(config), bits).place:
            assert number == 0 or left.get((number - 1, place), 0) <= stamp
    for (number, _), stamp in left.items():
        assert stamp > last[number]


LONG = dict(scatter=1, scatter_entries=130)
CASES = {
    "scatter": (FAST, [layer(groups=5, tile_blocks=1, kernel_blocks=2) | LONG]),
    "scatter slow": (SLOW, [layer(groups=2, tile_blocks=3, kernel_blocks=2) | LONG]),
    "1:4": (FAST, [layer(groups=2, tile_blocks=2, kernel_blocks=2)]),
    "hold 2": (SLOW, [layer(groups=5, hold=2, entries=3, entries_last=5, sub_log2=3,
                            select_bits=4, kernel_blocks=2)]),
}
MIXED = [
    layer(groups=1, tile_blocks=3, entries_last=1),
    layer(scatter=1, resident=1, groups=3, tile_blocks=2, kernel_blocks=2),
    layer(dot=1, groups=40, hold=3, entries=1, entries_last=2, select_bits=6, kernel_blocks=3),
    layer(scatter=1, groups=2, tile_blocks=3, kernel_blocks=2, sum_shift=31),
    layer(dot=1, groups=2, entries_last=3, kernel_blocks=2),
]


@pytest.mark.parametrize("name", CASES)
def test_full_speed(name):
    """A step in every cycle, also from block to block, while the block before leaves."""
    config, layers = CASES[name]
    stamps, _, stats = run(config, layers)
    assert stamps[-1] - stamps[0] == len(stamps) - 1
    assert stats[0][2:] == [0, 0]


@pytest.mark.parametrize("config", [FAST, SLOW])
@pytest.mark.parametrize("p", [(1, 1, 1), (0.5, 1, 1), (1, 0.03, 0.05), (0.7, 0.1, 0.2)])
def test_random_stalls(config, p):
    """Short blocks, and words of frequencies that have not left yet."""
    p_entry, p_tile, p_slot = p
    run(config, MIXED, 7, p_entry, p_tile, p_slot, early=0.2)


def test_a_step_waits_for_its_place():
    """Blocks that use the highest place first take as long as the drain."""
    fields = layer(groups=1, tile_blocks=2, kernel_blocks=1) | LONG
    assert block_words(fields) == 32
    _, _, stats = run(SLOW, [fields], early=1.0)
    assert 60 < stats[0][3] <= 32 * SLOW.drain_interval
    _, _, stats = run(SLOW, [fields])
    assert stats[0][3] == 0


def test_a_short_block_waits_for_the_one_before():
    fields = layer(scatter=1, groups=1, tile_blocks=4) | {"scatter_entries": 3}
    stamps, _, stats = run(SLOW, [fields])
    last = stamps[2::3]
    assert [b - a for a, b in zip(last, last[1:], strict=False)] == [32 * 4] * 3
