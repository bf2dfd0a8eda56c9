"""Bytes of a network on disk, layer by layer: ``python -m model.storage NETWORK.npz``.

Writes the compact file of `model.netfile` on request and compares it with SciPy's sparse arrays of
the same integers, as many bytes as their arrays hold (scipy is optional: the columns are left out).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from model.errors import Parser, UserError, command
from model.files import check_target, write_output
from model.netfile import encode_network, layer_sizes, layer_words, load_network
from model.network import Conv, Linear, QuantisedLayer, QuantisedNetwork

__all__ = ["dense_parameters", "main", "scipy_bytes", "storage"]


def scipy_bytes(layer: QuantisedLayer, weight_bits: int) -> dict[str, int]:
    """Bytes of the arrays of SciPy's formats, indices of the type SciPy chooses.

    A row is an output; ``bsr`` has blocks of one word, so that a complex word costs one index.
    Empty without scipy.
    """
    try:
        from scipy import sparse
    except ImportError:
        return {}
    words = layer_words(layer)
    matrix = words.reshape(len(words), -1).astype(f"i{weight_bits // 8}")
    csr = sparse.csr_array(matrix)
    csc, coo = csr.tocsc(), csr.tocoo()
    bsr = sparse.bsr_array(csr, blocksize=(1, words.shape[-1]))
    compressed = {"csr": csr, "csc": csc, "bsr": bsr}
    sizes = {name: array.data.nbytes + array.indices.nbytes + array.indptr.nbytes
             for name, array in compressed.items()}
    return sizes | {"coo": coo.data.nbytes + sum(part.nbytes for part in coo.coords)}


def storage(network: QuantisedNetwork) -> dict:
    """Sizes of a network as plain JSON types; the file's own bytes under ``file``."""
    rows = []
    for size, layer in zip(layer_sizes(network), network.layers, strict=True):
        rows.append(asdict(size) | {"total": size.total}
                    | {"scipy": scipy_bytes(layer, network.weight_bits)})
    names = list(rows[0]["scipy"])
    dense = sum(dense_parameters(layer) for layer in network.network.layers)
    content = encode_network(network)
    return {
        "network": network.network.name, "weight_bits": network.weight_bits, "layers": rows,
        "file": len(content), "dense_float32": 4 * dense,
        "scipy": {name: sum(row["scipy"][name] for row in rows) for name in names},
    }


def dense_parameters(layer: Conv | Linear) -> int:
    """Weights and biases of the dense layer in space."""
    if isinstance(layer, Conv):
        return layer.out_channels * (layer.in_channels // layer.groups * layer.kernel**2 + 1)
    return layer.out_features * (layer.in_features + 1)


def _print(report: dict) -> None:
    table = Table("layer", "code", "words", "stored", "positions", "values", "scales, biases",
                  "bytes", *report["scipy"])
    for row in report["layers"]:
        table.add_row(*(str(row[key]) for key in (
            "name", "code", "words", "stored", "position_bytes", "value_bytes", "parameter_bytes",
            "total")), *(str(value) for value in row["scipy"].values()))
    console = Console()
    console.print(table)
    file, dense = report["file"], report["dense_float32"]
    console.print(f"{file} bytes with the header; dense, in single precision: {dense} bytes, "
                  f"{dense / file:.1f} times as many", soft_wrap=True)
    for name, size in report["scipy"].items():
        console.print(f"scipy {name}, weights only: {size} bytes")


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Print the sizes, write the compact file."""
    parser = Parser(prog="python -m model.storage", description=__doc__)
    parser.add_argument("network", metavar="FILE", help=".npz or .spcn")
    parser.add_argument("--out", type=Path, metavar="FILE.spcn", help="write the compact file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the sizes")
    args = parser.parse_args(argv)
    if args.out is not None and args.out.suffix != ".spcn":
        raise UserError(f"--out {args.out}: the compact file's name ends in .spcn")
    check_target(args.out)
    check_target(args.json)
    network = load_network(args.network)
    report = storage(network)
    _print(report)
    if args.out is not None:
        write_output(args.out, encode_network(network))
    if args.json is not None:
        write_output(args.json, json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
