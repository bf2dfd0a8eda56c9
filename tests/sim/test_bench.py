"""Parts of `sim.benchmark` on small inputs."""

import dataclasses
import json

import numpy as np
import pytest

from model.config import PRESETS
from model.dataflow import Layer, Platform, choose, convolutions
from model.errors import UserError
from model.network import NETWORKS, Conv
from sim.bench import flows, layers, plots, scaling, tiles
from sim.bench.nngen import NNGEN, measure
from sim.bench.rams import ram_bits
from sim.benchmark import main
from sim.results import render
from tests.model.toys import toy_image, toy_network

VGG16 = NETWORKS["vgg16"]

DESIGN = """/* preamble */
module lane(clk);
  reg [7:0] ram [15:0];
  reg flag;
endmodule
module \\top.unit (clk);
  reg flags [3:0];
  lane  lane0 (
    .clk(clk)
  );
  lane  \\lane1  (
    .clk(clk)
  );
endmodule
module top(clk);
  \\top.unit  unit (
    .clk(clk)
  );
  lane  lane (
    .clk(clk)
  );
endmodule
"""


def test_memories_count_once_per_instance():
    assert ram_bits(DESIGN) == {"lane": 3 * 128, "unit": 4}
    with pytest.raises(ValueError, match="no module 'core'"):
        ram_bits(DESIGN, "core")


def test_the_preset_has_nngens_multipliers_and_a_narrow_port():
    config = PRESETS["vgg16-144"]
    assert config.tile_lanes * config.kernel_lanes * 3 == 144
    assert config.multipliers <= 148 and config.weight_bits == 8 and config.port_bits <= 128


def test_layers_run_one_by_one():
    convs = [Conv("conv1", 1, 4, 3, padding=1), Conv("conv2", 4, 4, 3, padding=1)]
    network = toy_network(convs, ["channel 1:4"] * 2, (1, 12, 12), name="vgg16")
    heard = []
    result = measure(network, toy_image((1, 12, 12)), PRESETS["tiny"], ["conv2"], heard.append)
    assert heard == ["conv1 on the golden model", *["conv2 at 8 bytes a cycle"] * 2]
    row = result["layers"][0]
    assert row["bit_exact"] and row["words_compared"] > 4 * 12 * 12
    assert row["write_bytes"] >= 4 * 12 * 12 and row["read_bytes"] > row["write_bytes"]
    assert 0 < row["layer_cycles"] < row["cycles"]
    assert sum(result["ram_bits"].values()) > 0
    with pytest.raises(UserError, match="no layer conv9"):
        measure(network, toy_image((1, 12, 12)), PRESETS["tiny"], ["conv9"])


def test_the_table_sets_each_layer_beside_nngens(tmp_path):
    row = {"name": "conv5_2", "bytes_per_cycle": 16.0, "cycles": 400_000,
           "mac_issue_cycles": 390_000, "read_bytes": 4_800_000, "write_bytes": 100_352,
           "words_compared": 7, "bit_exact": True}
    content = {"config": "vgg16-144", "multipliers": 147, "pattern": "channel 2:8",
               "image": "a.jpg", "latency": 10, "gaps": [19, 4], "ram_bits": {"tiles": 8000},
               "layers": [row]}
    (tmp_path / "nngen.json").write_text(json.dumps(content))
    text = render(tmp_path)
    ratio = NNGEN["conv5_x"][0] / 400_000
    assert f"| conv5_2 | 16 | 400000 | 3565690 | {ratio:.1f}× | 98 % | 4.80 + 0.10 |" in text
    assert "RAM: 8 kbit (tiles 8)" in text


def test_other_lanes_share_the_same_tile_buffer():
    base = PRESETS["u200"]
    assert scaling.with_lanes(base, 14) is base
    for lanes in scaling.TILE_LANES:
        config = scaling.with_lanes(base, lanes)
        words = config.tile_lanes * config.tile_depth
        assert 0.7 < words / (base.tile_lanes * base.tile_depth) < 1.42


def wide_toy():
    return toy_network([Conv("conv1", 3, 8, 3, padding=1), Conv("conv2", 8, 8, 3, padding=1)],
                       ["channel 1:4"] * 2, (3, 24, 24), weight_bits=16)


def test_the_curve_falls_with_lanes_and_bandwidth():
    points = scaling.curve(wide_toy(), PRESETS["tiny-wide"], (1, 2, 3), (4, 32))
    at = {(point["tile_lanes"], point["bytes_per_cycle"]): point["cycles"] for point in points}
    assert at[1, 32] > at[2, 32] > at[3, 32] and at[3, 4] > at[3, 32]
    assert points[0]["lanes"] == 8
    with pytest.raises(UserError, match="the port of tiny-wide-1x8 takes up to 32"):
        scaling.curve(wide_toy(), PRESETS["tiny-wide"], (1,), (64,))


@pytest.mark.slow
def test_simulated_points_and_their_estimates():
    network, config = wide_toy(), PRESETS["tiny-wide"]
    pixels = np.clip(toy_image((3, 24, 24)) - 128, 0, 127)
    fast, slow = scaling.simulate(network, pixels, config, 3, (32, 16))
    assert fast["bit_exact"] and slow["cycles"] > fast["cycles"]
    assert slow["bytes_read"] == fast["bytes_read"]
    # Much of so small a run is filling pipelines, which the estimate takes from large ones.
    for point in (fast, slow):
        assert point["cycles"] == pytest.approx(point["estimated_cycles"], rel=0.5)
    assert sum(layer["cycles"] for layer in slow["layers"]) < slow["cycles"]
    merged = scaling.merge([fast | {"cycles": 1}, slow], [fast])
    assert [point["cycles"] for point in merged] == [slow["cycles"], fast["cycles"]]


def test_the_models_of_fixed_flows_follow_their_formulas():
    layer = Layer("a", 64, 128, (36,) * 20, 9216)
    model = flows.Spectra(sum_bytes=18 * 128 * 64 * 4)
    per_kernel = 16 * 4 + 10
    result = flows.spectra_flows([layer], model)
    # 18 tiles of 20 with all kernels: maps once, kernels twice.
    twice = 2 * (64 * 720 + 9216) + 2 * 128 * 64 * per_kernel
    assert result["stream kernels"] == [twice]
    # All tiles beside 64 kernels: kernels once, maps twice.
    once = 2 * (2 * 64 * 720 + 9216) + 128 * 64 * per_kernel
    assert result["stream activations"] == [once] and result["chosen"] == [min(once, twice)]
    with pytest.raises(UserError, match="layer a: partial sums of 9 tiles"):
        flows.spectra_flows([layer], flows.Spectra(sum_bytes=1000))


def test_the_own_model_divides_its_room_best():
    sizes = convolutions(VGG16)[4:6]
    base = Platform()
    result = flows.own(sizes, 1 << 21, base, shares=4)
    halved = dataclasses.replace(base, kernel_bytes=1 << 20, tile_words=1 << 18)
    assert sum(result["chosen"]) <= sum(plan.bytes for plan in choose(sizes, halved))
    assert sum(result["chosen"]) <= min(sum(result[order]) for order in flows.ORDERS)
    with pytest.raises(UserError, match="100 bytes are too few"):
        flows.own(sizes, 100, base)


def simulated(names, config="u200"):
    return {"network": "vgg16", "config": config, "layers": [
        {"name": name, "cycles": 1000, "estimated_cycles": 990, "mac_issue_cycles": 900,
         "mac_utilisation": 0.9, "lanes_filled": 0.5, "bytes_read": 4000, "bytes_written": 500}
        for name in names]}


def test_the_roof_above_a_layer():
    point = layers.roofline(simulated(["a"]), PRESETS["u200"])["layers"][0]
    assert point["products"] == 900 * 896 // 2 and point["products_per_cycle"] == 403.2
    assert point["intensity"] == pytest.approx(100.8)
    assert (point["bound"], point["bound_96"]) == ("array", "array")
    with pytest.raises(UserError, match="the run is of config u200, not tiny"):
        layers.roofline(simulated(["a"]), PRESETS["tiny"])


@pytest.mark.parametrize("points", [8, 16])
def test_fft_work_is_what_the_literature_counts(points):
    # Radix-2 with trivial twiddles left out: 52 and 4 for 8 complex points, 20 and 2 for real ones
    # (Sorensen et al., IEEE Trans. ASSP 1987).
    assert tiles._complex(8) == (52, 4) and tiles._real(8) == (20, 2)
    rows, columns = tiles._real(points), tiles._complex(points)
    expected = ((points + 2) * rows[0] + (points // 2 - 1) * columns[0],
                (points + 2) * rows[1] + (points // 2 - 1) * columns[1])
    assert tiles.fft_adders(points) == expected


def test_sixteen_point_tiles_are_fewer_and_larger():
    result = tiles.compare(PRESETS["u200"])
    rows = {row["name"]: (row["8"], row["16"]) for row in result["layers"]}
    small, large = rows["conv5_1"]
    assert (small["tiles"], large["tiles"]) == (9, 1)
    assert large["kernel_bytes"] == 4 * small["kernel_bytes"]
    assert small["array_cycles"] == 8 * 32 * 128 and large["array_cycles"] == 8 * 128 * 128
    assert large["cycles"] > small["cycles"]
    small, large = rows["conv1_2"]
    assert large["cycles"] == 19 * 128 * 16 < small["cycles"] == 104 * 32 * 16
    assert large["words_per_pixel"] == pytest.approx(128 / 196)


def test_every_part_writes_its_file_and_its_section(tmp_path, capsys):
    names = [layer.name for layer in VGG16.layers]
    (tmp_path / "u200-vgg16-channel.json").write_text(json.dumps(
        simulated(names) | {"cycles": [1], "clock_hz": 200_000_000, "pattern": "p", "images": [],
                            "multipliers": 1, "words_compared": 1, "bit_exact": True,
                            "read_bytes": [1], "write_bytes": [1], "layers": [
                                row | {"stalls": {"tiles": 0, "weights": 0, "sums": 0}}
                                for row in simulated(names)["layers"]]}))
    (tmp_path / "scaling.json").write_text(json.dumps({
        "config": "u200", "clock_hz": 200_000_000, "pattern": "channel 1:4",
        "estimated": [{"lanes": 896, "bytes_per_cycle": 96, "cycles": 900}],
        "simulated": [{"lanes": 896, "bytes_per_cycle": 96, "cycles": 1000, "latency": 100,
                       "estimated_cycles": 950, "bytes_read": 5_000_000, "words_compared": 3}]}))
    for part in ("layers", "tiles"):
        assert main([part, "--results", str(tmp_path)]) == 0
    text = render(tmp_path)
    assert "## Roofline of `u200`" in text and "## Tiles of K = 8 and K = 16" in text
    assert "| 896 | 96 | 900 | 1000 | -5.0 % | 0.01 | 5.0 | 3 |" in text
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "cycles.png", "roofline.png", "tiles.png"}
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_flows_are_compared_with_the_run(tmp_path):
    names = [layer.name for layer in VGG16.layers]
    result = flows.compare(simulated(names), PRESETS["u200"])
    assert result["measured"] == [4500] * 13
    for group in result["groups"]:
        assert group["saved_by_run"] > 0.99 and group["saved_by_choice"] >= 0
    with pytest.raises(UserError, match="other layers than vgg16"):
        flows.compare(simulated(names[1:]), PRESETS["u200"])


@pytest.mark.parametrize(("arguments", "message"), [
    (["nothing"], "invalid choice: 'nothing'"),
    (["nngen", "--results", "{tmp}/none"], "none: no such folder"),
    (["nngen", "--network", "{tmp}/none.npz"], "none.npz does not exist"),
    (["nngen", "--config", "huge"], "unknown config 'huge'"),
    (["scaling", "--simulate", "--bandwidth", "1,x"], "'1,x' is no list of numbers"),
    (["nngen", "--only", "conv3_1,conv6"], "vgg16 has no layer 'conv6'"),
    (["layers", "--results", "{tmp}"], "u200-vgg16-channel.json does not exist"),
])
def test_mistakes_are_one_line(tmp_path, capsys, arguments, message):
    assert main([text.replace("{tmp}", str(tmp_path)) for text in arguments]) == 2
    text = capsys.readouterr().err
    assert message in text and text.count("\n") == 1


def test_plots_without_matplotlib_are_refused_before_anything_is_written(
        tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    assert main(["tiles", "--results", str(tmp_path)]) == 2
    assert "plots need matplotlib: pip install" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
