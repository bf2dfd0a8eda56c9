"""Torch where a command needs it, with as many threads as the user gives it."""

from __future__ import annotations

from model.errors import UserError

__all__ = ["choose_device", "use_threads"]


def use_threads(threads: int) -> None:
    """Limit torch to ``threads`` CPU threads; `UserError` without torch or with less than one."""
    try:
        import torch
    except ImportError as error:
        raise UserError("training and pruning need torch: pip install -e '.[prune]'") from error
    if threads < 1:
        raise UserError(f"--threads must be at least 1, not {threads}")
    torch.set_num_threads(threads)


def choose_device(name: str) -> str:
    """Device called ``name``; ``"auto"`` is a GPU if there is one.  `UserError` if it is none."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device must be auto, cpu or cuda, not {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no GPU")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device must be auto, cpu or cuda, not {name!r}")
    return name
