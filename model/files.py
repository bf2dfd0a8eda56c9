"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from model.errors import UserError

__all__ = ["check_target", "prepare_folder", "read_json", "write_atomic", "write_output"]


def check_target(path: Path | None) -> None:
    """Refuse a file that could not be written, before the work whose result it shall hold."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise UserError(f"{path}: folder {path.parent} does not exist")
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a file")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path}: folder {path.parent} is not writable")


def prepare_folder(path: Path) -> None:
    """Make a folder of results, before the work whose results it shall hold."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make folder {path}: {error.strerror}; choose another with "
                        "--out") from error


def write_atomic(path: Path | str, content: bytes | str) -> None:
    """Write beside ``path`` and rename: a reader or an interruption never sees half a file."""
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        error.filename = str(path)      # not the name the user never asked for
        raise
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            # mkstemp gives 0600; the umask is read by setting it.
            mask = os.umask(0)
            os.umask(mask)
            os.fchmod(file.fileno(), 0o666 & ~mask)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def write_output(path: Path, content: bytes | str) -> None:
    """`write_atomic` for a file the user named: what goes wrong is a `UserError`."""
    try:
        write_atomic(path, content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def read_json(path: Path) -> Any:
    """Content of a JSON file of results, None where there is none."""
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"result file {path} cannot be read: {error}") from error
