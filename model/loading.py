"""When tile blocks are in the tile ring: what is written of the layer before, and the Loader.

A tile may be loaded when its rows are written in its channels (`rtl.arrival`): all channels, above
the first tile that earlier groups of tile blocks have left; in the last group, a kernel block's
channels above its first tile not written; and, in its last tile block, channel after channel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from model.config import AcceleratorConfig
from model.feed import Feed
from model.rates import load_cycles

__all__ = ["InputMap", "Loader", "Source", "WrittenMap"]

#: Cycles from the last write of what a tile needs to the first row that is sent.
ARRIVAL = 3
#: Cycles from the last row of a tile block to the first step: reading the map, the forward FFT,
#: the tile buffer, the issue unit; and what each feature bank is behind the one before.
TO_ARRAY, SKEW = 29, 4
#: The same of a dot layer, from its last row.
DOT_TO_ARRAY = 33
#: Cycles between the last row of a layer and the first of the next.
LAYER_GAP = 13
#: Cycles from the step that gives back words of the ring to the first row that takes them.
RING = 8


class Source(Protocol):
    """Where the input of a layer comes from."""

    @property
    def end(self) -> float:
        """Cycle at which all of it is there."""

    def there(self, unit: int, rows: int) -> float:
        """Cycle at which the rows above ``rows`` of a unit of channels are there."""


@dataclass
class InputMap:
    """The input of the first layer: row by row of the memory, channel after channel.

    Attributes
    ----------
    feed : Feed
        Says when they come.
    plane, row_log2 : int
        Rows of the memory for a channel, and for a pair of map rows as a logarithm.
    after : float
        Cycle before which nothing can be read, since a map is being pooled.
    """

    feed: Feed
    plane: int
    row_log2: int
    after: float = 0

    @property
    def end(self) -> float:
        """See `Source`."""
        return max(self.feed.input_end, self.after)

    def there(self, unit: int, rows: int) -> float:
        """See `Source`."""
        pairs = max(0, rows + 1) // 2 << self.row_log2
        row = unit * self.plane + min(pairs, self.plane)
        return max(self.feed.input_at(row), self.after)


@dataclass
class WrittenMap:
    """The map of a layer, as the store stage writes it.

    Attributes
    ----------
    units : int
        Units of channels of a kernel block: F channels, or one.
    each : float
        Cycles from unit to unit.
    whole : bool
        Only the whole map counts: it is pooled, or the next layer is fully connected.
    end : float
        When the layer is done.
    """

    units: int
    each: float
    whole: bool
    end: float = 0
    #: After each group but the last: rows complete in all channels, and when.
    _groups: list[tuple[int, float]] = field(default_factory=list)
    #: Of the last group: rows complete after each tile block, when for each kernel block, and when
    #: its first unit is complete.
    _rows: list[int] = field(default_factory=list)
    _times: list[list[float]] = field(default_factory=list)
    _first: list[float] = field(default_factory=list)

    def group(self, rows: list[int], times: list[list[float]], reading: list[float]) -> None:
        """Add a group of tile blocks.

        Parameters
        ----------
        rows : list of int
            Rows above the first tile behind each tile block.
        times : list of lists of float
            Last write of every kernel block and tile block.
        reading : list of float
            Cycles in which a kernel block's channels are read one after the other.
        """
        if self._rows:
            self._groups.append((self._rows[-1], self._times[-1][-1]))
        self._rows, self._times = rows, times
        self._first = [ends[-1] - cycles + self.each
                       for ends, cycles in zip(times, reading, strict=True)]

    def there(self, unit: int, rows: int) -> float:
        """See `Source`."""
        if self.whole:
            return self.end
        for complete, time in self._groups:
            if rows <= complete:
                return time
        block, index = divmod(unit, self.units)
        for complete, time in zip(self._rows[:-1], self._times[block], strict=False):
            if rows <= complete:
                return time
        return self._first[block] + index * self.each


class Loader:
    """Tile blocks of all layers, one after the other.

    Parameters
    ----------
    config : AcceleratorConfig
        Lanes, banks, depth of the ring.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        self._now = 0.0
        self._taken = 0                 # words of the ring since the start
        #: Words given back since the start, and when; how many of these have been looked at.
        self._freed: list[tuple[int, float]] = [(0, 0.0)]
        self._seen = 0

    @property
    def next(self) -> float:
        """Cycle in which the next layer is looked at."""
        return self._now + LAYER_GAP

    def layer(self) -> None:
        """Begin another layer."""
        self._now = self.next

    def free(self, words: int, time: float) -> None:
        """Give words back to the ring."""
        self._freed.append((self._freed[-1][0] + words, time))

    def block(self, fields: Mapping[str, int], number: int, source: Source) -> float:
        """Load a tile block; cycle of the first step that may use it."""
        config = self._config
        words = fields["groups"] * (1 if fields["dot"] else config.words)
        self._taken += words
        while self._freed[self._seen][0] < self._taken - config.tile_depth:
            self._seen += 1
        self._now = max(self._now, self._freed[self._seen][1] + RING)
        cycles = load_cycles(config, fields)
        if fields["dot"]:
            self._now = max(self._now, source.end + ARRIVAL) + cycles
            return self._now + DOT_TO_ARRAY
        if self._now >= source.end + ARRIVAL:
            self._now += cycles
        else:
            self._walk(fields, number, source.there)
        last_bank = (fields["channels"] - 1) % config.feature_banks
        return self._now + TO_ARRAY + SKEW * last_bank - self._idle()

    def _idle(self) -> int:
        """Cycles of the last channels without a tile: fewer lanes than banks."""
        config = self._config
        return 4 * max(0, config.feature_banks - config.tile_lanes)

    def _walk(self, fields: Mapping[str, int], number: int,
              there: Callable[[int, int], float]) -> None:
        """Channel by channel, as they come."""
        config = self._config
        lanes, banks = config.tile_lanes, config.feature_banks
        first = number * lanes

        def ends(begin: int, stop: int) -> list[tuple[int, int]]:
            """Rows below the tiles of some lanes, and cycles to load those with the same."""
            found: dict[int, int] = {}
            for lane in range(begin, stop):
                row = (first + lane) // fields["tiles_x"]
                end = row * fields["step"] - fields["pad"] + config.tile
                found[end] = found.get(end, 0) + 4
            return list(found.items())

        if banks > 1:
            parts, together = [ends(0, lanes)], 1
        else:
            half = (lanes + 1) // 2
            parts, together = [ends(0, half), ends(half, lanes)], config.banks
        units = -(-fields["channels"] // banks)
        now = self._now
        for group in range(0, units, together):
            for part in parts:
                for unit in range(group, min(group + together, units)):
                    for end, length in part:
                        now = max(now, there(unit, end) + ARRIVAL) + length
                    if banks > 1:
                        now += self._idle()
        self._now = now
