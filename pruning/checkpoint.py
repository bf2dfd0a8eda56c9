"""Checkpoints: written whole or not at all, and refused when they do not fit."""

from __future__ import annotations

import pickle
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    except (OSError, RuntimeError) as error:
        # Torch's own writer says RuntimeError where the disk is full.
        raise UserError(f"checkpoint {path} cannot be written: {_reason(error)}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def put_aside(path: Path) -> None:
    """Rename the file of an earlier run, if there is one, to end in ``.old``, and say so."""
    old = path.with_name(path.name + ".old")
    try:
        path.replace(old)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{path} of an earlier run cannot be renamed: {_reason(error)}") from error
    print(f"{path} of an earlier run is now {old} (--resume would go on with it)", file=sys.stderr)


def load(path: Path, kind: str) -> dict:
    """Read a checkpoint of `kind` (``"dense"`` or ``"run"``)."""
    try:
        # Torch reads weights without looking at their checksums.
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise UserError(f"checkpoint {path} is corrupt: bad CRC-32 of {damaged}")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"checkpoint {path} does not exist") from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile,
            zlib.error, ValueError, KeyError) as error:
        raise UserError(f"checkpoint {path} is corrupt or no checkpoint: "
                        f"{_reason(error)}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT or state.get("kind") != kind:
        raise UserError(f"checkpoint {path} is not a {kind} checkpoint of this version")
    return state


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Within the block, what a loaded state lacks or has in another shape is a `UserError`."""
    try:
        yield
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"checkpoint {path} is damaged or of another version: "
                        f"{_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Message of an error in one short line."""
    if isinstance(error, KeyError):
        return f"no entry {error}"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]} ..."
