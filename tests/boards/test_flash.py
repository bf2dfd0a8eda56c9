"""The exact commands, with programmers that only write down what they are called with."""

import pytest

from boards.flash import main
from boards.table import BOARDS


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Working folder with the files of every board."""
    monkeypatch.chdir(tmp_path)
    for board in BOARDS.values():
        folder = tmp_path / "build" / board.id
        folder.mkdir(parents=True)
        for name in (f"{board.design}.bit", f"{board.design}.svf", f"{board.design}-openocd.cfg"):
            (folder / name).write_text("bits")
    return tmp_path


def test_commands(built, capsys):
    commands = {}
    for board in BOARDS:
        assert main([board, "--dry-run"]) == 0
        commands[board] = capsys.readouterr().out.strip()
    assert commands == {
        "ulx3s-85f": "openFPGALoader -b ulx3s -m build/ulx3s-85f/spectralcnn_ulx3s_85f.bit",
        "ulx3s-45f": "openFPGALoader -b ulx3s -m build/ulx3s-45f/spectralcnn_ulx3s_45f.bit",
        "ecpix5-85f": "openFPGALoader -c ft2232 -m build/ecpix5-85f/spectralcnn_ecpix5_85f.bit",
        "ecpix5-45f": "openFPGALoader -c ft2232 -m build/ecpix5-45f/spectralcnn_ecpix5_45f.bit",
        "orangecrab-85f": "dfu-util -d 1209:5af0 -a 0 -D "
                          "build/orangecrab-85f/spectralcnn_orangecrab_85f.bit",
        "versa-ecp5": "openocd -f build/versa-ecp5/spectralcnn_versa_ecp5-openocd.cfg -c "
                      "'transport select jtag; init; svf -quiet "
                      "build/versa-ecp5/spectralcnn_versa_ecp5.svf; exit'",
        "arty-a7-100": "openFPGALoader -b arty_a7_100t -m "
                       "build/arty-a7-100/spectralcnn_arty_a7_100.bit",
        "kc705": "openFPGALoader -b kc705 -m build/kc705/spectralcnn_kc705.bit",
    }


@pytest.mark.parametrize("code", [0, 1])
def test_runs_the_programmer(built, monkeypatch, capfd, code):
    tool = built / "bin" / "openFPGALoader"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "called: $@"; exit {code}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    (built / "my.bit").write_text("bits")
    assert main(["ulx3s-85f", "--bitstream", "my.bit"]) == (2 if code else 0)
    out, error = capfd.readouterr()
    assert out == "openFPGALoader -b ulx3s -m my.bit\ncalled: -b ulx3s -m my.bit\n"
    if code:
        assert error == ("error: openFPGALoader failed with exit code 1: is Radiona ULX3S 85F "
                         "connected and powered, and may you use its USB device?\n")


def test_a_programmer_that_does_not_run(built, monkeypatch, capsys):
    tool = built / "bin" / "openFPGALoader"
    tool.parent.mkdir()
    tool.write_bytes(b"\x7fELF of another machine")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent))
    (built / "my.bit").write_text("bits")
    assert main(["ulx3s-85f", "--bitstream", "my.bit"]) == 2
    assert "cannot be run: Exec format error: install openFPGALoader again" in (
        capsys.readouterr().err)


@pytest.mark.parametrize("arguments, message", [
    (["ulx3s-85f"], "openFPGALoader is not installed (Debian/Ubuntu: apt-get install"),
    (["none"], "unknown board 'none': known are ulx3s-85f"),
    (["zcu104"], "zcu104 is programmed by its processors, from Linux, or by Vivado: see docs/"),
    (["ulx3s-85f", "--bitstream", "no.bit"],
     "no.bit does not exist: build it with python -m rtl.build --board ulx3s-85f"),
    (["ulx3s-85f", "--bitstream", "."], ". is not a file: build it with"),
    (["ulx3s-85f", "--bitstream", "empty.bit"], "empty.bit is empty: build it with"),
    ([], "the following arguments are required: BOARD"),
])
def test_refusals_are_one_line(built, monkeypatch, capsys, arguments, message):
    monkeypatch.setenv("PATH", "/nowhere")
    (built / "empty.bit").touch()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
