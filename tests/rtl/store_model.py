"""What the store stage does with a layer, in NumPy: shared by its tests."""

from math import ceil

import numpy as np
from amaranth.hdl import Value

from model.config import POST_SHIFT
from model.descriptor import FIELDS
from model.fixed import round_shift, saturate
from model.residency import groups
from rtl.signatures import KernelParameters
from tests.rtl.helpers import pack


def descriptor(config, **fields):
    """Descriptor of a layer with ``kernels``; unnamed fields are 0."""
    values = {name: 0 for name, _ in FIELDS} | fields
    blocks = ceil(values["kernels"] / config.kernel_lanes)
    return values | {
        "resident": values["resident"] or values["tile_blocks"], "kernel_blocks": blocks,
        "lanes_last": values["kernels"] - (blocks - 1) * config.kernel_lanes,
    }


def conv(config, *, kernels, height, width, step, pool=0, **fields):
    """Descriptor of a convolution with ``height`` x ``width`` results per map before the pool."""
    tiles_x = ceil(width / step)
    tiles = ceil(height / step) * tiles_x
    out_step, out_height, out_width = (size >> pool for size in (step, height, width))
    row_log2 = (ceil(out_width / 8) - 1).bit_length()
    return descriptor(
        config, kernels=kernels, tiles=tiles, tile_blocks=ceil(tiles / config.tile_lanes),
        tiles_x=tiles_x, step=step, crop=8 - step, pool=pool, out_step=out_step,
        out_height=out_height, out_width=out_width, out_tile_row=out_step * out_width,
        out_map=out_height * out_width, out_plane=ceil(out_height / 2) << row_log2,
        out_row_log2=row_log2, **fields,
    )


def dot(config, *, kernels, images=1, out_wide=0, **fields):
    """Descriptor of a fully connected layer; the results of the images lie whole rows apart."""
    row = 16 * config.feature_banks >> out_wide
    return descriptor(
        config, kernels=kernels, dot=1, tiles=images, tile_blocks=1, tiles_x=1, step=1, crop=7,
        out_step=1, out_height=images, out_width=1, out_tile_row=ceil(kernels / row) * row,
        out_map=1, out_vector=1, out_wide=out_wide, **fields,
    )


def lanes(config, layer):
    """Lanes that have something to write: of a fully connected layer, its images."""
    return layer["tiles"] if layer["dot"] else config.tile_lanes


def blocks(layer):
    """(kernel block, tile block) in the order of the hardware."""
    return [(kb, tb) for group in groups(layer["tile_blocks"], layer["resident"])
            for kb in range(layer["kernel_blocks"]) for tb in group]


def kernels(config, layer, kernel_block):
    """Kernels of a block."""
    first = kernel_block * config.kernel_lanes
    return range(first, min(first + config.kernel_lanes, layer["kernels"]))


def base(config, layer, kernel):
    """Position of a kernel's map in its feature bank, or in the vector of all banks."""
    step = layer["out_plane"] << 4
    if layer["out_vector"]:
        step = layer["out_map"] << layer["out_wide"]
        return config.feature_banks * (layer["out_base"] << 4) + kernel * step
    return (layer["out_base"] << 4) + kernel // config.feature_banks * step


def tile_marks(config, layer, kernel_block, tile_block, kernel):
    """`TileMarks` of a kernel's tiles."""
    several = 1 if layer["dot"] else config.feature_banks
    last = kernel in kernels(config, layer, kernel_block)[-several:]
    group = next(group for group in groups(layer["tile_blocks"], layer["resident"])
                 if tile_block in group)
    final = group[-1] == layer["tile_blocks"] - 1
    kernels_last = kernel_block == layer["kernel_blocks"] - 1
    ends = last and kernels_last and tile_block == group[-1]
    advance = len(group) > 1 or (kernels_last and not final)
    return {
        "commit": int(tile_block == layer["tile_blocks"] - 1),
        "final": int(final),
        "advance": int(last and advance),
        "turn": int(ends and not final),
        "layer_last": int(ends and final),
    }


def post(layer, tile, bias, multiplier):
    """(out_step, out_step) results of an 8 x 8 tile of the inverse FFT."""
    values = saturate(round_shift(tile, POST_SHIFT), 18)
    crop, step, size = layer["crop"], layer["step"], layer["out_step"]
    values = values[crop : crop + step, crop : crop + step]
    if layer["pool"]:
        values = values.reshape(size, 2, size, 2).max(axis=(1, 3))
    values = saturate(values + bias, 18)
    if layer["relu"]:
        values = np.maximum(values, 0)
    values = round_shift(values * multiplier, layer["requant_shift"])
    if layer["out_wide"]:
        return saturate(values, 16)
    return saturate(values, 8, bool(layer["out_signed"]))


def segment(layer, row):
    """Bytes of a row of results."""
    return np.asarray(row).astype("<i2" if layer["out_wide"] else "u1").tobytes()


def place(layer, number, row):
    """(y, x, values inside the map) of a row of a tile; no values: nothing is written."""
    step = layer["out_step"]
    y = number // layer["tiles_x"] * step + row
    x = number % layer["tiles_x"] * step
    inside = number < layer["tiles"] and y < layer["out_height"]
    return y, x, max(0, min(step, layer["out_width"] - x)) if inside else 0


def address(config, layer, kernel, y, x):
    """(bank, row, parity, offset) of a value in the feature memory."""
    start, banks = base(config, layer, kernel), config.feature_banks
    if layer["out_vector"]:
        row, line = divmod(y, layer["out_step"])
        index = row * layer["out_tile_row"] + line * layer["out_width"] + x
        index = start + (index << layer["out_wide"])
        return (index >> 4) % banks, (index >> 4) // banks, index >> 3 & 1, index & 7
    row = (start >> 4) + ((y >> 1) << layer["out_row_log2"]) + (x >> 3)
    return kernel % banks, row, y & 1, x & 7


def writes(config, layer, segments):
    """Writes of a layer, for each feature bank a list of (row, parity, offset, bytes).

    ``segments``: iterator over the bytes of every segment of every lane (block, kernel, row, lane),
    including those outside the map. The writes come in the hardware's order, see `rows_at_once`.
    """
    count = lanes(config, layer)
    banks = [[] for _ in range(config.feature_banks)]
    for kernel_block, tile_block in blocks(layer):
        for kernel in kernels(config, layer, kernel_block):
            each = rows_at_once(config, layer)
            for first in range(0, layer["out_step"], each):
                rows = [[next(segments) for _ in range(count)] for _ in range(each)]
                for lane in range(count):
                    for row in range(each):
                        number = tile_block * config.tile_lanes + lane
                        y, x, values = place(layer, number, first + row)
                        if values:
                            bank, *where = address(config, layer, kernel, y, x)
                            write = *where, rows[row][lane][: values << layer["out_wide"]]
                            banks[bank].append(write)
    return banks


def rows_at_once(config, layer):
    """Rows of a tile that are written together."""
    return 1 if layer["pool"] or layer["dot"] else config.inverse_rows


def written(layer, word):
    """A `FeatureWrite` (as a `data.Const`) in the form of `writes`: one, or two of a pair."""
    assert word.vector == layer["out_vector"] and word.count > 0
    rows = [(word.parity, word.data)]
    if word.pair:
        assert word.parity == word.vector == 0
        rows.append((1, word.below))
    return [(word.addr, parity, word.offset, bytes(values[i] for i in range(word.count)))
            for parity, values in rows]


def take_written(layer, words, count):
    """First words of a bank that make ``count`` rows: how many words, and their rows."""
    found = []
    for number, word in enumerate(words):
        if len(found) >= count:
            return number, found
        found += written(layer, word)
    return len(words), found


#: Layers that between them use every mode and every kind of border, small enough for pysim.
def layers(config):
    """List of descriptors."""
    n, p = config.kernel_lanes, config.tile_lanes
    if config.feature_banks > 1:
        return _bank_layers(config)
    return [
        # Unpooled, odd step: tiles start at odd rows; last block, tiles and kernels partial.
        conv(config, kernels=n + 1, height=7, width=9, step=5, relu=1, requant_shift=9,
             out_base=3),
        # Pooled, pooled size no multiple of the tile's; signed.
        conv(config, kernels=n + 3, height=10, width=11, step=4, pool=1, out_signed=1,
             requant_shift=12, out_base=40),
        # Two rows of 8 bytes per map row; kernels inside, tiles outside.
        conv(config, kernels=2 * n, height=6, width=18, step=6, resident=1, relu=1,
             requant_shift=10, out_base=17),
        # Vectors of maps; a last kernel block of one kernel.
        conv(config, kernels=n + 1, height=5, width=5, step=4, pool=1, out_vector=1, relu=1,
             requant_shift=8, out_base=5),
        conv(config, kernels=n + 2, height=7, width=4, step=3, out_vector=1, out_signed=1,
             resident=1, requant_shift=11, out_base=9),
        # One value per tile: blocks shorter than the pipeline.
        conv(config, kernels=1, height=3, width=p, step=1, requant_shift=9, out_base=2),
        # Groups of 2, 2 and 1 of five tile blocks, for three kernel blocks.
        conv(config, kernels=2 * n + 1, height=10, width=2 * p - 1, step=2, resident=2,
             requant_shift=10, out_base=1),
        # Whole tiles.
        conv(config, kernels=2, height=9, width=8, step=8, requant_shift=0, out_signed=1,
             out_base=60),
        dot(config, kernels=3 * n + 1, relu=1, requant_shift=9, out_base=12),
        conv(config, kernels=2, height=4, width=7, step=4, out_vector=1, out_wide=1,
             requant_shift=5, out_base=30),
        dot(config, kernels=2 * n + 2, out_wide=1, out_signed=1, requant_shift=4, out_base=20),
        # Batches: an image in every lane, and fewer; wide results.
        dot(config, kernels=2 * n + 3, images=p, relu=1, requant_shift=9, out_base=12),
        dot(config, kernels=n + 1, images=max(1, p - 1), out_wide=1, out_signed=1, requant_shift=4,
            out_base=20, last=1),
    ]


def _bank_layers(config):
    """`layers` for several feature banks: whole rounds of kernels, vectors of dot layers only."""
    n, f = config.kernel_lanes, config.feature_banks
    # Two rows per cycle take even steps only.
    five, three, one = (5, 3, 1) if config.inverse_rows == 1 else (4, 2, 2)
    return [
        # Steps of kernels 3, 5 and 1, with and without pool; most have tiles past the map's edge.
        conv(config, kernels=n + f, height=10, width=12, step=6, relu=1, requant_shift=9,
             out_base=3),
        conv(config, kernels=n, height=12, width=14, step=6, pool=1, out_signed=1,
             requant_shift=12, out_base=40),
        conv(config, kernels=2 * f, height=6, width=17, step=4, resident=1, relu=1,
             requant_shift=10, out_base=17),
        conv(config, kernels=f, height=16, width=10, step=8, pool=1, requant_shift=8, out_base=5),
        # Tiles start at odd rows; the crop leaves columns on both sides.
        conv(config, kernels=n + f, height=8, width=7, step=five, resident=1, requant_shift=11,
             out_base=9) | {"crop": 2},
        # One value per tile: blocks shorter than the pipeline.
        conv(config, kernels=f, height=3, width=2 * config.tile_lanes, step=one, requant_shift=9,
             out_base=2),
        # Groups of 2, 2 and 1 of five tile blocks, for two kernel blocks.
        conv(config, kernels=n + f, height=10, width=2 * config.tile_lanes - 1, step=2, resident=2,
             requant_shift=10, out_base=1),
        # A single tile block of several rows of tiles.
        conv(config, kernels=2 * n, height=3 * config.tile_lanes, width=3, step=three, out_signed=1,
             requant_shift=10, out_base=60),
        dot(config, kernels=5 * n + 3, relu=1, requant_shift=9, out_base=12),
        dot(config, kernels=2 * n + 1, out_wide=1, out_signed=1, requant_shift=4, out_base=20),
        # Batches: an image in every lane, and fewer; wide results.
        dot(config, kernels=2 * n + 3, images=config.tile_lanes, relu=1, requant_shift=9,
            out_base=12),
        dot(config, kernels=n + 1, images=max(1, config.tile_lanes - 1), out_wide=1, out_signed=1,
            requant_shift=4, out_base=20, last=1),
    ]


def parameters(rng, layer):
    """Bias and multiplier of every kernel."""
    return list(zip(
        rng.integers(-(1 << 17), 1 << 17, layer["kernels"]).tolist(),
        rng.integers(0, 1 << 14, layer["kernels"]).tolist(),
        strict=True,
    ))


def block_sums(config, layer, sums, kernel_block, tile_block, slot):
    """`SumWrite` values of a block; ``sums``: (tile, kernel, frequency, component)."""
    lanes, width = config.tile_lanes, config.kernel_lanes
    first = kernel_block * width
    part = np.zeros((lanes, width, *sums.shape[2:]), dtype=int)
    found = sums[tile_block * lanes :, first:][:lanes, :width]
    part[: found.shape[0], : found.shape[1]] = found
    count = 1 if layer["dot"] else 32
    for frequency in range(count):
        for quad in range(width // config.drained):
            words = part[:, config.drained * quad :, frequency][:, : config.drained]
            yield {
                "sums": [
                    [{"re": re, "im": im} for re, im in lane] for lane in words.tolist()
                ],
                "frequency": frequency, "quad": quad, "slot": slot,
                "block_last": frequency == count - 1 and quad == width // config.drained - 1,
            }


def random_sums(rng, config, layer, scale=1 << 17):
    """Sums of every tile of every block (also those outside the map) and kernel."""
    shape = (layer["tile_blocks"] * config.tile_lanes, layer["kernels"], 32, 2)
    return rng.integers(-scale, scale, shape)


def parameter_blocks(config, layer, values):
    """Parameters in the order in which the reader releases them: a list per kernel block."""
    starts = [group[0] for group in groups(layer["tile_blocks"], layer["resident"])]
    released = [kb for kb, tb in blocks(layer) if tb in starts]
    return [
        [{"bias": values[n][0], "multiplier": values[n][1]} for n in kernels(config, layer, kb)]
        for kb in released
    ]


def parameter_memory(dut, queue, rng, p=1.0):
    """Process that serves ``queue`` (of `parameter_blocks`) on the ``param_*`` ports."""
    async def process(ctx):
        ready, read = False, None
        samples = ctx.tick().sample(dut.param_addr, dut.param_next)
        async for *_, addr, release in samples:
            if read is not None:
                ctx.set(Value.cast(dut.param_data), pack(KernelParameters, read))
            block = queue[0] if ready else []       # none before it says that they are there
            read = block[addr] if addr < len(block) else None
            if release:
                queue.pop(0)
                ready = False
            if not ready:
                ready = bool(queue) and rng.random() < p
                ctx.set(dut.param_ready, ready)
    return process
