"""Folder of compiled simulators, safe for concurrent processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cache_folder", "building"]


def cache_folder() -> Path:
    """``SPECTRALCNN_CACHE``, else ``spectralcnn`` under XDG_CACHE_HOME or ``~/.cache``."""
    if chosen := os.environ.get("SPECTRALCNN_CACHE"):
        return Path(chosen)
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "spectralcnn"


@contextlib.contextmanager
def building(target: Path) -> Iterator[Path]:
    """Scratch folder that becomes ``target`` at the end, in one rename.

    Of two processes that build the same target the first to finish wins; the other's copy, equal
    by construction, is dropped. An exception leaves nothing behind.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=target.name + ".part-", dir=target.parent))
    try:
        yield scratch
        with contextlib.suppress(OSError):      # exists already: another process was faster
            scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
