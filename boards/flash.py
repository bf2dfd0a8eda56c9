"""Program a board: ``python -m boards.flash ulx3s-85f``.

Prints the command and runs it: openFPGALoader, dfu-util or openocd, as the board asks. OrangeCrab
keeps the bitstream; on the other boards it is gone when the power is.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from boards.table import BOARDS, Board, ZynqBoard, find_board
from model.errors import Parser, UserError, command

__all__ = ["main", "programming_command"]

#: Where each programmer comes from.
_SOURCES = {
    "openFPGALoader": "Debian/Ubuntu: apt-get install openfpgaloader",
    "dfu-util": "Debian/Ubuntu: apt-get install dfu-util",
    "openocd": "Debian/Ubuntu: apt-get install openocd",
}


def programming_command(board: Board, bitstream: Path) -> list[str]:
    """Command that programs a board; the SVF file and openocd's settings lie beside the bitstream.

    Raises
    ------
    UserError
        A file that the programmer takes is not there, is no file or is empty.
    """
    folder = bitstream.parent
    files = {
        "{bit}": bitstream, "{svf}": folder / f"{bitstream.stem}.svf",
        "{openocd}": folder / f"{board.design}-openocd.cfg",
    }
    words = []
    for word in board.programmer:
        for mark, path in files.items():
            if mark not in word:
                continue
            fault = ("does not exist" if not path.exists() else
                     "is not a file" if not path.is_file() else
                     "is empty" if not path.stat().st_size else "")
            if fault:
                raise UserError(f"{path} {fault}: build it with python -m rtl.build "
                                f"--board {board.id}, or give --bitstream")
            word = word.replace(mark, str(path))
        words.append(word)
    return words


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m boards.flash", description=__doc__)
    parser.add_argument("board", metavar="BOARD", help=", ".join(BOARDS))
    parser.add_argument("--bitstream", type=Path, metavar="FILE",
                        help="the .bit file (default: what rtl.build --board wrote to build/)")
    parser.add_argument("--dry-run", action="store_true", help="only print the command")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    args = _parser().parse_args(argv)
    board = find_board(args.board)
    if isinstance(board, ZynqBoard):
        raise UserError(f"{board.id} is programmed by its processors, from Linux, or by Vivado: "
                        "see docs/boards.md")
    words = programming_command(
        board, args.bitstream or Path("build") / board.id / f"{board.design}.bit"
    )
    print(shlex.join(words), flush=True)
    if args.dry_run:
        return 0
    if shutil.which(words[0]) is None:
        raise UserError(f"{words[0]} is not installed ({_SOURCES[words[0]]}): install it and "
                        "repeat, or run the command above elsewhere")
    try:
        code = subprocess.run(words).returncode
    except OSError as error:
        raise UserError(f"{shutil.which(words[0])} cannot be run: {error.strerror}: install "
                        f"{words[0]} again ({_SOURCES[words[0]]})") from error
    if code:
        raise UserError(f"{words[0]} failed with exit code {code}: is {board.name} connected and "
                        "powered, and may you use its USB device?")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
