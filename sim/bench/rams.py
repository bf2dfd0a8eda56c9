"""Bits of the memories of a generated design, unit by unit."""

from __future__ import annotations

import re
from functools import cache

__all__ = ["ram_bits"]

_HEAD = re.compile(r"^module (\\\S+|\w+) ?\(", re.MULTILINE)
_INSTANCE = re.compile(r"^  (\\\S+|\w+)  (\\\S+|\w+) +?\($", re.MULTILINE)
_MEMORY = re.compile(r"^  reg (?:\[(\d+):0\] )?(?:\\\S+|\w+) +\[(\d+):0\];", re.MULTILINE)


def ram_bits(verilog: str, top: str = "top") -> dict[str, int]:
    """Bits of all memories of a design by the kind of unit that holds them.

    Parameters
    ----------
    verilog : str
        What `sim.verilator.design_verilog` returns.
    top : str
        Name of the top module.

    Returns
    -------
    dict of str to int
        Instance names without their number (``lane``: of every lane together), most bits first.

    Raises
    ------
    ValueError
        The design has no module ``top``.
    """
    modules = {match[1]: text
               for text in re.split(r"(?m)^(?=(?:\(\*.*\*\)\n)*module )", verilog)
               if (match := _HEAD.search(text))}
    if top not in modules:
        raise ValueError(f"the design has no module {top!r}")

    @cache
    def below(kind: str, label: str) -> dict[str, int]:
        text = modules[kind]
        own = sum((int(match[1] or 0) + 1) * (int(match[2]) + 1)
                  for match in _MEMORY.finditer(text))
        bits = {label: own} if own else {}
        for match in _INSTANCE.finditer(text):
            if match[1] not in modules:
                continue
            name = re.sub(r"_?\d+$", "", match[2].lstrip("\\"))
            for part, count in below(match[1], name).items():
                bits[part] = bits.get(part, 0) + count
        return bits

    return dict(sorted(below(top, top).items(), key=lambda item: (-item[1], item[0])))
