import dataclasses

import pytest

from model.config import PRESETS, AcceleratorConfig, load_config
from model.errors import UserError
from model.platform import PLATFORMS
from model.resources import resources

TINY = PRESETS["tiny"]


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_json_round_trip(config, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(config.to_json())
    assert load_config(str(path)) == config


@pytest.mark.parametrize("board", ["zcu104", "zc706"])
def test_alexnets_configs_fit_their_boards_by_count(board):
    """By the resource model, a tenth of the tables kept free (docs/explore.md)."""
    platform, config = PLATFORMS[board], PRESETS[f"{board}-alexnet"]
    used = resources(config, platform.family)
    assert used["LUT"] <= 0.9 * platform.lut and used["FF"] <= 0.9 * platform.ff
    assert used["DSP"] <= 0.9 * platform.dsp and config.port_bits <= platform.port_bits
    assert used["BRAM36"] + used.get("BRAM18", 0) / 2 <= platform.rams["BRAM36"]
    assert used.get("URAM", 0) <= platform.rams.get("URAM", 0)


def test_several_feature_banks_have_positions_for_all():
    with pytest.raises(ValueError, match="at most 131072 with 8 feature banks, not 131136"):
        dataclasses.replace(PRESETS["tiny-wide"], feature_depth=131136)


def test_digest_follows_the_hardware_not_the_name():
    assert dataclasses.replace(TINY, name="x", clock_hz=1).digest == TINY.digest
    assert dataclasses.replace(TINY, tile_lanes=3).digest != TINY.digest


def test_ultra_ram_leaves_images_valid():
    assert dataclasses.replace(TINY, ultra_ram=1).digest == TINY.digest


def test_reference_config_stays_within_100_multipliers():
    assert PRESETS["ecp5-85f"].multipliers == 100


@pytest.mark.parametrize("change, match", [
    ({"kernel_lanes": 3}, "kernel_lanes must be a power of two of at least 4.*not 3"),
    ({"kernel_lanes": 16}, "kernel_lanes must be at most 8"),
    ({"kernel_lanes": 128, "feature_banks": 8, "post_values": 2, "port_bits": 1024},
     "kernel_lanes must be at most 64"),
    ({"tile_depth": 100}, "tile_depth must be a power of two of at least 64, not 100"),
    ({"weight_bits": 12}, "weight_bits must be 8 or 16, not 12"),
    ({"tile": 16}, "tile must be 8"),
    ({"forward_rows": 4}, "forward_rows must be 2 in this version, not 4"),
    ({"inverse_rows": 2}, "inverse_rows must be 1, or 2 with several feature banks, not 2"),
    ({"tile_lanes": 0}, "tile_lanes must be positive, not 0"),
    ({"feature_depth": 100}, "feature_depth must be a multiple of 64, not 100"),
    ({"ultra_ram": 2}, "ultra_ram must be 0 or 1, not 2"),
    ({"feature_depth": 1 << 21}, "feature_depth must be at most 1048576"),
    ({"port_bits": 96}, "port_bits must be a power of two from 64 to 2048, not 96"),
    ({"port_bits": 128}, "port_bits must be at most 64, the weights of one entry, not 128"),
    ({"feature_banks": 2}, "feature_banks must be 1, 8 or 16, not 2"),
    ({"feature_banks": 8}, "kernel_lanes must be a multiple of feature_banks = 8, not 4"),
    ({"post_values": 2}, "post_values must be 1 with one feature bank"),
    ({"max_layers": 33}, "max_layers must be at most 32"),
    ({"acc_bits": 60}, "acc_bits must be 26 to 48, not 60"),
    ({"dot_lanes": 3}, "dot_lanes must be a power of two of at most tile_lanes = 2, not 3"),
    ({"dot_lanes": 4}, "dot_lanes must be a power of two of at most tile_lanes = 2, not 4"),
    ({"dot_lanes": 2}, "dot_lanes must be 1 with one feature bank and with a window, not 2"),
    ({"window": 8}, "window must be 1 or 32, not 8"),
    ({"window": 32}, "port_bits must be at least 109 for a window.*not 64"),
])
def test_bad_values(change, match):
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(TINY, **change)


@pytest.mark.parametrize("rows", [3, 4, 8])
def test_bad_rows_of_several_feature_banks(rows):
    with pytest.raises(ValueError, match=f"or 2 with several feature banks, not {rows}"):
        dataclasses.replace(PRESETS["tiny-wide"], inverse_rows=rows)


def test_two_rows_double_the_requantisers():
    one, two = PRESETS["tiny-wide"], PRESETS["tiny-wide2"]
    assert (one.drained, two.drained) == (4, 8)
    assert two.multipliers - one.multipliers == one.tile_lanes * one.post_values


@pytest.mark.parametrize("name", [
    "a/b", "a\\b", "..", ".hidden", "../up", "a b", "a\n", "é", "a:b", "x\0",
])
def test_names_that_are_no_file_names(name):
    with pytest.raises(ValueError, match="name must be made of letters.*") as caught:
        dataclasses.replace(TINY, name=name)
    assert str(caught.value).endswith(f"not {name!r}")


def test_names_that_are():
    for name in ("ecp5-85f", "a.b_C-1", "v1..2", "_x"):
        assert dataclasses.replace(TINY, name=name).name == name


def test_bad_type():
    with pytest.raises(TypeError, match="tile_lanes must be an integer, not '4'"):
        dataclasses.replace(TINY, tile_lanes="4")


@pytest.mark.parametrize("text, match", [
    ("{", "Expecting property name"), ("[]", "a config is a JSON object"),
    ('{"name": "x"}', "config field 'kernel_lanes' is missing"),
    ('{"name": "x", "lanes": 1}', "unknown config field 'lanes'"),
])
def test_bad_files(text, match, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(UserError, match=match):
        load_config(str(path))


def test_unknown_name_and_missing_file():
    with pytest.raises(UserError, match="unknown config 'big': give one of ecp5-85f"):
        load_config("big")
    with pytest.raises(UserError, match="cannot read config no.json"):
        load_config("no.json")


def test_positional_arguments_are_refused():
    with pytest.raises(TypeError):
        AcceleratorConfig("x", 1, 4)
