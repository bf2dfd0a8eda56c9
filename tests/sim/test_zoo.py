"""The shipped networks on the reference core: every word, every cycle bar. Minutes long."""

import json

import pytest

from model.compile import compile_network
from model.config import PRESETS
from model.cost import estimate
from model.network import QuantisedNetwork
from model.zoo import FOLDER as ZOO
from sim.run import main

#: Cycles per image the project promises, docs/results.md.
BARS = {"lenet": 15_000, "lenet5": 4_000}

pytestmark = pytest.mark.slow


def run(tmp_path, *arguments):
    path = tmp_path / "run.json"
    assert main([*arguments, "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    assert result["bit_exact"] and not result["failures"]
    return result


@pytest.mark.parametrize("pattern", ["channel", "kernel"])
@pytest.mark.parametrize("network", sorted(BARS))
def test_hundred_digits_within_the_cycle_bar(network, pattern, tmp_path):
    result = run(tmp_path, network, "--pattern", pattern, "--index", "0:100")
    right = sum(a == b for a, b in zip(result["labels"], result["predicted"], strict=True))
    assert right >= 98
    assert max(result["cycles"]) <= BARS[network]
    assert result["multipliers"] <= 100
    program = compile_network(
        QuantisedNetwork.load(ZOO / f"{network}-{pattern}-a4.npz"), PRESETS["ecp5-85f"]
    )
    for cost, layer in zip(estimate(program), result["layers"], strict=True):
        assert abs(cost.cycles - layer["cycles"]) <= 0.05 * layer["cycles"] + 5, cost.name


@pytest.mark.parametrize("seed", [1, 2])
def test_random_back_pressure_of_the_memory(seed, tmp_path):
    calm = run(tmp_path, "lenet", "--index", "7")
    rough = run(tmp_path, "lenet", "--index", "7", "--stall", "0.5", "--seed", str(seed),
                "--latency", "60")
    assert rough["scores"] == calm["scores"] and rough["cycles"] > calm["cycles"]


def test_one_digit_in_amaranths_simulator_takes_the_same_cycles(tmp_path):
    fast = run(tmp_path, "lenet", "--index", "3")
    slow = run(tmp_path, "lenet", "--index", "3", "--backend", "pysim")
    assert slow["cycles"] == fast["cycles"] and slow["scores"] == fast["scores"]


@pytest.mark.parametrize("where", ["KERN:40000", "KERN:120000"])
def test_planted_weight_fault_is_located(where, capsys):
    assert main(["lenet", "--index", "0", "--flip-bit", where]) == 1
    assert "KERN" in capsys.readouterr().out
    assert main(["lenet", "--index", "0", "--flip-bit", where, "--fix-crc"]) == 1
    assert "first differing" in capsys.readouterr().out
