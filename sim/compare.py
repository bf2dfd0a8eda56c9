"""Every word of a run against the golden model, in the exact order of the hardware.

Per layer, in the data's way: spectral words entering the tile buffers, rounded sums leaving the
array, segments written to the feature memory. The order of the events is part of the check.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.config import AcceleratorConfig
from model.descriptor import POOL_ADD
from model.golden import LayerTrace
from model.rates import pool_windows
from model.residency import groups
from sim.events import Events, decode, probe_layouts

__all__ = ["Comparison", "Difference", "Expected", "compare_batch", "compare_run"]

Ints = NDArray[np.int64]
#: Kind of probe, in the data's way, and what it shows.
STAGES = {"tile": "spectral word", "sum": "sum", "write": "output"}
#: Distinct values listed per coordinate of the differing words.
SPREAD = 6


@dataclass(frozen=True)
class Difference:
    """First differing word of a run.

    Attributes
    ----------
    layer : str
        Name of the layer.
    stage : str
        ``"spectral word"``, ``"sum"`` or ``"output"``.
    where : dict
        Coordinates by name: tile block, tile, kernel, frequency...
    expected, got : tuple of int
        The word, or the tag field.
    cycle : int
        Cycle since the start of the run.
    note : str
        How the other differences of this layer and stage are spread.
    """

    layer: str
    stage: str
    where: dict[str, int | str]
    expected: tuple[int, ...]
    got: tuple[int, ...]
    cycle: int
    note: str = ""

    def __str__(self) -> str:
        """One line: where, expected, got."""
        place = ", ".join(f"{name} {value}" for name, value in self.where.items())
        text = (f"layer {self.layer}: first differing {self.stage}: {place}: "
                f"expected {_word(self.expected)}, got {_word(self.got)} (cycle {self.cycle})")
        return f"{text}; {self.note}" if self.note else text


@dataclass(frozen=True)
class Comparison:
    """Outcome for one run."""

    words: int
    difference: Difference | None

    @property
    def exact(self) -> bool:
        """Whether every word was there and equal."""
        return self.difference is None


@dataclass(frozen=True)
class Expected:
    """What a layer of a batch should do.

    Attributes
    ----------
    name : str
        Name of the layer.
    descriptor : dict
        As compiled.
    trace : LayerTrace
        What the golden model computed; of a layer of all images, with the words of all of them one
        after the other, the maps one below the other.
    image : int or None
        Number of the image; None: of all images, each in a tile lane of its own.
    """

    name: str
    descriptor: dict[str, int]
    trace: LayerTrace
    image: int | None = None


@dataclass(frozen=True)
class _Stage:
    """What one probe should show for one layer; the first axis is the event.

    ``words`` (events, ..., parts) where ``active``; ``tags`` (events, fields); ``where`` holds
    coordinates that broadcast against ``active``.
    """

    name: str
    words: Ints
    active: NDArray[np.bool_]
    tags: dict[str, Ints]
    where: dict[str, Ints]


def _word(parts: tuple[int, ...]) -> str:
    return str(parts[0]) if len(parts) == 1 else "(" + ", ".join(map(str, parts)) + ")"


def _tile_stage(config: AcceleratorConfig, desc: dict[str, int], trace: LayerTrace,
                base: int, bank: int) -> _Stage:
    """Columns of the channels of one feature bank, whose blocks begin at ``base`` in the ring."""
    if desc["dot"]:
        # They all come by the first bank: an image for each tile lane, or rows for them in turn.
        groups = -(-desc["channels"] // 8) if bank == 0 else 0
        images = trace.tiles.reshape(desc["tiles"], -1, 2)
        count = images.shape[1]
        words = np.zeros((desc["tiles"], groups * 8, 2), dtype=np.int64)
        words[:, :count] = images[:, :groups * 8]
        number = np.tile(np.arange(groups * 8).reshape(groups, 8), (desc["tiles"], 1))
        image, group = (item.ravel() for item in np.indices((desc["tiles"], groups)))
        turn, lane = np.divmod(group, 1 << desc["spread"])
        tags = {"bypass": np.ones_like(group), "lane": image + lane,
                "addr": (base + turn) % config.tile_depth}
        return _Stage("spectral word", words.reshape(len(group), 8, 2), number < count,
                      tags, {"image": image[:, None], "word": number})
    lanes, blocks, channels = config.tile_lanes, desc["tile_blocks"], desc["channels"]
    tiles = np.zeros((blocks * lanes, channels, 32, 2), dtype=np.int64)
    tiles[:len(trace.tiles)] = trace.tiles
    lane, channel = (item.ravel() for item in np.meshgrid(
        np.arange(lanes), np.arange(bank, channels, config.feature_banks)))
    if config.feature_banks == 1:
        # Within a block: group of 8 channels, half of the lanes, channel, lane.
        order = np.lexsort((lane, channel, lane >= (lanes + 1) // 2, channel >> 3))
    else:
        order = np.lexsort((lane, channel))
    lane, channel = lane[order][:, None], channel[order][:, None]
    block, v = np.arange(blocks)[:, None, None], np.arange(4)
    tile = block * lanes + lane
    words = tiles.reshape(blocks * lanes, channels, 4, 8, 2)[tile, channel, v]
    shape = words.shape[:3]
    count = int(np.prod(shape))
    spread = {"tile block": block, "tile": tile, "lane": lane, "channel": channel, "v": v}
    where = {name: np.broadcast_to(value, shape).reshape(count, 1)
             for name, value in spread.items()}
    where["u"] = np.arange(8).reshape(1, 8)
    where["word f"] = 8 * where["v"] + where["u"]
    address = (base + block * desc["groups"] * 32 + (channel >> 3) * 32) % config.tile_depth
    tag_values: dict[str, Any] = {
        "bypass": 0, "lane": lane, "channel_low": channel & 7, "addr": address,
    }
    tags = {name: np.broadcast_to(value, shape).reshape(count)
            for name, value in tag_values.items()}
    tags["index"] = where["v"].reshape(count)
    active = np.broadcast_to(where["tile"] < desc["tiles"], (count, 8))
    return _Stage("spectral word", words.reshape(count, 8, 2), active, tags, where)


def _block_order(desc: dict[str, int]) -> tuple[Ints, Ints]:
    """(kernel block, tile block) of every block in order."""
    pairs = [(kernel, tile) for group in groups(desc["tile_blocks"], desc["resident"])
             for kernel in range(desc["kernel_blocks"]) for tile in group]
    kernel, tile = np.array(pairs).T
    return kernel, tile


def _sum_stage(config: AcceleratorConfig, desc: dict[str, int], trace: LayerTrace) -> _Stage:
    lanes, width, drained = config.tile_lanes, config.kernel_lanes, config.drained
    kernel_block, tile_block = _block_order(desc)
    count = trace.sums.shape[2]
    sums = np.zeros((desc["tile_blocks"] * lanes, desc["kernel_blocks"] * width, count, 2),
                    dtype=np.int64)
    sums[:trace.sums.shape[0], :trace.sums.shape[1]] = trace.sums
    # Axes: block, frequency, quad | lane, kernel of the quad.
    block, frequency, quad, lane, inner = np.ogrid[
        :len(kernel_block), :count, :width // drained, :lanes, :drained
    ]
    tile = tile_block[block] * lanes + lane
    kernel = kernel_block[block] * width + quad * drained + inner
    words = sums[tile, kernel, frequency]
    shape = words.shape[:5]
    events = int(np.prod(shape[:3]))

    def spread(value: Any) -> Ints:
        return np.broadcast_to(value, shape).reshape(events, lanes, drained)

    where = {
        "kernel block": spread(kernel_block[block]), "tile block": spread(tile_block[block]),
        "tile": spread(tile), "lane": spread(lane), "kernel": spread(kernel),
        "kernel lane": spread(quad * drained + inner), "frequency": spread(frequency),
    }
    tags = {"frequency": where["frequency"][:, 0, 0], "quad": spread(quad)[:, 0, 0]}
    active = (where["tile"] < desc["tiles"]) & (where["kernel"] < desc["kernels"])
    if desc["dot"]:
        where["image"] = where["tile"]
    return _Stage("sum", words.reshape(events, lanes, drained, 2), active, tags, where)


def _write_stage(config: AcceleratorConfig, desc: dict[str, int], trace: LayerTrace,
                 bank: int) -> _Stage:
    """Segments written to one feature bank."""
    lanes, width, step = config.tile_lanes, config.kernel_lanes, desc["out_step"]
    banks = config.feature_banks
    kernel_block, tile_block = _block_order(desc)
    # Two rows that leave the inverse FFT together, and are not pooled, are written lane by lane.
    each = 1 if desc["pool"] or desc["dot"] else config.inverse_rows
    # A dot layer's values are spread over the banks by their place in the vector.
    first, stride = (0, 1) if desc["dot"] else (bank, banks)
    block, inner, pair, lane, half = np.ogrid[
        :len(kernel_block), first:width:stride, :step // each, :lanes, :each
    ]
    line = pair * each + half
    tile = tile_block[block] * lanes + lane
    kernel = kernel_block[block] * width + inner
    y = tile // desc["tiles_x"] * step + line
    x = tile % desc["tiles_x"] * step
    values = np.clip(desc["out_width"] - x, 0, step)
    # With several banks the last block is filled up with kernels that are zero.
    kernels = (desc["kernel_blocks"] - 1) * width + desc["lanes_last"]
    written = ((kernel < kernels) & (tile < desc["tiles"]) & (y < desc["out_height"])
               & (values > 0))
    if desc["dot"]:
        written &= (kernel << desc["out_wide"] >> 4) % banks == bank
    shape = written.shape

    def spread(value: Any) -> Ints:
        return np.broadcast_to(value, shape)[written]

    tile, kernel, y, x, values = (spread(item) for item in (tile, kernel, y, x, values))
    wide = desc["out_wide"]
    if desc["out_vector"]:
        tile_row, line = np.divmod(y, step)
        index = (kernel * desc["out_map"] + tile_row * desc["out_tile_row"]
                 + line * desc["out_width"] + x) << wide
        row = (index >> 4) // banks
        address, parity, offset = desc["out_base"] + row, index >> 3 & 1, index & 7
    else:
        address = (desc["out_base"] + kernel // banks * desc["out_plane"]
                   + ((y >> 1) << desc["out_row_log2"]) + (x >> 3))
        parity, offset = y & 1, x & 7
    padded = np.pad(trace.map, ((0, kernels - len(trace.map)), (0, 0), (0, 8)))
    words = padded[kernel[:, None], y[:, None], x[:, None] + np.arange(8)]
    if wide:
        words = np.stack([words & 0xFF, words >> 8 & 0xFF], axis=-1).reshape(len(words), 16)[:, :8]
    where = {
        "kernel block": spread(kernel_block[block])[:, None],
        "tile block": spread(tile_block[block])[:, None], "tile": tile[:, None],
        "lane": spread(lane)[:, None], "kernel": kernel[:, None], "y": y[:, None],
        "x": x[:, None] + (np.arange(8) >> wide),
        **({"image": tile[:, None]} if desc["dot"] else {}),
    }
    count = values << wide
    tags = {"addr": address, "parity": parity, "offset": offset, "count": count,
            "vector": np.full_like(count, desc["out_vector"])}
    return _Stage("output", (words & 0xFF)[..., None], np.arange(8) < count[:, None], tags, where)


def _pool_stage(config: AcceleratorConfig, desc: dict[str, int], trace: LayerTrace,
                bank: int) -> _Stage:
    """Segments of the pooled maps, or sums, of one feature bank: channel, strip, row."""
    banks, height, width = config.feature_banks, desc["pool_height"], desc["pool_width"]
    kernels = (desc["kernel_blocks"] - 1) * config.kernel_lanes + desc["lanes_last"]
    windows = pool_windows(desc)
    kernel, strip, y = (item.ravel() for item in np.meshgrid(
        np.arange(bank, kernels, banks), np.arange(0, width, windows), np.arange(height),
        indexing="ij"))
    count = np.minimum(windows, width - strip)
    if desc["pool_vector"]:
        index = kernel * desc["out_map"] + y * width + strip
        address, parity, offset = desc["pool_base"] + (index >> 4), index >> 3 & 1, index & 7
    else:
        base, plane = desc["pool_base"], ceil(height / 2) << desc["pool_row_log2"]
        if desc["pool_op"] == POOL_ADD:     # in place
            base, plane = desc["out_base"], desc["out_plane"]
        address = (base + kernel // banks * plane
                   + ((y >> 1) << desc["pool_row_log2"]) + (strip >> 3))
        parity, offset = y & 1, strip & 7
    padded = np.pad(trace.out, ((0, kernels - len(trace.out)), (0, 0), (0, 8)))
    x = strip[:, None] + np.arange(8)
    words = padded[kernel[:, None], y[:, None], np.minimum(x, padded.shape[2] - 1)]
    tags = {"addr": address, "parity": parity, "offset": offset, "count": count,
            "vector": np.full_like(count, desc["pool_vector"])}
    where = {"kernel": kernel[:, None], "y": y[:, None], "x": x}
    name = "sum of maps" if desc["pool_op"] == POOL_ADD else "pooled output"
    return _Stage(name, (words & 0xFF)[..., None], np.arange(8) < count[:, None], tags, where)


def _stages(config: AcceleratorConfig, desc: dict[str, int], trace: LayerTrace, base: int,
            kind: str, bank: int) -> list[_Stage]:
    """List what a probe should show for one layer, in order."""
    if kind == "tile":
        return [_tile_stage(config, desc, trace, base, bank)]
    if kind == "sum":
        return [_sum_stage(config, desc, trace)]
    written = [_write_stage(config, desc, trace, bank)]
    return [*written, _pool_stage(config, desc, trace, bank)] if desc["pool_op"] else written


def _complex(words: dict[str, Ints]) -> Ints:
    return np.stack([words["re"], words["im"]], axis=-1)


def _check(layer: str, stage: _Stage, words: Ints, tags: dict[str, Ints],
           cycles: Ints) -> tuple[int, Difference | None]:
    """Compare one stage with the events of its layer (perhaps fewer than there should be)."""
    count = len(words)
    wrong = (stage.words[:count] != words).any(axis=-1) & stage.active[:count]
    compared = int(stage.active[:count].sum())
    wrong_words = np.argwhere(wrong)
    first_word = int(wrong_words[0][0]) if len(wrong_words) else count
    for name, expected in stage.tags.items():
        bad = np.flatnonzero(expected[:count] != tags[name])
        if len(bad) and bad[0] <= first_word:
            event = int(bad[0])
            where: dict[str, int | str] = {"event": f"{event} of {len(stage.words)}"}
            where |= _place(stage, (event, *([0] * (stage.active.ndim - 1))))
            where["field"] = name
            return compared, Difference(
                layer, stage.name, where, (int(expected[event]),), (int(tags[name][event]),),
                int(cycles[event]), f"{len(bad)} of {count} tags differ",
            )
    if len(wrong_words):
        spot = tuple(int(index) for index in wrong_words[0])
        return compared, Difference(
            layer, stage.name, _place(stage, spot),
            tuple(int(part) for part in stage.words[spot]),
            tuple(int(part) for part in words[spot]),
            int(cycles[spot[0]]), _note(stage, wrong, compared),
        )
    if count < len(stage.words):
        spot = (count, *([0] * (stage.active.ndim - 1)))
        return compared, Difference(
            layer, stage.name, _place(stage, spot), (len(stage.words),), (count,),
            int(cycles[-1]) if count else 0,
            f"the first {count} of {len(stage.words)} events are right, the others never came",
        )
    return compared, None


def _place(stage: _Stage, spot: tuple[int, ...]) -> dict[str, int | str]:
    shape = stage.active.shape
    return {name: int(np.broadcast_to(value, shape)[spot]) for name, value in stage.where.items()}


def _note(stage: _Stage, wrong: NDArray[np.bool_], compared: int) -> str:
    """How many words differ, and what the differing ones have in common."""
    parts = [f"{int(wrong.sum())} of {compared} words differ"]
    for name, value in stage.where.items():
        full = np.broadcast_to(value, stage.active.shape)[:len(wrong)]
        seen = np.unique(full[wrong])
        if len(seen) < len(np.unique(full[stage.active[:len(wrong)]])):
            listed = ", ".join(str(item) for item in seen[:SPREAD])
            parts.append(f"{name} only {listed}" + ("…" if len(seen) > SPREAD else ""))
    return "; ".join(parts)


def compare_run(
    config: AcceleratorConfig, layers: Sequence[tuple[str, dict[str, int]]],
    traces: Sequence[LayerTrace], events: dict[str, Events], start: int = 0,
) -> Comparison:
    """Compare the events of a run of one image; ``layers``: name and descriptor of each."""
    expected = [Expected(name, desc, trace)
                for (name, desc), trace in zip(layers, traces, strict=True)]
    return compare_batch(config, expected, events, start)[0]


def compare_batch(
    config: AcceleratorConfig, layers: Sequence[Expected], events: dict[str, Events],
    start: int = 0, batch: int = 1,
) -> list[Comparison]:
    """Compare the events of one run, also of one that broke off; an outcome for each image.

    Parameters
    ----------
    config : AcceleratorConfig
        Config of the core.
    layers : sequence of Expected
        The layers of the program.
    events : dict
        Probe name to `Events`.
    start : int
        Cycle at which the run began.
    batch : int
        Images of the run.
    """
    observed = {name: _observe(name, layout, events[name], start)
                for name, layout in probe_layouts(config).items()}
    cursor = dict.fromkeys(observed, 0)
    addresses = observed["tile0"][1]["addr"]
    base = int(addresses[0]) if len(addresses) else 0
    words = [0] * batch
    first: list[Difference | None] = [None] * batch
    for layer in layers:
        desc = layer.descriptor
        for kind in STAGES:
            found: list[list[Difference]] = [[] for _ in range(batch)]
            for probe in (probe for probe in observed if probe.startswith(kind)):
                data, tags, when = observed[probe]
                bank = int(probe[len(kind):] or 0)
                for stage in _stages(config, desc, layer.trace, base, kind, bank):
                    part = slice(cursor[probe], cursor[probe] + len(stage.words))
                    cursor[probe] = part.stop
                    for image, share in _shares(stage, layer.image, batch):
                        compared, difference = _check(
                            layer.name, share, data[part],
                            {field: tags[field][part] for field in share.tags}, when[part],
                        )
                        words[image] += compared
                        if difference is not None:
                            found[image].append(difference)
            for image, differences in enumerate(found):
                if first[image] is None and differences:
                    first[image] = min(differences, key=lambda difference: difference.cycle)
        base += desc["tile_blocks"] * desc["groups"] * (1 if desc["dot"] else 32)
    for probe, (data, _, when) in observed.items():
        if len(data) > cursor[probe]:
            extra = cursor[probe]
            more = Difference(layers[-1].name, f"{STAGES[probe.rstrip('0123456789')]}",
                              {"probe": probe, "event": extra}, (extra,), (len(data),),
                              int(when[extra]), "more events than expected")
            first = [more if difference is None else difference for difference in first]
    return [Comparison(*outcome) for outcome in zip(words, first, strict=True)]


def _shares(stage: _Stage, image: int | None, batch: int) -> Iterator[tuple[int, _Stage]]:
    """Images of a stage, and what is active for each."""
    if batch == 1:
        yield 0, stage
    elif image is not None:
        yield image, stage
    else:
        for number in range(batch):
            active = stage.active & (stage.where["image"] == number)
            yield number, replace(stage, active=active)


def _observe(probe: str, layout: Any, events: Events,
             start: int) -> tuple[Ints, dict[str, Ints], Ints]:
    """Words, tags and cycles (since ``start``) of the events of a probe."""
    fields = decode(layout, events.payload)
    cycles = events.cycle.astype(np.int64) - start
    if probe.startswith("tile"):
        return _complex(fields["words"]), {**fields["tag"], "index": fields["index"]}, cycles
    if probe == "sum":
        return _complex(fields["sums"]), fields, cycles
    # A pair is two rows; a segment wholly outside the map is a token without bytes.
    kept = np.stack([fields["count"] > 0, fields["pair"] > 0], axis=-1)
    event, half = np.nonzero(kept)
    tags = {name: fields[name][event] for name in ("addr", "offset", "count", "vector")}
    tags["parity"] = fields["parity"][event] + half
    words = np.stack([fields["data"], fields["below"]], axis=1)[event, half]
    return words[..., None], tags, cycles[event]
