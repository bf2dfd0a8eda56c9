import dataclasses
import random

import pytest

from model.config import PRESETS
from model.residency import groups
from rtl.issue import Issue
from rtl.signatures import SUM_SLOTS, Descriptor, KernelEntry, LayerStats, Step
from tests.rtl.helpers import collect, contract, pack, simulate, source, unpack

TINY = PRESETS["tiny"]
ECP5 = PRESETS["ecp5-85f"]
SPREAD = dataclasses.replace(PRESETS["tiny-wide"], tile_lanes=4, dot_lanes=4, name="spread")


def layer(**fields):
    """Descriptor fields with the values most layers have."""
    values = dict(
        dot=0, scatter=0, resident=0, groups=1, kernel_blocks=1, tile_blocks=1, entries=2,
        entries_last=2, sub_log2=2, hold=1, sum_shift=5, select_bits=2, part_blocks=0,
        part_groups=0, spread=0,
    )
    assert not set(fields) - set(values)
    values |= fields
    return values | {"resident": values["resident"] or values["tile_blocks"]}


def block_words(fields):
    return fields["groups"] * (1 if fields["dot"] else 32)


def walked(fields):
    """Rows of channels that a kernel block walks."""
    return fields["part_groups"] or fields["groups"]


def part_words(fields, kernel_block):
    """Words before the channels of a kernel block's part."""
    return fields["part_blocks"] and kernel_block // fields["part_blocks"] * 32 * walked(fields)


def random_weights(rng, config):
    low, high = -(1 << config.weight_bits - 1), (1 << config.weight_bits - 1) - 1
    return [
        {"re": rng.randint(low, high), "im": rng.randint(low, high)}
        for _ in range(config.kernel_lanes)
    ]


def scatter_selects(rng, config, groups, ends):
    """Selects of one entry; lanes with one residue agree on the group, lane 0 marks the end."""
    group = [rng.randrange(groups) for _ in range(8)]
    residues = [rng.randrange(8) for _ in range(config.kernel_lanes)]
    selects = [residue | group[residue] << 3 for residue in residues]
    selects[0] |= ends << 7
    return selects


class Network:
    """Entries, expected steps, and when tiles and sums are needed, of layers in sequence."""

    def __init__(self, config, layers, seed):
        self.config, self.layers = config, layers
        self.rng = random.Random(seed)
        self.entries = []       # packed, in order
        self.steps = []         # packed, in order
        self.needs = []         # per step: (tile blocks loaded, slots given back)
        self.frees = []         # (number of the step with which words return, words)
        self.ends = []          # steps up to each layer's end
        self.base = 0
        self.blocks = self.loaded = 0
        for fields in layers:
            self._layer(fields)

    def _layer(self, fields):
        words, depth = block_words(fields), self.config.tile_depth
        tiles, kernels = range(fields["tile_blocks"]), range(fields["kernel_blocks"])
        stream = [self._kernel_block(fields) for _ in kernels]
        order = [(kb, tb) for group in groups(fields["tile_blocks"], fields["resident"])
                 for kb in kernels for tb in group]
        for kb, tb in order:
            self._block(fields, stream[kb],
                        (self.base + tb * words + part_words(fields, kb)) % depth,
                        self.loaded + tb + 1)
            if kb == kernels[-1]:
                self.frees.append((len(self.steps) - 1, words))
        self.base = (self.base + words * len(tiles)) % depth
        self.loaded += len(tiles)
        self.ends.append(len(self.steps))

    def _kernel_block(self, fields):
        """Entries of one kernel block: a list per frequency, of dictionaries."""
        rng, config = self.rng, self.config
        frequencies = []
        for _ in range(1 if fields["dot"] else 32):
            if fields["scatter"]:
                count = rng.randint(1, 4)
                selects = [
                    scatter_selects(rng, config, fields["groups"], index == count - 1)
                    for index in range(count)
                ]
            else:
                blocks = -(-walked(fields) // fields["hold"])
                count = (blocks - 1) * fields["entries"] + fields["entries_last"]
                selects = [
                    [rng.randrange(1 << fields["select_bits"]) for _ in range(config.kernel_lanes)]
                    for _ in range(count)
                ]
            frequencies.append([
                {"weight": random_weights(rng, config), "select": select} for select in selects
            ])
        return frequencies

    def _block(self, fields, frequencies, base, loaded):
        slot = self.blocks % SUM_SLOTS
        for f, entries in enumerate(frequencies):
            self.entries += [pack(KernelEntry(self.config), entry) for entry in entries]
            walk = self._scatter if fields["scatter"] else self._implicit
            steps = list(walk(fields, entries, base, f))
            for index, step in enumerate(steps):
                last = index == len(steps) - 1
                self.steps.append(pack(Step(self.config), {
                    **step, "real": fields["dot"] or f in (0, 4), "first": index == 0,
                    "last": last, "dot": fields["dot"], "sum_shift": fields["sum_shift"],
                    **({"spread": int(fields["spread"] > 0)} if self.config.window == 1 else {}),
                    "frequency": f, "slot": slot,
                    "block_last": last and f == len(frequencies) - 1,
                }))
                self.needs.append((loaded, max(0, self.blocks - SUM_SLOTS + 1)))
        self.blocks += 1

    def _implicit(self, fields, entries, base, f):
        groups, hold = walked(fields), fields["hold"]
        stride = 1 if fields["dot"] else 32
        feed = iter(entries)
        for first in range(0, groups, hold):
            ending = first + hold >= groups
            for j in range(fields["entries_last"] if ending else fields["entries"]):
                entry = next(feed)
                for a in range(min(hold, groups - first)):
                    addr = (base + (first + a) * stride + f) % self.config.tile_depth
                    residue = (j << fields["sub_log2"]) & 7
                    lanes = self.config.dot_lanes
                    rows = [s >> 3 for s in entry["select"]]
                    turns = [row // lanes for row in rows] if fields["spread"] else rows
                    yield {
                        "addr": [addr] * 8,
                        "select": [(residue + (s & 7) + f) % 8 for s in entry["select"]],
                        "enable": [int(hold == 1 or turn == a) for turn in turns],
                        "weight": entry["weight"],
                        **({"lane": [row % lanes for row in rows]} if lanes > 1 else {}),
                    }
        assert next(feed, None) is None

    def _scatter(self, fields, entries, base, f):
        for entry in entries:
            addr = [base + f] * 8
            select = [(s + f) % 8 for s in entry["select"]]
            for s, bank in zip(entry["select"], select, strict=True):
                addr[bank] = base + f + ((s >> 3) & 15) * 32
            yield {
                "addr": [a % self.config.tile_depth for a in addr], "select": select,
                "enable": [1] * self.config.kernel_lanes, "weight": entry["weight"],
            }


class Surroundings:
    """Loader (with the ring's room), sum buffer reader, and checks of what Issue may do."""

    def __init__(self, dut, network, seed, p_tile, p_slot):
        self.dut, self.network = dut, network
        self.rng = random.Random(seed)
        self.p_tile, self.p_slot = p_tile, p_slot
        self.room = network.config.tile_depth
        self.blocks = [
            block_words(fields) for fields in network.layers for _ in range(fields["tile_blocks"])
        ]
        self.loaded = self.slots = self.complete = self.seen = 0

    async def run(self, ctx):
        """Raise one pulse per block loaded and per slot emptied; check against the pulses."""
        dut, network = self.dut, self.network
        frees = list(network.frees)
        samples = ctx.tick().sample(
            dut.o.valid, dut.o.payload.block_last, dut.freed.valid, dut.freed.payload
        )
        async for _, _, valid, block_last, freed, words in samples:
            if valid:
                loaded, slots = network.needs[self.seen]
                assert self.loaded >= loaded, f"step {self.seen} before its tiles"
                assert self.slots >= slots, f"step {self.seen} before its sums"
                self.complete += block_last
            if freed:
                assert frees.pop(0) == (self.seen, words) and valid
                self.room += words
            self.seen += valid
            self._next_pulses(ctx)

    def _next_pulses(self, ctx):
        load = self.blocks and self.blocks[0] <= self.room and self.rng.random() < self.p_tile
        if load:
            self.room -= self.blocks.pop(0)
        self.loaded += bool(load)
        empty = self.slots < self.complete and self.rng.random() < self.p_slot
        self.slots += bool(empty)
        ctx.set(self.dut.block_loaded, bool(load))
        ctx.set(self.dut.slot_free, bool(empty))


def run(config, layers, seed=1, p_desc=1.0, p_entry=1.0, p_tile=1.0, p_slot=1.0):
    """Simulate; return the steps, their cycles, the layers' ends and their statistics."""
    network = Network(config, layers, seed)
    dut = Issue(config)
    around = Surroundings(dut, network, seed + 1, p_tile, p_slot)
    descriptors = [
        pack(Descriptor, {k: v for k, v in fields.items() if k != "select_bits"})
        for fields in layers
    ]
    steps, stamps, stats, reports = [], [], [], []

    async def end(ctx):
        while len(stats) < len(layers) or len(steps) < len(network.steps):
            await ctx.tick()
        await ctx.tick().repeat(Issue.LATENCY + 1)

    simulate(
        dut, source(dut.desc, descriptors, p_desc, seed + 2),
        source(dut.entries, network.entries, p_entry, seed + 3), end,
        monitors=[
            around.run, collect(dut.o, steps, stamps),
            collect(dut.stats, stats, reports), contract(dut.entries),
        ],
        limit=40000,
    )
    assert steps == network.steps
    assert around.room == config.tile_depth and not around.blocks
    stats = [unpack(LayerStats, bits) for bits in stats]
    assert [entry.layer for entry in stats] == list(range(len(layers)))
    ends = [0, *network.ends]
    assert [entry.counts[0] for entry in stats] == [
        b - a for a, b in zip(ends, ends[1:], strict=False)
    ]
    # A cycle counts once at most.
    for entry, before, report in zip(stats, [0, *reports], reports, strict=False):
        assert sum(entry.counts) <= report - before
    return steps, stamps, network.ends, [list(entry.counts) for entry in stats]


#: name: (config, layers). Tiles of tiny: 128 words, ecp5-85f: 512.
CASES = {
    "1:4": (TINY, [layer(groups=1, tile_blocks=2, kernel_blocks=2)]),
    "2:8": (TINY, [layer(groups=1, entries=2, entries_last=2, sub_log2=3, select_bits=4,
                         tile_blocks=3)]),
    "1:8": (TINY, [layer(groups=3, entries=1, entries_last=1, sub_log2=3, select_bits=4)]),
    "1:8 fast": (ECP5, [layer(groups=1, entries=1, entries_last=1, sub_log2=3, select_bits=4,
                              kernel_blocks=2)]),
    "dense": (TINY, [layer(groups=2, entries=8, entries_last=3, sub_log2=0, select_bits=0)]),
    "hold 2": (TINY, [layer(groups=3, hold=2, entries=1, entries_last=2, sub_log2=3,
                            select_bits=4, kernel_blocks=2)]),
    "hold 4": (ECP5, [layer(groups=6, hold=4, entries=2, entries_last=3, sub_log2=3,
                            select_bits=8)]),
    "hold all": (ECP5, [layer(groups=3, hold=4, entries=5, entries_last=2, select_bits=8)]),
    "dot": (ECP5, [layer(dot=1, groups=25, kernel_blocks=4)]),
    "dot short": (ECP5, [layer(dot=1, groups=1, entries_last=1, kernel_blocks=9)]),
    "scatter": (ECP5, [layer(scatter=1, groups=5, tile_blocks=2, kernel_blocks=2)]),
    "groups of one": (TINY, [layer(resident=1, groups=2, tile_blocks=5, kernel_blocks=2,
                                   entries=1, entries_last=1)]),
    "scatter of one": (ECP5, [layer(resident=1, scatter=1, groups=7, tile_blocks=4)]),
    "groups of two": (TINY, [layer(resident=2, tile_blocks=5, kernel_blocks=3)]),
    "groups that fill the ring": (TINY, [layer(resident=2, groups=2, tile_blocks=7,
                                               kernel_blocks=2)]),
    "one kernel block": (TINY, [layer(groups=2, tile_blocks=6, kernel_blocks=1),
                                layer(groups=1, tile_blocks=2, kernel_blocks=2)]),
    "spread over two": (SPREAD, [layer(dot=1, spread=1, groups=9, entries=1, entries_last=1,
                                       sub_log2=3, select_bits=4, kernel_blocks=3)]),
    "spread and hold": (SPREAD, [
        layer(dot=1, spread=2, groups=9, hold=2, entries=1, entries_last=1, sub_log2=3,
              select_bits=6, kernel_blocks=4),
        layer(dot=1, groups=9, entries=2, entries_last=2, kernel_blocks=2),
    ]),
    "parts": (TINY, [layer(groups=4, part_groups=2, part_blocks=1, kernel_blocks=2)]),
    "parts in groups": (ECP5, [
        layer(groups=6, part_groups=2, part_blocks=2, kernel_blocks=6, resident=2, tile_blocks=5,
              hold=2, entries=1, entries_last=2, sub_log2=3, select_bits=4),
        layer(groups=3, part_groups=1, part_blocks=1, kernel_blocks=3, tile_blocks=3, resident=1),
        layer(groups=2, tile_blocks=2, kernel_blocks=2),
    ]),
    "layers": (TINY, [
        layer(groups=1, tile_blocks=3, entries_last=1),
        layer(scatter=1, resident=1, groups=3, tile_blocks=2),
        layer(dot=1, groups=40, hold=3, entries=1, entries_last=2, select_bits=6,
              kernel_blocks=3),
        layer(dot=1, groups=2, entries_last=3, kernel_blocks=2),
        layer(groups=1, tile_blocks=4, kernel_blocks=2, resident=3),
        layer(groups=2, tile_blocks=2, kernel_blocks=2, sum_shift=31),
    ]),
}


#: Chance per cycle that a descriptor, an entry, a loaded block, a freed slot comes.
STALLS = [(1, 0.5, 1, 1), (1, 1, 0.03, 0.05), (0.2, 0.7, 0.1, 0.2)]
#: Blocks long enough that the slots of the sum buffer suffice.
FULL_SPEED = [name for name in CASES if name != "dot short"]


def drain_gaps(config, steps):
    """Cycles from step to step if only the interval of `last` holds them up."""
    now, last, stamps = 0, -config.kernel_lanes, []
    last_bit = Step(config)["last"].offset
    for bits in steps:
        now += 1
        if bits >> last_bit & 1:
            now = last = max(now, last + config.kernel_lanes // config.drained)
        stamps.append(now)
    return [b - a for a, b in zip(stamps, stamps[1:], strict=False)]


@pytest.mark.parametrize("name", FULL_SPEED)
def test_full_speed(name):
    """A step every cycle from the first to the last of a layer, two cycles between layers."""
    config, layers = CASES[name]
    steps, stamps, ends, stats = run(config, layers)
    begin = 0
    for fields, end, counts in zip(layers, ends, stats, strict=True):
        gaps = [b - a for a, b in zip(stamps[begin:end], stamps[begin + 1:end], strict=False)]
        want = drain_gaps(config, steps[begin:end])
        ring = fields["tile_blocks"] * block_words(fields) > config.tile_depth
        if ring and sum(gaps) > sum(want):
            # The ring is too small to load ahead; a wait costs one cycle more than it counts.
            waits = sum(gap != usual for gap, usual in zip(gaps, want, strict=True))
            assert counts[1] + waits >= sum(gaps) - sum(want)
        else:
            assert gaps == want
            assert counts[2:] == [0, sum(want) - len(want)]
        if begin and counts[1] == 0:
            assert stamps[begin] - stamps[begin - 1] == 3
        begin = end


@pytest.mark.parametrize("name, p", [
    ("layers", STALLS[0]), ("layers", STALLS[1]), ("layers", STALLS[2]), ("dot short", STALLS[1]),
    ("hold 4", STALLS[0]), ("scatter of one", STALLS[2]), ("groups of two", STALLS[2]),
    ("groups that fill the ring", STALLS[1]), ("1:8 fast", STALLS[0]),
    ("one kernel block", STALLS[2]), ("spread and hold", STALLS[0]),
])
def test_random_stalls(name, p):
    p_desc, p_entry, p_tile, p_slot = p
    run(*CASES[name], 7, p_desc, p_entry, p_tile, p_slot)


@pytest.mark.parametrize("stalled, count", [("p_entry", 2), ("p_tile", 1), ("p_slot", 3)])
def test_stalls_are_counted_by_cause(stalled, count):
    layers = [layer(groups=1, tile_blocks=4, kernel_blocks=2)]
    *_, stats = run(TINY, layers, 3, **{stalled: 0.01 if stalled != "p_entry" else 0.4})
    for index in (1, 2, 3):
        assert (stats[0][index] > 20) == (index == count), stats


def test_lasts_leave_the_drain_its_time():
    """A frequency of one step takes kernel_lanes / 4 cycles; a longer one only its steps."""
    fields = dict(groups=1, sub_log2=3, select_bits=4)
    one = run(ECP5, [layer(entries=1, entries_last=1, **fields)])[1]
    assert [b - a for a, b in zip(one, one[1:], strict=False)] == [2] * 31
    two = run(ECP5, [layer(entries=2, entries_last=2, **fields)])[1]
    assert [b - a for a, b in zip(two, two[1:], strict=False)] == [1] * 63


def test_a_block_of_one_step_takes_two_cycles():
    """While slots of the sum buffer are free; the next block is found in two steps."""
    layers = [layer(dot=1, groups=1, entries=1, entries_last=1, kernel_blocks=SUM_SLOTS)]
    stamps = run(TINY, layers)[1]
    assert [b - a for a, b in zip(stamps, stamps[1:], strict=False)] == [2] * (SUM_SLOTS - 1)
