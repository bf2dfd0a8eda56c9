"""The one configuration object from which both the golden model and the RTL are built.

Symbols follow FPGA 2020 ("Reuse Kernels or Activations?"): P' tile lanes, N' kernel lanes,
r banks of spectral inputs per tile lane.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.errors import UserError

__all__ = ["AcceleratorConfig", "BANK_ADDRESS_BITS", "POST_SHIFT", "PRESETS", "ROW_BITS",
           "load_config"]

#: Fraction bits dropped (rounded) between the 24-bit inverse FFT and the 18-bit result. The sum
#: at frequency 0 alone reaches the mean of a tile, so most of the growth is headroom.
POST_SHIFT = 2

#: Bits of a row address of the feature memory.
ROW_BITS = 20

#: Bits of a bank's address in an entry for a window: a frequency, and which of 128 channels.
BANK_ADDRESS_BITS = 12

#: Names of files and folders everywhere.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


@dataclass(frozen=True, kw_only=True)
class AcceleratorConfig:
    """Parameters of one accelerator.

    Parameters
    ----------
    name : str
        Short id, used for file names: letters, digits, ``.``, ``_``, ``-``; no ``.`` in front.
    tile_lanes : int
        P', spatial tiles multiplied in parallel (weights are broadcast along them).
    kernel_lanes : int
        N', output channels computed in parallel (inputs are broadcast along them).
    weight_bits : int
        8 or 16: width of the real and of the imaginary part of a spectral weight.
    acc_bits : int
        Width of each of the three accumulators of a lane.
    tile_depth : int
        Words of each of the r banks of a tile lane (a ring shared by consecutive blocks).
    kernel_depth : int
        Rows of the kernel buffer; one row is the weights of one step for all kernel lanes.
    select_depth : int
        Beats of the select buffer.
    feature_depth : int
        Rows of the on-chip feature memory, a multiple of 64; a row is 16 activations.
    onchip_kib : int
        Size of the on-chip program memory of the board top, in KiB; 0 leaves the port open.
    max_layers : int
        Descriptors the core can hold.
    clock_hz : int
        Clock the figures in seconds refer to.
    tile : int
        K, edge of the FFT tile.
    banks : int
        r, input channels presented per cycle.
    act_bits, word_bits, sum_bits : int
        Activation; component of a forward spectral word; component into the inverse FFT.
    forward_rows : int
        Tile rows the forward FFT takes per cycle (the core is built for two).
    inverse_rows : int
        R: tile rows the inverse FFT gives per cycle, and so many times four sums the drain takes of
        a tile lane. 1, or 2 with several feature banks (then kernel sizes are odd).
    port_bits : int
        Width of the memory port, a power of two from 64 to 2048.
    feature_banks : int
        F: channels whose maps are read, transformed and written at the same time; channel c lies in
        feature bank c mod F. 1, or 8 or 16.
    post_values : int
        Values of each tile row that a tile lane requantises per cycle; 1 if ``feature_banks`` is 1,
        else at least the output step of every layer.
    ultra_ram : int
        1 asks the vendor's tool to put tile and kernel buffers into UltraRAM (UltraScale+).
    window : int
        Accumulators of each sum of a lane: 1, or ``words``, a file with a place for every
        frequency, which irregular patterns need to keep the lanes busy.
    dot_lanes : int
        Tile lanes that share the input of a fully connected layer, a power of two: as many rows of
        8 words are searched by one step for the word a kernel lane has a weight for. More than 1
        needs several feature banks and no window.
    map_pool : int
        1 builds the unit that pools finished maps (any window, average, global: `model.mappool`)
        and adds to them (`model.mapadd`).
    """

    name: str
    tile_lanes: int
    kernel_lanes: int
    weight_bits: int = 8
    acc_bits: int = 32
    tile_depth: int = 512
    kernel_depth: int = 1024
    select_depth: int = 512
    feature_depth: int = 2048
    onchip_kib: int = 0
    max_layers: int = 16
    clock_hz: int = 100_000_000
    tile: int = 8
    banks: int = 8
    act_bits: int = 8
    word_bits: int = 16
    sum_bits: int = 18
    forward_rows: int = 2
    inverse_rows: int = 1
    port_bits: int = 64
    feature_banks: int = 1
    post_values: int = 1
    ultra_ram: int = 0
    window: int = 1
    dot_lanes: int = 1
    map_pool: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "name":
                if not isinstance(value, str) or not value:
                    raise TypeError(f"name must be a non-empty string, not {value!r}")
                if not _NAME.fullmatch(value):
                    raise ValueError("name must be made of letters, digits, '.', '_' and '-', and "
                                     f"not begin with '.', not {value!r}")
            elif not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{field.name} must be an integer, not {value!r}")
            elif value < (0 if field.name in ("onchip_kib", "ultra_ram", "map_pool") else 1):
                raise ValueError(f"{field.name} must be positive, not {value!r}")
        for field_name in ("tile_depth", "kernel_depth", "select_depth"):
            value = getattr(self, field_name)
            if not _is_power_of_two(value) or value < 64:
                raise ValueError(
                    f"{field_name} must be a power of two of at least 64, not {value!r}"
                )
        if self.feature_depth % 64:
            raise ValueError(
                f"feature_depth must be a multiple of 64, not {self.feature_depth!r}"
            )
        if self.feature_depth > 1 << ROW_BITS:
            raise ValueError(
                f"feature_depth must be at most {1 << ROW_BITS}, not {self.feature_depth!r}"
            )
        if self.ultra_ram not in (0, 1):
            raise ValueError(f"ultra_ram must be 0 or 1, not {self.ultra_ram!r}")
        if self.map_pool not in (0, 1):
            raise ValueError(f"map_pool must be 0 or 1, not {self.map_pool!r}")
        if self.max_layers > 32:
            raise ValueError(
                f"max_layers must be at most 32 for the profile table, not {self.max_layers!r}"
            )
        self._fixed("tile", 8)
        self._fixed("banks", 8)
        self._fixed("act_bits", 8)
        self._fixed("word_bits", 16)
        self._fixed("sum_bits", 18)
        self._fixed("forward_rows", 2)
        if not _is_power_of_two(self.port_bits) or not 64 <= self.port_bits <= 2048:
            raise ValueError(
                f"port_bits must be a power of two from 64 to 2048, not {self.port_bits!r}"
            )
        if self.feature_banks not in (1, 8, 16):
            raise ValueError(f"feature_banks must be 1, 8 or 16, not {self.feature_banks!r}")
        if self.kernel_lanes % self.feature_banks:
            raise ValueError(
                f"kernel_lanes must be a multiple of feature_banks = {self.feature_banks}, "
                f"not {self.kernel_lanes!r}"
            )
        if self.port_bits > 128 * self.feature_banks:
            raise ValueError(
                f"port_bits must be at most {128 * self.feature_banks}, a row of every feature "
                f"bank, not {self.port_bits!r}"
            )
        if self.feature_banks * self.feature_depth > 1 << ROW_BITS:
            raise ValueError(
                f"feature_depth must be at most {(1 << ROW_BITS) // self.feature_banks} with "
                f"{self.feature_banks} feature banks, not {self.feature_depth!r}"
            )
        if self.post_values > self.tile or (self.feature_banks == 1) != (self.post_values == 1):
            raise ValueError(
                "post_values must be 1 with one feature bank and 2 to 8 with several, not "
                f"{self.post_values!r}"
            )
        if self.inverse_rows not in ((1,) if self.feature_banks == 1 else (1, 2)):
            raise ValueError(
                "inverse_rows must be 1, or 2 with several feature banks, not "
                f"{self.inverse_rows!r}"
            )
        if self.weight_bits not in (8, 16):
            raise ValueError(f"weight_bits must be 8 or 16, not {self.weight_bits!r}")
        if not _is_power_of_two(self.kernel_lanes) or self.kernel_lanes < self.drained:
            raise ValueError(
                f"kernel_lanes must be a power of two of at least {self.drained} (the drain takes "
                f"so many sums per cycle), not {self.kernel_lanes!r}"
            )
        if self.kernel_lanes > 64:
            raise ValueError("kernel_lanes must be at most 64 for the descriptor's lanes_last, "
                             f"not {self.kernel_lanes!r}")
        if self.kernel_lanes * 8 > self.port_bits:
            raise ValueError(
                f"kernel_lanes must be at most {self.port_bits // 8} so that one beat selects "
                f"for every lane, not {self.kernel_lanes!r}"
            )
        if self.port_bits > self.kernel_lanes * 2 * self.weight_bits:
            raise ValueError(
                f"port_bits must be at most {self.kernel_lanes * 2 * self.weight_bits}, the "
                f"weights of one entry, not {self.port_bits!r}"
            )
        if self.tile_lanes > 16:
            raise ValueError(f"tile_lanes must be at most 16, not {self.tile_lanes!r}")
        if not 26 <= self.acc_bits <= 48:
            raise ValueError(f"acc_bits must be 26 to 48, not {self.acc_bits!r}")
        if self.window not in (1, self.words):
            raise ValueError(f"window must be 1 or {self.words}, not {self.window!r}")
        if not _is_power_of_two(self.dot_lanes) or self.dot_lanes > self.tile_lanes:
            raise ValueError(f"dot_lanes must be a power of two of at most tile_lanes = "
                             f"{self.tile_lanes}, not {self.dot_lanes!r}")
        if self.dot_lanes > 1 and (self.feature_banks == 1 or self.window > 1):
            raise ValueError("dot_lanes must be 1 with one feature bank and with a window, not "
                             f"{self.dot_lanes!r}")
        if self.window > 1 and self.window_select_bits > self.port_bits:
            raise ValueError(
                f"port_bits must be at least {self.window_select_bits} for a window, so that one "
                f"beat selects for every lane, not {self.port_bits!r}"
            )

    def _fixed(self, field: str, value: int) -> None:
        if getattr(self, field) != value:
            raise ValueError(f"{field} must be {value} in this version, not {getattr(self, field)}")

    @property
    def words(self) -> int:
        """Complex words of a half-plane tile, K²/2."""
        return self.tile * self.tile // 2

    @property
    def port_words(self) -> int:
        """64-bit words of a port beat."""
        return self.port_bits // 64

    @property
    def map_row_beats(self) -> int:
        """Port beats of a row of a map: 16 activations in every feature bank."""
        return self.feature_banks * 16 * self.act_bits // self.port_bits

    @property
    def row_beats(self) -> int:
        """Port beats of one full kernel-buffer row."""
        return self.kernel_lanes * 2 * self.weight_bits // self.port_bits

    @property
    def spread(self) -> int:
        """Bits that name one of the ``dot_lanes`` tile lanes."""
        return self.dot_lanes.bit_length() - 1

    @property
    def drained(self) -> int:
        """D, kernels whose sums leave a tile lane per cycle, and words the inverse FFT takes."""
        return 4 * self.inverse_rows

    @property
    def drain_interval(self) -> int:
        """Cycles in which the drain takes the sums of a frequency."""
        return self.kernel_lanes // self.drained

    @property
    def window_select_bits(self) -> int:
        """Bits of an entry besides its weights: bank of every lane, address of every bank, end."""
        return 3 * self.kernel_lanes + BANK_ADDRESS_BITS * self.banks + 1

    @property
    def multipliers(self) -> int:
        """Three per complex lane, the requantisers of every tile lane, and one per pooled bank."""
        return (self.tile_lanes * (3 * self.kernel_lanes + self.inverse_rows * self.post_values)
                + self.map_pool * self.feature_banks)

    @property
    def digest(self) -> int:
        """32 bits of the SHA-256 of every field that changes the program image or the core."""
        fields = dataclasses.asdict(self)
        for presentation in ("name", "clock_hz", "onchip_kib", "ultra_ram"):
            del fields[presentation]
        text = json.dumps(fields, sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")

    def to_json(self) -> str:
        """Serialise; `from_json` gives the equal object back."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> AcceleratorConfig:
        """Read what `to_json` wrote; unknown or missing fields raise `ValueError`."""
        data: dict[str, Any] = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError(f"a config is a JSON object, not {type(data).__name__}")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(data) - known):
            raise ValueError(f"unknown config field {unknown[0]!r}; known: {sorted(known)}")
        required = {
            field.name
            for field in dataclasses.fields(cls)
            if field.default is dataclasses.MISSING
        }
        if missing := sorted(required - set(data)):
            raise ValueError(f"config field {missing[0]!r} is missing")
        return cls(**data)


PRESETS = {
    config.name: config
    for config in (
        # Reference: 32 complex lanes, 100 multipliers, whole LeNet on chip of an ECP5-85F.
        AcceleratorConfig(name="ecp5-85f", tile_lanes=4, kernel_lanes=8, onchip_kib=128),
        # As many lanes for boards: half of the inverse FFTs, which are much of the logic, and
        # accumulators that LeNets' sums fit.
        AcceleratorConfig(
            name="ecp5-85f-board", tile_lanes=2, kernel_lanes=16, acc_bits=28, port_bits=128,
            onchip_kib=128,
        ),
        # The array of `ecp5-85f` with 16-bit weights.
        AcceleratorConfig(
            name="ecp5-85f-w16", tile_lanes=4, kernel_lanes=8, weight_bits=16, acc_bits=40
        ),
        # LeNet on an ECP5-45F: the array of `tiny`, and so the same digest.
        AcceleratorConfig(
            name="ecp5-45f", tile_lanes=2, kernel_lanes=4, tile_depth=128, kernel_depth=256,
            select_depth=128, feature_depth=512, onchip_kib=64,
        ),
        # Smallest array, for unit tests and quick looks at waveforms.
        AcceleratorConfig(
            name="tiny", tile_lanes=2, kernel_lanes=4, tile_depth=128, kernel_depth=256,
            select_depth=128, feature_depth=512,
        ),
        # Smallest array with several feature banks, to test what `u200` is made of.
        AcceleratorConfig(
            name="tiny-wide", tile_lanes=3, kernel_lanes=8, weight_bits=16, acc_bits=40,
            tile_depth=256, kernel_depth=512, select_depth=128, feature_depth=512,
            port_bits=256, feature_banks=8, post_values=6,
        ),
        # The same with two rows of an inverse FFT per cycle.
        AcceleratorConfig(
            name="tiny-wide2", tile_lanes=3, kernel_lanes=8, weight_bits=16, acc_bits=40,
            tile_depth=256, kernel_depth=512, select_depth=128, feature_depth=512,
            port_bits=256, feature_banks=8, post_values=6, inverse_rows=2,
        ),
        # Single layers of VGG16 with as many multipliers as NNgen's engine of 4 x 4 channels (144
        # and 4 requantisers). Depths: conv3_1's maps, conv5_x's tile blocks and kernel blocks.
        AcceleratorConfig(
            name="vgg16-144", tile_lanes=3, kernel_lanes=16, tile_depth=8192, kernel_depth=8192,
            select_depth=2048, feature_depth=78848, port_bits=128, clock_hz=200_000_000,
        ),
        # VGG16 on an Alveo U200: 896 complex lanes, 2856 multipliers, maps on chip, 4 x 512-bit
        # memory ports.
        AcceleratorConfig(
            name="u200", tile_lanes=14, kernel_lanes=64, weight_bits=16, acc_bits=48,
            tile_depth=8192, kernel_depth=8192, select_depth=1024, feature_depth=18432,
            port_bits=2048, feature_banks=16, post_values=6, inverse_rows=2, ultra_ram=1,
            clock_hz=200_000_000,
        ),
        # ZCU104 (XCZU7EV: 1728 DSP, 312 BRAM36, 96 URAM): 224 complex lanes, 714 multipliers, the
        # four HP ports of 128 bits. Counted, not placed (docs/boards.md); tables are the limit.
        AcceleratorConfig(
            name="zcu104", tile_lanes=7, kernel_lanes=32, weight_bits=16, acc_bits=48,
            tile_depth=8192, kernel_depth=8192, feature_depth=4096, port_bits=512,
            feature_banks=8, post_values=6, ultra_ram=1, clock_hz=200_000_000,
        ),
        # ZC706 (XC7Z045: 900 DSP, 545 BRAM36): 192 complex lanes, 612 multipliers, four HP ports
        # of 64 bits. Counted, not placed.
        AcceleratorConfig(
            name="zc706", tile_lanes=6, kernel_lanes=32, weight_bits=16, acc_bits=48,
            tile_depth=4096, kernel_depth=4096, feature_depth=4096, port_bits=256,
            feature_banks=8, post_values=6, clock_hz=150_000_000,
        ),
    )
}
PRESETS |= {
    config.name: config
    for config in (
        # `tiny-wide2` and `u200` with a file of accumulators, for irregular patterns.
        replace(PRESETS["tiny-wide2"], name="tiny-window", window=32),
        replace(PRESETS["u200"], name="u200-window", window=32),
        # The array of `vgg16-144` for the whole of AlexNet, fully connected layers included;
        # descriptors for batches of three.
        replace(PRESETS["vgg16-144"], name="alexnet-144", feature_depth=32768, map_pool=1,
                max_layers=32),
        # AlexNet on the two boards, 8-bit weights (docs/explore.md).
        replace(PRESETS["zcu104"], name="zcu104-alexnet", tile_lanes=4, kernel_lanes=64,
                weight_bits=8, acc_bits=31, select_depth=2048, feature_depth=3200, map_pool=1,
                ultra_ram=0, port_bits=1024, dot_lanes=4),
        replace(PRESETS["zc706"], name="zc706-alexnet", weight_bits=8, acc_bits=31,
                kernel_depth=8192, select_depth=2048, feature_depth=3200, map_pool=1,
                port_bits=512, dot_lanes=4, clock_hz=200_000_000),
    )
}


def load_config(source: str) -> AcceleratorConfig:
    """Find a preset by name, or read a JSON file; `UserError` says what was wrong."""
    if source in PRESETS:
        return PRESETS[source]
    path = Path(source)
    if not path.suffix == ".json":
        raise UserError(
            f"unknown config {source!r}: give one of {', '.join(PRESETS)} or a .json file"
        )
    try:
        return AcceleratorConfig.from_json(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read config {source}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"config {source}: {error}") from error
