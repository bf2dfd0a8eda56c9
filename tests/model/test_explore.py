"""The search: its space, its front, its choice, its files and its complaints."""

import dataclasses
import json

import pytest

from model.compile import compile_network
from model.config import load_config
from model.explore import choose, main, staircase
from model.network import NETWORKS
from model.outline import part
from model.platform import PLATFORMS
from model.resources import resources
from model.space import Found, Point, Task, Workload, dominates, front, search, tasks
from model.synthetic import synthetic_network

ALEXNET = Workload(part(NETWORKS["alexnet"], 0, 5), "channel 1:4", "channel 1:4",
                   PLATFORMS["zcu104"])


def _point(cycles, lanes, kbit):
    config = dataclasses.replace(load_config("tiny"), tile_lanes=lanes)
    return Point(config, cycles, {"DSP": config.multipliers, "LUT": 1000 * lanes, "FF": 1,
                                  "BRAM36": kbit // 36}, 0)


def test_front_keeps_what_nothing_beats():
    fast, small, lean = _point(10, 4, 360), _point(40, 1, 360), _point(20, 4, 36)
    worse, same = _point(41, 1, 360), _point(10, 4, 360)
    kept = front([worse, lean, small, fast, same])
    assert kept == [fast, lean, small]
    assert dominates(small, worse) and not dominates(fast, same) and not dominates(fast, small)
    assert staircase(kept) == [fast, small]


def test_choice_is_the_fastest_of_the_smallest_enough():
    fast, close, small = _point(1000, 8, 72), _point(1005, 4, 72), _point(4000, 1, 36)
    points = [fast, close, small]
    assert choose(points, None) == close
    assert choose(points, 20_000) == small          # 25 000 a second at 100 MHz
    assert choose(points, 30_000) == close
    with pytest.raises(Exception, match="no config reaches 1e\\+06 images a second"):
        choose(points, 1e6)


def test_space_has_only_configs_the_board_can_feed():
    for name, platform in PLATFORMS.items():
        found = list(tasks(platform, (8, 16)))
        assert found and len(set(found)) == len(found)
        assert all(task.port_bits <= platform.port_bits for task in found), name
    assert {task.feature_banks for task in tasks(PLATFORMS["ulx3s-85f"], (8,))} == {1}


def test_every_point_fits_and_compiles():
    found = search(ALEXNET, Task(3, 16, 8, 1, 256, 16))
    assert found.configs > len(found.points) > 0
    for point in found.points:
        used = resources(point.config, "xcup")
        board = PLATFORMS["zcu104"]
        assert used["LUT"] <= 0.9 * board.lut and used["DSP"] <= board.dsp
        assert used["BRAM36"] + used["BRAM18"] / 2 <= 312 and used["URAM"] <= 96
        assert point.config.map_pool == 1 and point.config.post_values == 6
    assert found.points == front(found.points)


def test_bandwidth_is_apart_from_the_port():
    whole = dataclasses.replace(ALEXNET, network=NETWORKS["alexnet"], linear="channel 1:16")
    board = PLATFORMS["zcu104"]
    # 96 bytes a cycle: a port of 1024 bits is wider than that, one of 512 is not.
    shares, times = {}, {}
    for port in (512, 1024):
        for gigabytes in (9.6, 19.2, 25.6):
            slow = dataclasses.replace(board, bandwidth=1e9 * gigabytes)
            best = search(dataclasses.replace(whole, platform=slow),
                          Task(4, 64, 8, 1, port, 8)).points[0]
            shares[port, gigabytes], times[port, gigabytes] = best.linear_share, best.cycles
    assert times[512, 19.2] == times[512, 25.6] > times[1024, 19.2] >= times[1024, 25.6]
    assert times[512, 9.6] > times[512, 19.2]
    assert shares[512, 25.6] == pytest.approx(shares[512, 19.2] * 19.2 / 25.6)
    assert 0.5 < shares[512, 19.2] < shares[1024, 19.2] < shares[1024, 9.6]
    assert search(ALEXNET, Task(3, 16, 8, 1, 256, 16)).points[0].linear_share is None


def test_accumulators_in_dsps_leave_room_for_more_lanes():
    task = Task(9, 32, 8, 1, 512, 16)
    assert not search(ALEXNET, task).points
    assert search(dataclasses.replace(ALEXNET, dsp_accumulators=True, fill=1.0), task).points


def test_operations_of_alexnet():
    # 714 million multiplications for torchvision's, 655 of them in the convolutions.
    whole = Workload(NETWORKS["alexnet"], "channel 1:4", "channel 1:4", PLATFORMS["zcu104"])
    assert whole.operations == 2 * 714_188_480 and ALEXNET.operations == 2 * 655_566_528


def test_results_of_parts_are_joined():
    one, two = Found(configs=1), Found(configs=2)
    one.too_much("LUT", 300, 200)
    two.too_much("LUT", 210.5, 200)
    two.too_much("URAM", 5, 0)
    one.merge(two)
    assert one.configs == 3 and one.closest["LUT"] == (210.5 / 200, "211 of 200 LUT")
    assert one.refused == {"LUT": 2, "URAM": 1}


def test_lenet_on_a_ulx3s(tmp_path, capsys):
    target, config, plot = (tmp_path / name for name in ("r.json", "c.json", "p.png"))
    pytest.importorskip("matplotlib")
    assert main(["--network", "lenet", "--board", "ulx3s-85f", "--linear-alpha", "32",
                 "--weight-bits", "8", "--jobs", "2", "--json", str(target), "--plot", str(plot),
                 "--out", str(config)]) == 0
    assert "lenet on ulx3s-85f" in capsys.readouterr().out
    assert plot.stat().st_size > 1000
    result = json.loads(target.read_text())
    times = [point["milliseconds"] for point in result["front"]]
    assert times == sorted(times) and len(times) > 3
    chosen = load_config(str(config))
    assert dataclasses.asdict(chosen) == result["chosen"]["config"]
    used = resources(chosen, "ecp5")
    assert used == result["chosen"]["used"] and used["DP16KD"] <= 208
    # The image really fits the memory on the chip, and the compiler takes the config.
    program = compile_network(
        synthetic_network(NETWORKS["lenet"], weight_bits=8, alpha=32), chosen)
    assert 8 * len(program.image) <= 1024 * chosen.onchip_kib


@pytest.mark.parametrize("arguments, message", [
    (["--network", "resnet"], "unknown network 'resnet': known are lenet"),
    (["--board", "kria"], "unknown board 'kria': known are zcu104"),
    (["--pattern", "kernel"], "only 'channel' can be explored"),
    (["--alpha", "3"], "alpha must be a power of two"),
    (["--layers", "4"], "--layers '4': give A:B"),
    (["--layers", "2:9"], "do not lie within 0:4"),
    (["--weight-bits", "4"], "--weight-bits '4': give 8, 16 or 8,16"),
    (["--fill", "1.5"], "--fill must be above 0"),
    (["--clock", "-1"], "--clock must be positive"),
    (["--jobs", "0"], "--jobs must be at least 1"),
    (["--out", "/nowhere/c.json"], "folder /nowhere does not exist"),
    (["--board", "ulx3s-85f", "--fill", "0.01"], "no config of lenet fits ulx3s-85f: the nearest"),
    (["--board", "ulx3s-85f", "--at-least", "1e9"], "no config reaches 1e+09 images a second"),
])
def test_mistakes_are_one_line(arguments, message, capsys):
    full = {"--network": "lenet", "--board": "ulx3s-85f", "--jobs": "1", "--weight-bits": "8"}
    full |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert main([text for pair in full.items() for text in pair]) == 2
    text = capsys.readouterr().err
    assert message in text and text.count("\n") == 1
