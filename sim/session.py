"""A compiled program on a backend: run images, compare every word, measure every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model import golden
from model.compile import Program
from model.config import AcceleratorConfig
from model.errors import UserError
from model.maps import steps
from sim.backend import Backend, CoreError, RunResult, Watchdog
from sim.compare import Comparison, Difference, Expected, compare_batch
from sim.memory import MemoryOptions

__all__ = ["BACKENDS", "ImageResult", "LayerFigures", "layer_figures", "open_backend",
           "simulate_batch", "simulate_image"]

BACKENDS = ("pysim", "fast")
MAX_CYCLES = {"pysim": 1_000_000, "fast": 50_000_000}


@dataclass(frozen=True)
class ImageResult:
    """Outcome for one image; ``failure`` says why there are no outputs.

    The images of a batch share their ``run``.
    """

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

    ``traces`` are the golden model's, where the same image runs more than once.
    """
    return simulate_batch(backend, program, [image], None if traces is None else [traces])[0]


def simulate_batch(backend: Backend, program: Program, images: Sequence[NDArray],
                   traces: Sequence[Sequence[golden.LayerTrace]] | None = None,
                   ) -> list[ImageResult]:
    """Run a batch of input maps (C, H, W) on a backend that has loaded the program, and compare.

    A run that breaks off is compared as far as it came, which shows where it went astray.
    ``traces`` are the golden model's of each image, where the same batch runs more than once.
    """
    if traces is None:
        traces = [golden.run(program.network, image) for image in images]
    start = backend.cycle
    run: RunResult | None = None
    failure = ""
    try:
        run = backend.run(program.pack_input(*images).tobytes())
        events, start = run.events, run.start
    except (CoreError, Watchdog) as error:
        events, failure = error.events, str(error)
    comparisons = compare_batch(
        program.config, _expected(program, traces), events, start, program.batch
    )
    if run is None:
        nothing = np.zeros(0, dtype=np.int64)
        return [ImageResult(nothing, None, comparison, failure) for comparison in comparisons]
    outputs = program.unpack_outputs(np.frombuffer(run.outputs, dtype="<u8"))
    name = program.layers[-1].name
    return [
        ImageResult(output.reshape(-1), run,
                    _with_outputs(comparison, name, trace[-1].out, output, run))
        for output, comparison, trace in zip(outputs, comparisons, traces, strict=True)
    ]


def _expected(
    program: Program, traces: Sequence[Sequence[golden.LayerTrace]]
) -> list[Expected]:
    """Put together what each layer of the program should do from what each image's layers do."""
    expected = []
    order = steps(program.network, program.batch)
    for layer, step in zip(program.layers, order, strict=True):
        if step.image is not None:
            whole = traces[step.image][step.layer]
        else:
            parts = [trace[step.layer] for trace in traces]
            whole = golden.LayerTrace(
                np.concatenate([part.tiles for part in parts]),
                np.concatenate([part.sums for part in parts]),
                np.concatenate([part.map for part in parts], axis=1),
                np.concatenate([part.out for part in parts], axis=1),
            )
        expected.append(Expected(layer.name, layer.descriptor, whole, step.image))
    return expected


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
        if layer.descriptor["input"]:
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
