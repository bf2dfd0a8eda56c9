"""Bytes of the full AlexNet at densities that were reached: ``python -m model.fullsize LOG.json``.

Arithmetic, not training: every layer gets a mask drawn at random with exactly as many weights as
its share of it says, and 8-bit values.  How many bytes the positions take depends on the mask; a
random one has no structure that a code could use.  The file is really made, and counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from model.alexnet import ALEXNETS, AlexNetShape
from model.errors import Parser, UserError, command
from model.files import check_target, read_json, write_output
from model.spatialfile import SpatialLayer, SpatialNetwork
from model.storage import print_storage, storage

__all__ = ["main", "random_network"]

#: The full-size networks.
NETWORKS = ("alexnet", "alexnet-grouped")
LIMIT = 127


def random_network(
    shape: AlexNetShape, densities: Mapping[str, float], seed: int
) -> SpatialNetwork:
    """Quantised network with random masks, ``round(density * weights)`` kept in every layer."""
    rng = np.random.default_rng(seed)
    layers = []
    for layer in shape.layers:
        weight = np.zeros(layer.weight_shape, dtype=np.int64)
        count = round(densities[layer.name] * weight.size)
        places = rng.choice(weight.size, count, replace=False, shuffle=False)
        values = rng.integers(1, LIMIT + 1, count) * rng.choice([-1, 1], count)
        weight.reshape(-1)[places] = values
        outputs = len(weight)
        layers.append(SpatialLayer(layer.name, weight, np.ones(outputs), np.zeros(outputs),
                                   None if layer is shape.layers[-1] else 1.0))
    return SpatialNetwork(shape.name, 1 / 255, tuple(layers))


def _densities(path: Path) -> dict[str, float]:
    """Densities by layer from a log of `pruning.compress`."""
    log = read_json(path)
    if log is None:
        raise UserError(f"log {path} does not exist")
    try:
        densities = {name: float(share) for name, share in log["densities"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is no log of python -m pruning.compress") from error
    names = [layer.name for layer in ALEXNETS[NETWORKS[0]].layers]
    if list(densities) != names or not all(0 < share <= 1 for share in densities.values()):
        raise UserError(f"{path}: densities must be shares in (0, 1] of {', '.join(names)}")
    return densities


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Count the bytes of both networks."""
    parser = Parser(prog="python -m model.fullsize", description=__doc__)
    parser.add_argument("log", type=Path, metavar="LOG.json", help="log of pruning.compress")
    parser.add_argument("--seed", type=int, default=0, help="of the masks (default 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the sizes")
    args = parser.parse_args(argv)
    check_target(args.json)
    densities = _densities(args.log)
    results = []
    for name in NETWORKS:
        report = storage(random_network(ALEXNETS[name], densities, args.seed))
        print_storage(report)
        stored = sum(row["stored"] for row in report["layers"])
        biases = report["dense_float32"] // 4 - sum(row["words"] for row in report["layers"])
        results.append(report | {"parameters": report["dense_float32"] // 4,
                                 "kept": stored + biases})
    if args.json is not None:
        write_output(args.json, json.dumps({
            "from": args.log.stem, "densities": densities, "seed": args.seed, "networks": results,
        }, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
