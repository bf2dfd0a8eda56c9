"""Measure and compare: ``python -m sim.benchmark PART`` writes JSON (and plots) to docs/results.

nngen: single layers of VGG16 on config vgg16-144, in RTL, beside NNgen's engine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from model.config import AcceleratorConfig, load_config
from model.errors import Parser, UserError, command
from model.files import write_output
from model.network import NETWORKS, QuantisedNetwork
from model.synthetic import synthetic_network
from sim.inputs import Photograph, photograph_files

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[1]


def _write(folder: Path, name: str, content: Any) -> None:
    """Write a JSON file of the results folder."""
    write_output(folder / name, json.dumps(content, indent=1) + "\n")
    print(f"{folder / name} written")


def _network(args: argparse.Namespace, config: AcceleratorConfig) -> QuantisedNetwork:
    """VGG16 from a file, or synthetic."""
    if args.network is None:
        return synthetic_network(NETWORKS["vgg16"], weight_bits=config.weight_bits)
    network = QuantisedNetwork.load(args.network)
    if network.network.name != "vgg16":
        raise UserError(f"{args.network} is a {network.network.name}, not a vgg16")
    return network


def _photograph(args: argparse.Namespace, network: QuantisedNetwork) -> Photograph:
    """Load the input image."""
    paths = [args.image] if args.image else []
    return photograph_files(paths, network.network.input_shape)[0]


def _nngen(args: argparse.Namespace) -> None:
    from sim.bench import nngen

    config = load_config(args.config or "vgg16-144")
    network = _network(args, config)
    photograph = _photograph(args, network)
    names = args.only.split(",") if args.only else nngen.LAYERS
    result = nngen.measure(network, photograph.pixels, config, names,
                           lambda text: print(text, flush=True))
    for row in result["layers"]:
        print(f"{row['name']}, {row['bytes_per_cycle']:g} bytes a cycle: {row['cycles']} cycles, "
              f"{row['read_bytes']} bytes read, {row['write_bytes']} written, "
              f"{row['words_compared']} words equal")
    _write(args.results, "nngen.json", result | {"image": photograph.name})


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {"nngen": _nngen}


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run one part."""
    parser = Parser(prog="python -m sim.benchmark", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=sorted(PARTS))
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results", metavar="DIR",
                        help="where to write (default: docs/results)")
    parser.add_argument("--network", metavar="FILE.npz",
                        help="pruned VGG16 (default: synthetic weights)")
    parser.add_argument("--image", metavar="FILE", help="photograph (default: a synthetic one)")
    parser.add_argument("--config", metavar="NAME|FILE", help="accelerator to run instead")
    parser.add_argument("--only", metavar="LAYER,LAYER,...", help="nngen: only these layers")
    args = parser.parse_args(argv)
    if not args.results.is_dir():
        raise UserError(f"--results {args.results}: no such folder")
    PARTS[args.part](args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
