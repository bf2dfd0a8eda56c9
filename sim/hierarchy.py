"""Merge equal modules of a Verilog design, so that a simulator compiles each kind of lane once.

Amaranth writes a module per instance: an array of 896 lanes becomes 3584 modules of four kinds.
Instances keep their names, so waveforms and save files do not change.
"""

from __future__ import annotations

import re

__all__ = ["merge_modules"]

_HEAD = re.compile(r"^module (\\\S+|\w+) ?\(", re.MULTILINE)
_INSTANCE = re.compile(r"^(  )(\\\S+|\w+)(?=  (?:\\\S+ |\w+) \($)", re.MULTILINE)
#: A local name that yosys numbers through the whole design.
_NUMBERED = re.compile(r"(dump_module)\$\d+")
_END = "endmodule\n"


def merge_modules(verilog: str) -> str:
    """Verilog in which modules with the same text (but for their name) are one.

    Parameters
    ----------
    verilog : str
        What `amaranth.back.verilog` writes; the first of equal modules stays.
    """
    preamble, *rest = re.split(r"(?m)^(?=(?:\(\*.*\*\)\n)*module )", verilog)
    modules: dict[str, str] = {}
    for text in rest:
        if not text.rstrip().endswith(_END.rstrip()):
            raise ValueError("a module of the design has no end")
        head = _HEAD.search(text)
        assert head is not None
        modules[head[1]] = _NUMBERED.sub(r"\1", text)
    while True:
        # Leaves become equal first, then what instantiates them.
        seen: dict[str, str] = {}
        merged: dict[str, str] = {}
        for name, text in modules.items():
            body = text.replace(f"module {name}", "module", 1)
            first = seen.setdefault(body, name)
            if first != name:
                merged[name] = first
        if not merged:
            return preamble + "".join(modules.values())
        modules = {name: _renamed(text, merged) for name, text in modules.items()
                   if name not in merged}


def _renamed(text: str, names: dict[str, str]) -> str:
    """Instances of the modules ``names`` become instances of what they map to."""
    return _INSTANCE.sub(lambda match: match[1] + names.get(match[2], match[2]), text)
