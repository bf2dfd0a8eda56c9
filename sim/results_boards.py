"""Section of the results page about boards: what they hold, how fast it is, how large, and why."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from boards.table import BOARDS, ZYNQ_BOARDS, Board, ZynqBoard

__all__ = ["boards"]

Read = Callable[[Path, str], Any]
Table = Callable[[Sequence[str], Sequence[Sequence[object]]], str]
#: What the columns are called in the counts of each family.
COLUMNS = {
    "ecp5": ("LUT4", "FF", "MULT18X18D", "DP16KD"),
    "xc7": ("LUT", "FF", "DSP48E1", "BRAM"),
    "xcup": ("LUT", "FF", "DSP48E2", "BRAM"),
}


def boards(folder: Path, read: Read, table: Table) -> str:
    """One row for each board; the netlist's check below."""
    rows, tools, parts, found = [], set[str](), False, False
    known: list[Board | ZynqBoard] = [*BOARDS.values(), *ZYNQ_BOARDS.values()]
    for board in known:
        placed = [read(folder, path.name)
                  for path in sorted(folder.glob(f"board-{board.id}-seed*.json"))]
        counted = read(folder, f"synthesis-{board.config}-{board.family}.json")
        run = read(folder, f"cycles-{board.config}.json")
        found |= bool(placed or counted or run)
        rows.append(_row(board, placed, counted, run))
        parts |= bool(counted) and not counted["whole"]
        for result in (*placed, *filter(None, (counted, run))):
            tools |= {f"{name} {version}" for name, version in result["tools"].items()}
    text = ""
    if found:
        text = (
            "## Boards\nThe board's config with on-chip memory, host link and UART (Zynq: the "
            "core). LUT, FF, multipliers and RAM of placed boards as nextpnr reports them, of "
            "others as yosys counts them before placement"
            + (", * part by part" if parts else "") + ". LUT: LUT4 on ECP5, LUT1 to LUT6 on "
            "Xilinx; RAM: DP16KD of 18 Kbit, or halves of a block RAM, and UltraRAM of 288 Kbit. "
            "Clock: the core's on that board. Boards may have been placed in an earlier "
            "revision: docs/boards.md. LeNet (α = 16): cycles of a digit on the "
            "simulated top; images a second, without the serial line, at that clock and at the "
            "best frequency.\n\n"
            + table(("board", "config", "LUT", "FF", "multipliers", "RAM", "clock MHz",
                     "Fmax best MHz", "median", "LeNet cycles", "images/s", "at Fmax",
                     "bitstream bytes"), rows)
            + f"\n\nTools: {', '.join(sorted(tools))}. Command: `python -m boards.measure` "
            "(`place`, `paths`, `count` or `cycles` for a part of it; results that belong to the "
            "present design are kept).\n"
        )
    return text + _paths(folder, read, table) + _netlist(folder, read)


def _row(board: Board | ZynqBoard, placed: list[dict], counted: dict | None,
         run: dict | None) -> tuple[object, ...]:
    cells: list[object] = ["", "", "", ""]
    clock = board.clock_hz
    best: float | None = None
    how = "not placed"
    size = ""
    if counted:
        used = dict(counted["resources"])
        used["BRAM"] = 2 * used.get("BRAM36", 0) + used.get("BRAM18", 0)
        cells = [used[name] for name in COLUMNS[board.family]]
        if used.get("URAM"):
            cells[-1] = f"{cells[-1]} + {used['URAM']} URAM"
        if not counted["whole"]:
            cells[0] = f"{cells[0]}*"
    fmax: list[float] = []
    if placed:
        first = max(placed, key=lambda item: item["fmax_hz"])
        fmax = [item["fmax_hz"] for item in placed]
        best = first["fmax_hz"]
        cells = [first["resources"][name]["used"] for name in COLUMNS[board.family]]
        how = f"{best / 1e6:.1f}"
        size = first["bytes"] or "none: misses its clock"
    elif isinstance(board, ZynqBoard) or board.vivado:
        how = "needs Vivado"
    median = f"{statistics.median(fmax) / 1e6:.1f} of {len(fmax)}" if fmax else ""
    cycle = max(run["cycles"]) if run else None
    return (
        f"`{board.id}`", f"`{board.config}`", *cells, f"{clock / 1e6:g}", how, median,
        cycle or "", f"{clock / cycle:.0f}" if cycle else "",
        f"{best / cycle:.0f}" if cycle and best else "", size,
    )


def _paths(folder: Path, read: Read, table: Table) -> str:
    results = [read(folder, path.name) for path in sorted(folder.glob("paths-*.json"))]
    if not results:
        return ""
    limits = list(results[0]["beyond"])
    rows = [(f"`{result['board']}`", result["endpoints"], result["longest_ns"],
             *(result["beyond"][limit] for limit in limits)) for result in results]
    units = [(f"`{result['board']}`", unit["ns"], f"`{unit['from']}`", f"`{unit['to']}`")
             for result in results for unit in result["units"]]
    return (
        "\n### Paths of the netlist\nBefore placement, with wires by their fan-out "
        "(`boards.paths`; docs/boards.md says what that is worth): registers that a path "
        "longer than so many nanoseconds ends in.\n\n"
        + table(("board", "endpoints", "longest ns", *(f"> {limit}" for limit in limits)), rows)
        + "\n\nThe longest path into each of the slowest units:\n\n"
        + table(("board", "ns", "from", "to"), units)
        + "\n\nCommand: `python -m boards.measure paths --board ID`.\n"
    )


def _netlist(folder: Path, read: Read) -> str:
    result = read(folder, "netlist.json")
    if not result:
        return ""
    scores = sum(len(row["scores"]) for row in result["digits"])
    cells = ", ".join(f"{count} {kind}" for kind, count in sorted(result["cells"].items()))
    verdict = "equal to the golden model and the RTL, cycles and profiles too" \
        if result["equal"] else f"DIFFERENT: {result['failure']}"
    noticed = sum(fault["noticed"] for fault in result["faults"])
    return (
        "\n### The synthesised netlist\n"
        f"{result['network']}, {result['pattern']}, on the netlist of `{result['config']}` "
        f"(yosys {result['yosys']}: {cells}): {scores} scores of {len(result['digits'])} digits "
        f"{verdict}. {noticed} of {len(result['faults'])} inverted look-up tables were noticed "
        "with one digit. docs/simulation.md says what is covered. Command: `python -m sim.netlist "
        f"--index 0:{len(result['digits'])} --faults {len(result['faults'])} --json "
        "docs/results/netlist.json`.\n"
    )
