"""Expected hypervolume improvement where every objective but one is known beforehand.

Costs are exact before training, and one quality is a guess with an error. Then the expectation has
a closed form, and needs no sampling: in each cell of the grid that the front's costs divide, the
best quality so far is one number, and what a candidate may improve on it is the expected
improvement of a single Gaussian.

Letters: P candidates, n results, m costs, K cells along one cost. All is minimised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from nas.search.pareto import Floats, Indices, front

MAX_CELLS = 1_024
"""Beyond so many the costs are grouped: only fronts of several costs come that far."""
COARSE_CELLS = 64
"""As many give a first impression."""
AT_ONCE = 4_000_000
"""Cells times candidates that are held in memory together."""
BATCH = 64
"""Candidates of which the expectation is taken before it is asked whether others can be better."""


@dataclass(frozen=True)
class Grid:
    """The costs below a reference point cut into cells, with the best quality reached in each.

    edges: for each cost the (K + 1,) ascending bounds of its cells.  best: (K₁, …, K_m), the least
    quality among results that cost no more than the cell's lower corner, at most the reference.
    """

    edges: tuple[Floats, ...]
    best: Floats

    @classmethod
    def of(cls, quality: ArrayLike, costs: ArrayLike, reference: ArrayLike) -> Grid:
        """The grid of (n,) qualities and (n, m) costs.

        reference: (1 + m,), the quality and the costs that bound the hypervolume. Results with a
        NaN, or not better than it in every objective, count for nothing.
        """
        bound = np.asarray(reference, dtype=np.float64)
        q = np.asarray(quality, dtype=np.float64)
        rows = np.column_stack(
            (q, np.asarray(costs, dtype=np.float64).reshape(len(q), len(bound) - 1))
        )
        rows = rows[(rows < bound).all(axis=1)]  # a NaN is less than nothing
        rows = rows[front(rows)]
        edges = _edges(rows[:, 1:], bound[1:])
        # grouped costs count from the first cell that lies wholly above them: perhaps beyond all
        at = tuple(np.searchsorted(e, c) for e, c in zip(edges, rows[:, 1:].T, strict=True))
        best = np.full([len(e) for e in edges], bound[0])
        np.minimum.at(best, at, rows[:, 0])
        for axis in range(best.ndim):
            best = np.minimum.accumulate(best, axis=axis)
        return cls(edges, best[(slice(-1),) * best.ndim])

    def expected_improvement(
        self, mean: ArrayLike, deviation: ArrayLike, costs: ArrayLike
    ) -> Floats:
        """Expected gain in hypervolume (P,) of candidates with Gaussian qualities.

        mean, deviation: (P,).  costs: (P, m), exact.
        """
        mu, sigma, exact = _columns(mean, deviation, costs)
        lengths = [
            np.clip(e[1:] - np.maximum(e[:-1], c[:, None]), 0, None)
            for e, c in zip(self.edges, exact.T, strict=True)
        ]
        values, where = self._distinct
        gain = _gains(values - mu[:, None], sigma[:, None])
        result = np.empty(len(mu))
        step = max(1, AT_ONCE // self.best.size)
        for start in range(0, len(mu), step):
            part = slice(start, start + step)
            cells = gain[part][:, where.ravel()].reshape(-1, *where.shape)
            for length in reversed(lengths):  # contracts the last cost each time
                column = length[part].reshape(len(cells), *(1,) * (cells.ndim - 3), -1, 1)
                cells = (cells if cells.ndim > 2 else cells[:, None]) @ column
                cells = cells[..., 0]
            result[part] = cells[:, 0]
        return result

    def coarse(self) -> Grid:
        """Fewer and larger cells, with the best quality at the lower corner of each.

        What it lets expect is never less, and takes a fraction of the work.
        """
        parts = max(1, math.floor(COARSE_CELLS ** (1 / len(self.edges))))
        kept = [np.unique(np.linspace(0, len(e) - 1, parts + 1).astype(int)) for e in self.edges]
        edges = tuple(e[k] for e, k in zip(self.edges, kept, strict=True))
        return Grid(edges, self.best[np.ix_(*(k[:-1] for k in kept))])

    @cached_property
    def _distinct(self) -> tuple[Floats, Indices]:
        """The qualities that are the best somewhere, and which of them is so in each cell."""
        values, where = np.unique(self.best, return_inverse=True)
        return values, where.reshape(self.best.shape)


class Promises:
    """Expected improvements of candidates, taken only where they can be the greatest."""

    def __init__(self, grid: Grid, mean: ArrayLike, deviation: ArrayLike, costs: ArrayLike) -> None:
        """Of (P,) candidates; see ``Grid.expected_improvement``."""
        self._grid = grid
        self._columns = _columns(mean, deviation, costs)
        self._most = grid.coarse().expected_improvement(*self._columns)
        self._found = np.full(len(self._most), np.nan)

    def greatest(self, among: Indices) -> tuple[float, int]:
        """The greatest expected improvement among these candidates, and whose it is.

        0 and -1 where none has any.
        """
        order = among[np.argsort(-self._most[among], kind="stable")]
        value, whose = 0.0, -1
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            if self._most[part[0]] <= value:
                break
            self._take(part[np.isnan(self._found[part])])
            best = int(part[np.argmax(self._found[part])])
            if self._found[best] > value:
                value, whose = float(self._found[best]), best
        return value, whose

    def _take(self, part: Indices) -> None:
        if len(part):
            mean, deviation, costs = (column[part] for column in self._columns)
            self._found[part] = self._grid.expected_improvement(mean, deviation, costs)


def _columns(
    mean: ArrayLike, deviation: ArrayLike, costs: ArrayLike
) -> tuple[Floats, Floats, Floats]:
    mu, sigma = (np.asarray(v, dtype=np.float64) for v in (mean, deviation))
    return mu, sigma, np.asarray(costs, dtype=np.float64).reshape(len(mu), -1 if len(mu) else 1)


def _gains(gap: Floats, deviation: Floats) -> Floats:
    """E[max(0, gain)] of Gaussian gains with these means and deviations, which broadcast."""
    spread = np.maximum(deviation, 1e-12)
    z = gap / spread
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    result: Floats = np.maximum(gap * ndtr(z) + spread * density, 0.0)
    return result


def _edges(costs: Floats, bound: Floats) -> tuple[Floats, ...]:
    """Ascending bounds of cells along each cost, from below the least cost there can be."""
    distinct = [np.unique(column) for column in costs.T]
    most = math.floor(MAX_CELLS ** (1 / len(distinct))) - 1
    edges = []
    for values, last in zip(distinct, bound, strict=True):
        if len(values) > most and math.prod(len(v) + 1 for v in distinct) > MAX_CELLS:
            values = values[np.linspace(0, len(values) - 1, most).round().astype(int)]
        edges.append(np.concatenate(([-np.inf], values, [last])))
    return tuple(edges)
