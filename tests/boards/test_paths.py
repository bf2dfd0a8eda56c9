"""Lengths of paths, on netlists of a few cells whose lengths are summed by hand."""

import pytest

from boards.paths import Paths
from model.errors import UserError

PINS = {
    "LUT4": ("ABCD", "Z"), "TRELLIS_FF": (("DI", "CE", "LSR", "CLK"), "Q"),
    "DP16KD": (("ADA0", "CLKA"), ("DOA0",)), "TRELLIS_DPR16X4": (("DI", "RAD", "WCK"), ("DO",)),
    "CCU2C": (("A0", "B0", "A1", "CIN"), ("S0", "S1", "COUT")),
    "MULT18X18D": (("A0", "B0", "CLK0"), ("P0",)), "PFUMX": (("BLUT", "ALUT"), "Z"),
}


def module(cells, **names):
    """Build a module of cells (kind, {pin: net}); net 0 is left out."""
    return {
        "cells": {f"cell{index}": {
            "type": kind, "parameters": {},
            "connections": {pin: [net] for pin, net in pins.items()},
            "port_directions": {pin: "output" if pin in PINS[kind][1] else "input" for pin in pins},
        } for index, (kind, pins) in enumerate(cells)},
        "netnames": {name.replace("__", "."): {"bits": [net]} for name, net in names.items()},
    }


def register(d, q, **pins):
    return "TRELLIS_FF", {"DI": d, "Q": q, "CLK": 99, **pins}


def test_a_table_between_registers():
    paths = Paths(module([register("0", 1), ("LUT4", {"A": 1, "Z": 2}), register(2, 3)],
                         a__from=1, a__to=3))
    length, end, net = paths.ends[0]
    # Clock to output, wire, table, wire.
    assert (length, end) == (pytest.approx(0.52 + 0.75 + 0.24 + 0.75), "a.to")
    assert paths.trace(net)[0] == "a.from"


def test_a_wire_grows_with_its_fan_out():
    cells = [register("0", 1), *(register(1, 10 + index) for index in range(8))]
    assert Paths(module(cells)).ends[0][0] == pytest.approx(0.52 + 0.75 + 3 * 0.18)


def test_an_enable_is_an_end_of_its_own():
    paths = Paths(module([register("0", 1), register("0", 2, CE=1)], a__x=2))
    assert paths.ends[0][:2] == (pytest.approx(0.52 + 0.75 + 0.1), "a.x:CE")


def test_a_carry_chain_has_no_wires():
    chain = [("CCU2C", {"A0": 1, "CIN": 2 + index, "COUT": 3 + index}) for index in range(3)]
    cells = [register("0", 1), ("CCU2C", {"A0": 1, "COUT": 2}), *chain,
             ("CCU2C", {"CIN": 5, "S0": 9}), register(9, 10)]
    # Four cells read the register: wire, into the chain, three links, out of it, wire.
    assert Paths(module(cells)).ends[0][0] == pytest.approx(
        0.52 + 0.75 + 2 * 0.18 + 0.45 + 3 * 0.07 + 0.45 + 0.75)


@pytest.mark.parametrize("kind, pins, inner", [
    ("MULT18X18D", {"A0": 1, "P0": 2}, 3.9), ("TRELLIS_DPR16X4", {"RAD": 1, "DO": 2}, 0.24),
    ("CCU2C", {"A1": 1, "S1": 2}, 0.6),
])
def test_cells_without_a_clock(kind, pins, inner):
    cells = [register("0", 1), (kind, pins), register(2, 3)]
    assert Paths(module(cells)).ends[0][0] == pytest.approx(0.52 + 0.75 + inner + 0.75)


def test_a_multiplier_with_registers_ends_paths_and_begins_them():
    cells = [register("0", 1), ("MULT18X18D", {"A0": 1, "P0": 2, "CLK0": 99}), register(2, 3)]
    design = module(cells, a__q=3)
    registers = {f"REG_{name}_CLK": "CLK0" for name in ("INPUTA", "INPUTB", "OUTPUT")}
    design["cells"]["cell1"]["parameters"] = registers
    assert [(round(length, 2), end) for length, end, _ in Paths(design).ends] == [
        (0.74 + 0.75, "a.q"), (round(0.52 + 0.75 + 0.1, 2), "cell1:A0")]
    for other in ({"REG_INPUTB_CLK": "NONE"}, {"REG_PIPELINE_CLK": "CLK0"}):
        design["cells"]["cell1"]["parameters"] = registers | other
        with pytest.raises(UserError, match="MULT18X18D with other registers"):
            Paths(design)


def test_block_ram_begins_and_ends_paths():
    cells = [register("0", 1), ("DP16KD", {"ADA0": 1, "DOA0": 2, "CLKA": 99}), register(2, 3)]
    paths = Paths(module(cells, a__q=3))
    assert [(round(length, 2), end) for length, end, _ in paths.ends] == [
        (5.7 + 0.75, "a.q"), (round(0.52 + 0.75 + 0.2, 2), "cell1:ADA0")]


def test_the_summary_counts_and_names_units():
    chain = [("LUT4", {"A": 1 + index, "Z": 2 + index}) for index in range(9)]
    cells = [register("0", 1), *chain, register(10, 20), register(1, 21)]
    summary = Paths(module(cells, a__slow__x=20, b__fast__y=21, a__slow__from=1)).summary()
    # 0.52, nine tables, their wires, two at the register and one at the end.
    assert summary["longest_ns"] == round(0.52 + 0.75 + 0.18 + 9 * (0.24 + 0.75), 2)
    assert summary["beyond"] == {"7": 1, "8": 1, "9": 1, "10": 1, "11": 0, "13": 0}
    assert [(unit["unit"], unit["from"], unit["nets"]) for unit in summary["units"]] == [
        ("a.slow", "a.slow.from", 10), ("b.fast", "a.slow.from", 1)]


def test_what_is_not_known_is_refused():
    with pytest.raises(UserError, match=r"cell cell0 \(PFUMX\) has no known delays"):
        Paths(module([("PFUMX", {"ALUT": 1, "Z": 2})]))
    loop = [("LUT4", {"A": 1, "Z": 2}), ("LUT4", {"A": 2, "Z": 1})]
    with pytest.raises(UserError, match="of the netlist form a loop"):
        Paths(module(loop))
