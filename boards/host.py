"""A board at the end of a serial line, as an object: `Accelerator`.

The protocol is docs/host-link.md. Every request is sent again until its own reply has come, so a
disturbed line costs time and never a wrong result; a dead one ends in `LinkError`.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from errno import ENOENT
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.compile import Program
from model.config import PRESETS, AcceleratorConfig
from model.errors import UserError
from model.hostlink import (
    INFO_WORDS,
    MAX_PAYLOAD,
    REPLY,
    VERSION,
    Command,
    Decoder,
    Frame,
    Info,
    Status,
    encode,
    item_bytes,
)
from model.image import VERSION as IMAGE_VERSION
from model.image import ErrorCode
from sim.backend import (
    CONTROL_ABORT,
    CONTROL_CLEAR,
    CONTROL_LOAD,
    CONTROL_RUN,
    CORE_ID,
    CSR,
    ERRORS,
    PROFILE_BASE,
    PROFILE_WORDS,
    STATUS_BUSY,
    STATUS_DONE,
    STATUS_LOADED,
)

__all__ = ["BAUD", "Accelerator", "BoardError", "BoardInfo", "Counters", "LinkError", "Prediction"]

#: Rate the bitstreams are built for.
BAUD = 1_000_000
#: Longest wait for one reply, however often it did not come.
_PATIENCE = 5.0
#: Words of memory in a request, at least; fewer are not faster on any line.
_LEAST_WORDS = 8


class LinkError(UserError):
    """The board does not answer, or not as it should."""


class BoardError(UserError):
    """The core stopped with an error code, in ``code``."""

    def __init__(self, code: int, during: str) -> None:
        self.code = code
        known = code in ERRORS
        text = f"{ErrorCode(code).name}: {ERRORS[ErrorCode(code)]}" if known else "unknown"
        super().__init__(f"the board refused to {during}: error {code} {text}")


@dataclass(frozen=True)
class BoardInfo:
    """What a board says about itself.

    Attributes
    ----------
    digest : int
        `AcceleratorConfig.digest` of its core.
    memory_words : int
        64-bit words of its memory.
    clock_hz : int
        Its clock.
    accepted, dropped : int
        Frames it took since its start, and pieces that were none.
    """

    digest: int
    memory_words: int
    clock_hz: int
    accepted: int
    dropped: int


@dataclass(frozen=True)
class Prediction:
    """Outcome of one run.

    Attributes
    ----------
    scores : int64 array
        Outputs of the last layer, flat.
    cycles : int
        Clock cycles of the run, by the core's counter.
    seconds : float
        The same at the board's clock.
    """

    scores: NDArray[np.int64]
    cycles: int
    seconds: float

    @property
    def label(self) -> int:
        """Class with the highest score."""
        return int(self.scores.argmax())


@dataclass(frozen=True)
class Counters:
    """Counters of the last run and of the line.

    Attributes
    ----------
    cycles, read_beats, write_beats : int
        Of the core.
    profile : uint32 array, (layers, 16)
        Profile table, docs/registers.md.
    accepted, dropped : int
        Frames the board took, pieces it dropped, since its start.
    requests, repeated : int
        Requests of this client, and how many attempts more they took.
    """

    cycles: int
    read_beats: int
    write_beats: int
    profile: NDArray[np.uint32]
    accepted: int
    dropped: int
    requests: int
    repeated: int


def _ports() -> str:
    """Name the serial ports that are here, for messages."""
    try:
        from serial.tools.list_ports import comports
    except ImportError:
        return "not known on this system"
    return ", ".join(sorted(each.device for each in comports())) or "none"


def _open(port: str, baud: int) -> Any:
    try:
        import serial
    except ImportError:
        raise UserError("a board needs pyserial: pip install pyserial (or '.[boards]')") from None
    try:
        line = serial.Serial(port, baud, timeout=0.01, exclusive=True)
    except (OSError, ValueError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        if "exclusively lock" in why:
            why = "another program has it, end that"
        elif getattr(error, "errno", None) == ENOENT:
            why = "no such file or device"
        raise LinkError(
            f"cannot open {port} at {baud} baud: {why}; serial ports here: {_ports()}"
        ) from error
    # USB adapters hold bytes back for 16 ms otherwise; what has no such mode needs none.
    try:
        line.set_low_latency_mode(True)
    except (AttributeError, OSError, ValueError, NotImplementedError):
        pass
    return line


class Accelerator:
    """A board.

    Parameters
    ----------
    port : str
        Serial port.
    baud : int
        Its rate.
    config : AcceleratorConfig or None
        Config of the board's core; by default found among the presets by the board's digest.
    timeout : float
        Seconds a reply may take, beyond the time of its bytes on the line; doubled for each
        further attempt.
    retries : int
        Attempts after the first, before a request is given up.

    Attributes
    ----------
    info : BoardInfo
        What the board said at the beginning.
    config : AcceleratorConfig
        Config of its core.

    Raises
    ------
    LinkError
        No such port, no answer, or not from a board of this project.
    UserError
        The core is of a config that is not known here.
    """

    def __init__(self, port: str, *, baud: int = BAUD, config: AcceleratorConfig | None = None,
                 timeout: float = 0.2, retries: int = 12) -> None:
        if baud < 1:
            raise UserError(f"the rate must be positive, not {baud}")
        if not timeout > 0:     # nor NaN
            raise UserError(f"the time-out must be positive, not {timeout}")
        if retries < 0:
            raise UserError(f"the number of retries must not be negative, not {retries}")
        self.port, self._baud, self._timeout, self._retries = port, baud, timeout, retries
        self._line = _open(port, baud)
        self._decoder = Decoder()
        # Not 0: an answer to a client before this one must not look like one to this one.
        self._sequence = random.randrange(1 << 16)
        self._requests = self._repeated = 0
        # Seconds to allow for each byte: what the rate says, or twice what has been seen.
        self._byte_time = 12 / baud
        self._words = MAX_PAYLOAD // 8
        self._program: Program | None = None
        try:
            self._line.reset_input_buffer()
            self.info = self._identify()
            self.config = config or self._known()
            if self.config.digest != self.info.digest:
                raise UserError(
                    f"{port} holds a core of config digest {self.info.digest:08x}, "
                    f"{self.config.name} has {self.config.digest:08x}: flash another bitstream"
                )
        except BaseException:
            self._line.close()
            raise

    def __enter__(self) -> Accelerator:
        """Use as a context manager: closed at the end."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the port."""
        self._line.close()

    def _identify(self) -> BoardInfo:
        words = np.frombuffer(self._request(Command.READ_INFO, 0, INFO_WORDS), "<u4").tolist()
        if words[Info.ID] != CORE_ID:
            raise LinkError(f"{self.port} answers, but is no board of this project")
        (version,) = self._read_registers(CSR["version"], 1)
        if version != IMAGE_VERSION:
            raise LinkError(f"the core at {self.port} reads program images of version {version}, "
                            f"this client writes {IMAGE_VERSION}: flash the matching bitstream")
        return BoardInfo(words[Info.CONFIG], words[Info.MEMORY_WORDS], words[Info.CLOCK_HZ],
                         words[Info.ACCEPTED], words[Info.DROPPED])

    def _known(self) -> AcceleratorConfig:
        for config in PRESETS.values():
            if config.digest == self.info.digest:
                return config
        raise UserError(f"{self.port} holds a core of config digest {self.info.digest:08x}, which "
                        "no preset has: give its config (--config FILE.json)")

    # ---------------------------------------------------------------- line

    def _attempt(self, frame: Frame, patience: float) -> Frame | None:
        """Send a request once; its reply, or None if none came in time."""
        line = encode(frame)
        expected = 32 if frame.command & 1 else 32 + item_bytes(frame.command) * frame.count
        size = len(line) + expected
        begin = time.monotonic()
        end = begin + patience + size * self._byte_time
        try:
            self._line.write(line)
            while time.monotonic() < end:
                for reply in self._decoder.feed(self._line.read(self._line.in_waiting or 1)):
                    if (reply.sequence, reply.command, reply.address) == (
                            frame.sequence, frame.command | REPLY, frame.address):
                        measured = (time.monotonic() - begin) / size
                        self._byte_time = max(12 / self._baud, self._byte_time / 2 + measured)
                        return reply
        except OSError as error:
            raise LinkError(f"{self.port} is gone ({error}): connect the board again (or start the "
                            "simulated one), and repeat") from error
        return None

    def _frame(self, command: Command, address: int, count: int, payload: bytes = b"") -> Frame:
        self._sequence = self._sequence + 1 & 0xFFFF
        self._requests += 1
        return Frame(command, self._sequence, count, address, payload)

    def _checked(self, frame: Frame, reply: Frame) -> bytes:
        """Payload of a reply; a refusal is a `LinkError`."""
        if reply.count == Status.VERSION:
            raise LinkError(f"{self.port} speaks version {reply.version} of the host link, this "
                            f"client {VERSION}: flash the matching bitstream")
        if reply.count != Status.OK:
            known = reply.count in Status.__members__.values()
            name = Status(reply.count).name if known else str(reply.count)
            raise LinkError(f"{self.port} refused {Command(frame.command).name} of {frame.count} "
                            f"items from {frame.address} on: {name}")
        wanted = 0 if frame.command & 1 else item_bytes(frame.command) * frame.count
        if len(reply.payload) != wanted:
            raise LinkError(f"{self.port} sent {len(reply.payload)} bytes instead of {wanted}")
        return reply.payload

    def _patience(self, failures: int) -> float:
        """Wait for the reply after so many attempts; `LinkError` when they are used up."""
        if failures > self._retries:
            what = "no answer" if self._requests == 1 else "no more answer"
            raise LinkError(
                f"{what} from {self.port} at {self._baud} baud after {failures} attempts: is it "
                "the right port, and is the bitstream of this project in the board?"
            )
        self._repeated += failures > 0
        return min(self._timeout * 2**failures, max(_PATIENCE, self._timeout))

    def _request(self, command: Command, address: int, count: int, payload: bytes = b"") -> bytes:
        """Have a command executed; what it read."""
        frame = self._frame(command, address, count, payload)
        failures = 0
        while (reply := self._attempt(frame, self._patience(failures))) is None:
            failures += 1
        return self._checked(frame, reply)

    def _read_registers(self, address: int, count: int) -> list[int]:
        return np.frombuffer(
            self._request(Command.READ_REGISTERS, address, count), "<u4"
        ).tolist()

    def _write_registers(self, address: int, *values: int) -> None:
        payload = b"".join(value.to_bytes(4, "little") for value in values)
        self._request(Command.WRITE_REGISTERS, address, len(values), payload)

    def _move(self, command: Command, address: int, count: int,
              words: NDArray[np.uint64] | None = None) -> NDArray[np.uint64]:
        """Write or read memory in pieces, of which a disturbed line gets shorter ones."""
        parts = []
        done = failures = 0
        while done < count:
            size = min(self._words, count - done)
            payload = b"" if words is None else words[done:done + size].astype("<u8").tobytes()
            frame = self._frame(command, address + done, size, payload)
            reply = self._attempt(frame, self._patience(failures))
            if reply is None:
                failures += 1
                self._words = max(_LEAST_WORDS, self._words // 2)
                continue
            parts.append(np.frombuffer(self._checked(frame, reply), "<u8"))
            done, failures = done + size, 0
            self._words = min(MAX_PAYLOAD // 8, self._words + self._words // 4)
        return np.concatenate(parts)

    # ---------------------------------------------------------------- core

    def _command(self, control: int, during: str, allowed: float) -> int:
        """Start a command and wait for its end; STATUS."""
        self._write_registers(CSR["control"], CONTROL_CLEAR)
        self._write_registers(CSR["control"], control)
        status = self._idle(during, allowed)
        if code := status >> 8 & 15:
            raise BoardError(code, during)
        if not status & STATUS_DONE:
            raise LinkError(f"the board lost the command to {during}: was it reset?")
        return status

    def _idle(self, during: str, allowed: float) -> int:
        """Wait until the core is not busy; STATUS."""
        end = time.monotonic() + allowed
        while True:
            (status,) = self._read_registers(CSR["status"], 1)
            if not status & STATUS_BUSY:
                return status
            if time.monotonic() > end:
                raise LinkError(f"the board did not {during} within {allowed:g} seconds: "
                                "configure it anew")

    def _settle(self, allowed: float) -> None:
        """Stop what a client before left running: a busy core ignores commands and addresses."""
        (status,) = self._read_registers(CSR["status"], 1)
        if status & STATUS_BUSY:
            self._write_registers(CSR["control"], CONTROL_ABORT)
            self._idle("stop an old run", allowed)

    def load(self, program: Program, *, allowed: float = 60.0) -> None:
        """Write a program into the board's memory and have the core load it.

        Parameters
        ----------
        program : Program
            Compiled for the config of the board's core.
        allowed : float
            Seconds the core may take.

        Raises
        ------
        UserError
            The program is for another config or a batch, or does not fit the board's memory.
        BoardError
            The core refused it.
        """
        self._program = None
        if program.config.digest != self.info.digest:
            raise UserError(f"the program is compiled for {program.config.name} (digest "
                            f"{program.config.digest:08x}), the board has {self.info.digest:08x}")
        if program.batch != 1:
            raise UserError(f"the program takes {program.batch} images at a time, this client one: "
                            "compile it with batch = 1")
        needed = sum(self._layout(program))
        if needed > self.info.memory_words:
            raise UserError(
                f"program and maps take {8 * needed} bytes, the board's memory has "
                f"{8 * self.info.memory_words}: take a network of higher compression"
            )
        self._settle(allowed)
        self._move(Command.WRITE_MEMORY, 0, len(program.image), program.image)
        self._write_registers(CSR["image_addr"], 0, len(program.image) // self.config.port_words)
        if not self._command(CONTROL_LOAD, "load the program", allowed) & STATUS_LOADED:
            raise LinkError("the core ended LOAD without an error but is not loaded")
        self._program = program

    def _layout(self, program: Program) -> tuple[int, int, int]:
        """Words of image, input and output, which follow each other in the memory."""
        row = self.config.map_row_beats * self.config.port_words
        return (len(program.image), row * program.input_region.rows,
                row * program.output_region.rows)

    def predict(self, image: NDArray, *, allowed: float = 60.0) -> Prediction:
        """Run the loaded program on an input map (C, H, W) of integers.

        Raises
        ------
        BoardError
            The core stopped the run.
        """
        program = self._program
        if program is None:
            raise UserError("no program is loaded: call load() first")
        start, size, out_size = self._layout(program)
        words = program.pack_input(image)
        if len(words) != size:
            raise ValueError(f"the input is {len(words)} words, the program takes {size}")
        self._settle(allowed)
        self._move(Command.WRITE_MEMORY, start, size, words)
        port_words = self.config.port_words
        self._write_registers(CSR["input_addr"], start // port_words, (start + size) // port_words)
        self._command(CONTROL_RUN, "run", allowed)
        outputs = self._move(Command.READ_MEMORY, start + size, out_size)
        (cycles,) = self._read_registers(CSR["cycles"], 1)
        scores = program.unpack_output(outputs).reshape(-1)
        return Prediction(scores, cycles, cycles / self.info.clock_hz)

    def counters(self) -> Counters:
        """Counters of the last run, and of the line."""
        cycles, read_beats, write_beats, layers = self._read_registers(CSR["cycles"], 4)
        profile = self._read_registers(PROFILE_BASE, PROFILE_WORDS * layers) if layers else []
        info = self._identify()
        return Counters(
            cycles, read_beats, write_beats,
            np.array(profile, dtype=np.uint32).reshape(layers, PROFILE_WORDS),
            info.accepted, info.dropped, self._requests, self._repeated,
        )
