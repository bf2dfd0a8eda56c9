"""The ring of the tile buffer: no word is read before its block is written, or overwritten before.

`RingSpace` (the Loader's) and `BlockOrder` (the issue unit's) are real. The walks between them are
abstract: a loader writes the words of one block after the other at any pace and announces each
block, an array reads any words of the block at hand for as long as it likes. Instead of data every
word holds the number of the block it belongs to. Two dot layers of free shape, so that a block has
one or two words in a ring of four.
"""

from types import SimpleNamespace

import pytest
from amaranth.hdl import Array, Assert, Assume, Module, Signal

from rtl.blockorder import BlockOrder
from rtl.ringspace import RingSpace
from tests.formal.helpers import FROM_SCRATCH, assert_formal

pytestmark = pytest.mark.formal

RING, LAYERS = 4, 2
DEEP = 14
MAPPED = "prep -flatten; memory_map"


class Shape:
    """Free numbers of a layer within what the compiler lets through."""

    def __init__(self, m, index, inputs):
        self.words, self.blocks, self.kernels, self.resident = fixed = [
            Signal(2, name=f"{name}{index}") for name in ("words", "blocks", "kernels", "resident")
        ]
        for signal in fixed:
            held = Signal.like(signal, name=f"held_{signal.name}")
            started = Signal(name=f"started_{signal.name}")
            m.d.sync += [held.eq(signal), started.eq(1)]
            m.d.comb += Assume(~started | (held == signal))
        inputs += fixed
        m.d.comb += [
            Assume((self.words == 1) | (self.words == 2)), Assume(self.blocks != 0),
            Assume((self.kernels == 1) | (self.kernels == 2)),
            Assume((self.resident != 0) & (self.resident <= self.blocks)),
            # Tiles that stay must fit.
            Assume((self.kernels == 1) | (self.words * self.resident <= RING)),
        ]


class Spec:
    """Loader, ring and array around the two real units."""

    def __init__(self, order=BlockOrder, space=RingSpace, *, gap=True):
        self.m = m = Module()
        m.submodules.order = self.order = order(SimpleNamespace(tile_depth=RING))
        m.submodules.space = self.space = space(depth=RING, word_bits=3)
        self.inputs = []
        self.layers = [Shape(m, index, self.inputs) for index in range(LAYERS)]
        # Number of the block a word belongs to; complete blocks.
        self.held = Array(Signal(3, name=f"held{word}") for word in range(RING))
        self._gap = gap
        self._load()
        self._issue()

    def _of(self, layer, name):
        return Array(getattr(shape, name) for shape in self.layers)[layer]

    def _load(self):
        m, space = self.m, self.space
        goes = Signal()
        self.inputs.append(goes)
        layer, block, word = Signal(2), Signal(2), Signal(2)
        number, at = Signal(3, init=1), Signal(range(RING))
        settled = Signal()      # a cycle has passed since the last block or layer began
        words = self._of(layer[:1], "words")
        begins, writes, ends = Signal(), Signal(), Signal()
        m.d.comb += [
            space.words.eq(words),
            begins.eq((layer != LAYERS) & (word == 0) & goes & space.fits
                      & (settled if self._gap else 1)),
            writes.eq(begins | ((layer != LAYERS) & (word != 0) & goes)),
            ends.eq(writes & (word == words - 1)),
            space.take.eq(begins),
        ]
        m.d.sync += [settled.eq(~begins & ~ends), self.order.block_loaded.eq(ends)]
        with m.If(writes):
            m.d.sync += [self.held[at].eq(number), at.eq(at + 1), word.eq(word + 1)]
        with m.If(ends):
            m.d.sync += [word.eq(0), number.eq(number + 1), block.eq(block + 1)]
            with m.If(block == self._of(layer[:1], "blocks") - 1):
                m.d.sync += [block.eq(0), layer.eq(layer + 1)]

    def _issue(self):
        m, order = self.m, self.order
        reads, finishes, offset, ends = Signal(), Signal(), Signal(), Signal()
        self.inputs += [reads, finishes, offset]
        # The layers, one after the other.
        given = Signal(2)
        m.d.comb += [
            order.desc.valid.eq(given != LAYERS), order.slot_free.eq(ends),
            order.desc.payload.dot.eq(1),
            *(order.desc.payload[field].eq(self._of(given[:1], name)) for field, name in (
                ("groups", "words"), ("tile_blocks", "blocks"), ("kernel_blocks", "kernels"),
                ("resident", "resident"))),
        ]
        with m.If(order.desc.valid & order.desc.ready):
            m.d.sync += given.eq(given + 1)

        # The block at hand, and by the definition of the two orders which one it must be.
        active, expected, first = Signal(), Signal(3), Signal(3, init=1)
        kernel, tile, layer, group = Signal(2), Signal(2), Signal(2), Signal(2)
        block = Signal(order.o.payload.shape())
        blocks, kernels = self._of(layer[:1], "blocks"), self._of(layer[:1], "kernels")
        resident = self._of(layer[:1], "resident")
        m.d.comb += [
            ends.eq(active & finishes), order.o.ready.eq(~active | ends),
            order.done.eq(ends & block.layer_last),
        ]
        with m.If(order.o.ready):
            m.d.sync += [active.eq(order.o.valid), block.eq(order.o.payload)]
        with m.If(order.o.valid & order.o.ready):
            # Group by group its kernel blocks, for each of these its tile blocks.
            m.d.sync += [expected.eq(first + tile), tile.eq(tile + 1)]
            kernel_end = kernel == kernels - 1
            with m.If((tile == group + resident - 1) | (tile == blocks - 1)):
                m.d.sync += [tile.eq(group), kernel.eq(kernel + 1)]
                with m.If(kernel_end):
                    m.d.sync += [kernel.eq(0), tile.eq(tile + 1), group.eq(tile + 1)]
                    with m.If(tile == blocks - 1):
                        m.d.sync += [tile.eq(0), group.eq(0), layer.eq(layer + 1),
                                     first.eq(first + blocks)]
        # A read and what is given back are at the RAM a cycle later.
        s1_read, s1_at, s1_expected = Signal(), Signal(range(RING)), Signal(3)
        freed = self.space.freed
        m.d.sync += [
            s1_read.eq(active & reads & (offset < block.words)), s1_at.eq(block.base + offset),
            s1_expected.eq(expected),
            freed.valid.eq(ends & block.frees), freed.payload.eq(block.words),
        ]
        m.d.comb += Assert(~s1_read | (self.held[s1_at] == s1_expected))


def test_every_word_read_is_of_its_block(tmp_path):
    spec = Spec()
    assert_formal(spec.m, spec.inputs, tmp_path, depth=DEEP, engine=FROM_SCRATCH, passes=MAPPED)


class Eager(BlockOrder):
    """Hands a block out before its tiles are there."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        waiting = Signal()
        m.d.comb += waiting.eq(self.wait_tiles)
        with m.If(waiting):
            m.d.comb += self.o.valid.eq(1)
        return m


class Generous(BlockOrder):
    """Gives a tile block back with every kernel block."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.o.payload.frees.eq(1)
        return m


class Careless(RingSpace):
    """Lets the Loader begin whatever is free."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.sync += self.fits.eq(1)
        return m


@pytest.mark.parametrize("fault", [{"order": Eager}, {"order": Generous}, {"space": Careless},
                                   {"gap": False}])
def test_a_planted_fault_is_found(fault, tmp_path):
    """The last one: a block that begins in the cycle after another.

    All but the first need words that are used again, so the bound reaches that.
    """
    spec = Spec(**fault)
    with pytest.raises(AssertionError, match=r"^property fails \(exit 2\)"):
        assert_formal(spec.m, spec.inputs, tmp_path, depth=DEEP, engine=FROM_SCRATCH,
                      passes=MAPPED)
