"""Save files for GTKWave: the signals of a waveform grouped by unit of the core."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

__all__ = ["write_save_file", "vcd_signals", "verilog_signals"]

#: Groups in the data's way; a scope belongs to the first whose words its path contains.
UNITS = (
    ("memory", ("memory", "arbiter", "dma", "prefetch")),
    ("control", ("csr", "sequencer", "checker")),
    ("loader", ("loader",)),
    ("fft", ("forward", "fft", "tilebuffer", "tiles")),
    ("mac", ("issue", "kernelbuffer", "kernels", "mac", "array", "drain")),
    ("sums", ("sum",)),
    ("post", ("inverse", "post")),
    ("writer", ("writer", "feature")),
)
#: Of a scope below the top, only what crosses its border or drives it.
INTERESTING = re.compile(
    r"(valid|ready|payload|state|busy|done|last|addr|en|count|layer|block|cycle|free|error)",
    re.IGNORECASE,
)
PER_UNIT = 60


def vcd_signals(path: Path) -> list[tuple[str, int]]:
    """(dotted name, width) of every variable declared in a VCD file."""
    scopes: list[str] = []
    found = []
    with path.open() as lines:
        for line in lines:
            words = line.split()
            if not words:
                continue
            if words[0] == "$scope":
                scopes.append(words[2])
            elif words[0] == "$upscope":
                scopes.pop()
            elif words[0] == "$var":
                found.append((".".join([*scopes, words[4]]), int(words[2])))
            elif words[0] == "$enddefinitions":
                break
    return found


def verilog_signals(verilog: str, top: str = "top", root: str = "TOP") -> list[tuple[str, int]]:
    """(dotted name, width) of every signal in Amaranth's Verilog, as Verilator traces it."""
    modules: dict[str, tuple[list[tuple[str, int]], list[tuple[str, str]]]] = {}
    signals: list[tuple[str, int]] = []
    cells: list[tuple[str, str]] = []
    for line in verilog.splitlines():
        if match := re.match(r"module (\S+?) ?\(", line):
            signals, cells = modules.setdefault(match[1].lstrip("\\"), ([], []))
        elif match := re.match(r"  (?:wire|reg) (?:signed )?(?:\[(\d+):0\] )?([A-Za-z_]\w*)(;| =)",
                               line):
            signals.append((match[2], int(match[1] or 0) + 1))
        elif match := re.match(r"  (\\\S+|[A-Za-z_]\w*) +(\S+) \($", line):
            cells.append((match[1].lstrip("\\"), match[2]))
    found: list[tuple[str, int]] = []

    def walk(module: str, path: str) -> None:
        own, inner = modules.get(module, ([], []))
        found.extend((f"{path}.{name}", width) for name, width in own)
        for kind, name in inner:
            if kind in modules:
                walk(kind, f"{path}.{name}")

    walk(top, f"{root}.{top}")
    return found


def _unit(scope: str) -> str:
    for name, words in UNITS:
        if any(word in part for part in scope.lower().split(".") for word in words):
            return name
    return "core"


def write_save_file(wave: Path, signals: Iterable[tuple[str, int]]) -> Path:
    """Write ``<wave>.gtkw`` next to a waveform; GTKWave opens both when given the save file."""
    groups: dict[str, list[str]] = {name: [] for name in ("core", *(unit for unit, _ in UNITS))}
    seen = set()
    for name, width in sorted(signals, key=lambda item: (item[0].count("."), item[0])):
        scope, _, leaf = name.rpartition(".")
        leaf = leaf.split("[")[0]
        unit = _unit(scope)
        if name in seen or "$" in leaf or leaf in ("clk", "rst"):
            continue
        if unit == "core" and scope.count(".") > 1 or not INTERESTING.search(leaf):
            continue
        seen.add(name)
        if len(groups[unit]) < PER_UNIT:
            suffix = f"[{width - 1}:0]" if width > 1 and "[" not in name else ""
            groups[unit].append(name + suffix)
    lines = [f'[dumpfile] "{wave.resolve()}"', "[timestart] 0", "@28"]
    for unit, names in groups.items():
        if names:
            lines += ["@200", f"-{unit}", "@22", *names]
    target = wave.with_suffix(".gtkw")
    target.write_text("\n".join(lines) + "\n")
    return target
