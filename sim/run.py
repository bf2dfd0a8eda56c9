"""Run images on the simulated accelerator: ``python -m sim.run lenet``.

Digits for the LeNets, photographs for vgg16 and AlexNet (``--network FILE.npz`` or
``--weights synthetic``).
Exit code 0: every word equal to the golden model; 1: a word differs, or the core stopped; 2: the
input or the installation is at fault.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from model import golden
from model.compile import Program, compile_network
from model.config import AcceleratorConfig, load_config
from model.console import report_console
from model.cost import estimate
from model.errors import Parser, UserError, command
from model.files import check_target, write_output
from model.lower import lower
from model.netfile import load_network
from model.network import NETWORKS, QuantisedNetwork
from model.synthetic import add_synthetic, draw
from model.zoo import zoo_network
from sim.backend import Backend, CoreError, Watchdog
from sim.faults import flip_bit
from sim.inputs import (
    Digit,
    Photograph,
    as_input,
    image_files,
    parse_indices,
    photograph_files,
    stored_digits,
)
from sim.memory import MemoryOptions
from sim.report import as_json, print_image, print_layers, print_verdict
from sim.session import BACKENDS, ImageResult, layer_figures, open_backend, simulate_batch
from sim.waves import vcd_signals, verilog_signals, write_save_file

__all__ = ["main"]

#: Images printed one by one; of more, only the totals.
LISTED = 10
#: Configs for the networks that the small ones do not hold.
LARGE = {"vgg16": "u200", "alexnet": "alexnet-144", "alexnet-grouped": "alexnet-144"}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m sim.run", description=__doc__)
    parser.add_argument("network", nargs="?", default="lenet", choices=sorted(NETWORKS),
                        help="network from the zoo (default: lenet)")
    parser.add_argument("--network", dest="file", metavar="FILE.npz",
                        help="a quantised network instead of one from the zoo")
    parser.add_argument("--weights", choices=("synthetic",),
                        help="random weights pruned to --alpha instead of a trained network")
    parser.add_argument("--layers", metavar="A:B",
                        help="only layers A to B-1, counted from 0; the golden model computes "
                        "their input")
    parser.add_argument("--config", metavar="NAME|FILE",
                        help="accelerator (default: ecp5-85f; u200 for vgg16, alexnet-144 for "
                        "AlexNet)")
    parser.add_argument("--pattern", default="channel", choices=("channel", "kernel"),
                        help="sparsity pattern of the zoo network (default: channel)")
    add_synthetic(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--images", "--image", nargs="+", metavar="FILE",
                        help="28x28 greyscale image files, or photographs")
    source.add_argument("--index", nargs="+", default=["0"], metavar="N",
                        help="digits of the test set, also ranges: 0:100 (default: 0)")
    parser.add_argument("--batch", type=int, default=1, metavar="B",
                        help="images of a run, which share the weights of the fully connected "
                        "layers, one in each tile lane (default: 1)")
    parser.add_argument("--backend", default="fast", choices=BACKENDS,
                        help="fast: Verilator and g++; pysim: Amaranth's simulator")
    parser.add_argument("--vcd", metavar="FILE", type=Path,
                        help="waveform (.vcd, or .fst with --backend fast) and a GTKWave save file")
    parser.add_argument("--latency", type=int, default=8, metavar="CYCLES",
                        help="read latency of the memory (default: 8)")
    parser.add_argument("--stall", type=float, default=0.0, metavar="P",
                        help="probability of a memory stall per cycle and channel")
    parser.add_argument("--bandwidth", type=float, default=1.0, metavar="F",
                        help="beats per cycle of the memory, each way (default: 1)")
    parser.add_argument("--gaps", default="1:0", metavar="T:G",
                        help="of every T cycles the memory does nothing for G (default: none)")
    parser.add_argument("--max-cycles", type=int, metavar="N", help="watchdog per run")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything measured")
    parser.add_argument("--flip-bit", metavar="[SECTION:]N",
                        help="invert a bit of the program image: the core must notice")
    parser.add_argument("--fix-crc", action="store_true",
                        help="with --flip-bit: make the CRCs right, the comparison must notice")
    return parser


def _load_network(args: argparse.Namespace, config: AcceleratorConfig) -> QuantisedNetwork:
    if args.file:
        return load_network(args.file)
    if args.weights:
        return draw(args, args.network, config.weight_bits)
    if args.network == "vgg16":
        raise UserError("vgg16 is not shipped: give --network FILE.npz, written by python -m "
                        "pruning.layerwise vgg16 --weights hed, or --weights synthetic")
    if args.network in LARGE:
        raise UserError(f"{args.network} is not shipped: give --network FILE.npz or "
                        "--weights synthetic")
    return zoo_network(args.network, args.pattern, args.alpha)


def _layers(args: argparse.Namespace, network: QuantisedNetwork) -> tuple[int, int]:
    """First and one past the last layer to run."""
    if args.layers is None:
        return 0, len(network.layers)
    first, colon, stop = args.layers.partition(":")
    if not (colon and first.isdecimal() and stop.isdecimal()
            and int(first) < int(stop) <= len(network.layers)):
        raise UserError(f"--layers {args.layers!r}: give A:B with 0 <= A < B <= "
                        f"{len(network.layers)}")
    return int(first), int(stop)


def _inputs(args: argparse.Namespace, network: QuantisedNetwork) -> list[Digit | Photograph]:
    shape = network.network.input_shape
    if shape[0] == 3:
        if args.images:
            return [*photograph_files(args.images, shape, signed=network.in_signed)]
        return [picture for seed in range(args.seed, args.seed + args.batch)
                for picture in photograph_files((), shape, seed, signed=network.in_signed)]
    return [*(image_files(args.images) if args.images
              else stored_digits(parse_indices(args.index)))]


def _check_target(path: Path | None, suffixes: tuple[str, ...]) -> None:
    if path is None:
        return
    if path.suffix not in suffixes:
        raise UserError(f"{path}: the name must end in {' or '.join(suffixes)}")
    check_target(path)


def _options(args: argparse.Namespace) -> MemoryOptions:
    if args.max_cycles is not None and args.max_cycles < 1:
        raise UserError(f"--max-cycles must be positive, not {args.max_cycles}")
    period, colon, length = args.gaps.partition(":")
    if not (colon and period.isdecimal() and length.isdecimal()):
        raise UserError(f"--gaps {args.gaps}: give a period and a length in cycles, as in 780:35")
    try:
        return MemoryOptions(latency=args.latency, stall=args.stall, seed=args.seed,
                             bandwidth=args.bandwidth, gaps=(int(period), int(length)))
    except ValueError as error:
        raise UserError(str(error)) from error


def _simulate(backend: Backend, program: Program, digits: Sequence[Digit | Photograph],
              inputs: Sequence[NDArray[np.int64]], options: MemoryOptions,
              console: Console) -> list[ImageResult]:
    results: list[ImageResult] = []
    expected = sum(cost.cycles for cost in estimate(program, options.average, options.latency))
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
               TextColumn("{task.completed} of {task.total} cycles, {task.fields[rate]} a second"),
               TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(),
                  transient=True) as progress:
        task = progress.add_task("simulating", total=len(digits) // program.batch * expected,
                                 rate="-")
        for index, start in enumerate(range(0, len(digits), program.batch)):
            part = slice(start, start + program.batch)

            def watch(cycles: int, before: int = index * expected) -> None:
                speed = progress.tasks[0].speed
                progress.update(task, completed=before + min(cycles, expected),
                                rate=f"{speed:.0f}" if speed else "-")

            backend.watch = watch
            results += simulate_batch(backend, program, inputs[part])
            watch(expected)
            for digit, result in zip(digits[part], results[part], strict=True):
                if len(digits) <= LISTED or result.failure or not result.comparison.exact:
                    print_image(console, digit, result, program.batch)
            if results[-1].run is None:     # the core hangs or has stopped: no sense in going on
                break
    return results


def _save_file(args: argparse.Namespace, program: Program) -> None:
    if args.vcd.suffix == ".vcd":
        signals = vcd_signals(args.vcd)
    else:
        from sim.verilator import core_verilog

        signals = verilog_signals(core_verilog(program.config))
    write_save_file(args.vcd, signals)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    args = _parser().parse_args(argv)
    console = report_console()
    _check_target(args.vcd, (".vcd", ".fst") if args.backend == "fast" else (".vcd",))
    _check_target(args.json, (".json",))
    if args.fix_crc and args.flip_bit is None:
        raise UserError("--fix-crc needs --flip-bit")
    options = _options(args)
    if args.batch < 1:
        raise UserError(f"--batch must be at least 1, not {args.batch}")
    if args.dense_alpha is not None and not args.weights:
        raise UserError("--dense-alpha is for --weights synthetic")
    config = load_config(args.config or LARGE.get(args.network, "ecp5-85f"))
    network = _load_network(args, config)
    first, stop = _layers(args, network)
    digits = _inputs(args, network)
    inputs = [as_input(digit, network.network.input_shape) for digit in digits]
    if len(inputs) % args.batch:
        raise UserError(f"--batch {args.batch}: give a number of images that is a multiple of it, "
                        f"not {len(inputs)}")
    program = compile_network(network.part(first, stop), config, batch=args.batch)
    if first:
        before = lower(network.part(0, first))
        inputs = [golden.run(before, pixels)[-1].out for pixels in inputs]
    image = program.image
    if args.flip_bit is not None:
        image, what = flip_bit(image, program.config, args.flip_bit, fix_crc=args.fix_crc)
        console.print(what, highlight=False)
    try:
        with open_backend(args.backend, program.config, options=options,
                          max_cycles=args.max_cycles, trace=args.vcd) as backend:
            backend.load(np.ascontiguousarray(image, dtype="<u8").tobytes())
            results = _simulate(backend, program, digits, inputs, options, console)
    except (CoreError, Watchdog) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        if args.vcd is not None and args.vcd.exists():
            _save_file(args, program)
    complete = [result.run for result in results if result.run is not None]
    if complete:
        print_layers(console, layer_figures(program, complete[-1]))
    exact = print_verdict(console, program, results)
    if args.json is not None:
        named = not args.file and args.dense_alpha is None
        pattern = f"{args.pattern} {args.alpha}" if named else ", ".join(
            dict.fromkeys(layer.pattern for layer in network.layers))
        content = as_json(program, digits[:len(results)], results, args.backend, pattern,
                          options)
        write_output(args.json, json.dumps(content, indent=2) + "\n")
    return 0 if exact else 1


if __name__ == "__main__":
    raise SystemExit(main(None))
