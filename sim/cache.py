"""Folder of compiled simulators, safe for concurrent processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from model.errors import UserError

__all__ = ["cache_folder", "cached"]


def cache_folder() -> Path:
    """``SPECTRALCNN_CACHE``, else ``spectralcnn`` under XDG_CACHE_HOME or ``~/.cache``."""
    if chosen := os.environ.get("SPECTRALCNN_CACHE"):
        return Path(chosen)
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "spectralcnn"


def cached(target: Path, build: Callable[[Path], None]) -> Path:
    """Return folder ``target``, made by ``build`` if it is not there.

    ``build`` fills a scratch folder that becomes ``target`` in one rename; if it fails, nothing
    is left behind. Of two processes that want the same target one builds, the other waits.
    """
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        raise UserError(f"the cache folder {cache_folder()} cannot be written: {error.strerror}; "
                        "set SPECTRALCNN_CACHE to another") from error
    with _locked(target.with_name(target.name + ".lock")):
        if target.exists():
            return target
        scratch = Path(tempfile.mkdtemp(prefix=target.name + ".part-", dir=target.parent))
        try:
            build(scratch)
            # Without locks (below) another process may have been faster; its copy is equal.
            with contextlib.suppress(FileExistsError):
                scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return target


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock, which ends with the process; no lock where there is no fcntl."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
