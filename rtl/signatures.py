"""Layouts and signatures at the borders of the blocks, in the order of the data's way."""

from __future__ import annotations

from amaranth.hdl import signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from model.config import BANK_ADDRESS_BITS, ROW_BITS, AcceleratorConfig
from model.descriptor import FIELDS

__all__ = [
    "Complex", "Descriptor", "ReadRequest", "ReadData", "WriteRequest", "MemorySignature",
    "FeatureReadSignature", "FeatureWrite", "RowPair", "TileTag", "Column", "Step",
    "KernelEntry", "SUM_SLOTS", "KernelParameters", "LaneSums", "SumsTag", "SumWrite",
    "LayerStats", "Event", "POSITION_BITS", "TileMarks", "StoreTag", "RowMarks", "SegmentRow",
    "Progress",
]


#: Blocks the sum buffer holds: with two, handing a slot back would cost time in every block.
SUM_SLOTS = 4


class Complex(data.StructLayout):
    """Two signed components of ``width`` bits; in a real word, two independent reals."""

    def __init__(self, width: int) -> None:
        super().__init__({"re": signed(width), "im": signed(width)})


#: Layer descriptor as it lies in the image (`model.descriptor.FIELDS`).
Descriptor = data.StructLayout({name: unsigned(bits) for name, bits in FIELDS})


class Event(wiring.Signature):
    """A valid-only transfer that its consumer always takes (fixed-latency datapaths)."""

    def __init__(self, shape) -> None:
        self.shape = shape
        super().__init__({"valid": Out(1), "payload": Out(shape)})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and self.shape == other.shape


# --- memory port ------------------------------------------------------------------------------

#: Burst of ``len``+1 beats from beat address ``addr`` (in beats of the port's width).
ReadRequest = data.StructLayout({"addr": 32, "len": 8})


def ReadData(port_bits: int) -> data.StructLayout:  # noqa: N802
    """Lay out a beat read; ``last`` ends a burst; ``error`` is a bus error."""
    return data.StructLayout({"data": port_bits, "last": 1, "error": 1})


def WriteRequest(port_bits: int) -> data.StructLayout:  # noqa: N802
    """Lay out a posted write of one beat."""
    return data.StructLayout({"addr": 32, "data": port_bits})


class MemorySignature(wiring.Signature):
    """Master side of a memory port of ``port_bits`` (in-order bursts of reads, posted writes).

    ``w_busy``: a write that was taken is not yet acknowledged (a memory that writes at once leaves
    it 0); ``w_error``: pulse, not later than the last cycle of ``w_busy``, a write failed;
    ``alive``: pulse, the memory did something that the port does not show (for the watchdog only).
    """

    def __init__(self, port_bits: int) -> None:
        super().__init__({
            "ar": Out(stream.Signature(ReadRequest)),
            "r": In(stream.Signature(ReadData(port_bits))),
            "w": Out(stream.Signature(WriteRequest(port_bits))),
            "w_busy": In(1), "w_error": In(1), "alive": In(1),
        })


# --- feature memory ---------------------------------------------------------------------------


class FeatureReadSignature(wiring.Signature):
    """Read of two map rows, 8 pixels each from an unaligned column; data 2 cycles after ``en``.

    ``even_addr``/``odd_addr``: row of the memory holding the first pixel, in the bank of even and
    of odd map rows; ``even_next``/``odd_next``: the rows behind, only looked at if ``offset`` is
    not 0; ``offset``: that pixel's byte. Pixel i lies at byte ``(offset+i) % 8`` of ``addr``, or of
    ``next`` from ``offset+i`` = 8 on.
    """

    #: Members that say what is read.
    PLACE = ("even_addr", "odd_addr", "even_next", "odd_next", "offset")

    def __init__(self) -> None:
        super().__init__({
            "en": Out(1), "even_addr": Out(ROW_BITS), "odd_addr": Out(ROW_BITS),
            "even_next": Out(ROW_BITS), "odd_next": Out(ROW_BITS), "offset": Out(3),
            "even": In(data.ArrayLayout(8, 8)), "odd": In(data.ArrayLayout(8, 8)),
        })


#: Write of ``count`` pixels from byte ``offset`` of row ``addr`` in bank ``parity``; past byte 7
#: it goes on at ``addr+1`` (plane) or, if ``vector``, in the other parity bank. ``pair``: also
#: ``below`` to the same place of the odd bank (``parity`` and ``vector`` are 0).
FeatureWrite = data.StructLayout({
    "addr": ROW_BITS, "parity": 1, "pair": 1, "offset": 3, "count": 4, "vector": 1,
    "data": data.ArrayLayout(8, 8), "below": data.ArrayLayout(8, 8),
})

# --- tiles in ---------------------------------------------------------------------------------

#: How far the layer being written is in one feature bank, counted in its local channels: of those
#: below ``channels_done`` all is written, of those below ``channels_open`` ``rows_done`` map rows,
#: of all ``rows_all``.
Progress = data.StructLayout({
    "channels_done": 13, "channels_open": 13, "rows_done": 10, "rows_all": 10,
})


def TileTag(config: AcceleratorConfig) -> data.StructLayout:  # noqa: N802
    """Where the words of a tile go; constant over the cycles of a tile."""
    return data.StructLayout({
        "lane": range(config.tile_lanes), "channel_low": 3, "addr": range(config.tile_depth),
        "bypass": 1, "block_last": 1,
    })


def RowPair(config: AcceleratorConfig) -> data.StructLayout:  # noqa: N802
    """Two adjacent tile rows of activations, extended to 9 bits signed, and the tile's tag."""
    return data.StructLayout({
        "rows": data.ArrayLayout(data.ArrayLayout(signed(config.act_bits + 1), 8), 2),
        "tag": TileTag(config),
    })


def Column(config: AcceleratorConfig) -> data.StructLayout:  # noqa: N802
    """Eight spectral words, f = 8·index + u for u = 0..7 (or eight vector words if bypass)."""
    return data.StructLayout({
        "words": data.ArrayLayout(Complex(config.word_bits), 8), "index": 2,
        "tag": TileTag(config),
    })


# --- multiply-accumulate ----------------------------------------------------------------------


#: Bias (added to the 18-bit result) and requantisation multiplier of one kernel.
KernelParameters = data.StructLayout({"bias": signed(18), "multiplier": 14})


def KernelEntry(config: AcceleratorConfig) -> data.StructLayout:  # noqa: N802
    """One entry of the kernel stream: a weight and a zero-extended select per kernel lane.

    With a window also each bank's address in the block, and whether the entry is its last.
    """
    windowed = {"addr": data.ArrayLayout(BANK_ADDRESS_BITS, config.banks), "last": 1}
    return data.StructLayout({
        "weight": data.ArrayLayout(Complex(config.weight_bits), config.kernel_lanes),
        "select": data.ArrayLayout(8, config.kernel_lanes),
    } | (windowed if config.window > 1 else {}))


def Step(config: AcceleratorConfig) -> data.StructLayout:  # noqa: N802
    """One step of the array: bank addresses, and per kernel lane select, enable and weight.

    With ``spread`` a kernel lane takes the word of one tile lane, ``lane``, only.
    """
    lanes = config.kernel_lanes
    common = {
        "addr": data.ArrayLayout(range(config.tile_depth), config.banks),
        "select": data.ArrayLayout(3, lanes),       # bank, after the skew
        "enable": data.ArrayLayout(1, lanes),
        "weight": data.ArrayLayout(Complex(config.weight_bits), lanes),
        "dot": 1,
    }
    if config.spread:
        common["lane"] = data.ArrayLayout(config.spread, lanes)
    if config.window > 1:
        # Place of the accumulator file: the word's frequency.
        return data.StructLayout(common | {
            "place": data.ArrayLayout(range(config.window), lanes),
        })
    return data.StructLayout(common | {
        "real": 1,          # elementwise product of two reals (real words, dot layers)
        "spread": 1,        # the words of a row lie in several tile lanes
        "first": 1,         # load the accumulators instead of adding
        "last": 1,          # the sums are complete after this step
        "sum_shift": 6,
        "frequency": 5, "slot": range(SUM_SLOTS),
        "block_last": 1,
    })


#: Tag of complete sums of one frequency; ``spread``: the tile lanes' sums belong together.
SumsTag = data.StructLayout({
    "real": 1, "dot": 1, "spread": 1, "sum_shift": 6, "frequency": 5, "slot": range(SUM_SLOTS),
    "block_last": 1,
})


class LaneSums(wiring.Signature):
    """Complete sums of one frequency: a valid-only transfer of all accumulators.

    ``acc[p]``: a1, a2, a3 of every kernel lane of tile lane p; a port each, since Amaranth limits
    a signal to 65536 bits. Those of kernels D·q to D·q + D - 1, D being ``drained``, are there q
    cycles after ``valid``.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        lane = data.ArrayLayout(signed(config.acc_bits), 3)
        super().__init__({
            "valid": Out(1), "payload": Out(SumsTag),
            "acc": Out(data.ArrayLayout(lane, config.kernel_lanes)).array(config.tile_lanes),
        })

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LaneSums) and self._config == other._config


def SumWrite(config: AcceleratorConfig) -> data.StructLayout:  # noqa: N802
    """D = ``drained`` rounded sums (kernels D·quad and up) of one frequency for every tile lane."""
    return data.StructLayout({
        "sums": data.ArrayLayout(
            data.ArrayLayout(Complex(config.sum_bits), config.drained), config.tile_lanes
        ),
        "frequency": 5, "quad": range(max(2, config.kernel_lanes // config.drained)),
        "slot": range(SUM_SLOTS),
        "block_last": 1,    # last word of a block: its slot of the sum buffer is complete
    })


# --- maps out ---------------------------------------------------------------------------------

#: Bits of a position: a byte of the feature memory's linear image (row, parity bank, byte).
POSITION_BITS = ROW_BITS + 4

#: What follows the last row of a tile: the kernel's channel is complete (``commit``), the lanes go
#: to other tiles (``advance``), those of the next group of tile blocks (``turn``), the feature
#: bank's part of the layer ends (``layer_last``). ``final``: the tile is of the last group.
TileMarks = data.StructLayout({"commit": 1, "final": 1, "advance": 1, "turn": 1, "layer_last": 1})

#: Travels with a tile of sums through the inverse FFT; ``base``: where the kernel's map begins.
StoreTag = data.StructLayout({
    "bias": signed(18), "multiplier": 14, "base": POSITION_BITS, "marks": TileMarks,
})

#: A row of a tile: is it the tile's last (only then ``tile`` is not zero)?
RowMarks = data.StructLayout({"tile_last": 1, "tile": TileMarks, "base": POSITION_BITS})


def SegmentRow(config: AcceleratorConfig) -> data.StructLayout:  # noqa: N802
    """Row of results of the tiles of all lanes: a segment of 8 or ``post_values`` bytes each.

    With two rows per cycle also the row ``below``, if ``pair``; the first is then an even map row.
    """
    segment = 8 if config.feature_banks == 1 else config.post_values
    row = data.ArrayLayout(data.ArrayLayout(8, segment), config.tile_lanes)
    return data.StructLayout({
        "marks": RowMarks, "bytes": row,
        **({"pair": 1, "below": row} if config.inverse_rows > 1 else {}),
    })


#: Per-layer counters a unit reports when it ends a layer.
LayerStats = data.StructLayout({"layer": 8, "counts": data.ArrayLayout(32, 4)})
