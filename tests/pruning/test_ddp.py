"""Two processes under torchrun keep one pruner."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_ranks_agree_under_torchrun():
    root = Path(__file__).resolve().parents[2]
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            str(root / "tests" / "pruning" / "ddp_worker.py")]
    done = subprocess.run(call, cwd=root, capture_output=True, text=True, timeout=300, check=False,
                          env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert "rho 1.000" in done.stdout and "the ranks agree" in done.stdout
