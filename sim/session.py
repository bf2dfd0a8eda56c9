"""A compiled program on a backend: run images, compare every word, measure every layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model import golden
from model.compile import Program
from model.config import AcceleratorConfig
from model.errors import UserError
from sim.backend import Backend, CoreError, RunResult, Watchdog
from sim.compare import Comparison, Difference, compare_run
from sim.memory import MemoryOptions

__all__ = ["BACKENDS", "ImageResult", "LayerFigures", "open_backend", "simulate_image",
           "layer_figures"]

BACKENDS = ("pysim", "fast")
MAX_CYCLES = {"pysim": 1_000_000, "fast": 50_000_000}


@dataclass(frozen=True)
class ImageResult:
    """Outcome for one image; ``failure`` says why there are no outputs."""

    scores: NDArray[np.int64]
    run: RunResult | None
    comparison: Comparison
    failure: str = ""


@dataclass(frozen=True)
class LayerFigures:
    """Counters of one layer in one run, ready to print."""

    name: str
    cycles: int
    mac_issue_cycles: int
    lanes_filled: float
    bytes_read: int
    bytes_written: int
    stalls: dict[str, int]

    @property
    def mac_utilisation(self) -> float:
        """Share of the layer's cycles in which the array took a step."""
        return self.mac_issue_cycles / self.cycles if self.cycles else 0.0


def open_backend(name: str, config: AcceleratorConfig, *, options: MemoryOptions | None = None,
                 max_cycles: int | None = None, trace: Path | None = None,
                 record: bool = True) -> Backend:
    """Build (or fetch from the cache) the simulator of a config's core.

    Raises
    ------
    UserError
        The backend needs something that is not installed.
    """
    limit = max_cycles or MAX_CYCLES[name]
    if name == "pysim":
        from rtl.core import Core
        from sim.pysim import PysimBackend

        if trace and trace.suffix != ".vcd":
            raise UserError(f"backend pysim writes .vcd waveforms, not {trace.name}")
        return PysimBackend(Core(config, probe=True), config=config, options=options,
                            max_cycles=limit, trace=trace, record=record)
    from sim.verilator import FastBackend, build_library, check_fst, core_verilog

    if trace and trace.suffix == ".fst":
        check_fst()
    library = build_library(core_verilog(config), trace=trace.suffix if trace else None)
    return FastBackend(library, config=config, options=options, max_cycles=limit, trace=trace,
                       record=record)


def simulate_image(backend: Backend, program: Program, image: NDArray,
                   traces: list[golden.LayerTrace] | None = None) -> ImageResult:
    """Run one input map (C, H, W) on a backend that has loaded the program, and compare.

    A run that breaks off is compared as far as it came, which shows where it went astray.
    ``traces`` are the golden model's, where the same image runs more than once.
    """
    if traces is None:
        traces = golden.run(program.network, image)
    layers = [(layer.name, layer.descriptor) for layer in program.layers]
    start = backend.cycle
    run: RunResult | None = None
    failure = ""
    try:
        run = backend.run(program.pack_input(image).tobytes())
        events, start = run.events, run.start
    except (CoreError, Watchdog) as error:
        events, failure = error.events, str(error)
    comparison = compare_run(program.config, layers, traces, events, start)
    scores = np.zeros(0, dtype=np.int64)
    if run is not None:
        outputs = program.unpack_output(np.frombuffer(run.outputs, dtype="<u8"))
        scores = outputs.reshape(-1)
        comparison = _with_outputs(comparison, layers[-1][0], traces[-1].out, outputs, run)
    return ImageResult(scores, run, comparison, failure)


def _with_outputs(comparison: Comparison, layer: str, expected: NDArray, got: NDArray,
                  run: RunResult) -> Comparison:
    """Add what the output DMA wrote to memory."""
    words = comparison.words + expected.size
    difference = comparison.difference
    if difference is None and (expected != got).any():
        spot = int(np.flatnonzero((expected != got).reshape(-1))[0])
        difference = Difference(
            layer, "value in memory (the feature memory was right, the output DMA is not)",
            {"output": spot}, (int(expected.reshape(-1)[spot]),), (int(got.reshape(-1)[spot]),),
            run.cycles,
        )
    return Comparison(words, difference)


def layer_figures(program: Program, run: RunResult) -> list[LayerFigures]:
    """Counters per layer; a layer's cycles end with its last write."""
    config = program.config
    figures = []
    before = 0
    for index, (layer, row) in enumerate(zip(program.layers, run.profile.tolist(), strict=True)):
        issue = row[0]
        slots = issue * config.kernel_lanes * config.tile_lanes
        beats = row[4]
        written = 0
        if index == 0:
            beats += config.map_row_beats * program.input_region.rows
        if index == len(program.layers) - 1:
            written = config.map_row_beats * program.output_region.rows
        figures.append(LayerFigures(
            layer.name, row[6] - before, issue,
            _products(layer.lowered.weight) * layer.descriptor["tiles"] / slots if slots else 0.0,
            8 * config.port_words * beats, 8 * config.port_words * written,
            {"tiles": row[1], "weights": row[2], "sums": row[3]},
        ))
        before = row[6]
    return figures


def _products(weight: NDArray[np.int64]) -> int:
    """Non-zero words of a layer; a fully connected layer's are pairs of inputs."""
    if weight.ndim == 2:
        weight = np.pad(weight, ((0, 0), (0, weight.shape[1] % 2)))
        weight = weight.reshape(len(weight), -1, 2)
    return int(weight.any(axis=-1).sum())
