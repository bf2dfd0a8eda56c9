"""Global placement: where the cells of a netlist would lie if many could lie at one place.

Quadratic placement with anchors, after SimPL (Kim, Lee, Markov: "SimPL: An Effective Placement
Algorithm", IEEE TCAD 31, 2012). Each iteration minimises the length of all wires, with the
bound-to-bound net model (Spindler, Schlichtmann, Johannes: "Kraftwerk2", IEEE TCAD 27, 2008), for
cells that are drawn to where the last one put them; then spreads them over the device, big cells
to sites that exist. The draw grows until both agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse.linalg import cg

__all__ = ["Problem", "place"]

#: Share of the logic that may be used in a part of the device. nextpnr packs as tight as it can
#: around memories and multipliers: between these there must be room.
_DENSITY = 0.65
#: Slots of a tile of logic: eight tables, eight flip-flops.
_SLOTS = 8
#: Part of the device that is not divided further, in tiles.
_LEAF = 16
#: Draw of the last iteration; it grows evenly until then, from nothing or, if the cells have a
#: place to begin with, from more.
_DRAW, _DRAW_AT_ONCE = 0.9, 0.09
#: Draw of such places until the other cells are where they belong.
_HELD = 1e4
#: A wire is never counted shorter, in tiles: its pull would have no bound.
_SHORTEST = 0.5


@dataclass(frozen=True)
class Problem:
    """What is to be placed, and where.

    Attributes
    ----------
    width, height : int
        Of the device, in tiles.
    nets : sequence of sequences of int
        Cells of each net, each once; nets of fewer than two have no length.
    tables, registers : array of float
        Slots that each cell takes of either kind; none for those with sites.
    sites : sequence of (array of int, array (n, 2) of float)
        Cells of a kind that has sites, and the places of these, no fewer than the cells.
    """

    width: int
    height: int
    nets: Sequence[Sequence[int]]
    tables: NDArray[np.float64]
    registers: NDArray[np.float64]
    sites: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]]


class _Nets:
    """Nets as flat arrays."""

    def __init__(self, nets: Sequence[Sequence[int]], cells: int) -> None:
        kept = [np.asarray(net, dtype=np.int64) for net in nets if len(net) > 1]
        self.size = np.array([len(net) for net in kept])
        self.pin = np.concatenate(kept)
        self.start = np.concatenate([[0], np.cumsum(self.size)[:-1]])
        self.of_pin = np.repeat(np.arange(len(kept)), self.size)
        self.pins = np.bincount(self.pin, minlength=cells)
        self._cells = cells

    def length(self, place: NDArray[np.float64]) -> float:
        """Half the circumference of every net's bounding box, added up."""
        at = place[self.pin]
        box = np.maximum.reduceat(at, self.start) - np.minimum.reduceat(at, self.start)
        return float(box.sum())

    def pull(self, x: NDArray[np.float64]) -> scipy.sparse.csr_array:
        """Weights between cells such that their quadratic length is the length along an axis."""
        order = np.lexsort((x[self.pin], self.of_pin))
        pin = self.pin[order]
        low, high = pin[self.start], pin[self.start + self.size - 1]
        inner = np.ones(len(pin), dtype=bool)
        inner[self.start] = inner[self.start + self.size - 1] = False
        one = np.concatenate([low, pin[inner], pin[inner]])
        net = self.of_pin[inner]
        other = np.concatenate([high, low[net], high[net]])
        share = 1.0 / (self.size - 1)
        weight = np.concatenate([share, share[net], share[net]])
        weight /= np.maximum(np.abs(x[one] - x[other]), _SHORTEST)
        pairs = (np.concatenate([one, other]), np.concatenate([other, one]))
        return scipy.sparse.coo_array(
            (np.concatenate([weight, weight]), pairs), shape=(self._cells, self._cells)
        ).tocsr()


def place(problem: Problem, *, iterations: int = 160, seed: int = 1,
          begin: Sequence[NDArray[np.float64]] | None = None,
          progress: Callable[[int, float, float], None] | None = None,
          ) -> tuple[list[NDArray[np.int64]], float]:
    """Choose a site for every cell that needs one.

    Parameters
    ----------
    problem : Problem
        Netlist and device.
    iterations : int
        The more, the slower the cells are drawn apart, and the shorter the wires.
    seed : int
        Of the first, random, places.
    begin : sequence of array (n, 2) of float, optional
        For each of ``problem.sites`` a first place of each cell, NaN where there is none.
    progress : callable or None
        Called with the iteration and the length of all wires, drawn together and spread.

    Returns
    -------
    list of arrays of int, float
        For each of ``problem.sites`` the index of the site of each cell; the length of all wires
        when the cells are spread.
    """
    cells = len(problem.tables)
    nets = _Nets(problem.nets, cells)
    middle = np.array([problem.width, problem.height]) / 2
    at = middle + np.random.default_rng(seed).normal(0, 1, (cells, 2))
    big = np.concatenate([members for members, _ in problem.sites])
    held = np.zeros((cells, 2))
    if begin is not None:
        first = np.concatenate(list(begin))
        known = ~np.isnan(first[:, 0])
        at[big[known]], held[big[known]] = first[known], _HELD
    target, draw = at.copy(), held
    least, first_rounds = (_DRAW_AT_ONCE, 8) if held.any() else (0.0, 3)
    chosen: list[NDArray[np.int64]] = []
    length = math.inf
    for iteration in range(iterations):
        # The net model follows the places it is made of: a few more rounds to begin with.
        for _ in range(first_rounds if iteration == 0 else 3 if iteration < 3 else 1):
            for axis in (0, 1):
                at[:, axis] = _draw_together(nets, at[:, axis], target[:, axis], draw[:, axis])
        target = at.copy()
        registers = problem.registers > 0
        spread = _spread(at, problem.tables, problem)
        target[~registers] = spread[~registers]
        target[registers] = _spread(at, problem.registers, problem)[registers]
        chosen = [_nearest(at[members], nets.pins[members], sites)
                  for members, sites in problem.sites]
        for (members, sites), index in zip(problem.sites, chosen, strict=True):
            target[members] = sites[index]
        length = nets.length(target)
        if progress:
            progress(iteration, nets.length(at), length)
        strength = least + (_DRAW - least) * (iteration + 1) / iterations
        draw = strength / np.maximum(np.abs(at - target), _SHORTEST)
        # A cell of many pins is drawn as much as the cells around it.
        draw[big] *= nets.pins[big][:, None] / 4
    return chosen, length


def _draw_together(nets: _Nets, x: NDArray[np.float64], target: NDArray[np.float64],
                   draw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places along an axis with the shortest wires, and not too far from the target."""
    pull = nets.pull(x)
    tiny = 1e-6
    diagonal = pull.sum(axis=1) + draw + tiny
    system = scipy.sparse.diags_array(diagonal) - pull
    found, _ = cg(system, draw * target + tiny * x, x0=x, rtol=1e-4, maxiter=120,
                  M=scipy.sparse.diags_array(1 / diagonal))
    return found


def _spread(at: NDArray[np.float64], area: NDArray[np.float64], problem: Problem,
            ) -> NDArray[np.float64]:
    """Places where no part of the device holds more than it has, each cell near its old one."""
    out = np.clip(at, 1, (problem.width - 1, problem.height - 1))
    todo = [(np.flatnonzero(area), 0.0, float(problem.width), 0.0, float(problem.height))]
    while todo:
        cells, left, right, bottom, top = todo.pop()
        if not len(cells) or (right - left) * (top - bottom) <= _LEAF:
            continue
        axis = int(right - left < top - bottom)
        low, high = (left, right) if axis == 0 else (bottom, top)
        room = (right - left) * (top - bottom) * _SLOTS * _DENSITY / 2
        cells = cells[np.argsort(out[cells, axis], kind="stable")]
        count = _halve(out[cells, axis], area[cells], (low + high) / 2, room)
        out[cells, axis] = _stretch(out[cells, axis], count, low, high)
        middle = (low + high) / 2
        if axis == 0:
            todo += [(cells[:count], left, middle, bottom, top),
                     (cells[count:], middle, right, bottom, top)]
        else:
            todo += [(cells[:count], left, right, bottom, middle),
                     (cells[count:], left, right, middle, top)]
    return out


def _halve(x: NDArray[np.float64], area: NDArray[np.float64], middle: float, room: float) -> int:
    """How many of the cells, sorted, go to the lower half so that neither is too full."""
    sums = np.cumsum(area)
    count = int(np.searchsorted(x, middle))
    used = sums[count - 1] if count else 0.0
    least, most = sums[-1] - room, room
    wanted = float(np.clip(used, least, most)) if least <= most else sums[-1] / 2
    return count if wanted == used else int(np.searchsorted(sums, wanted, side="right"))


def _stretch(x: NDArray[np.float64], count: int, low: float, high: float) -> NDArray[np.float64]:
    """Move the first ``count`` places below the middle and the others above it."""
    out, middle = x.copy(), (low + high) / 2
    cut = x[min(count, len(x) - 1)]
    if count and x[count - 1] > middle:
        out[:count] = low + (x[:count] - low) * (middle - low) / max(cut - low, 1e-6)
    if count < len(x) and x[count] < middle:
        out[count:] = middle + (x[count:] - cut) * (high - middle) / max(high - cut, 1e-6)
    out[:count] = np.minimum(out[:count], middle)
    out[count:] = np.maximum(out[count:], middle)
    return out


def _nearest(at: NDArray[np.float64], pins: NDArray[np.int64], sites: NDArray[np.float64],
             ) -> NDArray[np.int64]:
    """Distinct sites with the least way from the places, for all wires together."""
    way = np.abs(at[:, None, :] - sites[None]).sum(axis=2) * pins[:, None]
    return linear_sum_assignment(way)[1].astype(np.int64)
