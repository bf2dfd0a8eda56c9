import json

from sim.results import main, render


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
