"""Configs of every width of the memory port, small enough for Amaranth's simulator."""

import dataclasses

from model.config import PRESETS, AcceleratorConfig

SMALL = {"tile_depth": 64, "kernel_depth": 256, "select_depth": 64, "feature_depth": 128}

CONFIGS = {
    config.name: config
    for config in (
        *(config for config in PRESETS.values() if config.port_bits == 64),
        AcceleratorConfig(name="port-128", tile_lanes=2, kernel_lanes=8, port_bits=128, **SMALL),
        PRESETS["tiny-wide"],
        AcceleratorConfig(name="port-512", tile_lanes=1, kernel_lanes=32, port_bits=512,
                          feature_banks=8, post_values=2, **SMALL),
        dataclasses.replace(PRESETS["u200"], name="port-2048", **SMALL),
    )
}
