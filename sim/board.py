"""A board in the simulator, at the end of a pseudo-terminal: ``python -m sim.board``.

The top is that of the real boards (`rtl.host.top.HostedTop`) with its UART pins, in Verilator; the
terminal's name goes to ``python -m boards.infer --port``. A bit on the line takes a few clock
cycles instead of a hundred, and ``--noise`` drops, flips and doubles bytes in both directions.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import os
import random
import select
import signal
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from model.config import AcceleratorConfig, load_config
from model.errors import Parser, UserError, command
from sim.verilator import build_library, kept_verilog

__all__ = ["DIVISOR", "Noise", "SimulatedBoard", "main"]

HARNESS = Path(__file__).with_name("board.cpp")
#: Clock cycles of a bit.
DIVISOR = 4
#: Clock cycles without a byte that end an unfinished frame, about 20 bytes.
TIMEOUT = 200 * DIVISOR
#: On-chip memory that is simulated, more than any FPGA has.
MOST_KIB = 64 << 10
#: Cycles between two looks at the terminal, and until the clock stands still without traffic.
SLICE, AWAKE = 2000, 4_000_000


class Noise:
    """Drop, flip or double bytes.

    Parameters
    ----------
    rate : float
        Probability of each byte to be hit, 0 to 1.
    seed : int
        Of the random numbers.

    Attributes
    ----------
    rate : float
        May change.
    dropped, flipped, doubled : int
        Bytes hit so far.
    """

    def __init__(self, rate: float, seed: int = 1) -> None:
        if not 0 <= rate <= 1:
            raise UserError(f"the noise must be a probability from 0 to 1, not {rate}")
        self.rate, self._rng = rate, random.Random(seed)
        self.dropped = self.flipped = self.doubled = 0

    def __call__(self, data: bytes) -> bytes:
        """Return what arrives of ``data``."""
        if not self.rate:
            return data
        out = bytearray()
        for byte in data:
            if self._rng.random() >= self.rate:
                out.append(byte)
                continue
            kind = self._rng.randrange(3)
            if kind == 0:
                self.dropped += 1
            elif kind == 1:
                self.flipped += 1
                out.append(byte ^ 1 << self._rng.randrange(8))
            else:
                self.doubled += 1
                out += bytes([byte, byte])
        return bytes(out)


def _open(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    handle, u32, u64 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64
    for name, result, arguments in (
        ("board_new", handle, [u32]),
        ("board_delete", None, [handle]),
        ("board_send", None, [handle, ctypes.c_char_p, u32]),
        ("board_unsent", u32, [handle]),
        ("board_run", None, [handle, u64]),
        ("board_receive", u32, [handle, ctypes.c_char_p, u32]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class SimulatedBoard:
    """The board top in Verilator behind a pseudo-terminal.

    Parameters
    ----------
    config : AcceleratorConfig
        Config with on-chip memory.
    to_board, to_host : Noise
        What happens to the bytes.

    Attributes
    ----------
    port : str
        Name of the terminal.
    cycles : int
        Clock cycles so far.
    source : str
        Verilog of the design.
    """

    def __init__(self, config: AcceleratorConfig, *, to_board: Noise | None = None,
                 to_host: Noise | None = None) -> None:
        if not config.onchip_kib:
            raise UserError(f"config {config.name} has no on-chip memory: give --memory-kib")
        self._to_board, self._to_host = to_board or Noise(0), to_host or Noise(0)
        try:
            import tty
        except ImportError:
            raise UserError("this system has no pseudo-terminals: use Linux or macOS") from None

        def make() -> Any:
            from rtl.host.top import HostedTop

            return HostedTop(config, divisor=DIVISOR, timeout=TIMEOUT)

        self.source = kept_verilog(f"board {DIVISOR} {TIMEOUT} {config.to_json()}", make)
        self._library = _open(build_library(self.source, harness=HARNESS))
        self._handle = self._library.board_new(DIVISOR)
        self._finalizer = weakref.finalize(self, self._library.board_delete, self._handle)
        # The board's end of the terminal stays open too: a client that leaves does not end it.
        self._terminal, self._client = os.openpty()
        tty.setraw(self._client)
        os.set_blocking(self._terminal, False)
        self.port = os.ttyname(self._client)
        self.cycles = 0
        self._buffer = ctypes.create_string_buffer(4096)

    def _exchange(self) -> bool:
        """Move bytes between terminal and pins; whether there were any."""
        try:
            received = os.read(self._terminal, 4096)
        except BlockingIOError:
            received = b""
        if received:
            damaged = self._to_board(received)
            self._library.board_send(self._handle, damaged, len(damaged))
        count = self._library.board_receive(self._handle, self._buffer, len(self._buffer))
        if count:
            answer = self._to_host(self._buffer.raw[:count])
            try:
                os.write(self._terminal, answer)
            except BlockingIOError:     # nobody reads: as on a wire, the bytes are gone
                pass
        return bool(received or count)

    def serve(self, stop: threading.Event) -> None:
        """Simulate until ``stop``; the clock stands still when nothing happens for long."""
        quiet = 0
        while not stop.is_set():
            busy = self._exchange() or self._library.board_unsent(self._handle)
            quiet = 0 if busy else quiet + SLICE
            if quiet >= AWAKE:
                select.select([self._terminal], [], [], 0.05)
                continue
            self._library.board_run(self._handle, SLICE)
            self.cycles += SLICE

    def close(self) -> None:
        """Free simulator and terminal."""
        self._finalizer()
        for end in (self._terminal, self._client):
            os.close(end)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m sim.board", description=__doc__)
    parser.add_argument("--config", default="ecp5-85f", metavar="NAME|FILE",
                        help="accelerator (default: ecp5-85f)")
    parser.add_argument("--memory-kib", type=int, metavar="N",
                        help="on-chip memory (default: the config's, else 64)")
    parser.add_argument("--noise", type=float, default=0.0, metavar="P",
                        help="probability of each byte to be dropped, flipped or doubled")
    parser.add_argument("--seed", type=int, default=1, help="seed of the noise (default: 1)")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, until interrupted."""
    args = _parser().parse_args(argv)
    console = Console(stderr=True)
    config = load_config(args.config)
    try:
        config = dataclasses.replace(
            config, onchip_kib=config.onchip_kib or 64 if args.memory_kib is None
            else args.memory_kib
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    if config.onchip_kib > MOST_KIB:
        raise UserError(f"--memory-kib must be at most {MOST_KIB}, not {config.onchip_kib}")
    noise = Noise(args.noise, args.seed), Noise(args.noise, args.seed + 1)
    with console.status(f"{config.name}: building the simulator (minutes, once)"):
        board = SimulatedBoard(config, to_board=noise[0], to_host=noise[1])
    # Explicitly: a shell starts commands in the background with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    print(board.port, flush=True)
    console.print(f"In another shell: python -m boards.infer --port {board.port} DIGIT.png "
                  "(ends with Ctrl-C here)", soft_wrap=True, highlight=False)
    try:
        board.serve(threading.Event())
    except KeyboardInterrupt:       # that is how it ends
        pass
    finally:
        board.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
