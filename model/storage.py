"""Bytes of a network on disk, layer by layer: ``python -m model.storage NETWORK.npz``.

``--weights synthetic`` draws one (`model.synthetic`) instead. Writes the compact file of
`model.netfile` on request and compares it with other sparse arrays of
the same integers: CSR with the narrowest indices, and SciPy's, as many bytes as their arrays hold
(scipy is optional: the columns are left out).  Also reads what `pruning.compress` wrote.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from model.console import report_console
from model.errors import Parser, UserError, command
from model.files import check_target, write_output
from model.maskcode import FIXED
from model.netfile import encode_network, layer_sizes, layer_words, load_network
from model.network import NETWORKS, Conv, Linear, QuantisedNetwork
from model.sections import kept_words
from model.spatialfile import (
    WEIGHT_BITS,
    SpatialNetwork,
    encode_spatial,
    load_spatial,
    spatial_words,
)
from model.synthetic import add_synthetic, draw

__all__ = ["csr_bytes", "dense_parameters", "fixed_bytes", "main", "print_storage", "scipy_bytes",
           "storage"]


def scipy_bytes(words: NDArray[np.int64], weight_bits: int) -> dict[str, int]:
    """Bytes of the arrays of SciPy's formats, indices of the type SciPy chooses.

    A row is an output of ``words`` (N, C, F, parts); ``bsr`` has blocks of one word, so that a
    complex word costs one index.  Empty without scipy.
    """
    try:
        from scipy import sparse
    except ImportError:
        return {}
    matrix = words.reshape(len(words), -1).astype(f"i{weight_bits // 8}")
    csr = sparse.csr_array(matrix)
    csc, coo = csr.tocsc(), csr.tocoo()
    bsr = sparse.bsr_array(csr, blocksize=(1, words.shape[-1]))
    compressed = {"csr": csr, "csc": csc, "bsr": bsr}
    sizes = {name: array.data.nbytes + array.indices.nbytes + array.indptr.nbytes
             for name, array in compressed.items()}
    return sizes | {"coo": coo.data.nbytes + sum(part.nbytes for part in coo.coords)}


def csr_bytes(words: NDArray[np.int64], weight_bits: int) -> int:
    """Bytes of CSR with indices and row pointers of as few whole bytes as they need."""
    stored = int(kept_words(words).sum())
    columns = words[0].size // words.shape[-1]
    return (stored * (weight_bits // 8 * words.shape[-1] + _bytes(columns - 1))
            + (len(words) + 1) * _bytes(stored))


def _bytes(largest: int) -> int:
    """Bytes that hold 0 ... ``largest``."""
    return max(1, (largest.bit_length() + 7) // 8)


def fixed_bytes(words: NDArray[np.int64], weight_bits: int) -> int:
    """Bytes with positions as a bitmap or as relative indices of fixed width only."""
    mask = kept_words(words)
    bits = min(code.size(mask) for code in FIXED)
    return -(-bits // 8) + int(mask.sum()) * weight_bits // 8 * words.shape[-1]


def storage(network: QuantisedNetwork | SpatialNetwork) -> dict:
    """Sizes of a network as plain JSON types; the file's own bytes under ``file``."""
    if isinstance(network, SpatialNetwork):
        name, bits = network.name, WEIGHT_BITS
        content, sizes = encode_spatial(network)
        words = [spatial_words(layer) for layer in network.layers]
        dense = sum(layer.weight.size + len(layer.bias) for layer in network.layers)
    else:
        name, bits = network.network.name, network.weight_bits
        content, sizes = encode_network(network), layer_sizes(network)
        words = [layer_words(layer) for layer in network.layers]
        dense = sum(dense_parameters(layer) for layer in network.network.layers)
    rows = [asdict(size) | {"total": size.total, "fixed": fixed_bytes(item, bits),
                            "csr_narrow": csr_bytes(item, bits), "scipy": scipy_bytes(item, bits)}
            for size, item in zip(sizes, words, strict=True)]
    return {
        "network": name, "weight_bits": bits, "layers": rows,
        "file": len(content), "dense_float32": 4 * dense,
        "fixed": sum(row["fixed"] for row in rows),
        "csr_narrow": sum(row["csr_narrow"] for row in rows),
        "scipy": {kind: sum(row["scipy"][kind] for row in rows) for kind in rows[0]["scipy"]},
    }


def dense_parameters(layer: Conv | Linear) -> int:
    """Weights and biases of the dense layer in space."""
    if isinstance(layer, Conv):
        return layer.out_channels * (layer.in_channels // layer.groups * layer.kernel**2 + 1)
    return layer.out_features * (layer.in_features + 1)


def print_storage(report: dict) -> None:
    """Print what `storage` found."""
    table = Table("layer", "code", "words", "stored", "positions", "values", "scales, biases",
                  "bytes", "fixed", "narrow csr", *report["scipy"])
    for row in report["layers"]:
        table.add_row(*(str(row[key]) for key in (
            "name", "code", "words", "stored", "position_bytes", "value_bytes", "parameter_bytes",
            "total", "fixed", "csr_narrow")), *(str(value) for value in row["scipy"].values()))
    console = report_console()
    console.print(table)
    file, dense = report["file"], report["dense_float32"]
    console.print(f"{file} bytes with the header; dense, in single precision: {dense} bytes, "
                  f"{dense / file:.1f} times as many", soft_wrap=True)
    console.print(f"weights only: {report['fixed']} bytes with bitmaps and relative indices, "
                  f"{report['csr_narrow']} as CSR with the narrowest indices", soft_wrap=True)
    for name, size in report["scipy"].items():
        console.print(f"scipy {name}, weights only: {size} bytes")


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Print the sizes, write the compact file."""
    parser = Parser(prog="python -m model.storage", description=__doc__)
    parser.add_argument("network", metavar="FILE",
                        help=".npz, .spcn or .spcs; with --weights synthetic a name: "
                        + ", ".join(NETWORKS))
    parser.add_argument("--weights", choices=("synthetic",),
                        help="random weights instead of a file")
    parser.add_argument("--weight-bits", type=int, choices=(8, 16), default=8,
                        help="of synthetic weights (default 8)")
    add_synthetic(parser)
    parser.add_argument("--out", type=Path, metavar="FILE.spcn", help="write the compact file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the sizes")
    args = parser.parse_args(argv)
    if args.out is not None and args.out.suffix != ".spcn":
        raise UserError(f"--out {args.out}: the compact file's name ends in .spcn")
    check_target(args.out)
    check_target(args.json)
    if args.weights is None and args.network.endswith(".spcs"):
        if args.out is not None:
            raise UserError(f"--out {args.out}: {args.network} is a compact file already")
        report = storage(load_spatial(Path(args.network)))
    else:
        network = draw(args, args.network, args.weight_bits) if args.weights else load_network(
            args.network)
        report = storage(network) | {
            "pattern": ", ".join(dict.fromkeys(layer.pattern for layer in network.layers))}
        if args.out is not None:
            write_output(args.out, encode_network(network))
    print_storage(report)
    if args.json is not None:
        write_output(args.json, json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
