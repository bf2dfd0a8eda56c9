"""Single layers of VGG16 beside NNgen's engine of as many multipliers, every word compared.

NNgen 1.3.4 was run side by side: 8-bit weights and activations, 4 x 4 channels of 3 x 3 (144
multipliers and 4 requantisers), 64-bit AXI, its Verilog simulated with a memory of 10 cycles
latency that stalls 4 of every 19 cycles. The same memory is used here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import golden
from model.compile import compile_network
from model.config import AcceleratorConfig
from model.cost import estimate
from model.errors import UserError
from model.lower import lower_layer
from model.network import QuantisedNetwork
from sim.bench.rams import ram_bits
from sim.memory import MemoryOptions
from sim.session import layer_figures, open_backend, simulate_image

__all__ = ["LAYERS", "NNGEN", "NNGEN_PORT", "measure", "measure_layer"]

#: Cycles, bytes read, bytes written and RAM kbit of NNgen.
NNGEN: dict[str, tuple[int, int, int, int]] = {
    "conv3_1": (6_754_018, 13_100_000, 803_000, 912),
    "conv4_1": (6_704_250, 14_000_000, 401_000, 944),
    "conv5_x": (3_565_690, 8_800_000, 100_000, 1_232),
}
LAYERS = ("conv3_1", "conv4_1", "conv5_1", "conv5_2", "conv5_3")
#: Latency and gaps of the memory in front of NNgen.
LATENCY, GAPS = 10, (19, 4)
#: Bytes a cycle of NNgen's AXI port.
NNGEN_PORT = 8


def measure_layer(
    network: QuantisedNetwork, index: int, maps: NDArray[np.integer], config: AcceleratorConfig,
    bandwidth: float,
) -> dict[str, Any]:
    """Run one layer of a network on the RTL as a network of its own.

    Parameters
    ----------
    network : QuantisedNetwork
        The whole network.
    index : int
        Which layer.
    maps : int array, (C, H, W)
        Its input.
    config : AcceleratorConfig
        The core.
    bandwidth : float
        Beats per cycle of the memory, besides its gaps.

    Returns
    -------
    dict
        Cycles from start to idle (input and output DMA included), bytes, words compared.

    Raises
    ------
    UserError
        The core stopped or a word differs.
    """
    program = compile_network(network.part(index, index + 1), config)
    options = MemoryOptions(latency=LATENCY, gaps=GAPS, bandwidth=bandwidth)
    with open_backend("fast", config, options=options) as backend:
        backend.load(np.ascontiguousarray(program.image, dtype="<u8").tobytes())
        result = simulate_image(backend, program, maps)
    name = program.layers[0].name
    if result.run is None or not result.comparison.exact:
        raise UserError(f"layer {name}: {result.failure or result.comparison.difference}")
    beat = 8 * config.port_words
    figures = layer_figures(program, result.run)[0]
    fields = program.layers[0].descriptor
    return {
        "name": name, "bytes_per_cycle": beat * bandwidth, "cycles": result.run.cycles,
        "layer_cycles": figures.cycles,
        "estimated_cycles": estimate(program, options.average, LATENCY)[0].cycles,
        "mac_issue_cycles": figures.mac_issue_cycles, "lanes_filled": figures.lanes_filled,
        "read_bytes": beat * result.run.read_beats, "write_bytes": beat * result.run.write_beats,
        "words_compared": result.comparison.words, "bit_exact": True,
        "resident": fields["resident"], "tile_blocks": fields["tile_blocks"],
    }


def measure(
    network: QuantisedNetwork, pixels: NDArray[np.integer], config: AcceleratorConfig,
    names: Sequence[str] = LAYERS, tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Run layers one by one at the port's bandwidth and at NNgen's.

    Parameters
    ----------
    network : QuantisedNetwork
        With weights as wide as the config's.
    pixels : int array, (C, H, W)
        Input of the network; the golden model computes the layers before.
    config : AcceleratorConfig
        The core.
    names : sequence of str
        Layers.
    tell : callable
        Hears what is being done.
    """
    from sim.verilator import core_verilog

    if unknown := set(names) - {layer.name for layer in network.network.layers}:
        raise UserError(f"network {network.network.name} has no layer {min(unknown)}")
    maps = np.asarray(pixels)[None]
    rows = []
    for index, layer in enumerate(network.network.layers):
        if layer.name in names:
            for rate in (1.0, NNGEN_PORT / (8 * config.port_words)):
                tell(f"{layer.name} at {8 * config.port_words * rate:g} bytes a cycle")
                rows.append(measure_layer(network, index, maps[0], config, rate))
        if len({row["name"] for row in rows}) == len(set(names)):
            break
        tell(f"{layer.name} on the golden model")
        maps = golden.layer_maps(lower_layer(network, index), maps, network.tile)
    return {
        "config": config.name, "multipliers": config.multipliers, "clock_hz": config.clock_hz,
        "pattern": ", ".join(dict.fromkeys(data.pattern for data in network.layers)),
        "latency": LATENCY, "gaps": GAPS, "ram_bits": ram_bits(core_verilog(config)),
        "layers": rows,
    }
