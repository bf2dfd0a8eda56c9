"""Parts of `sim.benchmark` on small inputs."""

import json

import pytest

from model.config import PRESETS
from model.errors import UserError
from model.network import Conv
from sim.bench.nngen import NNGEN, measure
from sim.bench.rams import ram_bits
from sim.benchmark import main
from sim.results import render
from tests.model.toys import toy_image, toy_network

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
    layers = [Conv("conv1", 1, 4, 3, padding=1), Conv("conv2", 4, 4, 3, padding=1)]
    network = toy_network(layers, ["channel 1:4"] * 2, (1, 12, 12), name="vgg16")
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
           "words_compared": 7}
    content = {"config": "vgg16-144", "multipliers": 147, "pattern": "channel 2:8",
               "image": "a.jpg", "latency": 10, "gaps": [19, 4], "ram_bits": {"tiles": 8000},
               "layers": [row]}
    (tmp_path / "nngen.json").write_text(json.dumps(content))
    text = render(tmp_path)
    ratio = NNGEN["conv5_x"][0] / 400_000
    assert f"| conv5_2 | 16 | 400000 | 3565690 | {ratio:.1f}× | 98 % | 4.80 + 0.10 |" in text
    assert "RAM: 8 kbit (tiles 8)" in text


@pytest.mark.parametrize(("arguments", "message"), [
    (["nothing"], "invalid choice: 'nothing'"),
    (["nngen", "--results", "{tmp}/none"], "none: no such folder"),
    (["nngen", "--network", "{tmp}/none.npz"], "none.npz does not exist"),
    (["nngen", "--config", "huge"], "unknown config 'huge'"),
])
def test_mistakes_are_one_line(tmp_path, capsys, arguments, message):
    assert main([text.replace("{tmp}", str(tmp_path)) for text in arguments]) == 2
    text = capsys.readouterr().err
    assert message in text and text.count("\n") == 1
