"""The one exception a user can cause, and the `main` wrapper that prints it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence

__all__ = ["UserError", "command"]


class UserError(Exception):
    """Bad input from outside: says what, where and how to mend it, in one line."""


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
