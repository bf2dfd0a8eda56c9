"""Issue unit: the loops of a layer, one step of the array per cycle.

`rtl.blockorder` has the next block ready as soon as it may begin; `Issue` walks the frequencies,
address groups and entries of a block. So nothing is lost between entries, frequencies or blocks.

For each frequency the entries of the kernel stream are, with G = ``groups`` of eight channels, or
those of the block's part in a grouped convolution:

* implicit (``scatter`` = 0): ``entries`` for every ``hold`` groups (``entries_last`` for the
  last). An entry stays for the steps of its groups; lane select s is a channel of group
  s[7:3], counted from ``hold``'s first, and of that group (entry << ``sub_log2``) + s[2:0].
  With ``spread``, in a dot layer, the lowest log2(``dot_lanes``) bits of s[7:3] are the tile lane
  in which the row of eight words lies, and those above them count steps.
* scatter: one step each, up to the entry with bit 7 of lane 0's select; s[2:0] is the channel of
  group s[6:3]. Lanes that select one bank agree on the group; an idle lane has a zero weight.
* scatter with a window: one step each, up to the entry with ``last``, which ends the block. s[2:0]
  is the bank, skew included, and the entry has the address of each bank, whose lower five bits are
  the frequency.

Skew: channel c of frequency f lies in bank (c + f) % 8, at ring base + 32·(c//8) + f; in a dot
layer in bank c % 8 at ring base + c//8.
"""

from __future__ import annotations

import functools
import operator

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from model.config import AcceleratorConfig
from rtl.blockorder import Block, BlockOrder
from rtl.readout import ReadOut
from rtl.signatures import Descriptor, Event, KernelEntry, LayerStats, Step, SumsTag

__all__ = ["Issue"]


class Issue(wiring.Component):
    """Steps of the multiply-accumulate array from the kernel stream.

    A step per cycle while entries come. Between two ``last`` steps lie at least
    ``drain_interval`` cycles, which the drain needs. Between layers two cycles are lost.
    With a window all sums of a block leave after its last step, meanwhile the next block uses the
    frequencies that have left; a step that would use another waits.

    Ring words are given back in the cycle in which their last read leaves (its address is at the
    RAM then). The Loader writes them no sooner than its own state, a feature memory read and the
    forward FFT later, more than ten cycles, so no word is overwritten before it is read.

    Parameters
    ----------
    config : AcceleratorConfig
        Lanes, widths and depth of the tile ring.

    Attributes
    ----------
    desc : In(stream.Signature(Descriptor))
        Layers in order.
    entries : In(stream.Signature(KernelEntry(config)))
        Entries in the order of the steps.
    block_loaded, slot_free : In(1)
        One more tile block is in the ring; one more slot of the sum buffer is free.
    freed : Out(Event(range(tile_depth + 1)))
        Ring words given back, oldest first.
    o : Out(Event(Step(config)))
        Steps, ``LATENCY`` cycles after their entry. ``block_last`` comes with the last step of
        a block.
    read_out : Out(Event(SumsTag)), only with a window
        Place of the accumulator files to read out before the step of the same cycle.
    stats : Out(Event(LayerStats))
        At a layer's end: steps, then cycles waiting for tiles, for weights, and for sums.
    """

    LATENCY = 4

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__({
            "desc": In(stream.Signature(Descriptor)),
            "entries": In(stream.Signature(KernelEntry(config))),
            "block_loaded": In(1), "slot_free": In(1),
            "freed": Out(Event(range(config.tile_depth + 1))),
            "o": Out(Event(Step(config))), "stats": Out(Event(LayerStats)),
            **({"read_out": Out(Event(SumsTag))} if config.window > 1 else {}),
        })

    def elaborate(self, platform) -> Module:
        """Walk a block in stage s0; `_steps` turns what it decides into steps."""
        m = Module()
        config, entry = self._config, self.entries.payload
        windowed = config.window > 1
        m.submodules.order = order = BlockOrder(config)
        layer, following = order.layer, order.o.payload
        wiring.connect(m, wiring.flipped(self.desc), order.desc)
        m.d.comb += [
            order.block_loaded.eq(self.block_loaded),
            order.slot_free.eq(self.slot_free),
        ]

        active, idle = Signal(), Signal(init=1)     # not active: a register apart, see ``moves``
        block = Signal(Block(config), reset_less=True)
        interval = config.drain_interval
        drain = Signal(range(max(2, interval)))                     # cycles it is still busy
        opening = Signal(init=1)                                    # first step of a frequency
        frequency = Signal(5, reset_less=True)
        entries_left = Signal(6, reset_less=True)
        channel = Signal(3, reset_less=True)
        offset = Signal(6, reset_less=True)     # group within ``hold``
        # Address and number of groups left: of the step, of its first group.
        word = Signal(range(config.tile_depth), reset_less=True)
        group_word = Signal.like(word, reset_less=True)
        frequency_word = Signal.like(word, reset_less=True)
        rest = Signal(10, reset_less=True)
        group_rest = Signal(10, reset_less=True)

        # What the step ends, found with the state that says it, because most of a layer's control
        # hangs on it: ``offset`` is the last of ``hold``, or ``rest`` is 0; ``entries_left`` is 0;
        # ``group_rest`` is less than ``hold``, or than twice that. Always with ``scatter``, where
        # the entry says it.
        entry_end, entries_end = Signal(reset_less=True), Signal(reset_less=True)
        groups_end, groups_near = Signal(reset_less=True), Signal(reset_less=True)
        # All three: without ``scatter``, of the frequency; and that is the last one.
        walk_end, block_walk_end = Signal(reset_less=True), Signal(reset_less=True)
        frequency_last = Signal(reset_less=True)        # ``frequency`` is the block's last
        drain_busy = Signal()       # ``drain`` is not 0
        first = self._first(m, order)

        frequency_end, blocked = Signal(), Signal()
        # A step; the last one of a block. A step or no block, so that the state is of the next one:
        # that enables many registers, so synthesis must not find it by way of ``go``.
        go, block_ends, moves = Signal(), Signal(), Signal()
        marked = entry.last if windowed else entry.select[0][7]
        last = block_walk_end & (first.by_steps | marked)
        m.d.comb += [
            frequency_end.eq(walk_end & (first.by_steps | marked)),
            moves.eq(~(active & (~self.entries.valid | blocked))),
            go.eq(~idle & moves),
            block_ends.eq(moves & (~idle & last)),
            self.entries.ready.eq(active & entry_end & ~blocked),
            order.o.ready.eq(moves & (idle | last)),
            order.done.eq(moves & (~idle & last & block.layer_last)),
        ]

        # Entries after the first: of the groups after these, of the first groups.
        near_left = Mux(groups_near, first.entries_last, first.entries)
        first_left = Mux(first.groups_end, first.entries_last, first.entries)
        # A block that is not there may be taken over, too: it does not become active.
        begins, closes = idle | frequency_end, idle | frequency_last
        base = Mux(closes, following.base, frequency_word + 1)
        next_word = word + first.stride
        # What the step after this one ends, in the same frequency.
        entry_end_stays = Mux(
            entry_end,
            first.single | Mux(entries_end, rest == 1, group_rest == 0),
            (offset == first.hold_before) | (rest == 1),
        )
        entries_end_stays = Mux(
            entry_end, Mux(entries_end, near_left == 0, entries_left == 1), entries_end
        )
        groups_end_stays = Mux(entry_end & entries_end, groups_near, groups_end)
        walk_end_next, frequency_last_next = Signal(), Signal()
        m.d.comb += [
            walk_end_next.eq(Mux(
                begins, first.entry_end & (first_left == 0) & first.groups_end,
                entry_end_stays & entries_end_stays & groups_end_stays,
            )),
            frequency_last_next.eq(Mux(
                begins, first.frequency_last | (~closes & (frequency == 30)), frequency_last
            )),
        ]
        with m.If(go):
            m.d.sync += opening.eq(frequency_end)
        # Whether the step is done is known late: the state after it must not hang on that.
        with m.If(moves):
            m.d.sync += [
                entry_end.eq(Mux(begins, first.entry_end, entry_end_stays)),
                entries_end.eq(Mux(begins, first_left == 0, entries_end_stays)),
                groups_end.eq(Mux(begins, first.groups_end, groups_end_stays)),
                walk_end.eq(walk_end_next),
                frequency_last.eq(frequency_last_next),
                block_walk_end.eq(walk_end_next & frequency_last_next),
                offset.eq(Mux(idle | entry_end, 0, offset + 1)),
            ]
            with m.If(begins):
                m.d.sync += [
                    frequency.eq(Mux(closes, 0, frequency + 1)),
                    frequency_word.eq(base), word.eq(base), rest.eq(order.rows - 1),
                ]
            with m.Elif(~entry_end | entries_end):
                m.d.sync += [word.eq(next_word), rest.eq(rest - 1)]
            with m.Else():
                m.d.sync += [word.eq(group_word), rest.eq(group_rest)]
            with m.If(idle | entry_end):
                m.d.sync += [
                    channel.eq(
                        Mux(idle | entries_end, 0, channel + (Const(1) << layer.sub_log2))
                    ),
                    entries_left.eq(Mux(begins, first_left, Mux(
                        entries_end, near_left, entries_left - 1
                    ))),
                ]
            with m.If(idle | (entry_end & entries_end)):
                m.d.sync += [
                    group_word.eq(Mux(begins, base, next_word)),
                    group_rest.eq(Mux(begins, order.rows - 1, rest - 1)),
                    groups_near.eq(Mux(begins, first.groups_near, rest <= first.near)),
                ]
        if windowed:
            self._read_out(m, layer, block, frequency, block_ends, blocked, last)
        else:
            ends = moves & (~idle & frequency_end)
            m.d.comb += blocked.eq(drain_busy & frequency_end)
            m.d.sync += [
                drain.eq(Mux(ends, interval - 1, Mux(drain == 0, 0, drain - 1))),
                drain_busy.eq(Mux(ends, interval != 1, drain > 1)),
            ]
        with m.If(order.o.ready):
            m.d.sync += [active.eq(order.o.valid), idle.eq(~order.o.valid), block.eq(following)]

        decided = Signal(self._decision())
        spread = layer.spread.any() if config.spread else 0
        tag = {
            "spread": spread,
            "real": layer.dot | (frequency[:2] == 0) & (frequency < 8), "first": opening,
            "last": frequency_end, "dot": layer.dot, "sum_shift": layer.sum_shift,
            "frequency": frequency, "slot": block.slot, "block_last": last,
        }
        m.d.comb += [
            *(decided.tag[name].eq(tag[name]) for name in decided.tag.shape().members),
            decided.frees.eq(last & block.frees), decided.words.eq(block.words),
            decided.word.eq(word), decided.weight.eq(entry.weight),
            decided.select.eq(entry.select), decided.offset.eq(offset),
            # Dot layers stay at frequency 0; scatter selects are whole channels.
            decided.skew.eq(frequency[:3] + Mux(layer.scatter, 0, channel)),
            decided.scatter.eq(layer.scatter),
            decided.everyone.eq(first.single),
        ]
        if windowed:
            m.d.comb += [
                decided.bank.eq(Mux(layer.scatter, entry.addr.as_value(), 0)),
                decided.frequency.eq(frequency),
            ]
        self._steps(m, go, decided)
        self._count(m, order, go, active, blocked)
        return m

    def _first(self, m: Module, order: BlockOrder) -> data.View:
        """Find the state at the first step of a frequency, with the layer.

        ``single``: an entry has one step. ``by_steps``: without ``scatter``, so that a frequency
        ends by its steps; with it the other fields are such that no step changes the state.
        ``entries``, ``entries_last``: those of the layer, less the first. ``stride``: from a row of
        channels to the next. ``near``: that many groups are the last two times ``hold``.
        """
        first = Signal(data.StructLayout({
            "single": 1, "by_steps": 1, "entry_end": 1, "groups_end": 1, "groups_near": 1,
            "frequency_last": 1, "entries": 6, "entries_last": 6, "stride": 6, "near": 10,
            "hold_before": 6,       # last offset but one
        }), reset_less=True)
        desc = self.desc.payload
        single = desc.scatter | (desc.hold == 1)
        parts = desc.part_blocks != 0

        def rows(holds):
            """Whether a property holds for the rows of channels that a kernel block walks."""
            return Mux(parts, holds(desc.part_groups), holds(desc.groups))

        with m.If(order.desc.ready):
            m.d.sync += [
                first.single.eq(single), first.by_steps.eq(~desc.scatter),
                first.entry_end.eq(single | rows(lambda count: count == 1)),
                first.groups_end.eq(desc.scatter | rows(lambda count: count <= desc.hold)),
                first.groups_near.eq(
                    desc.scatter | rows(lambda count: count <= (desc.hold << 1))
                ),
                first.frequency_last.eq(desc.dot | (desc.scatter & (self._config.window > 1))),
                first.entries.eq(Mux(desc.scatter, 0, desc.entries - 1)),
                first.entries_last.eq(Mux(desc.scatter, 0, desc.entries_last - 1)),
                first.stride.eq(Mux(desc.scatter, 0, Mux(desc.dot, 1, 32))),
                first.near.eq(Mux(desc.scatter, -1, desc.hold << 1)),
                first.hold_before.eq(desc.hold - 2),
            ]
        return first

    def _read_out(self, m: Module, layer, block, frequency, ends, blocked, block_end) -> None:
        """Let the sums of a block leave after its end; hold steps that come too early."""
        entry = self.entries.payload
        m.submodules.read_out = read_out = ReadOut(self._config)
        early = Cat(addr[:5] > read_out.through for addr in entry.addr).any()
        m.d.comb += [
            blocked.eq(
                (block_end & ~read_out.ready)
                | Mux(layer.scatter, early, frequency > read_out.through)
            ),
            read_out.i.valid.eq(ends),
            read_out.i.payload.dot.eq(layer.dot),
            read_out.i.payload.sum_shift.eq(layer.sum_shift),
            read_out.i.payload.slot.eq(block.slot),
        ]
        late = read_out.o
        for stage in range(1, self.LATENCY + 1):
            now, late = late, Event(SumsTag).create(path=(f"s{stage}_read_out",))
            m.d.sync += [late.valid.eq(now.valid), late.payload.eq(now.payload)]
        wiring.connect(m, late, wiring.flipped(self.read_out))

    def _decision(self) -> data.StructLayout:
        """Layout of what stage s0 knows of a step."""
        config, step = self._config, Step(self._config)
        apart = ("addr", "select", "enable", "weight", "place", "lane")
        windowed = {"bank": KernelEntry(config).members["addr"], "frequency": 5} \
            if config.window > 1 else {}
        return data.StructLayout({
            "tag": data.StructLayout({
                name: shape for name, shape in step.members.items() if name not in apart
            }),
            "frees": 1, "words": range(config.tile_depth + 1),
            "word": range(config.tile_depth), "weight": step.members["weight"],
            "select": data.ArrayLayout(8, config.kernel_lanes), "offset": 6, "skew": 3,
            "scatter": 1, "everyone": 1, **windowed,
        })

    def _steps(self, m: Module, go, decided) -> None:
        """Add the skew (s2), find each bank's group (s3), and its address (s4, the step).

        With a window the banks' addresses in the block are given; the places of the lanes are
        found (s3).
        """
        config, step = self._config, Step(self._config).members
        lanes, windowed = config.kernel_lanes, config.window > 1
        late = {name: decided.shape().members[name] for name in ("tag", "frees", "words", "word")}
        names = ["select", "enable", "weight", *(["lane"] if config.spread else [])]
        late.update({name: step[name] for name in names})
        if windowed:
            bank = {"bank": decided.shape().members["bank"]}
            place = {"place": step["place"]}
            own = [{**bank, "place": data.ArrayLayout(5, config.banks)}, {**bank, **place},
                   {"addr": step["addr"], **place}]
        else:
            own = [{"group": data.ArrayLayout(4, lanes)},
                   {"group": data.ArrayLayout(4, config.banks)}, {"addr": step["addr"]}]

        s1 = Signal(decided.shape(), reset_less=True)
        s2, s3, s4 = (
            Signal(data.StructLayout({**late, **parts}), name=f"s{stage}", reset_less=True)
            for stage, parts in enumerate(own, 2)
        )
        valids = [go, *(Signal(name=f"s{stage}_valid") for stage in range(1, self.LATENCY + 1))]
        m.d.sync += [after.eq(now) for now, after in zip(valids, valids[1:], strict=False)]

        m.d.sync += s1.eq(decided)

        m.d.sync += [s2[name].eq(s1[name]) for name in ("tag", "frees", "words", "word", "weight")]
        for lane in range(lanes):
            select = s1.select[lane]
            row = select[3:]
            if config.spread:
                m.d.sync += s2.lane[lane].eq(row)
                row = Mux(s1.tag.spread, row >> config.spread, row)
            m.d.sync += [
                s2.select[lane].eq(select[:3] + s1.skew),
                s2.enable[lane].eq(s1.everyone | (row == s1.offset)),
            ]

        m.d.sync += [s3[name].eq(s2[name]) for name in late]
        m.d.sync += [s4[name].eq(s3[name]) for name in late]
        if windowed:
            m.d.sync += [s2.bank.eq(s1.bank), s3.bank.eq(s2.bank), s4.place.eq(s3.place)]
            for bank in range(config.banks):
                m.d.sync += [
                    s2.place[bank].eq(Mux(s1.scatter, s1.bank[bank][:5], s1.frequency)),
                    s4.addr[bank].eq(s3.word + s3.bank[bank]),
                ]
            m.d.sync += [s3.place[lane].eq(s2.place[s2.select[lane]]) for lane in range(lanes)]
        else:
            for lane in range(lanes):
                m.d.sync += s2.group[lane].eq(Mux(s1.scatter, s1.select[lane][3:7], 0))
            for bank in range(config.banks):
                m.d.sync += [
                    s3.group[bank].eq(or_all(
                        Mux(s2.select[lane] == bank, s2.group[lane], 0) for lane in range(lanes)
                    )),
                    s4.addr[bank].eq(s3.word + (s3.group[bank] << 5)),
                ]

        names += ["addr", *(["place"] if windowed else [])]
        m.d.comb += [
            self.o.valid.eq(valids[-1]),
            self.freed.valid.eq(valids[-1] & s4.frees), self.freed.payload.eq(s4.words),
            *(self.o.payload[name].eq(s4.tag[name]) for name in s4.tag.shape().members),
            *(self.o.payload[name].eq(s4[name]) for name in names),
        ]

    def _count(self, m: Module, order: BlockOrder, go, active, blocked) -> None:
        """Count the cycles of a layer and report them two cycles after its last decision."""
        counts = Signal(data.ArrayLayout(32, 4))
        index = Signal(8)
        s1_done, s2_done = Signal(), Signal()
        s1_reasons = Signal(4)
        m.d.sync += [
            s1_reasons.eq(Cat(
                go,
                ~active & order.wait_tiles,
                active & ~self.entries.valid,
                Mux(active, self.entries.valid & blocked, order.wait_sums),
            )),
            s1_done.eq(order.done), s2_done.eq(s1_done),
            *(count.eq(Mux(s2_done, 0, count + reason))
              for count, reason in zip(counts, s1_reasons, strict=True)),
            index.eq(index + s2_done),
        ]
        m.d.comb += [
            self.stats.valid.eq(s2_done),
            self.stats.payload.layer.eq(index), self.stats.payload.counts.eq(counts),
        ]


def or_all(values):
    """Bitwise OR of values."""
    return functools.reduce(operator.or_, values)
