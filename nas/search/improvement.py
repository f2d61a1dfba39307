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

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from nas.search.pareto import Floats, front

MAX_CELLS = 1_024
"""Beyond so many the costs are grouped: only fronts of several costs come that far."""
AT_ONCE = 4_000_000
"""Cells times candidates that are held in memory together."""


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
        best = np.full([len(e) - 1 for e in edges], bound[0])
        for row in rows:
            # grouped costs count from the first cell that lies wholly above them
            at = [int(np.searchsorted(e, c)) for e, c in zip(edges, row[1:], strict=True)]
            above = best[tuple(slice(i, None) for i in at)]
            np.minimum(above, row[0], out=above)
        return cls(edges, best)

    def expected_improvement(
        self, mean: ArrayLike, deviation: ArrayLike, costs: ArrayLike
    ) -> Floats:
        """Expected gain in hypervolume (P,) of candidates with Gaussian qualities.

        mean, deviation: (P,).  costs: (P, m), exact.
        """
        mu, sigma = (np.asarray(v, dtype=np.float64) for v in (mean, deviation))
        exact = np.asarray(costs, dtype=np.float64).reshape(len(mu), -1)
        lengths = [
            np.clip(e[1:] - np.maximum(e[:-1], c[:, None]), 0, None)
            for e, c in zip(self.edges, exact.T, strict=True)
        ]
        values, where = np.unique(self.best, return_inverse=True)
        where = where.reshape(self.best.shape)
        gain = _gains(values, mu, sigma)
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


def _gains(values: Floats, mean: Floats, deviation: Floats) -> Floats:
    """E[max(0, value - quality)], (P, values)."""
    gap = values - mean[:, None]
    spread = np.maximum(deviation, 1e-12)[:, None]
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
