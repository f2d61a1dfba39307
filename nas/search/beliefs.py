"""What the results so far let expect of architectures that were not trained.

Letters: n results, m objectives, P places of the pool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nas.search.improvement import Grid, Promises
from nas.search.pareto import Floats, Indices, front, hypervolume
from nas.search.pool import Pool
from nas.search.surrogate import GaussianProcess, Hyperparameters, tamed

MOST_FITTED = 128
"""Results that the model of quality is fitted to at most."""
MARGIN = 0.1
"""By which share of the range the reference point is worse than the worst."""


@dataclass(frozen=True, eq=False)
class Results:
    """Results in the order of their candidates.

    numbers (n,) of the candidates, places (n,) of theirs in the pool, rows (n, m) of objectives at
    full training, measured or expected, and whether they are feasible (n,).
    """

    numbers: Indices
    places: Indices
    rows: Floats
    feasible: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, part: slice | NDArray[np.bool_]) -> Results:
        return Results(self.numbers[part], self.places[part], self.rows[part], self.feasible[part])


class Beliefs:
    """Models of what is not known before training; they hold while the results stand.

    The quality is the first objective that is not exact, and has a mean and a deviation. Further
    ones that are not exact stand at their means.
    """

    def __init__(
        self,
        pool: Pool,
        results: Results,
        hyperparameters: Callable[[int], Hyperparameters],
    ) -> None:
        """Fit to results, some of them described; hyperparameters are those of an objective."""
        self.results = results
        self._pool = pool
        described = results[pool.described[results.places]]
        exact = np.isfinite(pool.rows[described.places]).all(axis=0)
        unknown = np.flatnonzero(~exact).tolist()
        fitted = described[_most_telling(described.rows)]
        self._models = {
            column: GaussianProcess(
                pool.points[fitted.places], tamed(fitted.rows[:, column]), hyperparameters(column)
            )
            for column in unknown
        }
        m = results.rows.shape[1]
        self._quality = unknown[0] if unknown else 0
        self._costs = [i for i in range(m) if i != self._quality]
        low, high = results.rows.min(axis=0), results.rows.max(axis=0)
        self._low, self._range = low, np.where(high > low, high - low, 1.0)
        self._reference = np.full(max(2, m), 1 + MARGIN)
        feasible = results[results.feasible]
        best = front(feasible.rows)
        self._front = self._scaled(feasible.rows[best])
        self.members: tuple[int, ...] = tuple(feasible.places[best].tolist())

    def promises(self, places: Indices, under_way: Indices) -> Promises:
        """What each is expected to add to the hypervolume.

        What is under way counts as if it had come out as expected.
        """
        known = np.vstack((self._front, self._expected(under_way)[0]))
        grid = Grid.of(known[:, 0], known[:, 1:], self._reference)
        expected, deviation = self._expected(places)
        return Promises(grid, expected[:, 0], deviation, expected[:, 1:])

    @cached_property
    def hypervolume(self) -> float:
        """What the front of the results dominates, in the unit of expected gains."""
        return hypervolume(self._front, self._reference)

    def _expected(self, places: Indices) -> tuple[Floats, Floats]:
        """Scaled objectives (P, ≥ 2), means where not known, and the quality's deviation (P,)."""
        rows: Floats = self._pool.rows[places]
        deviation = np.zeros(len(rows))
        points = self._pool.points[places]
        for column, model in self._models.items():
            rows[:, column], spread = model.predict(points)
            if column == self._quality:
                deviation = spread / self._range[column]
        return self._scaled(rows), deviation

    def _scaled(self, rows: Floats) -> Floats:
        """Quality first, then costs, in units of their range; a search for quality alone has one
        cost that never varies."""
        unit = (rows - self._low) / self._range
        costs = unit[:, self._costs] if self._costs else np.zeros((len(unit), 1))
        return np.column_stack((unit[:, self._quality], costs))


def extrapolated(rows: Floats, at_rung: Floats, at_end: Floats) -> Floats:
    """What results (n, m) at a rung let expect at the end, given pairs of (rung, end)."""
    known = np.isfinite(at_rung).all(axis=1) & np.isfinite(at_end).all(axis=1)
    if not known.any():
        return rows
    at_rung, at_end = at_rung[known], at_end[known]
    centre, target = at_rung.mean(axis=0), at_end.mean(axis=0)
    x, y = at_rung - centre, at_end - target
    # a slope of 1, until enough pairs speak for another
    prior = 3 * (at_rung.var(axis=0) + 1e-12)
    slope = ((x * y).sum(axis=0) + prior) / ((x * x).sum(axis=0) + prior)
    return np.asarray(target + slope * (rows - centre))


def _most_telling(rows: Floats) -> NDArray[np.bool_]:
    """Which results to fit: all, or where there are too many the front and the latest."""
    chosen = np.zeros(len(rows), dtype=bool)
    best = front(rows)[: MOST_FITTED // 2]
    chosen[best] = True
    chosen[np.flatnonzero(~chosen)[len(best) - MOST_FITTED :]] = True
    return chosen
