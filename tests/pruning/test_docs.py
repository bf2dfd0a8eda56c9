"""The snippet of docs/pruning.md runs as it stands."""

import re
from pathlib import Path

import torch

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "pruning.md"


def test_the_snippet_runs(capsys):
    torch.manual_seed(0)
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    names = {}
    exec(compile(code, str(DOCUMENT), "exec"), names)
    assert names["kept"].keys() == {"0", "4", "9"} and "'9': 0.5" in capsys.readouterr().out
    assert names["pruner"].rho == 1.0
    assert float((names["model"][4].weight != 0).float().mean()) <= 0.25
