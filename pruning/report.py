"""The record of a run: a JSON log and a convergence plot."""

from __future__ import annotations

import io
import json
from pathlib import Path

from model.files import write_output


def write_json(path: Path, content: dict) -> None:
    """Write `content` atomically."""
    write_output(path, json.dumps(content, indent=1) + "\n")


def plot(path: Path, history: list[dict], title: str) -> None:
    """Draw loss, ADMM residual, accuracy and sparsity over the epochs of all stages.

    Parameters
    ----------
    path : Path
        PNG to write.
    history : list of dict
        One entry per epoch, see `pruning.stages.Run`.
    title : str
        Heading.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(4, 1, figsize=(7, 9), sharex=True)
    series = (
        ("loss", (("loss", "training loss"),), "log"),
        ("ADMM residual", (("residual", "largest ||W-Z||/||W||"),), "log"),
        ("accuracy, %", (("accuracy", "network"), ("accuracy_pruned", "projected")), "linear"),
        ("zeros, %", (("zeros_conv", "convolution words"), ("zeros_linear", "linear weights")),
         "linear"),
    )
    for axis, (label, lines, scale) in zip(axes, series, strict=True):
        for key, name in lines:
            points = [(i + 1, entry[key]) for i, entry in enumerate(history)
                      if entry.get(key) is not None]
            if points:
                axis.plot(*zip(*points, strict=True), marker=".", label=name)
        axis.set_ylabel(label)
        axis.set_yscale(scale)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)
        for i in range(1, len(history)):
            if history[i]["stage"] != history[i - 1]["stage"]:
                axis.axvline(i + 0.5, color="grey", linestyle=":")
    # The first epochs and the projections of early ones would hide what the last ones decide.
    best = max(entry["accuracy"] for entry in history)
    axes[2].set_ylim(bottom=max(best - 10, axes[2].get_ylim()[0]))
    axes[-1].set_xlabel("epoch (" + ", ".join(dict.fromkeys(e["stage"] for e in history)) + ")")
    axes[0].set_title(title)
    figure.tight_layout()
    content = io.BytesIO()
    figure.savefig(content, dpi=100, format="png")
    pyplot.close(figure)
    write_output(path, content.getvalue())


def epoch_line(entry: dict, total: int, images: str) -> str:
    """One line of text about an epoch, measured on such images."""
    loss = f"loss {entry['loss']:.4f}  " if "loss" in entry else ""
    parts = [f"{entry['stage']:9} {entry['epoch']:2}/{total}  {loss}{images} "
             f"{entry['accuracy']:.2f} %"]
    if "residual" in entry:
        parts.append(f"projected {entry['accuracy_pruned']:.2f} %  residual {entry['residual']:.3f}"
                     f"  rho {entry['rho']:.4f}")
    if "zeros_conv" in entry:
        parts.append(f"zeros {entry['zeros_conv']:.1f}/{entry['zeros_linear']:.1f} %")
    return "  ".join([*parts, f"{entry['seconds']:.0f} s"])
