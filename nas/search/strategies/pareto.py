"""Cost-exact expected hypervolume improvement, from homogeneous architectures to mixed ones."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from nas.search.improvement import Grid
from nas.search.objectives import Metrics
from nas.search.pareto import Floats, Indices, front
from nas.search.pool import Pool
from nas.search.space import Architecture
from nas.search.strategy import Candidate, Proposal, Strategy
from nas.search.surrogate import GaussianProcess, Hyperparameters, likeliest

LEVELS: tuple[int | None, ...] = (1, 2, 4, None)
"""Segments of the architectures that are looked at, coarse to fine."""
SHARE = 0.5
"""A coarse level is left when it promises less than this share of what the best level does."""
LOOKED_AT = 1024
"""Architectures that one ask compares at most."""
MUTANTS = 6
"""Of each member of the front, at each level."""
MOST_FITTED = 128
"""Results that the model of quality is fitted to at most."""
MOST_TUNED = 48
"""Results that its hyperparameters are chosen by at most: the first, a power of two while fewer.

So they are chosen rarely, and do not depend on what was asked or told when.
"""
FEWEST_FITTED = 4
"""Results before which there is no model."""
MARGIN = 0.1
"""By which share of the range the reference point is worse than the worst."""

Level: TypeAlias = int | None


class ParetoSearch(Strategy):
    """Trains what is expected to add most to the hypervolume, costs being known beforehand.

    All objectives but one are exact; the quality is a Gaussian process on the space's descriptors,
    fitted to final results, and to what the lower rungs let expect of them. Trials that are under
    way count with their expected results. Homogeneous architectures come first, then those of two
    segments, of four, and of any layers: the coarsest that promises a fair share of what the most
    promising level does, for there the model errs least. A share of ``exploration`` is drawn at
    random over strata of the cost. Further objectives that are not known before training stand at
    their predicted means.
    Source: Emmerich et al. 2006, doi:10.1109/TEVC.2005.859463 (the improvement); the closed form
    for exact costs, and coarse to fine, are this project's own.
    """

    def __init__(
        self, *args: Any, startup_trials: int, exploration: float, pool_size: int, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._startup_trials = startup_trials
        self._exploration = exploration
        self._pool_size = pool_size
        self._pool = Pool(self._space, self._objectives, self._known_costs)
        self._places: list[int] = []
        self._drawn: dict[Level, Indices] = {}
        self._mutants: dict[tuple[int, Level], Indices] = {}
        self._start: Indices | None = None
        self._tuned: dict[int, tuple[tuple[bytes, bytes], Hyperparameters]] = {}
        self._scaling: tuple[Floats, Floats] | None = None

    def _register(
        self, architecture: Architecture, fingerprint: str, origin: str, costs: Metrics
    ) -> Candidate:
        candidate = super()._register(architecture, fingerprint, origin, costs)
        inside = bool(self._inside) and self._inside[-1] is candidate
        self._places.append(self._pool.ask(architecture, costs, inside))
        return candidate

    def _proposals(self, rng: random.Random) -> Iterator[Proposal]:
        number = len(self._candidates)
        if number < self._startup_trials:
            yield from ((self._pool[place], "start") for place in self._first()[number:])
        beliefs = self._beliefs()
        if beliefs is not None and rng.random() >= self._exploration:
            yield from ((self._pool[p], "improvement") for p in self._promising(beliefs, rng))
        yield from self._explored(rng)
        while True:
            yield self._space.sample(rng), "random"

    # --- the start --------------------------------------------------------------------------

    def _first(self) -> Indices:
        """Homogeneous architectures: the cheapest, the dearest, and one for each cost stratum."""
        if self._start is None:
            level = self._by_cost(self._level(LEVELS[0]))
            rng = random.Random(f"{self._seed}:start")
            strata = np.array_split(level, max(1, self._startup_trials - 2))
            drawn = [rng.choice(s.tolist()) for s in strata if len(s)]
            rng.shuffle(drawn)
            first = dict.fromkeys((*level[:1].tolist(), *level[-1:].tolist(), *drawn))
            self._start = np.array(list(first), dtype=np.intp)
        return self._start

    def _explored(self, rng: random.Random) -> Iterator[Proposal]:
        """At random from any level, each stratum of the cost equally likely."""
        left = self._by_cost(self._pool.open(self._level(rng.choice(LEVELS))))
        strata = [s.tolist() for s in np.array_split(left, 8) if len(s)]
        for _ in left:
            yield self._pool[rng.choice(rng.choice(strata))], "exploration"

    def _by_cost(self, places: Indices) -> Indices:
        """Ascending by the first cost that is known."""
        costs = self._pool.rows[places]
        known = np.flatnonzero(np.isfinite(costs).all(axis=0))
        if not len(known):
            return places
        return places[np.argsort(costs[:, known[0]], kind="stable")]

    # --- what is believed -------------------------------------------------------------------

    def _promising(self, beliefs: _Beliefs, rng: random.Random) -> list[int]:
        """Of the coarsest level that promises enough, the places that promise most, best first."""
        levels = [self._pool.open(self._around(beliefs, level)) for level in LEVELS]
        everything = np.unique(np.concatenate(levels))
        if not len(everything):
            return []
        if len(everything) > LOOKED_AT:
            everything = np.array(rng.sample(everything.tolist(), LOOKED_AT), dtype=np.intp)
        promised = np.zeros(len(self._pool))
        promised[everything] = beliefs.improvements(self._pool, everything)
        enough = SHARE * promised.max()
        chosen = next(p for p in levels if promised[p].max(initial=0.0) >= enough)
        order = chosen[np.argsort(-promised[chosen], kind="stable")]
        return [int(place) for place in order if promised[place] > 0]

    def _around(self, beliefs: _Beliefs, level: Level) -> Indices:
        """The architectures of a level and the neighbours of the front, each once."""
        near = [self._mutants_of(place, level) for place in beliefs.members]
        return np.unique(np.concatenate((self._level(level), *near)))

    def _beliefs(self) -> _Beliefs | None:
        rows, feasible = self._finals()
        told = np.flatnonzero(np.isfinite(rows).all(axis=1))
        if len(told) < FEWEST_FITTED:
            return None
        places = np.array(self._places, dtype=np.intp)
        waiting = np.asarray(np.isnan(rows).any(axis=1))
        waiting[list(self._failed)] = False
        under_way = places[waiting & np.isfinite(self._pool.features[places]).all(axis=1)]
        return _Beliefs(self, self._pool, places[told], rows[told], feasible[told], under_way)

    def _finals(self) -> tuple[Floats, Any]:
        """By candidate: objectives (n, m) at full training, measured or expected; feasible (n,)."""
        count = len(self._candidates)
        rows = np.full((count, len(self._objectives.names)), np.nan)
        feasible = np.zeros(count, dtype=bool)
        known = np.zeros(count, dtype=bool)
        for fidelity in sorted(self._results, reverse=True):
            told = self._results[fidelity]
            keys = np.array(told.keys, dtype=np.intp)
            if not len(keys):
                continue
            further = known[keys]
            expected = _extrapolated(told.rows, told.rows[further], rows[keys[further]])
            rows[keys[~further]] = expected[~further]
            feasible[keys[~further]] = told.violations[~further] == 0
            known[keys] = True
        return rows, feasible

    def tuned(self, column: int, points: Floats, values: Floats) -> Hyperparameters:
        """The likeliest hyperparameters for an objective, kept while these results stand."""
        key = points.tobytes(), values.tobytes()
        known = self._tuned.get(column)
        if known is None or known[0] != key:
            self._tuned[column] = known = key, likeliest(points, values)
        return known[1]

    def scaling(self) -> tuple[Floats, Floats]:
        """Mean and deviation of each descriptor over what was drawn, which no result moves."""
        if self._scaling is None:
            drawn = np.concatenate([self._level(level) for level in LEVELS])
            features = self._pool.features[drawn]
            self._scaling = features.mean(axis=0), features.std(axis=0)
        return self._scaling

    # --- the pool ---------------------------------------------------------------------------

    def _level(self, level: Level) -> Indices:
        """Places of what was drawn at a level."""
        if level not in self._drawn:
            rng = random.Random(f"{self._seed}:pool:{level}")
            drawn = (self._space.sample(rng, level) for _ in range(self._pool_size))
            self._drawn[level] = self._pool.look_at(drawn)
        return self._drawn[level]

    def _mutants_of(self, place: int, level: Level) -> Indices:
        key = place, level
        if key not in self._mutants:
            architecture = self._pool[place]
            rng = random.Random(f"{self._seed}:{self._space.fingerprint(architecture)}:{level}")
            self._mutants[key] = self._pool.look_at(self._varied(architecture, level, rng))
        return self._mutants[key]

    def _varied(
        self, architecture: Architecture, level: Level, rng: random.Random
    ) -> Iterator[Architecture]:
        if not self._space.contains(architecture):
            return
        for i in range(MUTANTS):
            varied = self._space.mutate(architecture, rng, level)
            yield self._space.mutate(varied, rng, level) if i % 3 == 2 else varied


class _Beliefs:
    """What the results so far let expect of others.

    Letters: n results, m objectives.
    """

    def __init__(
        self,
        strategy: ParetoSearch,
        pool: Pool,
        places: Indices,
        rows: Floats,
        feasible: Any,
        under_way: Indices,
    ) -> None:
        """Results (n, m) of those at places (n,); others are under way."""
        self._centre, self._scale = strategy.scaling()
        described = np.flatnonzero(np.isfinite(pool.features[places]).all(axis=1))
        exact = np.isfinite(pool.rows[places[described]]).all(axis=0)
        self._unknown = np.flatnonzero(~exact)
        self._quality = int(self._unknown[0]) if len(self._unknown) else 0
        chosen = described[_most_telling(rows[described])]
        first = described[: 1 << (len(described).bit_length() - 1)][:MOST_TUNED]
        points, firsts = (self._standardised(pool, places[part]) for part in (chosen, first))
        self._models = {}
        for column in self._unknown.tolist():
            tuned = strategy.tuned(column, firsts, _tamed(rows[first, column]))
            told = _tamed(rows[chosen, column])
            self._models[column] = GaussianProcess(points, told, tuned)
        known = np.vstack((rows[feasible], self._expected(pool, under_way)[0]))
        low, high = rows.min(axis=0), rows.max(axis=0)
        self._low, self._range = low, np.where(high > low, high - low, 1.0)
        self.members = places[feasible][front(rows[feasible])].tolist()
        m = rows.shape[1]
        self._costs = [i for i in range(m) if i != self._quality]
        unit = (known - self._low) / self._range
        self._grid = Grid.of(unit[:, self._quality], self._prices(unit), [1 + MARGIN] * max(2, m))

    def improvements(self, pool: Pool, places: Indices) -> Floats:
        """Expected gain of each, as a share of the volume below the reference point."""
        rows, deviation = self._expected(pool, places)
        unit = (rows - self._low) / self._range
        gain = self._grid.expected_improvement(
            unit[:, self._quality], deviation / self._range[self._quality], self._prices(unit)
        )
        volume = (1 + MARGIN) ** max(2, rows.shape[1])
        return np.asarray(gain / volume)

    def _prices(self, unit: Floats) -> Floats:
        """Costs (n, m); a search for quality alone has one that never varies."""
        return unit[:, self._costs] if self._costs else np.zeros((len(unit), 1))

    def _expected(self, pool: Pool, places: Indices) -> tuple[Floats, Floats]:
        """Objectives (P, m), means where not known, and the quality's deviation (P,)."""
        rows: Floats = pool.rows[places].copy()
        deviation = np.zeros(len(rows))
        points = self._standardised(pool, places)
        for column, model in self._models.items():
            mean, spread = model.predict(points)
            rows[:, column] = mean
            if column == self._quality:
                deviation = spread
        return rows, deviation

    def _standardised(self, pool: Pool, places: Indices) -> Floats:
        varied = self._scale > 0
        features = pool.features[places][:, varied]
        return np.asarray((features - self._centre[varied]) / self._scale[varied])


def _tamed(values: Floats) -> Floats:
    """Values of which none is as far above the median as the best is below it.

    How bad a bad result is says nothing of the front, and would set the scale of the model.
    """
    middle = float(np.median(values))
    return np.asarray(np.minimum(values, 2 * middle - values.min()))


def _most_telling(rows: Floats) -> Indices:
    """Results to fit: all, or where there are too many the front and the latest."""
    if len(rows) <= MOST_FITTED:
        return np.arange(len(rows))
    best = front(rows)[: MOST_FITTED // 2]
    latest = np.setdiff1d(np.arange(len(rows)), best)[len(best) - MOST_FITTED :]
    return np.sort(np.concatenate((best, latest)))


def _extrapolated(rows: Floats, at_rung: Floats, at_end: Floats) -> Floats:
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
