"""Pictures of finished runs: ``python -m pruning.figures LOG.json … --out DIR``.

Reads the logs of `pruning.train`: accuracy over density of all runs together, density per layer and
kept energy per frequency of each; and those of `pruning.compress`: accuracy over density as the
layers are pruned, all runs together.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import halfplane
from model.errors import Parser, UserError, command
from model.files import prepare_folder, write_output

__all__ = ["draw_accuracy", "draw_density", "draw_maps", "draw_orders", "main", "read_logs",
           "tile_map"]


def read_logs(paths: Sequence[Path]) -> list[dict]:
    """Read logs of finished runs; `UserError` for anything else."""
    logs: list[dict] = []
    taken: dict[str, int] = {}
    for path in paths:
        try:
            log = json.loads(path.read_text())
            _require_entries(log)
        except OSError as error:
            raise UserError(f"log {path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is no log of python -m pruning.train or "
                            "pruning.compress") from error
        # Runs call their logs log.json, in folders of their own.
        title = path.resolve().parent.name if path.stem == "log" else path.stem
        taken[title] = taken.get(title, 0) + 1
        logs.append(log | {"title": title if taken[title] == 1 else f"{title}-{taken[title]}"})
    return logs


def _require_entries(log: dict) -> None:
    """Raise KeyError, TypeError, ValueError or AttributeError if a log lacks what is drawn."""
    names = ["network", "pattern"]
    numbers = ["zeros_conv_percent", "integer_accuracy", "dense_accuracy"]
    steps = log.get("steps")
    if steps is not None:
        names = ["network", "order", "peak"]
        numbers = ["dense_held_out", "kept", "parameters", "accuracy", "dense_accuracy"]
    drawn = [log["result"][name] for name in numbers]
    drawn += [step[name] for step in steps or [] for name in ("network", "retrained")]
    drawn += log.get("density", {}).values()
    for values in (log.get("kept") or {}).values():
        for row in ("energy", "words"):
            halfplane.tile_of(len(values[row]))
            drawn += values[row]
    if not all(isinstance(log["recipe"][name], str) for name in names):
        raise TypeError("a name is no text")
    if not all(isinstance(value, (int, float)) for value in drawn):
        raise TypeError("a value is no number")


def tile_map(words: Sequence[float]) -> NDArray[np.float64]:
    """Values of the half-plane words as a picture of the K x K bins, zero frequency in the middle.

    A word of two real bins fills both.
    """
    tile = halfplane.tile_of(len(words))
    picture = np.zeros((tile, tile))
    for part in (1, 1j):
        bins = np.abs(halfplane.unpack(part * np.eye(len(words)))) > 0
        for word, value in enumerate(words):
            picture[bins[word]] = value
    return np.fft.fftshift(picture)


def _pyplot() -> Any:
    """Matplotlib without a screen."""
    try:
        import matplotlib
    except ImportError as error:
        raise UserError("figures need matplotlib: pip install -e '.[prune]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    content = io.BytesIO()
    figure.savefig(content, dpi=100, format="png", bbox_inches="tight")
    _pyplot().close(figure)
    write_output(path, content.getvalue())


def draw_accuracy(path: Path, logs: Sequence[dict]) -> None:
    """Integer accuracy over the density of the convolutions, a line per network and pattern."""
    pyplot = _pyplot()
    lines: dict[str, list[tuple[float, float]]] = {}
    dense: dict[str, list[float]] = {}
    for log in logs:
        recipe, result = log["recipe"], log["result"]
        density = 100 - result["zeros_conv_percent"]
        lines.setdefault(f"{recipe['network']}, {recipe['pattern']}", []).append(
            (density, result["integer_accuracy"])
        )
        dense.setdefault(recipe["network"], []).append(result["dense_accuracy"])
    figure, axis = pyplot.subplots(figsize=(7, 5))
    for name, points in sorted(lines.items()):
        axis.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
    for network, values in dense.items():
        axis.axhline(float(np.mean(values)), color="grey", linestyle=":", label=f"{network}, dense")
    axis.set_xlabel("spectral words kept, %")
    axis.set_ylabel("test accuracy, integers, %")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    _save(figure, path)


def draw_orders(path: Path, logs: Sequence[dict]) -> None:
    """Accuracy over the share of all weights kept, a line per order and peak.

    A line follows held-out training images through the layers, from the dense network on; the
    star is the stored 8-bit network on the test images, the dotted line the dense one.
    """
    pyplot = _pyplot()
    figure, axis = pyplot.subplots(figsize=(7, 5))
    for log in logs:
        recipe, result = log["recipe"], log["result"]
        name = recipe["order"] if recipe["order"] != "none" else "not pruned, trained as long"
        name += "" if recipe["peak"] == "none" else f", {recipe['peak']} peak"
        points = [(100.0, result["dense_held_out"])]
        points += [(100 * step["network"], step["retrained"]) for step in log["steps"]]
        line, = axis.plot(*zip(*points, strict=True), marker=".", label=name)
        axis.plot(100 * result["kept"] / result["parameters"], result["accuracy"], marker="*",
                  markersize=12, color=line.get_color())
    axis.axhline(logs[0]["result"]["dense_accuracy"], color="grey", linestyle=":",
                 label="dense, test images")
    axis.set_xscale("log")
    axis.set_xlabel("weights kept, %")
    axis.set_ylabel("accuracy, % (lines: held out, stars: test)")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    _save(figure, path)


def draw_density(path: Path, log: dict) -> None:
    """Share of words kept, layer by layer."""
    pyplot = _pyplot()
    figure, axis = pyplot.subplots(figsize=(7, 4))
    names = list(log["density"])
    axis.bar(range(len(names)), [100 * log["density"][name] for name in names])
    axis.set_xticks(range(len(names)), names, rotation=60, fontsize=8)
    axis.set_ylabel("words or weights kept, %")
    axis.set_title(log["title"])
    _save(figure, path)


def draw_maps(path: Path, log: dict) -> None:
    """Kept energy and kept words at every frequency of every convolution."""
    pyplot = _pyplot()
    maps = log["kept"]
    rows = ("energy", "words")
    figure, axes = pyplot.subplots(
        len(rows), len(maps), figsize=(1.3 * len(maps) + 1, 3.4), squeeze=False
    )
    for column, (name, values) in enumerate(maps.items()):
        for axis, row in zip(axes[:, column], rows, strict=True):
            axis.imshow(tile_map(values[row]), vmin=0, vmax=1, cmap="viridis")
            axis.set_xticks([])
            axis.set_yticks([])
        axes[0, column].set_title(name, fontsize=8)
    for axis, row in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(f"{row} kept", fontsize=8)
    figure.colorbar(axes[0, 0].images[0], ax=axes.ravel().tolist(), shrink=0.8)
    _save(figure, path)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Read the logs and draw."""
    parser = Parser(prog="python -m pruning.figures", description=__doc__)
    parser.add_argument("logs", nargs="+", type=Path, metavar="LOG.json", help="logs of runs")
    parser.add_argument("--out", type=Path, default=Path("build/figures"), metavar="DIR",
                        help="folder of the pictures (default %(default)s)")
    args = parser.parse_args(argv)
    logs = read_logs(args.logs)
    prepare_folder(args.out)
    drawn = []
    if orders := [log for log in logs if "steps" in log]:
        drawn.append("orders.png")
        draw_orders(args.out / drawn[-1], orders)
    if others := [log for log in logs if "steps" not in log]:
        drawn.append("accuracy.png")
        draw_accuracy(args.out / drawn[-1], others)
    for log in logs:
        if "density" in log:
            drawn.append(f"{log['title']}-density.png")
            draw_density(args.out / drawn[-1], log)
        if log.get("kept"):
            drawn.append(f"{log['title']}-kept.png")
            draw_maps(args.out / drawn[-1], log)
    print(f"{', '.join(drawn)} in {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
