"""Small files the project ships: pruned quantised networks and some MNIST test digits."""

from __future__ import annotations

from pathlib import Path

from model.errors import UserError
from model.netfile import load_network
from model.network import QuantisedNetwork

__all__ = ["FOLDER", "zoo_network"]

#: Where the files lie.
FOLDER = Path(__file__).parent


def zoo_network(name: str, pattern: str, alpha: int) -> QuantisedNetwork:
    """Read a network of the zoo; `UserError` lists those there are."""
    path = FOLDER / f"{name}-{pattern}-a{alpha}.npz"
    if not path.exists():
        there = ", ".join(sorted(item.stem for item in FOLDER.glob("*-a*.npz"))) or "none"
        raise UserError(f"the zoo has no {path.stem}; it has: {there}. Train it with "
                        "python -m pruning.train, or give --network FILE.npz")
    return load_network(path)
