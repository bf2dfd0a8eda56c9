"""Where commands print their tables."""

from __future__ import annotations

import sys

from rich.console import Console

__all__ = ["PIPED_COLUMNS", "report_console"]

#: Columns where standard output is a pipe or a file: rich would cut tables to 80.
PIPED_COLUMNS = 160


def report_console() -> Console:
    """Make the console for standard output: as wide as the terminal, or `PIPED_COLUMNS`."""
    return Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS)
