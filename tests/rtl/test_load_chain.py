# amaranth: UnusedElaboratable=no
"""Loader, forward FFTs and tile buffer together: every word of every block, read as it comes."""

import random
from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from model.config import PRESETS
from model.fft import forward
from model.tiling import Tiling
from rtl.fft.forward import ForwardFFT
from rtl.loader import Loader
from rtl.signatures import Complex, Descriptor
from rtl.tilebuffer import TileBuffer
from tests.rtl.helpers import pack, raw, simulate, source, unpack
from tests.rtl.loader_model import Bench, Conv, bases, memory_model

WIDE = PRESETS["tiny-wide"]


class Chain(wiring.Component):
    """The load side: row pairs to words in the ring."""

    def __init__(self, config):
        self.config = config
        self.loader, self.tiles = Loader(config=config), TileBuffer(config=config)
        super().__init__({"desc": In(stream.Signature(Descriptor)), "loaded": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.loader, m.submodules.tiles = self.loader, self.tiles
        wiring.connect(m, wiring.flipped(self.desc), self.loader.desc)
        for bank in range(self.config.feature_banks):
            m.submodules[f"fft{bank}"] = fft = ForwardFFT(self.config)
            wiring.connect(m, self.loader.o[bank], fft.i)
            wiring.connect(m, fft.o, self.tiles.i[bank])
        m.d.comb += self.loaded.eq(self.tiles.block_loaded)
        return m


def spectra(layer):
    """Words (tile, channel, f, re and im) of a layer's input."""
    desc = layer.desc
    tiling = Tiling(height=desc["in_height"], width=desc["in_width"], kernel=9 - desc["step"],
                    padding=(desc["pad"], desc["pad_left"]) * 2)
    return forward(tiling.extract(layer.maps)).swapaxes(0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("config", [
    PRESETS["tiny"], WIDE, replace(WIDE, tile_lanes=5, kernel_lanes=16, feature_banks=16),
], ids=lambda config: f"{config.feature_banks} banks")
def test_words_of_every_block(config):
    layers = bases(
        config, np.random.default_rng(1),
        (Conv, {"size": (9, 12), "kernel": 3, "pad": 1, "channels": 3, "resident": 1}),
        (Conv, {"size": (9, 8), "kernel": 4, "pad": 1, "channels": 23, "resident": 1}),
        (Conv, {"size": (5, 5), "kernel": 3, "pad": 1, "channels": 8, "resident": 1}),
    )
    bench = Bench(config, layers, seed=3, slow_write=True)
    chain = Chain(config)
    bench.dut = dut = chain.loader
    rng, loaded = random.Random(4), []
    tiles = chain.tiles
    word_shape = Complex(config.word_bits)

    async def count(ctx):
        async for _, _, pulse in ctx.tick().sample(chain.loaded):
            if pulse:
                loaded.append(1)

    async def read(ctx, addr):
        """Word of every lane and bank, each bank at its own address."""
        ctx.set(raw(tiles.addr), pack(tiles.addr.shape(), addr))
        ctx.set(tiles.en, 1)
        await ctx.tick()
        ctx.set(tiles.en, 0)
        await ctx.tick().repeat(tiles.LATENCY - 1)
        bits = ctx.get(raw(tiles.data))
        return [[unpack(word_shape, bits >> 32 * (8 * lane + bank) & 0xFFFFFFFF)
                 for bank in range(8)] for lane in range(config.tile_lanes)]

    async def consumer(ctx):
        ring, taken = 0, 0
        for layer in layers:
            words, desc = spectra(layer), layer.desc
            for block in range(desc["tile_blocks"]):
                while len(loaded) <= taken:
                    await ctx.tick()
                taken += 1
                await ctx.tick().repeat(rng.choice((1, 1, 400)))
                for group in range(desc["groups"]):
                    for f in rng.sample(range(32), 8):
                        at = (ring + 32 * group + f) % config.tile_depth
                        got = await read(ctx, [at] * 8)
                        for lane in range(config.tile_lanes):
                            tile = block * config.tile_lanes + lane
                            for channel in range(8 * group, min(8 * group + 8, desc["channels"])):
                                word = got[lane][(channel + f) % 8]
                                want = words[tile, channel, f] if tile < desc["tiles"] else (0, 0)
                                assert (word.re, word.im) == tuple(want), (tile, channel, f)
                ctx.set(dut.freed.payload, layer.block_words)
                ctx.set(dut.freed.valid, 1)
                await ctx.tick()
                ctx.set(dut.freed.valid, 0)
                ring += layer.block_words

    descs = [pack(Descriptor, layer.desc) for layer in layers]
    simulate(chain, *bench.writers(), source(chain.desc, descs), consumer, monitors=[
        count, *(memory_model(port, memory)
                 for port, memory in zip(dut.feature, bench.memory, strict=True)),
    ], limit=30000)
    assert len(loaded) == sum(layer.desc["tile_blocks"] for layer in layers)
