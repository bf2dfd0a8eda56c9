"""Plots of what `sim.benchmark` measured; matplotlib is loaded only here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from model.errors import UserError
from sim.bench.layers import CHANNEL_BYTES

__all__ = ["bandwidth", "bytes_per_flow", "cycles", "lanes", "require", "roofline", "tiles"]


def require() -> None:
    """Refuse a command that would plot, before its work, where matplotlib is missing."""
    if find_spec("matplotlib") is None:
        raise UserError("plots need matplotlib: pip install 'matplotlib>=3.8'")


def _draw(path: Path, size: tuple[float, float], draw: Callable[[Any], None]) -> None:
    """Let ``draw`` fill a figure and write it."""
    require()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=size)
    try:
        draw(figure)
        figure.tight_layout()
        # No date, so that the same figures give the same file.
        figure.savefig(path, metadata={"Software": None})
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        pyplot.close(figure)


def _bars(axes: Any, names: Sequence[str], series: Mapping[str, Sequence[float]]) -> None:
    """Draw a group of bars per name."""
    width = 0.8 / len(series)
    for index, (label, values) in enumerate(series.items()):
        axes.bar([x + (index - (len(series) - 1) / 2) * width for x in range(len(names))], values,
                 width, label=label)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.grid(axis="y", alpha=0.3)


def cycles(path: Path, run: dict[str, Any]) -> None:
    """Measured beside estimated cycles per layer, and the array's utilisation."""
    layers = run["layers"]

    def draw(figure: Any) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True)
        names = [layer["name"] for layer in layers]
        _bars(upper, names, {"measured": [layer["cycles"] for layer in layers],
                             "estimated": [layer["estimated_cycles"] for layer in layers]})
        upper.set(ylabel="cycles", title=f"{run['network']} on {run['config']}")
        upper.legend()
        _bars(lower, names, {
            "cycles with a step": [100 * layer["mac_utilisation"] for layer in layers],
            "lanes with a product": [100 * layer["mac_utilisation"] * layer["lanes_filled"]
                                     for layer in layers]})
        lower.set(ylabel="utilisation, %")
        lower.legend(loc="lower right")

    _draw(path, (9, 7), draw)


def roofline(path: Path, result: dict[str, Any]) -> None:
    """Complex products per cycle against products per byte read."""
    points, peak, port = result["layers"], result["lanes"], result["port_bytes"]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        low = min(point["intensity"] for point in points) / 2
        high = max(point["intensity"] for point in points) * 2
        for width, style in ((port, "-"), (CHANNEL_BYTES, "--")):
            knee = peak / width
            edge = sorted({low, min(max(knee, low), high), high})
            axes.plot(edge, [min(peak, width * x) for x in edge], style, color="black",
                      label=f"{peak} lanes, {width} bytes a cycle")
        together: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for point in points:
            spot = f"{point['intensity']:.1e}", f"{point['products_per_cycle']:.0e}"
            together.setdefault(spot, []).append(point)
        for group in together.values():
            x, y = group[0]["intensity"], group[0]["products_per_cycle"]
            axes.plot(x, y, "o", color="tab:blue")
            axes.annotate("\n".join(point["name"] for point in group), (x, y), fontsize=7,
                          va="top", xytext=(4, -4), textcoords="offset points")
        axes.set(xscale="log", yscale="log", xlabel="complex products per byte read",
                 ylabel="complex products per cycle",
                 title=f"VGG16 on {result['config']}, simulated")
        axes.grid(alpha=0.3, which="both")
        axes.legend(loc="lower right")

    _draw(path, (8, 6), draw)


def bytes_per_flow(path: Path, result: dict[str, Any]) -> None:
    """MB per layer of every flow, a panel per cost model."""
    def draw(figure: Any) -> None:
        panels = figure.subplots(len(result["groups"]), 1, sharex=True, sharey=True)
        for axes, group in zip(panels, result["groups"], strict=True):
            series = {f"{name}: {sum(sizes) / 1e6:.1f} MB": [size / 1e6 for size in sizes]
                      for name, sizes in group["flows"].items()}
            total = sum(result["measured"]) / 1e6
            series[f"{result['config']} in RTL: {total:.1f} MB"] = [
                size / 1e6 for size in result["measured"]]
            _bars(axes, result["names"], series)
            axes.set(ylabel="MB", title=group["title"])
            axes.title.set_fontsize(9)
            axes.legend(fontsize=7)

    _draw(path, (9, 3 * len(result["groups"])), draw)


def _points(axes: Any, points: Sequence[dict[str, Any]], key: str, clock: int, **style: Any
            ) -> None:
    axes.plot([point[key] for point in points],
              [1000 * point["cycles"] / clock for point in points], **style)


def lanes(path: Path, result: dict[str, Any], bandwidths: Sequence[float]) -> None:
    """Milliseconds of VGG16 against complex lanes."""
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for index, bandwidth in enumerate(bandwidths):
            for kind, style in (("estimated", {"ls": "-"}),
                                ("simulated", {"ls": "", "marker": "o"})):
                chosen = [p for p in result[kind] if p["bytes_per_cycle"] == bandwidth]
                if chosen:
                    _points(axes, chosen, "lanes", result["clock_hz"], color=f"C{index}",
                            label=f"{bandwidth:g} bytes a cycle, {kind}", **style)
        axes.set(xscale="log", yscale="log", xlabel="complex lanes",
                 ylabel=f"ms at {result['clock_hz'] / 1e6:g} MHz", title="VGG16, batch 1")
        axes.set_xticks([64, 128, 256, 512, 1024], ["64", "128", "256", "512", "1024"])
        axes.minorticks_off()
        axes.set_yticks([2, 4, 8, 16, 32], ["2", "4", "8", "16", "32"])
        axes.grid(alpha=0.3)
        axes.legend()

    _draw(path, (7, 5), draw)


def bandwidth(path: Path, result: dict[str, Any], lane_counts: Sequence[int]) -> None:
    """Milliseconds of VGG16 against the memory's bytes per cycle."""
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for index, count in enumerate(lane_counts):
            for kind, style in (("estimated", {"ls": "-"}),
                                ("simulated", {"ls": "", "marker": "o"})):
                chosen = [p for p in result[kind] if p["lanes"] == count]
                if chosen:
                    _points(axes, chosen, "bytes_per_cycle", result["clock_hz"], color=f"C{index}",
                            label=f"{count} lanes, {kind}", **style)
        axes.axvline(CHANNEL_BYTES, color="black", ls=":", label="one channel of 19.2 GB/s")
        axes.set(xscale="log", yscale="log", xlabel="bytes a cycle",
                 ylabel=f"ms at {result['clock_hz'] / 1e6:g} MHz", title="VGG16, batch 1")
        axes.set_xticks([16, 32, 64, 96, 128, 256], ["16", "32", "64", "96", "128", "256"])
        axes.minorticks_off()
        axes.set_yticks([2, 4, 8, 16, 32], ["2", "4", "8", "16", "32"])
        axes.grid(alpha=0.3)
        axes.legend()

    _draw(path, (7, 5), draw)


def tiles(path: Path, result: dict[str, Any]) -> None:
    """Cycles per layer with both tile sizes, at the port's width and behind one channel."""
    def draw(figure: Any) -> None:
        panels = figure.subplots(2, 1, sharex=True, sharey=True)
        titles = {"cycles": f"{result['port_bytes']} bytes a cycle",
                  "cycles_96": "96 bytes a cycle"}
        for axes, (key, title) in zip(panels, titles.items(), strict=True):
            _bars(axes, [layer["name"] for layer in result["layers"]], {
                f"K = {tile}": [layer[tile][key] for layer in result["layers"]]
                for tile in result["fft"]})
            axes.set(ylabel="cycles", title=title)
            axes.legend()

    _draw(path, (9, 7), draw)
