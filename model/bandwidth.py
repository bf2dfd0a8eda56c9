"""Cycles of a network behind a memory that gives less than a beat in every cycle."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from model.config import AcceleratorConfig
from model.cost import LayerCost

__all__ = ["limited"]


def limited(costs: Sequence[LayerCost], config: AcceleratorConfig, input_beats: int,
            output_beats: int, rate: float) -> int:
    """Cycles of a network behind a memory of ``rate`` beats a cycle.

    Parameters
    ----------
    costs : sequence of LayerCost
        Estimates with a whole beat every cycle.
    config : AcceleratorConfig
        Its kernel buffer bounds how far the stream runs ahead.
    input_beats, output_beats : int
        Beats of the input map, read first, and of the output map, written last.
    rate : float
        Above 0, at most 1.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate must be above 0 and at most 1 beat a cycle, not {rate!r}")
    ahead = config.kernel_depth * config.row_beats + config.select_depth
    elapsed = 0
    streamed = input_beats / rate
    for cost in costs:
        waiting = max(0, cost.stream_beats - ahead)
        streamed = max(streamed + cost.stream_beats / rate, elapsed + waiting / rate)
        elapsed = max(elapsed + cost.cycles, ceil(streamed))
    return elapsed + ceil(output_beats / rate)
