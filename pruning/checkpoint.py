"""Checkpoints: written whole or not at all, and refused when they do not fit."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch

from model.errors import UserError

FORMAT = 2


def save(path: Path, state: dict) -> None:
    """Write `state` atomically: an interrupted write leaves the old file."""
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"format": FORMAT, **state}, partial)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be written: {error}") from error


def load(path: Path, kind: str) -> dict:
    """Read a checkpoint of `kind` (``"dense"`` or ``"run"``)."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"checkpoint {path} does not exist") from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile,
            ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"checkpoint {path} is corrupt or no checkpoint: {reason}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT or state.get("kind") != kind:
        raise UserError(f"checkpoint {path} is not a {kind} checkpoint of this version")
    return state
