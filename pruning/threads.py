"""Torch where a command needs it, with as many threads as the user gives it."""

from __future__ import annotations

from model.errors import UserError

__all__ = ["use_threads"]


def use_threads(threads: int) -> None:
    """Limit torch to ``threads`` CPU threads; `UserError` without torch or with less than one."""
    try:
        import torch
    except ImportError as error:
        raise UserError("training and pruning need torch: pip install -e '.[prune]'") from error
    if threads < 1:
        raise UserError(f"--threads must be at least 1, not {threads}")
    torch.set_num_threads(threads)
