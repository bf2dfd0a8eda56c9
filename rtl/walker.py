"""Where the tiles of a block go: one walk over the tiles of a map, for the writers of all banks.

The places of a tile block's lanes are a set. Sets lie in a ring of LUT RAM, of which every bank has
a copy. Two are enough for one writer (one in use, one in reserve); the writers of several feature
banks reach the end of a tile block one after the other, so that up to three sets are in use.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from model.config import AcceleratorConfig
from rtl.blockorder import next_group
from rtl.signatures import Descriptor

__all__ = ["TilePlace", "TileWalker", "writing_lanes"]

#: Bits of a position relative to the map: a byte, even and odd rows in turns of eight.
PLACE_BITS = 20

#: Where a tile goes: position of its first value in the map, and how many rows of how many bytes of
#: it lie inside the map; ``odd``: it starts at an odd row of a plane.
TilePlace = data.StructLayout({"position": PLACE_BITS, "odd": 1, "bytes": 4, "rows": 4})


def writing_lanes(config: AcceleratorConfig, layer):
    """Tile lanes that have something to write: all, in a dot layer one for each of its images."""
    return Mux(layer.dot, layer.tiles, config.tile_lanes)[:ceil_log2(config.tile_lanes + 1)]


class TileWalker(wiring.Component):
    """Places of the tiles of a block, one per lane, and of the next block in reserve.

    One tile per cycle; a set is ready P' + 2 cycles after it was begun, and the next one may begin
    P' + 1 cycles after it.  A set is begun as soon as the last bank has left an older one.
    ``rotate``, ``advance``, ``reserve`` and ``spare`` have a bit per feature bank.

    Parameters
    ----------
    config : AcceleratorConfig
        P' tile lanes, F feature banks.

    Attributes
    ----------
    layer : In(Descriptor)
        Constant from ``begin`` on.
    begin : In(1)
        Start at tile 0; the first places are there 2·P' + 5 cycles later at most.
    rotate : In(F)
        To the next of the `writing_lanes`.
    advance : In(F)
        To other tiles (instead of ``rotate`` for the last lane): those of the next tile block of
        the group; after the last one of the group's first again, or, if all kernel blocks have
        passed or it is the only one, of the next group's.
    reserve : In(F)
        Announces an ``advance``, only while ``spare``.
    spare : Out(F)
        The next block's places are there and this bank has not reserved them.
    rows : Out(F x 10)
        Map rows that lie wholly in the blocks before the bank's current one.
    o : Out(F x TilePlace)
        Place of the tile of the bank's current lane.
    """

    def __init__(self, *, config: AcceleratorConfig) -> None:
        self._config = config
        self._lanes = config.tile_lanes
        self._banks = banks = config.feature_banks
        super().__init__({
            "layer": In(Descriptor),
            "begin": In(1),
            "rotate": In(banks),
            "advance": In(banks),
            "reserve": In(banks),
            "spare": Out(banks),
            "rows": Out(data.ArrayLayout(10, banks)),
            "o": Out(data.ArrayLayout(TilePlace, banks)),
        })

    def elaborate(self, platform) -> Module:
        """Build the walk over the tiles, the ring of sets and each bank's way through it."""
        m = Module()
        sets = 2 if self._banks == 1 else 4
        set_bits = exact_log2(sets)
        depth = sets << ceil_log2(self._lanes)
        w_en, w_addr, w_place = Signal(), Signal(range(depth)), Signal(TilePlace)
        rows = Signal(data.ArrayLayout(10, sets))
        released = Signal()         # every bank has left the oldest set
        filled = Signal()           # a set is complete
        self._walk(m, w_en, w_addr, w_place, rows, released, filled, set_bits)

        # The set under way when a layer begins is every bank's current one.
        first = Signal()
        with m.If(filled):
            m.d.sync += first.eq(0)
        with m.If(self.begin):
            m.d.sync += first.eq(1)

        lane_end = Signal(range(self._lanes))
        m.d.sync += lane_end.eq(writing_lanes(self._config, self.layer) - 1)
        gone = Signal(self._banks)
        m.d.comb += released.eq(gone.all())
        for bank in range(self._banks):
            # Not one memory with many ports: yosys tries all combinations of these.
            memory = Memory(shape=TilePlace, depth=depth, init=[])
            m.submodules[f"places{bank}"] = memory
            write, read = memory.write_port(), memory.read_port(domain="comb")
            ready = Signal(range(sets), name=f"ready{bank}")    # sets in reserve
            lead = Signal(range(sets), name=f"lead{bank}")      # sets left that others have not
            here = Signal(set_bits, name=f"set{bank}")
            lane = Signal(range(self._lanes), name=f"lane{bank}")
            here_next, lane_next = Signal.like(here), Signal.like(lane)
            rotate, advance = self.rotate[bank], self.advance[bank]
            m.d.comb += [
                write.en.eq(w_en), write.addr.eq(w_addr), write.data.eq(w_place),
                here_next.eq(here + advance),
                lane_next.eq(lane),
                read.addr.eq(Cat(lane_next, here_next)),
                self.spare[bank].eq(ready != 0),
                self.rows[bank].eq(rows[here]),
                gone[bank].eq((lead != 0) | advance),
            ]
            with m.If(rotate):
                m.d.comb += lane_next.eq(Mux(lane == lane_end, 0, lane + 1))
            with m.If(advance):
                m.d.comb += lane_next.eq(0)
            m.d.sync += [
                here.eq(here_next),
                lane.eq(lane_next),
                self.o[bank].eq(read.data),
                ready.eq(ready + (filled & ~first) - self.reserve[bank]),
                lead.eq(lead + advance - released),
            ]
            with m.If(self.begin):
                m.d.sync += [here.eq(0), lane.eq(0), ready.eq(0), lead.eq(0)]
        return m

    def _walk(self, m: Module, w_en, w_addr, place, rows, released, filled,
              set_bits: int) -> None:
        """Write the places of set after set while there is room for one."""
        layer = self.layer

        # s0: walk over the tiles.
        s0_valid = Signal()
        s0_set = Signal(set_bits)
        room = Signal(range((1 << set_bits) + 1))   # sets not begun
        lane = Signal(range(self._lanes))
        blocks_after = Signal(16)                   # tile blocks of the group after this one
        size, rest = Signal(16), Signal(16)         # tile blocks of the group (less one), of others
        kernels_after = Signal(13)                  # kernel blocks after this one
        tile = Signal(data.StructLayout({
            "number": 17, "row_left": 10, "row_last": 1, "x": 11, "y": 11,
            "y_position": PLACE_BITS,
        }))
        following = Signal.like(tile)
        group = Signal.like(tile)                   # first tile of the group
        lane_last, start, done = Signal(), Signal(), Signal()
        m.d.comb += [
            lane_last.eq(lane == self._lanes - 1),
            start.eq(~s0_valid & ((room != 0) | released)),
        ]
        m.d.sync += [room.eq(room + released - start), done.eq(s0_valid & lane_last)]
        # Of the set being begun: its state is there since the cycle before at least.
        block_last, kernel_last = Signal(), Signal()
        next_size, next_rest = Signal(16), Signal(16)
        following_size, following_rest = next_group(rest, layer.resident)
        one_column = Signal()
        m.d.sync += [
            block_last.eq(blocks_after == 0),
            kernel_last.eq((kernels_after == 0) | (size == 0)),
            next_size.eq(following_size - 1), next_rest.eq(following_rest),
            one_column.eq(layer.tiles_x == 1),
        ]
        m.d.comb += [following.eq(tile), following.number.eq(tile.number + 1)]
        with m.If(tile.row_last):
            m.d.comb += [
                following.row_left.eq(layer.tiles_x),
                following.row_last.eq(one_column),
                following.x.eq(0),
                following.y.eq(tile.y + layer.out_step),
                following.y_position.eq(tile.y_position + layer.out_tile_row),
            ]
        with m.Else():
            m.d.comb += [
                following.row_left.eq(tile.row_left - 1),
                following.row_last.eq(tile.row_left == 2),
                following.x.eq(tile.x + layer.out_step),
            ]
        with m.If(s0_valid):
            m.d.sync += [lane.eq(lane + 1), tile.eq(following)]
            with m.If(lane == 0):
                m.d.sync += rows[s0_set].eq(tile.y)
            with m.If(lane_last):
                m.d.sync += [s0_valid.eq(0), s0_set.eq(s0_set + 1), lane.eq(0)]
        # No set is walked in the cycle after the end of one: it is the time to turn back or go on.
        with m.If(done):
            m.d.sync += blocks_after.eq(blocks_after - 1)
            with m.If(block_last):
                m.d.sync += [kernels_after.eq(kernels_after - 1), blocks_after.eq(size)]
                with m.If(kernel_last):
                    m.d.sync += [
                        kernels_after.eq(layer.kernel_blocks - 1), blocks_after.eq(next_size),
                        size.eq(next_size), rest.eq(next_rest), group.eq(tile),
                    ]
                with m.Else():
                    m.d.sync += tile.eq(group)
        with m.If(start):
            m.d.sync += s0_valid.eq(1)

        # s1: distances to the map's end, offset of the map row.
        s1_valid = Signal()
        s1_last = Signal()
        s1_addr = Signal.like(w_addr, reset_less=True)
        s1_inside = Signal(reset_less=True)
        s1_x = Signal(11, reset_less=True)
        s1_odd = Signal(reset_less=True)
        s1_row = Signal(PLACE_BITS, reset_less=True)
        s1_columns = Signal(signed(12), reset_less=True)
        s1_rows = Signal(signed(12), reset_less=True)
        plane_row = Signal(16)
        m.d.comb += plane_row.eq(tile.y[1:] << layer.out_row_log2)
        m.d.sync += [
            s1_valid.eq(s0_valid),
            s1_last.eq(s0_valid & lane_last),
            s1_addr.eq(Cat(lane, s0_set)),
            s1_inside.eq(tile.number < layer.tiles),
            s1_x.eq(tile.x),
            s1_odd.eq(tile.y[0] & ~layer.out_vector),
            s1_row.eq(Mux(layer.out_vector, tile.y_position, plane_row)),
            s1_columns.eq(layer.out_width - tile.x),
            s1_rows.eq(layer.out_height - tile.y),
        ]

        # s2: position and clipped size.
        def clipped(left):
            outside = ~s1_inside | left[-1]
            return Mux(outside, 0, Mux(left > layer.out_step, layer.out_step, left[:4]))[:4]

        with m.If(layer.out_vector):
            m.d.comb += place.position.eq((s1_row + s1_x) << layer.out_wide)
        with m.Else():
            m.d.comb += place.position.eq(
                Cat(s1_x[:3], s1_odd, (s1_row[:16] + s1_x[3:])[:16])
            )
        m.d.comb += [
            place.odd.eq(s1_odd),
            place.bytes.eq(clipped(s1_columns) << layer.out_wide),
            place.rows.eq(clipped(s1_rows)),
            w_en.eq(s1_valid), w_addr.eq(s1_addr),
        ]
        m.d.sync += filled.eq(s1_last)

        with m.If(self.begin):
            m.d.sync += [
                s0_valid.eq(1), s0_set.eq(0), s1_valid.eq(0), s1_last.eq(0), filled.eq(0),
                room.eq((1 << set_bits) - 1), lane.eq(0), done.eq(0),
                blocks_after.eq(layer.resident - 1), size.eq(layer.resident - 1),
                kernels_after.eq(layer.kernel_blocks - 1),
                rest.eq(layer.tile_blocks - layer.resident),
                tile.eq(0), group.eq(0),
                tile.row_left.eq(layer.tiles_x), group.row_left.eq(layer.tiles_x),
                tile.row_last.eq(layer.tiles_x == 1), group.row_last.eq(layer.tiles_x == 1),
            ]
