"""Attributes of the deepest memories, for the synthesis tool."""

from __future__ import annotations

from model.config import AcceleratorConfig

__all__ = ["large_ram"]


def large_ram(config: AcceleratorConfig) -> dict[str, str]:
    """Attributes of the memories of tile and kernel buffers.

    ``ram_style = "ultra"`` asks for UltraRAM (AMD UG901, "RAM_STYLE"; yosys knows it too). These
    memories suit it: 4096 x 72 bits, one port that writes, one that reads, no initial contents.
    """
    return {"ram_style": "ultra"} if config.ultra_ram else {}
