"""What every simulation backend offers, and the host's side of the protocol on top of it."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from model.config import AcceleratorConfig
from model.image import HEADER_WORDS, ErrorCode
from sim.events import Events, probe_layouts
from sim.memory import MemoryOptions

__all__ = ["Backend", "RunResult", "CoreError", "Watchdog", "CSR", "ERRORS", "PROFILE_BASE"]

#: CSR word addresses.
CSR = {name: address for address, name in enumerate((
    "id", "version", "config", "control", "status", "irq_enable", "image_addr", "image_beats",
    "input_addr", "output_addr", "cycles", "read_beats", "write_beats", "layers", "timeout",
))}
PROFILE_BASE, PROFILE_WORDS = 512, 16
#: Cycles from the address of a register to its data.
READ_LATENCY = 3
CORE_ID = 0x53504543
CONTROL_LOAD, CONTROL_RUN, CONTROL_CLEAR, CONTROL_ABORT = 1, 2, 4, 8
STATUS_BUSY, STATUS_DONE, STATUS_LOADED, STATUS_OWING = 1, 2, 4, 8

#: What each check of the core is about.
ERRORS = {
    ErrorCode.MAGIC: "section HEADER does not begin with SPECTRAL",
    ErrorCode.VERSION: "section HEADER is of another format version",
    ErrorCode.CONFIG: "section HEADER names another config",
    ErrorCode.TRUNCATED: "a section lies outside the image",
    ErrorCode.HEADER_CRC: "section HEADER is corrupt",
    ErrorCode.DESCRIPTOR_CRC: "section DESC is corrupt",
    ErrorCode.KERNEL_CRC: "section KERN is corrupt",
    ErrorCode.BUS: "the memory answered with an error",
    ErrorCode.NOT_LOADED: "no program is loaded",
    ErrorCode.LAYERS: "more layers than the core holds",
    ErrorCode.ABORTED: "the host stopped the run",
    ErrorCode.TIMEOUT: "the memory stopped answering",
    ErrorCode.OWING: "the memory still owes answers to the command before",
}

#: Beat address of the image; not 0, so that a lost base address shows.
IMAGE_BASE = 0x40


class CoreError(Exception):
    """The core stopped with an error code."""

    def __init__(self, code: int, during: str, events: dict[str, Events] | None = None) -> None:
        self.code = code
        self.events = events or {}
        known = code in ERRORS
        text = f"{ErrorCode(code).name}: {ERRORS[ErrorCode(code)]}" if known else "unknown"
        super().__init__(f"the core refused to {during}: error {code} {text}")


class Watchdog(Exception):
    """The core did not finish in time; ``events`` holds what was seen until then."""

    def __init__(self, cycles: int, during: str, events: dict[str, Events]) -> None:
        self.cycles = cycles
        self.events = events
        seen = ", ".join(
            f"{name}: {len(item)}" + (f" (last in cycle {item.cycle[-1]})" if len(item) else "")
            for name, item in events.items()
        )
        super().__init__(f"watchdog: {during} did not end within {cycles} cycles; events {seen}")


@dataclass(frozen=True)
class RunResult:
    """One run of the program.

    Attributes
    ----------
    outputs : bytes
        Linear image of the feature rows the program declares as its output.
    cycles, read_beats, write_beats : int
        The core's own counters.
    profile : uint32 array, (layers, 16)
        The core's profile table.
    start : int
        Cycle since reset at which the run was started (events count from reset).
    events : dict
        Probe name to `Events`.
    """

    outputs: bytes
    cycles: int
    read_beats: int
    write_beats: int
    profile: NDArray[np.uint32]
    start: int = 0
    events: dict[str, Events] = field(default_factory=dict)


class Backend(abc.ABC):
    """A simulated core with its memory.

    Subclasses give the primitives; `load` and `run` are the host's protocol and the same for all.

    Parameters
    ----------
    config : AcceleratorConfig
        Config of the core.
    options : MemoryOptions
        Behaviour of the memory.
    max_cycles : int
        Watchdog for each load and each run.
    memory_beats : int
        Size of the memory in beats of the port.

    Attributes
    ----------
    memory : uint64 array
        The memory, one element per 64-bit word.
    watch : callable or None
        Called now and then during a command with the cycles since it began.
    """

    name: str

    def __init__(self, *, config: AcceleratorConfig, options: MemoryOptions | None = None,
                 max_cycles: int = 10_000_000, memory_beats: int = 1 << 21) -> None:
        self.config = config
        self.options = options or MemoryOptions()
        self.max_cycles = max_cycles
        self.memory: NDArray[np.uint64] = np.zeros(
            memory_beats * config.port_words, dtype=np.uint64
        )
        self.watch: Callable[[int], None] | None = None
        self._image_beats = self._input_beats = self._output_beats = 0

    @property
    @abc.abstractmethod
    def cycle(self) -> int:
        """Cycles since reset."""

    @property
    @abc.abstractmethod
    def faults(self) -> int:
        """Accesses outside the memory."""

    @abc.abstractmethod
    def csr_write(self, address: int, value: int) -> None:
        """Write a register."""

    @abc.abstractmethod
    def csr_read(self, address: int) -> int:
        """Read a register."""

    @abc.abstractmethod
    def wait_idle(self, max_cycles: int) -> bool:
        """Step until STATUS says not busy; False if it still is after ``max_cycles``."""

    @abc.abstractmethod
    def inject(self, *, error_beat: int | None = None, error_write: int | None = None,
               stop: int | None = None) -> None:
        """Let the memory fail as these of the `MemoryOptions` say, counted from now; None: not."""

    @abc.abstractmethod
    def take_events(self) -> dict[str, Events]:
        """Hand out the events recorded so far and forget them."""

    @abc.abstractmethod
    def close(self) -> None:
        """Finish waveforms and free the simulator."""

    def __enter__(self) -> Backend:
        """Use as a context manager: closed at the end."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Close."""
        self.close()

    def _command(self, control: int, during: str) -> None:
        if self.csr_read(CSR["id"]) != CORE_ID:
            raise RuntimeError("register ID does not answer: is this a core?")
        self.csr_write(CSR["control"], CONTROL_CLEAR)
        self.csr_write(CSR["control"], control)
        if not self.wait_idle(self.max_cycles):
            raise Watchdog(self.max_cycles, during, self.take_events())
        if code := self.csr_read(CSR["status"]) >> 8 & 15:
            raise CoreError(code, during, self.take_events())
        if self.faults:
            raise RuntimeError(f"the core accessed {self.faults} beats outside the memory")

    def abort(self) -> int:
        """Stop a run that does not end; the error code, 0 if it had ended.

        Raises
        ------
        Watchdog
            Not even that ended: the memory does not answer.
        """
        self.csr_write(CSR["control"], CONTROL_ABORT)
        if not self.wait_idle(self.max_cycles):
            raise Watchdog(self.max_cycles, "abort", self.take_events())
        return self.csr_read(CSR["status"]) >> 8 & 15

    def load(self, image: bytes) -> None:
        """Put a program image into the memory and let the core load it.

        Raises
        ------
        CoreError
            The core refused the image.
        Watchdog
            It did not finish in time.
        """
        port_words = self.config.port_words
        if len(image) % (8 * port_words) or len(image) < 8 * HEADER_WORDS:
            raise ValueError(f"an image is whole beats of {8 * port_words} bytes, not "
                             f"{len(image)} bytes")
        words = np.frombuffer(image, dtype="<u8")
        self._image_beats = len(words) // port_words
        inputs = int(words[8]) & 0xFFFF_FFFF
        self._input_beats = inputs * self.config.map_row_beats * (int(words[6]) >> 32)
        self._output_beats = self.config.map_row_beats * (int(words[7]) >> 32)
        end, size = self._output_address + self._output_beats, len(self.memory) // port_words
        if end > size:
            raise ValueError(f"image and maps need {end} beats, the memory has {size}")
        self.memory[self._words(IMAGE_BASE, self._image_beats)] = words
        self.csr_write(CSR["image_addr"], IMAGE_BASE)
        self.csr_write(CSR["image_beats"], self._image_beats)
        self._command(CONTROL_LOAD, "load the image")
        if not self.csr_read(CSR["status"]) & STATUS_LOADED:
            raise RuntimeError("the core ended LOAD without an error but is not loaded")

    def _words(self, address: int, beats: int) -> slice:
        """Where beats lie in `memory`."""
        port_words = self.config.port_words
        return slice(port_words * address, port_words * (address + beats))

    @property
    def _input_address(self) -> int:
        return (IMAGE_BASE + self._image_beats + 63) & ~63

    @property
    def _output_address(self) -> int:
        return (self._input_address + self._input_beats + 63) & ~63

    def run(self, feature_rows: bytes) -> RunResult:
        """Run the loaded program on the linear image of its input rows."""
        wanted = self.config.port_bits // 8 * self._input_beats
        if len(feature_rows) != wanted:
            raise ValueError(f"the input is {wanted} bytes, not {len(feature_rows)}")
        self.memory[self._words(self._input_address, self._input_beats)] = np.frombuffer(
            feature_rows, dtype="<u8"
        )
        out = self._words(self._output_address, self._output_beats)
        self.memory[out] = 0xDEAD_BEEF_DEAD_BEEF
        self.csr_write(CSR["input_addr"], self._input_address)
        self.csr_write(CSR["output_addr"], self._output_address)
        self.take_events()
        begin = self.cycle
        self._command(CONTROL_RUN, "run")
        layers = self.csr_read(CSR["layers"])
        profile = [
            [self.csr_read(PROFILE_BASE + PROFILE_WORDS * layer + word)
             for word in range(PROFILE_WORDS)]
            for layer in range(layers)
        ]
        events = self.take_events()
        return RunResult(
            outputs=self.memory[out].astype("<u8").tobytes(),
            cycles=self.csr_read(CSR["cycles"]),
            read_beats=self.csr_read(CSR["read_beats"]),
            write_beats=self.csr_read(CSR["write_beats"]),
            profile=np.array(profile, dtype=np.uint32).reshape(layers, PROFILE_WORDS),
            start=begin,
            events={name: events[name] for name in probe_layouts(self.config)},
        )
