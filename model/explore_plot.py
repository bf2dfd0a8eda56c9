"""Plot of a front of configs; matplotlib is loaded only here."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from model.errors import UserError

__all__ = ["draw_front", "require"]


def require(path: Path) -> None:
    """Refuse a plot, before the work for it, where matplotlib or a known suffix is missing."""
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"--plot {path}: the name must end in .png, .svg or .pdf")
    if find_spec("matplotlib") is None:
        raise UserError("plots need matplotlib: pip install 'matplotlib>=3.8'")


def draw_front(path: Path, result: dict[str, Any]) -> None:
    """Draw time over multipliers, coloured by RAM, and images a second over RAM.

    Parameters
    ----------
    path : Path
        File to write; its suffix is the format.
    result : dict
        What `model.explore.as_json` gives.
    """
    require(path)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    points, chosen, board = result["front"], result["chosen"], result["board"]
    dsp = [point["used"]["DSP"] for point in points]
    megabits = [point["ram_kbit"] / 1024 for point in points]
    time = [point["milliseconds"] for point in points]
    rate = [point["images_per_second"] for point in points]
    figure = pyplot.figure(figsize=(9, 3.8))
    try:
        left, right = figure.subplots(1, 2)
        shown = left.scatter(dsp, time, c=megabits, s=10, cmap="viridis")
        figure.colorbar(shown, ax=left, label="RAM, Mbit")
        left.scatter([chosen["used"]["DSP"]], [chosen["milliseconds"]], marker="*", s=120,
                     color="tab:red", label="chosen")
        left.set(xlabel=f"multipliers (of {board['dsp']})", ylabel="ms per image", yscale="log",
                 title=f"{result['network']} on {board['name']}")
        left.legend()
        shown = right.scatter(megabits, rate, c=dsp, s=10, cmap="plasma")
        figure.colorbar(shown, ax=right, label="multipliers")
        right.scatter([chosen["ram_kbit"] / 1024], [chosen["images_per_second"]], marker="*",
                      s=120, color="tab:red")
        right.set(xlabel="RAM, Mbit", ylabel="images per second, batch 1",
                  title=f"{board['clock_hz'] / 1e6:g} MHz, estimated")
        for axes in (left, right):
            axes.grid(alpha=0.3)
        figure.tight_layout()
        # No date, so that the same figures give the same file.
        figure.savefig(path, metadata={"Software": None}, dpi=80)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {path}: {error}") from error
    finally:
        pyplot.close(figure)
