"""Measure access schedules: ``python -m model.benchmark_schedule --data DIR --json FILE``.

Utilisation = products / (cycles x 64 lanes) of real pruned kernels, for each method, window and
number of addresses per cycle. Every schedule is checked before it is counted. The weights are the
dense VGG16 convolutions of ``--data`` projected one-shot, or a pruned network file.
"""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import halfplane
from model.access import LANES, Ports, check, pack_lanes
from model.config import PRESETS
from model.cover import cover
from model.errors import Parser, UserError, command
from model.files import check_target, write_atomic
from model.netfile import load_network
from model.network import NETWORKS, Conv, Network
from model.order import arrange
from model.patterns import parse, project
from model.windowed import opens

__all__ = ["Method", "METHODS", "Layer", "measure", "main"]

WEIGHTS = Path("vgg16-conv") / "vgg16_conv_fp16.npz"


@dataclass(frozen=True)
class Method:
    """One line of the comparison.

    Attributes
    ----------
    rule : str
        Of `model.cover.METHODS`.
    window : int
        Frequencies in flight; 0: one input channel at a time, as FPGA 2020 does.
    arranged : bool
        Whether the order of the frequencies is searched.
    banks : bool
        r banks with one address each instead of any r addresses.
    opening : bool
        Whether a block's frequencies open one after the other, as in the core (`model.windowed`).
    """

    rule: str
    window: int
    arranged: bool = False
    banks: bool = False
    opening: bool = False

    def __str__(self) -> str:
        scope = f"window {self.window}" if self.window else "channel by channel"
        extra = (", ordered" if self.arranged else "") + (", banked" if self.banks else "")
        extra += ", opening" if self.opening else ""
        return f"{self.rule}, {scope}{extra}"


METHODS = (
    *(Method(rule, 0) for rule in ("lowest", "random", "fullest")),
    *(Method("fullest", window) for window in (1, 32)),
    *(Method("completing", window) for window in (1, 8)),
    *(Method("completing", window, arranged=True) for window in (2, 4, 8, 16)),
    Method("completing", 32),
    *(Method("completing", window, arranged=window < 32, banks=True) for window in (8, 32)),
    Method("completing", 32, banks=True, opening=True),
)
#: The core whose pace "opening" means.
CORE = PRESETS["u200-window"]


@dataclass(frozen=True)
class Layer:
    """Kept words (N, C, F) of a layer, its tiles at the network's input size, its kept energy."""

    name: str
    kept: NDArray[np.bool_]
    tiles: int
    energy: float | None


def _tiles(network: Network, tile: int = 8) -> dict[str, int]:
    return {layer.name: layer.tiling(shape, tile).tiles
            for layer, shape in zip(network.layers, network.shapes()[:-1], strict=True)
            if isinstance(layer, Conv)}


def load_dense(path: Path, pattern: str) -> list[Layer]:
    """Project the VGG16 convolutions of ``path`` (arrays ``NAME.w``) one-shot."""
    rule = parse(pattern)
    layers = []
    try:
        with np.load(path, allow_pickle=False) as data:
            for name, tiles in _tiles(NETWORKS["vgg16"]).items():
                words = halfplane.from_spatial(data[f"{name}.w"].astype(np.float32), 8)
                energy: NDArray = halfplane.energy(words).astype(np.float32)
                kept = project(energy, rule)
                share = float(energy[kept].sum(dtype=np.float64) / energy.sum(dtype=np.float64))
                layers.append(Layer(name, kept, tiles, share))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist: give --data the folder that holds {WEIGHTS}"
        ) from error
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"weights {path} cannot be used: {error}") from error
    return layers


def load_pruned(path: Path) -> tuple[str, list[Layer]]:
    """Pattern and convolutions of a pruned network file."""
    network = load_network(path)
    tiles = _tiles(network.network, network.tile)
    layers, patterns = [], []
    for layer, data in zip(network.network.layers, network.layers, strict=True):
        if isinstance(layer, Conv):
            kept: NDArray[np.bool_] = np.asarray(data.weight.any(axis=-1))
            layers.append(Layer(layer.name, kept, tiles[layer.name], None))
            patterns.append(data.pattern)
    if not layers:
        raise UserError(f"network file {path} has no convolution to schedule")
    return ", ".join(dict.fromkeys(patterns)), layers


def measure(layer: Layer, method: Method, addresses: int, blocks: int = 0) -> dict[str, Any]:
    """Schedule kernel blocks of a layer.

    Parameters
    ----------
    layer : Layer
        Its kernels, 64 to a block.
    method : Method
        What to run.
    addresses : int
        r.
    blocks : int
        Blocks to take, evenly spaced; 0 takes all.

    Returns
    -------
    dict
        ``products`` and ``cycles`` of the blocks taken, scaled to all blocks.
    """
    starts = list(range(0, len(layer.kept), LANES))
    if 0 < blocks < len(starts):
        starts = [starts[(2 * block + 1) * len(starts) // (2 * blocks)] for block in range(blocks)]
    scale = len(layer.kept) / sum(min(LANES, len(layer.kept) - start) for start in starts)
    products = cycles = 0
    ports = Ports(addresses, addresses if method.banks else 0)
    for start in starts:
        masks = pack_lanes(layer.kept[start:start + LANES])
        order = None
        if not method.window:
            masks = np.ascontiguousarray(masks.T)
        elif method.arranged:
            order = arrange(masks, ports, method.window)
            masks = masks[order]
        window = method.window or 1
        banks = ports.bank_of((masks.shape[0], masks.shape[1]), bool(method.window), order)
        begin = opens(CORE)[:len(masks)] if method.opening else None
        schedule = cover(masks, ports, window, method.rule, banks, opens=begin)
        check(schedule, masks, ports, window, banks, begin)
        products += schedule.products
        cycles += schedule.cycles
    return {"name": layer.name, "tiles": layer.tiles, "products": round(products * scale),
            "cycles": round(cycles * scale), "utilisation": products / cycles / LANES}


def _total(layers: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Utilisation over an image (every block once per tile), and over the kernels alone."""
    image = [sum(layer[key] * layer["tiles"] for layer in layers) for key in ("products", "cycles")]
    kernels = [sum(layer[key] for layer in layers) for key in ("products", "cycles")]
    return {"utilisation": image[0] / image[1] / LANES,
            "utilisation_kernels": kernels[0] / kernels[1] / LANES}


def _numbers(text: str) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"--addresses must be numbers with commas, not {text!r}") from error
    if not all(1 <= value <= LANES for value in values):
        raise UserError(f"--addresses must be 1 to {LANES}, not {text!r}")
    return values


def _plot(path: Path, result: dict[str, Any]) -> None:
    try:
        import matplotlib
    except ImportError as error:
        raise UserError("--plot needs matplotlib: pip install -e '.[prune]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(figsize=(8, 5.5))
    for name in dict.fromkeys(run["label"] for run in result["runs"]):
        runs = [run for run in result["runs"] if run["label"] == name]
        axes.plot([run["addresses"] for run in runs],
                  [100 * run["utilisation"] for run in runs],
                  marker="o", label=name, linestyle="-" if "completing" in name else "--")
    axes.set(xlabel="addresses per cycle r", ylabel="utilisation of 64 lanes, %",
             title=f"{result['weights']}, {result['pattern']}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def _row(label: str, cells: Sequence[str], seconds: str) -> None:
    print(f"{label:38}" + "".join(f"{cell:>8}" for cell in cells) + f"{seconds:>9}", flush=True)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    parser = Parser(prog="python -m model.benchmark_schedule", description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("SPECTRAL_DATA"),
                        metavar="DIR", help=f"folder that holds {WEIGHTS}")
    parser.add_argument("--network", type=Path, metavar="FILE",
                        help="pruned network file instead of --data")
    parser.add_argument("--pattern", default="kernel 4", help="projection of the dense weights")
    parser.add_argument("--addresses", default="4,6,8,10,12,16", metavar="R,R,...")
    parser.add_argument("--methods", action="append", metavar="TEXT",
                        help="only methods whose name and a comma contain TEXT; may be given again")
    parser.add_argument("--blocks", type=int, default=1, metavar="N",
                        help="kernel blocks per layer, evenly spaced; 0 schedules all")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    addresses = _numbers(args.addresses)
    wanted = args.methods or [""]
    methods = [method for method in METHODS if any(text in f"{method}," for text in wanted)]
    if not methods:
        known = "; ".join(map(str, METHODS))
        raise UserError(f"no method contains {' or '.join(map(repr, wanted))}; known: {known}")
    if args.blocks < 0:
        raise UserError(f"--blocks must not be negative, not {args.blocks}")
    for target in (args.json, args.plot):
        check_target(target)
    if args.network is not None:
        pattern, layers = load_pruned(args.network)
        weights = args.network.name
    elif args.data is not None:
        try:
            pattern = str(parse(args.pattern))
        except ValueError as error:
            raise UserError(str(error)) from error
        layers = load_dense(Path(args.data) / WEIGHTS, pattern)
        weights = "VGG16 dense, projected one-shot"
    else:
        raise UserError(f"give --data DIR (or SPECTRAL_DATA) with {WEIGHTS}, or --network FILE")
    print(f"{weights}, pattern {pattern}; utilisation of an image, %")
    _row("method", [f"r={r}" for r in addresses], "seconds")
    runs = []
    for method in methods:
        row = []
        for r in addresses:
            start = time.perf_counter()
            measured = [measure(layer, method, r, args.blocks) for layer in layers]
            row.append({"label": str(method), **asdict(method), "addresses": r,
                        **_total(measured), "seconds": round(time.perf_counter() - start, 1),
                        "layers": measured})
        _row(str(method), [f"{100 * run['utilisation']:.1f}" for run in row],
             f"{sum(run['seconds'] for run in row):.1f}")
        runs += row
    result = {"weights": weights, "pattern": pattern, "lanes": LANES, "blocks": args.blocks,
              "energy": {layer.name: layer.energy for layer in layers}, "runs": runs}
    if args.json:
        write_atomic(args.json, json.dumps(result, indent=1) + "\n")
    if args.plot:
        _plot(args.plot, result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
