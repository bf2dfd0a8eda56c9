"""The cost model against every RTL run that docs/results holds."""

import json
from pathlib import Path

import pytest

from model.config import PRESETS
from model.cost import estimate
from model.errors import UserError
from model.files import read_json
from model.network import NETWORKS
from model.outline import compile_outline, outline, part
from sim.memory import MemoryOptions
from sim.recorded import estimates, main, recorded

RESULTS = Path(__file__).parents[2] / "docs" / "results"
RUNS = {path.stem: run for path, run in recorded(RESULTS)}
#: Of the whole network, and of a layer of so many cycles.
WHOLE, LAYER, LONG = 0.01, 0.02, 3000
#: Without their weights the steps of these are only known on average.
SPREAD = {name for name in RUNS if name.startswith("rtl-lenet-")}


def test_the_runs_that_matter_are_there():
    assert len(RUNS) >= 25 and len(SPREAD) == 3
    assert {"zcu104-alexnet-a16", "zc706-alexnet-a16", "alexnet", "u200-vgg16-channel",
            "u200-window-vgg16-kernel", "run-vgg16-cifar-quarter-channel-a8-varied",
            "run-lenet-kernel-a16", "run-lenet5-kernel-a8"} <= set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_estimates_are_those_of_rtl(name):
    run = RUNS[name]
    costs = estimates(run)
    measured = [layer["cycles"] for layer in run["layers"]]
    bound = 0.03 if name in SPREAD else WHOLE
    assert sum(cost.cycles for cost in costs) == pytest.approx(sum(measured), rel=bound)
    for cost, cycles in zip(costs, measured, strict=True):
        if cycles >= LONG:
            assert cost.cycles == pytest.approx(cycles, rel=LAYER), cost.name
    # The files, and the page made of them, say what the model says today.
    assert [layer["estimated_cycles"] for layer in run["layers"]] == [
        cost.cycles for cost in costs], "python -m sim.recorded"


def test_short_layers_are_off_by_a_few_cycles():
    for name in set(RUNS) - SPREAD:
        for layer in RUNS[name]["layers"]:
            if layer["cycles"] < LONG:
                error = abs(layer["estimated_cycles"] - layer["cycles"])
                assert error <= 25, f"{name} {layer['name']}"


def test_slow_memories():
    points = read_json(RESULTS / "scaling.json")["simulated"]
    assert any(point["bytes_per_cycle"] < 64 for point in points)
    for point in points:
        assert point["estimated_cycles"] == pytest.approx(point["cycles"], rel=0.002)
    result = read_json(RESULTS / "nngen.json")
    config = PRESETS[result["config"]]
    names = [layer.name for layer in NETWORKS["vgg16"].layers]
    for layer in result["layers"]:
        index = names.index(layer["name"])
        lowered = outline(part(NETWORKS["vgg16"], index, index + 1), "channel 1:4", 8)
        memory = MemoryOptions(latency=result["latency"], gaps=tuple(result["gaps"]),
                               bandwidth=8 * layer["bytes_per_cycle"] / config.port_bits)
        cost, = estimate(compile_outline(lowered, config), memory.average, memory.latency)
        assert cost.cycles == pytest.approx(layer["layer_cycles"], rel=0.002), layer["name"]


def test_the_command_writes_estimates_and_nothing_else(tmp_path, capsys):
    run = RUNS["run-lenet5-kernel-a8"]
    stale = run | {"layers": [layer | {"estimated_cycles": 1} for layer in run["layers"]]}
    (tmp_path / "run.json").write_text(json.dumps(stale))
    (tmp_path / "other.json").write_text("[1]")
    assert main(["--results", str(tmp_path)]) == 0
    assert "run.json: 2620 cycles, estimated -0." in capsys.readouterr().out
    assert json.loads((tmp_path / "run.json").read_text()) == run
    assert (tmp_path / "other.json").read_text() == "[1]"


def test_runs_without_patterns_of_their_layers():
    run = {key: value for key, value in RUNS["zcu104-alexnet-a16"].items() if key != "patterns"}
    assert [cost.cycles for cost in estimates(run)] == [
        layer["estimated_cycles"] for layer in run["layers"]]
    varied = dict(RUNS["run-vgg16-cifar-quarter-channel-a4"])
    del varied["patterns"]
    with pytest.raises(UserError, match="the layers' own are not recorded"):
        estimates(varied)
    del run["memory"]
    with pytest.raises(UserError, match="alexnet on zcu104-alexnet: the run does not say behind"):
        estimates(run)
