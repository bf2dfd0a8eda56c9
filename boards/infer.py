"""Classify digits on a board: ``python -m boards.infer --port /dev/ttyUSB0 digit.png``.

Compiles a network for the core it finds, uploads it (no new bitstream) and runs the images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from boards.host import BAUD, Accelerator
from model.compile import compile_network
from model.config import load_config
from model.console import report_console
from model.errors import Parser, command
from model.files import check_target, write_output
from model.netfile import load_network
from model.zoo import zoo_network
from sim.inputs import as_input, image_files

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m boards.infer", description=__doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="28x28 greyscale image files")
    parser.add_argument("--port", required=True, help="serial port of the board")
    parser.add_argument("--baud", type=int, default=BAUD, help=f"its rate (default: {BAUD})")
    parser.add_argument("--network", default="lenet", metavar="NAME|FILE",
                        help="lenet or lenet5 of the zoo, or a quantised network's file "
                        "(default: lenet)")
    parser.add_argument("--pattern", default="channel", choices=("channel", "kernel"),
                        help="sparsity pattern of the zoo network (default: channel)")
    parser.add_argument("--alpha", type=int, default=16, help="its compression (default: 16)")
    parser.add_argument("--config", metavar="NAME|FILE",
                        help="config of the board's core, if it is not a preset")
    parser.add_argument("--timeout", type=float, default=0.2, metavar="SECONDS",
                        help="wait for a reply, doubled at each attempt (default: 0.2)")
    parser.add_argument("--retries", type=int, default=12, metavar="N",
                        help="attempts after the first (default: 12)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    args = _parser().parse_args(argv)
    console = report_console()
    check_target(args.json)
    config = load_config(args.config) if args.config else None
    network = (load_network(args.network) if Path(args.network).suffix
               else zoo_network(args.network, args.pattern, args.alpha))
    inputs = [as_input(digit, network.network.input_shape) for digit in image_files(args.images)]
    results = []
    with console.status(f"{args.port}: waiting for an answer"):
        board = Accelerator(args.port, baud=args.baud, config=config, timeout=args.timeout,
                            retries=args.retries)
    with board:
        program = compile_network(network, board.config)
        with console.status(f"{args.port}: uploading {8 * len(program.image)} bytes"):
            board.load(program)
        for name, pixels in zip(args.images, inputs, strict=True):
            found = board.predict(pixels)
            scores = found.scores.tolist()
            console.print(f"{name}: {found.label}   scores {scores}, {found.cycles} cycles, "
                          f"{1e3 * found.seconds:.3f} ms", soft_wrap=True, highlight=False)
            results.append({"image": name, "class": found.label, "scores": scores,
                            "cycles": found.cycles, "seconds": found.seconds})
        counters = board.counters()
    dropped = counters.dropped - board.info.dropped     # since this client came
    if counters.repeated or dropped:
        console.print(f"line: {counters.requests} requests, {counters.repeated} repeated; the "
                      f"board dropped {dropped} pieces", highlight=False)
    if args.json:
        write_output(args.json, json.dumps({
            "config": board.config.name, "digest": f"{board.info.digest:08x}",
            "clock_hz": board.info.clock_hz, "network": network.network.name,
            "results": results, "profile": counters.profile.tolist(),
            "requests": counters.requests, "repeated": counters.repeated,
            "accepted": counters.accepted - board.info.accepted, "dropped": dropped,
        }, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
