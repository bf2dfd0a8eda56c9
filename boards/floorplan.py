"""Floorplan of a core on an ECP5: sites of its memories and multipliers.

``python -m boards.floorplan ulx3s-85f`` makes one: synthesis, then a global placement
(`boards.globalplace`) of the whole netlist, of which the sites of these few cells are kept, in
``boards/floorplans``. nextpnr's placer would first find such places itself, but then moves memories
and multipliers to free sites far away, and all logic after them: with a floorplan the wires of 32
lanes are a ninth shorter, and nextpnr's router, which finds no end without one, does.

A floorplan also names rows of the device that hold no tables (`boards.tiles.keepouts`):
``--empty-rows 5:4`` for row 5 and every fourth after it. Without the option they stay as they are,
or, with ``--anew``, there are none. The sites are chosen without regard to them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from boards.table import BOARDS, Board, find_board
from boards.tiles import KINDS, logic_columns, sites_of
from model.config import AcceleratorConfig
from model.errors import Parser, UserError, command
from model.files import check_target, read_json, write_output

__all__ = ["Floorplan", "find_floorplan", "main", "make_floorplan", "yosys_commands"]

FOLDER = Path(__file__).parent / "floorplans"
#: Slots of a tile's tables and flip-flops that a cell takes. (A RAM takes two slices for its
#: tables and one for its address and data.)
_TABLES = {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6}
_REGISTERS = {"TRELLIS_FF": 1}
#: Nets of more cells are clocks and resets, which are wherever logic is.
_MOST_CELLS = 1500
_CLOCKS = frozenset({"CLK", "CLK0", "CLKA", "CLKB", "WCK"})


def _path(config: AcceleratorConfig, device: str) -> Path:
    # LFE5U, LFE5UM and LFE5UM5G differ in what is beside the logic.
    return FOLDER / f"{config.name}-{device.rpartition('-')[2].lower()}.json"


def _core(config: AcceleratorConfig) -> dict[str, Any]:
    """Return what decides which memories and multipliers a core has."""
    return {"config": config.name, "digest": f"{config.digest:08x}",
            "onchip_kib": config.onchip_kib, "ultra_ram": config.ultra_ram}


@dataclass(frozen=True)
class Floorplan:
    """What a placement begins with.

    Attributes
    ----------
    sites : dict of str
        Sites by cell (`_cell_key`).
    empty_rows : dict of list of (int, int)
        Rows of the device without tables, and which columns they would be in
        (`boards.tiles.logic_columns`).
    """

    sites: Mapping[str, str] = field(default_factory=dict)
    empty_rows: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)


def _read(path: Path) -> tuple[Any, Floorplan]:
    """Core of a floorplan, and what it says; nothing if there is no file."""
    record = read_json(path)
    if record is None:
        return None, Floorplan()
    try:
        core, sites = record["core"], record["sites"]
        rows = {int(row): [(first, last) for first, last in runs]
                for row, runs in record["empty_rows"].items()}
        ends = [end for runs in rows.values() for run in runs for end in run]
        if not (all(isinstance(text, str) for pair in sites.items() for text in pair)
                and all(type(end) is int and end >= 0 for end in ends)):
            raise TypeError
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{path} is no floorplan: remove it, or make it anew by python -m "
                        "boards.floorplan BOARD --anew") from None
    return core, Floorplan(sites, rows)


def find_floorplan(config: AcceleratorConfig, device: str) -> Floorplan:
    """Return the floorplan of a core on a device, an empty one if there is none."""
    core, floorplan = _read(_path(config, device))
    return floorplan if core == _core(config) else Floorplan()


def yosys_commands(sites: Mapping[str, str]) -> str:
    """Commands after synthesis that give cells their sites; cells more or less are an error."""
    lines = []
    for cell, site in sites.items():
        chosen = f"c:{cell}.* t:MULT18X18D %i" if "MULT18" in site else f"c:{cell}"
        lines.append(f'setattr -set BEL "{site}" {chosen}')
    placed = "t:DP16KD t:MULT18X18D %u"
    lines += [f"select -assert-count {len(sites)} {cells}"
              for cells in (placed, f"{placed} a:BEL %i")]
    return "\n".join(lines)


def _cell_key(name: str, kind: str) -> str:
    """Name of a cell without what yosys adds for a multiplier: the unit that has it."""
    return name.rpartition(".")[0] if kind == "MULT18X18D" else name


def _nets(names: Sequence[str], cells: Mapping[str, Any]) -> list[list[int]]:
    """Cells of each net by their place among the names, without clocks and what is everywhere."""
    nets: dict[int, set[int]] = defaultdict(set)
    for index, name in enumerate(names):
        for pin, bits in cells[name]["connections"].items():
            if pin not in _CLOCKS:
                for bit in bits:
                    if isinstance(bit, int):
                        nets[bit].add(index)
    return [sorted(net) for net in nets.values() if 1 < len(net) <= _MOST_CELLS]


def make_floorplan(module: Mapping[str, Any], device: str, *, iterations: int = 80,
                   seeds: int = 8, before: Mapping[str, str] | None = None,
                   progress: Any = None) -> dict[str, str]:
    """Choose sites for the memories and multipliers of a flat netlist.

    How parts of the netlist lie to each other is decided when everything leaves the middle, and
    differs by a third of the wires from seed to seed: the best of some short placements is done
    again, slowly, from the sites that it found.

    Parameters
    ----------
    module : dict
        The top module of yosys' ``write_json``.
    device : str
        ``LFE5U-85F`` or another one of the family.
    iterations, progress
        As in `boards.globalplace.place`.
    seeds : int
        Short placements, of half of the iterations.
    before : dict, optional
        Sites of an earlier netlist, to begin with instead of those of short placements.

    Raises
    ------
    UserError
        The device has fewer sites than the netlist needs, nothing in it is to be placed, or a name
        stands for two cells.
    """
    from boards.globalplace import Problem, place

    width, height, sites = sites_of(device)
    names = [name for name, cell in module["cells"].items()
             if cell["type"] in {*_TABLES, *_REGISTERS, *KINDS}]
    kinds = [module["cells"][name]["type"] for name in names]
    members: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
    for kind in KINDS:
        cells = np.array([index for index, each in enumerate(kinds) if each == kind], dtype=int)
        if len(cells) > len(sites[kind]):
            raise UserError(f"the netlist has {len(cells)} {kind}, {device} {len(sites[kind])}: "
                            "choose a smaller config")
        members.append((cells, np.array([at for _, *at in sites[kind]], dtype=float)))
    nets = _nets(names, module["cells"])
    if not nets:
        raise UserError("the netlist has no two cells with a net between them")
    problem = Problem(
        width, height, nets,
        np.array([_TABLES.get(kind, 0) for kind in kinds], dtype=float),
        np.array([_REGISTERS.get(kind, 0) for kind in kinds], dtype=float), members,
    )
    begin = _begin(names, members, sites, before or {})
    if begin is None:
        short = [place(problem, iterations=iterations // 2 + 1, seed=seed, progress=progress)
                 for seed in range(1, seeds + 1)]
        best, _ = min(short, key=lambda placed: placed[1])
        begin = [at[index] for (_, at), index in zip(members, best, strict=True)]
    chosen, _ = place(problem, iterations=iterations, begin=begin, progress=progress)
    plan: dict[str, str] = {}
    for kind, (cells, _), index in zip(KINDS, members, chosen, strict=True):
        for cell, site in zip(cells, index, strict=True):
            key = _cell_key(names[cell], kind)
            if key in plan or not re.fullmatch(r"[\w.$]+", key):
                raise UserError(f"cell {names[cell]}: {key} does not name it alone")
            plan[key] = sites[kind][site][0]
    return dict(sorted(plan.items()))


def _begin(names: Sequence[str], members: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]],
           sites: Mapping[str, Sequence[tuple[str, int, int]]], before: Mapping[str, str],
           ) -> list[NDArray[np.float64]] | None:
    """Places of cells by their sites of before, NaN for those that had none; None if few had."""
    begin, found, wanted = [], 0, sum(len(cells) for cells, _ in members)
    for kind, (cells, _) in zip(KINDS, members, strict=True):
        at = {name: (column, row) for name, column, row in sites[kind]}
        places = [at.get(before.get(_cell_key(names[cell], kind), "")) for cell in cells]
        found += sum(place is not None for place in places)
        begin.append(np.array([place or (np.nan, np.nan) for place in places]).reshape(-1, 2))
    return begin if 2 * found > wanted else None


def _netlist(board: Board, folder: Path) -> Mapping[str, Any]:
    """Synthesise a board's top, without a floorplan."""
    from boards.build import make_plan
    from boards.trellis import synthesise

    plan, _ = make_plan(board, board.accelerator(), floorplan=False)
    return synthesise(plan, folder, board.design)


def _rows(text: str) -> tuple[int, int]:
    """First row and step of the option."""
    found = re.fullmatch(r"([0-9]{1,3}):([0-9]{1,3})", text)
    first, step = (int(part) for part in found.groups()) if found else (0, 1)
    if step < 2 and (first or step):
        raise argparse.ArgumentTypeError(f"{text!r} is not FIRST:STEP with a step of 2 or more")
    return first, step


def _parser() -> Parser:
    boards = [board.id for board in BOARDS.values() if not board.vivado]
    parser = Parser(prog="python -m boards.floorplan", description=__doc__)
    parser.add_argument("board", metavar="BOARD", help=f"one of {', '.join(boards)}")
    parser.add_argument("--anew", action="store_true",
                        help="do not begin with the floorplan that is there")
    parser.add_argument("--empty-rows", metavar="FIRST:STEP", type=_rows,
                        help="rows of the device without tables; as they are by default, 0:0 for "
                             "none")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    args = _parser().parse_args(argv)
    board = find_board(args.board)
    if not isinstance(board, Board) or board.vivado:
        raise UserError(f"{args.board} has no ECP5")
    config, device = board.accelerator(), board.make_platform().device
    path = _path(config, device)
    before = Floorplan() if args.anew else _read(path)[1]
    # What is missing is said before minutes of synthesis.
    check_target(path)
    _, height, _ = sites_of(device)
    rows = before.empty_rows
    if args.empty_rows is not None:
        first, step = args.empty_rows
        if first >= height:
            raise UserError(f"--empty-rows: {device} has rows 0 to {height - 1}, not {first}")
        rows = logic_columns(device, range(first, height, step) if step else ())
    if importlib.util.find_spec("scipy") is None:
        raise UserError("scipy is not installed: pip install '.[dev]'")
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder, console.status("synthesis"):
        module = _netlist(board, Path(folder))
    with console.status("placement") as status:
        def progress(iteration: int, low: float, high: float) -> None:
            status.update(f"placement, iteration {iteration}: wires {low:.0f} to {high:.0f}")

        sites = make_floorplan(module, device, before=before.sites, progress=progress)
    write_output(path, json.dumps({
        "core": _core(config), "device": device, "empty_rows": rows, "sites": sites,
    }, indent=1) + "\n")
    print(f"{path.name}: sites of {len(sites)} cells, {len(rows)} rows without tables")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
