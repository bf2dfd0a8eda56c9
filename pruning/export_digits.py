"""Write the first MNIST test digits as a small ``.npz``: ``python -m pruning.export_digits``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.errors import Parser, UserError, command
from model.files import check_target, write_output
from pruning.data import data_directory, load_digits


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parse the options and write the file."""
    parser = Parser(prog="python -m pruning.export_digits", description=__doc__)
    parser.add_argument("--data", metavar="DIR", help="folder of the MNIST files")
    parser.add_argument("--count", type=int, default=300, help="digits to keep (default 300)")
    parser.add_argument(
        "--out", type=Path, default=Path("model/zoo/mnist_test.npz"), metavar="FILE",
        help="file to write (default %(default)s)",
    )
    args = parser.parse_args(argv)
    check_target(args.out)
    digits = load_digits(data_directory(args.data), "t10k")
    if not 1 <= args.count <= len(digits.labels):
        raise UserError(f"--count must be 1..{len(digits.labels)}, not {args.count}")
    content = io.BytesIO()
    np.savez_compressed(
        content, images=digits.images[: args.count], labels=digits.labels[: args.count]
    )
    write_output(args.out, content.getvalue())
    print(f"{args.count} digits in {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
