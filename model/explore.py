"""Search configs of the core for a network on a board: ``python -m model.explore``.

Counts resources (`model.resources`) and cycles (`model.cost`) of every config of `model.space`,
keeps those that no other one beats in time, multipliers and RAM, and chooses one: the fastest, or
with ``--at-least`` the smallest that is fast enough. Nothing is synthesised or simulated.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import multiprocessing
import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from model.console import report_console
from model.errors import Parser, UserError, command
from model.explore_plot import draw_front, require
from model.files import check_target, write_output
from model.network import NETWORKS
from model.outline import outline, part
from model.platform import PLATFORMS
from model.space import Found, Point, Workload, front, search, tasks

__all__ = ["as_json", "choose", "explore", "main", "staircase"]

#: Of configs this much slower than the fastest, the one with the fewest tables is chosen.
TIE = 0.01


def explore(workload: Workload, weight_bits: Sequence[int], jobs: int,
            console: Console | None = None) -> Found:
    """Search the whole space; the points found are its front.

    Parameters
    ----------
    workload : Workload
        Network, board and shares.
    weight_bits : sequence of int
        Weights to consider, 8 and 16.
    jobs : int
        Processes.
    console : Console or None
        Where a progress bar is drawn.
    """
    for bits in weight_bits:
        workload.lowered(bits)          # complains about the pattern once, here
    todo, total = list(tasks(workload.platform, weight_bits)), Found()
    if not todo:
        raise UserError(f"on {workload.platform.name} only 8-bit weights were counted")
    console = console or Console(stderr=True)
    # Where it cannot move it would leave an empty line.
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(f"{workload.network.name} on {workload.platform.name}",
                                total=len(todo))
        with multiprocessing.get_context("spawn").Pool(jobs) as pool:
            for found in pool.imap_unordered(partial(search, workload), todo, chunksize=8):
                total.merge(found)
                progress.advance(bar)
    total.points = front(total.points)
    if not total.points:
        raise UserError(_why(workload, total))
    return total


def _why(workload: Workload, found: Found) -> str:
    """Say what keeps every config away, in one line."""
    text = f"no config of {workload.network.name} fits {workload.platform.name}"
    # A config that the compiler refuses would have fitted else.
    reasons = [why for why, _ in found.refused.most_common() if why not in found.closest]
    if reasons:
        return f"{text}: {reasons[0]}"
    return f"{text}: the nearest one needs {min(found.closest.values())[1]}"


def choose(points: Sequence[Point], at_least: float | None) -> Point:
    """Take the fastest point, or the smallest one with ``at_least`` images a second.

    Of points within `TIE` of the fastest the one with the fewest tables is taken.
    """
    if at_least is not None:
        enough = [point for point in points if point.seconds * at_least <= 1]
        if not enough:
            raise UserError(f"no config reaches {at_least:g} images a second: the fastest one "
                            f"gives {1 / points[0].seconds:.1f}")
        return min(enough, key=lambda point: (point.used["DSP"], point.used["LUT"], point.seconds))
    near = [point for point in points if point.seconds <= points[0].seconds * (1 + TIE)]
    return min(near, key=lambda point: (point.used["LUT"], point.ram_kbit))


def staircase(points: Sequence[Point]) -> list[Point]:
    """Points that none beats in time and multipliers alone, fastest first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda point: point.objectives):
        if not found or point.used["DSP"] < found[-1].used["DSP"]:
            found.append(point)
    return found


def _figures(workload: Workload, point: Point) -> dict[str, Any]:
    return {
        "cycles": point.cycles, "milliseconds": round(1000 * point.seconds, 4),
        "images_per_second": round(1 / point.seconds, 2),
        "gops_dense": round(workload.operations / point.seconds / 1e9, 1),
        "megabytes_read": round(point.bytes_read / 1e6, 3),
        "linear_share": None if point.linear_share is None else round(point.linear_share, 4),
        "ram_kbit": point.ram_kbit,
        "used": point.used,
    }


def as_json(workload: Workload, found: Found, chosen: Point, command_line: str) -> dict[str, Any]:
    """Put front and choice, each with its config, into a form for a file."""
    platform = workload.platform
    return {
        "command": command_line,
        "network": workload.network.name, "pattern": workload.pattern, "linear": workload.linear,
        "board": dataclasses.asdict(platform), "fill": workload.fill,
        "dsp_accumulators": workload.dsp_accumulators, "configs": found.configs,
        "refused": dict(found.refused.most_common()),
        "chosen": _figures(workload, chosen) | {"config": dataclasses.asdict(chosen.config)},
        "front": [_figures(workload, point) | {"config": _sizes(point)} for point in found.points],
    }


def _text(result: dict[str, Any]) -> str:
    """Write the result with a line for each point of the front."""
    lines = ",\n".join(f"  {json.dumps(point)}" for point in result["front"])
    whole = json.dumps(result | {"front": []}, indent=1)
    return whole.replace('"front": []', f'"front": [\n{lines}\n ]') + "\n"


def _sizes(point: Point) -> dict[str, int]:
    """Fields of a config that were searched."""
    names = ("tile_lanes", "kernel_lanes", "feature_banks", "inverse_rows", "port_bits",
             "weight_bits", "tile_depth", "kernel_depth", "select_depth", "ultra_ram")
    return {name: getattr(point.config, name) for name in names}


def _table(workload: Workload, points: Sequence[Point], chosen: Point, rows: int) -> Table:
    """Show the staircase, evenly thinned to ``rows`` steps, and the choice."""
    steps = staircase(points)
    if len(steps) > rows:
        steps = [steps[round(index * (len(steps) - 1) / (rows - 1))] for index in range(rows)]
    if chosen not in steps:
        steps = sorted([*steps, chosen], key=lambda point: point.objectives)
    kinds = list(workload.platform.rams)
    table = Table("", "ms", "images/s", "GOPS", "FC", "P'×N'", "F", "R", "bits", "port", "tile",
                  "kernel", "DSP", "LUT", "FF", *kinds,
                  title=f"{workload.network.name} on {workload.platform.name}, "
                        f"{workload.platform.clock_hz / 1e6:g} MHz")
    for point in steps:
        config, used = point.config, point.used
        table.add_row(
            "*" if point == chosen else "", f"{1000 * point.seconds:.3f}",
            f"{1 / point.seconds:.1f}", f"{workload.operations / point.seconds / 1e9:.0f}",
            "" if point.linear_share is None else f"{point.linear_share:.0%}",
            f"{config.tile_lanes}×{config.kernel_lanes}",
            *(str(value) for value in (
                config.feature_banks, config.inverse_rows, config.weight_bits, config.port_bits,
                config.tile_depth, config.kernel_depth, used["DSP"], used["LUT"], used["FF"])),
            *(str(used.get(kind, 0)) for kind in kinds),
        )
    return table


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m model.explore", description=__doc__)
    parser.add_argument("--network", required=True, metavar="NAME", help=", ".join(NETWORKS))
    parser.add_argument("--board", required=True, metavar="NAME", help=", ".join(PLATFORMS))
    parser.add_argument("--layers", metavar="A:B", help="only layers A to B-1, counted from 0")
    parser.add_argument("--pattern", default="channel", metavar="KIND", help="channel (default)")
    parser.add_argument("--alpha", type=int, default=4, metavar="M",
                        help="one of M channels is kept, a power of two (default 4)")
    parser.add_argument("--linear-alpha", type=int, metavar="M",
                        help="the same of fully connected layers (default as --alpha)")
    parser.add_argument("--weight-bits", default="8,16", metavar="LIST", help="default 8,16")
    parser.add_argument("--clock", type=float, metavar="MHZ", help="default: the board's")
    parser.add_argument("--bandwidth", type=float, metavar="GB/S", help="default: the board's")
    parser.add_argument("--fill", type=float, default=0.9, metavar="SHARE",
                        help="of the device's tables and flip-flops (default 0.9)")
    parser.add_argument("--accumulators", choices=("tables", "dsp"), default="tables",
                        help="where a lane's sums are: in tables, as yosys counts (default), or "
                             "in the DSPs")
    parser.add_argument("--at-least", type=float, metavar="IMAGES/S",
                        help="choose the smallest config that is so fast, not the fastest one")
    parser.add_argument("--rows", type=int, default=16, metavar="N",
                        help="most rows of the table (default 16)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N",
                        help="processes (default: one per core)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole front")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it (matplotlib)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the chosen config")
    return parser


def _workload(args: argparse.Namespace) -> Workload:
    """Check the arguments that say what is searched for."""
    for kind, name, known in (("network", args.network, NETWORKS),
                              ("board", args.board, PLATFORMS)):
        if name not in known:
            raise UserError(f"unknown {kind} {name!r}: known are {', '.join(known)}")
    network, platform = NETWORKS[args.network], PLATFORMS[args.board]
    if args.layers is not None:
        first, colon, stop = args.layers.partition(":")
        if not (colon and first.isdecimal() and stop.isdecimal()):
            raise UserError(f"--layers {args.layers!r}: give A:B with 0 <= A < B")
        network = part(network, int(first), int(stop))
    alphas = [args.alpha, args.alpha if args.linear_alpha is None else args.linear_alpha]
    for alpha in alphas:
        if not 1 <= alpha <= 256 or alpha & (alpha - 1):
            raise UserError(f"alpha must be a power of two from 1 to 256, not {alpha}")
    if args.pattern != "channel":
        raise UserError(f"pattern {args.pattern!r}: the steps of irregular patterns depend on the "
                        "weights, only 'channel' can be explored")
    for name in ("clock", "bandwidth", "at_least"):
        if getattr(args, name) is not None and not 0 < getattr(args, name) < math.inf:
            raise UserError(f"--{name.replace('_', '-')} must be positive and finite, not "
                            f"{getattr(args, name):g}")
    if not 0 < args.fill <= 1:
        raise UserError(f"--fill must be above 0 and at most 1, not {args.fill:g}")
    if args.jobs < 1 or args.rows < 2:
        raise UserError("--jobs must be at least 1 and --rows at least 2")
    if args.clock is not None:
        if 1e6 * args.clock < 1:
            raise UserError(f"--clock must be at least 1 Hz, not {args.clock:g} MHz")
        platform = dataclasses.replace(platform, clock_hz=round(1e6 * args.clock))
    if args.bandwidth is not None:
        platform = dataclasses.replace(platform, bandwidth=1e9 * args.bandwidth)
    linear, pattern = (f"channel 1:{alpha}" for alpha in reversed(alphas))
    outline(network, pattern, 8, linear)
    return Workload(network, pattern, linear, platform, args.fill, args.accumulators == "dsp")


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Search, print the front, write what was asked for."""
    args = _parser().parse_args(argv)
    for path in (args.json, args.plot, args.out):
        check_target(path)
    if args.plot is not None:
        require(args.plot)
    if args.out is not None and args.out.suffix != ".json":
        raise UserError(f"--out {args.out}: the name of a config must end in .json")
    workload = _workload(args)
    bits = sorted(set(args.weight_bits.split(",")))
    if not set(bits) <= {"8", "16"}:
        raise UserError(f"--weight-bits {args.weight_bits!r}: give 8, 16 or 8,16")
    found = explore(workload, [int(text) for text in bits], args.jobs)
    chosen = choose(found.points, args.at_least)
    console = report_console()
    console.print(_table(workload, found.points, chosen, args.rows))
    console.print(f"{len(found.points)} of {found.configs} configs on the front (time, DSP, RAM); "
                  "* is chosen; FC: of the memory's bandwidth, by the fully connected layers")
    given = sys.argv[1:] if argv is None else argv
    result = as_json(workload, found, chosen, shlex.join(["python", "-m", "model.explore", *given]))
    if args.json is not None:
        write_output(args.json, _text(result))
    if args.plot is not None:
        draw_front(args.plot, result)
    if args.out is not None:
        write_output(args.out, chosen.config.to_json())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
