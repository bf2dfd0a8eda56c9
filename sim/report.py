"""What a simulation prints and what it writes as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from model.compile import Program
from model.cost import estimate
from sim.backend import RunResult
from sim.inputs import Digit, Photograph
from sim.memory import MemoryOptions
from sim.session import ImageResult, LayerFigures, layer_figures

#: Outputs printed and written one by one; of a network with more, only their statistics.
MOST_SCORES = 100

__all__ = ["print_image", "print_layers", "print_verdict", "as_json"]


def print_image(console: Console, digit: Digit | Photograph, result: ImageResult,
                batch: int = 1) -> None:
    """One line per image: predicted class and scores; of a batch also whether it is exact."""
    if result.run is None:
        console.print(f"{digit.name}: {result.failure}", style="red", markup=False)
        return
    cycles = f"{result.run.cycles} cycles"
    if batch > 1:
        verdict = "bit exact" if result.comparison.exact else "NOT bit exact"
        cycles += f" for the batch, {verdict}"
    if len(result.scores) > MOST_SCORES:
        console.print(f"{digit.name}: {len(result.scores)} outputs, mean "
                      f"{result.scores.mean():.2f}, largest {result.scores.max()}, "
                      f"{cycles}", markup=False, highlight=False)
        return
    scores = " ".join(str(score) for score in result.scores)
    label = "" if digit.label is None else f" (label {digit.label})"
    console.print(f"{digit.name}: class {int(result.scores.argmax())}{label}, scores {scores}, "
                  f"{cycles}", markup=False, highlight=False)


def print_layers(console: Console, figures: Sequence[LayerFigures]) -> None:
    """Table of the layers of one run."""
    table = Table(title="Layers")
    table.add_column("layer")
    for title in ("cycles", "MAC issue", "utilised", "lanes filled", "wait tiles", "wait weights",
                  "wait sums", "bytes read", "bytes written"):
        table.add_column(title, justify="right")
    for item in figures:
        table.add_row(
            item.name, str(item.cycles), str(item.mac_issue_cycles),
            f"{item.mac_utilisation:.1%}", f"{item.lanes_filled:.1%}",
            *(str(item.stalls[cause]) for cause in ("tiles", "weights", "sums")),
            str(item.bytes_read), str(item.bytes_written),
        )
    console.print(table)


def print_verdict(console: Console, program: Program, results: Sequence[ImageResult]) -> bool:
    """Totals and the first differing word; returns whether all was bit exact."""
    runs = _runs(program, results)
    if runs:
        images = program.batch * len(runs)
        cycles = sum(run.cycles for run in runs) / images
        clock = program.config.clock_hz
        beats = sum(run.read_beats + run.write_beats for run in runs) / images
        if program.batch > 1:
            console.print(f"{program.batch * cycles:.0f} cycles per batch of {program.batch}",
                          highlight=False)
        console.print(f"{cycles:.0f} cycles per image = {1000 * cycles / clock:.4f} ms at "
                      f"{clock / 1e6:g} MHz, {8 * program.config.port_words * beats:.0f} bytes of "
                      "memory traffic, "
                      f"{program.config.multipliers} multipliers", highlight=False)
    words = sum(result.comparison.words for result in results)
    exact = bool(results) and all(_exact(result) for result in results)
    if exact:
        console.print(f"bit exact: {words} words equal to the golden model", style="green")
        return True
    console.print(f"NOT bit exact ({words} words compared)", style="red")
    for result in results:
        if result.comparison.difference is not None:
            console.print(str(result.comparison.difference), markup=False, highlight=False,
                          soft_wrap=True)
            break
    return False


def _runs(program: Program, results: Sequence[ImageResult]) -> list[RunResult]:
    """Complete runs; the images of a batch share theirs."""
    return [result.run for result in results[::program.batch] if result.run is not None]


def _exact(result: ImageResult) -> bool:
    return result.run is not None and result.comparison.exact


def as_json(program: Program, digits: Sequence[Digit | Photograph],
            results: Sequence[ImageResult],
            backend: str, pattern: str, memory: MemoryOptions) -> dict[str, Any]:
    """Everything measured; ``layers`` holds the figures of the last complete run."""
    runs = _runs(program, results)
    beat_bytes = 8 * program.config.port_words
    layers = []
    figures = layer_figures(program, runs[-1]) if runs else []
    costs = estimate(program, memory.average, memory.latency) if runs else []
    for item, cost in zip(figures, costs, strict=True):
        layers.append({
            "name": item.name, "cycles": item.cycles, "estimated_cycles": cost.cycles,
            "mac_issue_cycles": item.mac_issue_cycles,
            "mac_utilisation": item.mac_utilisation, "lanes_filled": item.lanes_filled,
            "bytes_read": item.bytes_read, "bytes_written": item.bytes_written,
            "stalls": item.stalls,
        })
    first = next((str(result.comparison.difference) for result in results
                  if result.comparison.difference), None)
    return {
        "network": program.network.name, "config": program.config.name, "pattern": pattern,
        "patterns": {layer.name: layer.pattern for layer in program.network.layers},
        "backend": backend, "images": [digit.name for digit in digits],
        "labels": [digit.label for digit in digits],
        "predicted": [int(result.scores.argmax()) if 0 < len(result.scores) <= MOST_SCORES else None
                      for result in results],
        "scores": [result.scores.tolist() if len(result.scores) <= MOST_SCORES else None
                   for result in results],
        # Of a run, so of ``batch`` images.
        "batch": program.batch,
        "cycles": [result.run.cycles if result.run else None
                   for result in results[::program.batch]],
        "multipliers": program.config.multipliers, "clock_hz": program.config.clock_hz,
        "memory": {"latency": memory.latency, "stall": memory.stall,
                   "bytes_per_cycle": memory.average * beat_bytes},
        "bit_exact": bool(results) and all(_exact(result) for result in results),
        "words_compared": sum(result.comparison.words for result in results),
        "first_difference": first,
        "failures": [result.failure for result in results if result.failure],
        "read_bytes": [beat_bytes * run.read_beats for run in runs],
        "write_bytes": [beat_bytes * run.write_beats for run in runs],
        "layers": layers,
    }
