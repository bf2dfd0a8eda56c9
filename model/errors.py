"""The one exception a user can cause, and the `main` wrapper that prints it."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

__all__ = ["UserError", "Parser", "command"]


class UserError(Exception):
    """Bad input from outside: says what, where and how to mend it, in one line."""


class Parser(argparse.ArgumentParser):
    """Argument parser whose complaints are one line too, without the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        raise UserError(f"{message}; see {self.prog} --help")


def command(
    main: Callable[[Sequence[str] | None], int],
) -> Callable[[Sequence[str] | None], int]:
    """Turn a `UserError` from a command's `main` into one line on stderr and exit code 2."""

    @functools.wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("error: interrupted", file=sys.stderr)
            return 130

    return wrapped
