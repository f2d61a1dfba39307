"""Cost-exact expected hypervolume improvement, from homogeneous architectures to mixed ones."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from nas.search.improvement import Grid
from nas.search.pareto import Floats, front
from nas.search.space import Architecture
from nas.search.strategy import Proposal, Strategy
from nas.search.surrogate import GaussianProcess, Hyperparameters, likeliest

LEVELS: tuple[int | None, ...] = (1, 2, 4, None)
"""Segments of the architectures that are looked at, coarse to fine."""
TOLERANCE = 3e-4
"""The next level is looked at when the best improvement is under this share of the volume."""
MUTANTS = 24
"""Of each member of the front, at each level."""
MOST_FITTED = 256
"""Results that the model of quality is fitted to at most."""
MOST_TUNED = 64
"""Results that its hyperparameters are chosen by at most."""
FEWEST_FITTED = 4
"""Results before which there is no model."""
MARGIN = 0.1
"""By which share of the range the reference point is worse than the worst."""

Level: TypeAlias = int | None


@dataclass(frozen=True)
class Entry:
    """An architecture of the pool with all that is known of it before training."""

    architecture: Architecture
    fingerprint: str
    row: tuple[float, ...]
    """Objectives, less is better, NaN where not known."""
    features: tuple[float, ...]


class ParetoSearch(Strategy):
    """Trains what is expected to add most to the hypervolume, costs being known beforehand.

    All objectives but one are exact; the quality is a Gaussian process on the space's descriptors,
    fitted to final results, and to what the lower rungs let expect of them. Trials that are under
    way count with their expected results. At first only homogeneous architectures are looked at;
    when none of them promises much, those of two segments, of four, and of any layers. A share of
    ``exploration`` is drawn at random over strata of the cost. Further objectives that are not
    known before training stand at their predicted means.
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
        self._pools: dict[Level, list[Entry]] = {}
        self._mutants: dict[tuple[str, Level], list[Entry]] = {}
        self._entries: dict[str, Entry] = {}
        self._names: list[str] | None = None
        self._start: list[Entry] | None = None
        self._tuned: dict[int, tuple[tuple[bytes, bytes], Hyperparameters]] = {}
        self._scaling: tuple[Floats, Floats] | None = None

    def _proposals(self, rng: random.Random) -> Iterator[Proposal]:
        number = len(self._candidates)
        if number < self._startup_trials:
            yield from ((e.architecture, "start") for e in self._first()[number:])
        beliefs = self._beliefs()
        if beliefs is None or rng.random() < self._exploration:
            yield from self._explored(rng)
        elif ordered := self._promising(beliefs):
            yield from ((e.architecture, "improvement") for e in ordered)
            yield from self._explored(rng)
        while True:
            yield self._space.sample(rng), "random"

    # --- the start --------------------------------------------------------------------------

    def _first(self) -> list[Entry]:
        """Homogeneous architectures: the cheapest, the dearest, and one for each cost stratum."""
        if self._start is None:
            pool = sorted(self._pool(LEVELS[0]), key=self._cost)
            rng = random.Random(f"{self._seed}:start")
            strata = np.array_split(np.arange(len(pool)), max(1, self._startup_trials - 2))
            drawn = [pool[rng.choice(s.tolist())] for s in strata if len(s)]
            rng.shuffle(drawn)
            self._start = list({e.fingerprint: e for e in (*pool[:1], *pool[-1:], *drawn)}.values())
        return self._start

    def _explored(self, rng: random.Random) -> Iterator[Proposal]:
        """At random from any level, each stratum of the cost equally likely."""
        pool = self._pool(rng.choice(LEVELS))
        left = sorted((e for e in pool if e.fingerprint not in self._numbers), key=self._cost)
        strata = [s.tolist() for s in np.array_split(np.arange(len(left)), 8) if len(s)]
        for _ in left:
            entry = left[rng.choice(rng.choice(strata))]
            yield entry.architecture, "exploration"

    # --- what is believed -------------------------------------------------------------------

    def _promising(self, beliefs: _Beliefs) -> list[Entry]:
        """The pool of the first level that promises enough, best first."""
        for level in LEVELS:
            pool = [e for e in self._around(beliefs, level) if e.fingerprint not in self._numbers]
            if not pool:
                continue
            gains = beliefs.improvements(pool)
            order = np.argsort(-gains, kind="stable")
            if gains[order[0]] >= TOLERANCE or level is LEVELS[-1]:
                return [pool[i] for i in order if gains[i] > 0]
        return []

    def _around(self, beliefs: _Beliefs, level: Level) -> list[Entry]:
        """The pool of a level and the neighbours of the front, each once."""
        near = (m for e in beliefs.members for m in self._mutants_of(e, level))
        return list({e.fingerprint: e for e in (*self._pool(level), *near)}.values())

    def _beliefs(self) -> _Beliefs | None:
        finals = self._finals()
        if len(finals) < FEWEST_FITTED:
            return None
        entries = [self._entry(self._candidates[n].architecture) for n in finals]
        rows = np.array([row for row, _ in finals.values()])
        feasible = np.array([ok for _, ok in finals.values()])
        waiting = [
            self._entry(c.architecture)
            for c in self._candidates
            if c.number not in finals and c.number not in self._failed
        ]
        return _Beliefs(self, entries, rows, feasible, waiting)

    def _finals(self) -> dict[int, tuple[tuple[float, ...], bool]]:
        """By candidate: objectives at full training, measured or expected, and feasibility."""
        ladder = sorted(self._results, reverse=True)
        known: dict[int, tuple[Floats, bool]] = {}
        for fidelity in ladder:
            told = self._results[fidelity]
            rows = dict(zip(told.keys, told.rows, strict=True))
            kept = dict(zip(told.keys, told.violations == 0, strict=True))
            both = [n for n in rows if n in known]
            expected = _extrapolated(rows, [(rows[n], known[n][0]) for n in both])
            for n in rows:
                if n not in known:
                    known[n] = expected[n], bool(kept[n])
        return {
            n: (tuple(row), ok) for n, (row, ok) in sorted(known.items()) if np.isfinite(row).all()
        }

    def tuned(self, column: int, points: Floats, values: Floats) -> Hyperparameters:
        """Hyperparameters for an objective, chosen anew when the number of results has doubled.

        They come from the first results, so that they depend on nothing that was forgotten.
        """
        n = min(1 << (len(values).bit_length() - 1), MOST_TUNED)
        key = points[:n].tobytes(), values[:n].tobytes()
        known = self._tuned.get(column)
        if known is None or known[0] != key:
            self._tuned[column] = known = key, likeliest(points[:n], values[:n])
        return known[1]

    def scaling(self) -> tuple[Floats, Floats]:
        """Mean and deviation of each descriptor over the pools, which no result moves."""
        if self._scaling is None:
            pooled = (e.features for level in LEVELS for e in self._pool(level))
            features = np.array(list(pooled))
            self._scaling = features.mean(axis=0), features.std(axis=0)
        return self._scaling

    # --- the pool ---------------------------------------------------------------------------

    def _pool(self, level: Level) -> list[Entry]:
        if level not in self._pools:
            rng = random.Random(f"{self._seed}:pool:{level}")
            drawn = (self._space.sample(rng, level) for _ in range(self._pool_size))
            self._pools[level] = list(self._feasible(drawn))
        return self._pools[level]

    def _mutants_of(self, entry: Entry, level: Level) -> list[Entry]:
        key = entry.fingerprint, level
        if key not in self._mutants:
            rng = random.Random(f"{self._seed}:{entry.fingerprint}:{level}")
            self._mutants[key] = list(self._feasible(self._varied(entry, level, rng)))
        return self._mutants[key]

    def _varied(self, entry: Entry, level: Level, rng: random.Random) -> Iterator[Architecture]:
        if not self._space.contains(entry.architecture):
            return
        for i in range(MUTANTS):
            varied = self._space.mutate(entry.architecture, rng, level)
            yield self._space.mutate(varied, rng, level) if i % 3 == 2 else varied

    def _feasible(self, architectures: Iterable[Architecture]) -> Iterator[Entry]:
        entries = {e.fingerprint: e for e in map(self._entry, architectures)}
        for entry in entries.values():
            if not self._objectives.broken(self._known_costs(entry.architecture)):
                yield entry

    def _entry(self, architecture: Architecture) -> Entry:
        fingerprint = self._space.fingerprint(architecture)
        if fingerprint not in self._entries:
            described = self._space.describe(architecture)
            if self._names is None:
                self._names = list(described)
            self._entries[fingerprint] = Entry(
                architecture,
                fingerprint,
                self._objectives.row(self._known_costs(architecture)),
                tuple(described.get(name, 0.0) for name in self._names),
            )
        return self._entries[fingerprint]

    def _cost(self, entry: Entry) -> tuple[float, str]:
        known = [v for v in entry.row if np.isfinite(v)]
        return (known[0] if known else 0.0), entry.fingerprint


class _Beliefs:
    """What the results so far let expect of others."""

    def __init__(
        self,
        strategy: ParetoSearch,
        entries: Sequence[Entry],
        rows: Floats,
        feasible: Any,
        waiting: Sequence[Entry],
    ) -> None:
        self._centre, self._scale = strategy.scaling()
        exact = np.isfinite(np.array([e.row for e in entries])).all(axis=0)
        self._unknown = np.flatnonzero(~exact)
        self._quality = int(self._unknown[0]) if len(self._unknown) else 0
        chosen = _most_telling(rows)
        points = self._standardised([entries[i] for i in chosen])
        self._models = {
            column: _model(strategy, column, points, rows[chosen, column])
            for column in self._unknown.tolist()
        }
        under_way = self._expected(waiting)[0] if waiting else rows[:0]
        known = np.vstack((rows[feasible], under_way))
        low, high = rows.min(axis=0), rows.max(axis=0)
        self._low, self._range = low, np.where(high > low, high - low, 1.0)
        kept = np.flatnonzero(feasible)
        self.members = [entries[kept[i]] for i in front(rows[feasible])]
        m = rows.shape[1]
        self._costs = [i for i in range(m) if i != self._quality]
        unit = (known - self._low) / self._range
        self._grid = Grid.of(unit[:, self._quality], self._prices(unit), [1 + MARGIN] * max(2, m))

    def improvements(self, pool: Sequence[Entry]) -> Floats:
        """Expected gain of each, as a share of the volume below the reference point."""
        rows, deviation = self._expected(pool)
        unit = (rows - self._low) / self._range
        gain = self._grid.expected_improvement(
            unit[:, self._quality], deviation / self._range[self._quality], self._prices(unit)
        )
        volume = (1 + MARGIN) ** max(2, rows.shape[1])
        return np.asarray(gain / volume)

    def _prices(self, unit: Floats) -> Floats:
        """Costs (n, m); a search for quality alone has one that never varies."""
        return unit[:, self._costs] if self._costs else np.zeros((len(unit), 1))

    def _expected(self, entries: Sequence[Entry]) -> tuple[Floats, Floats]:
        """Objectives (P, m), means where not known, and the quality's deviation (P,)."""
        rows = np.array([e.row for e in entries])
        deviation = np.zeros(len(rows))
        points = self._standardised(entries)
        for column, model in self._models.items():
            mean, spread = model.predict(points)
            rows[:, column] = mean
            if column == self._quality:
                deviation = spread
        return rows, deviation

    def _standardised(self, entries: Sequence[Entry]) -> Floats:
        features = np.array([e.features for e in entries]).reshape(len(entries), -1)
        varied = self._scale > 0
        return np.asarray((features - self._centre)[:, varied] / self._scale[varied])


def _model(strategy: ParetoSearch, column: int, points: Floats, values: Floats) -> GaussianProcess:
    return GaussianProcess(points, values, strategy.tuned(column, points, values))


def _most_telling(rows: Floats) -> list[int]:
    """Results to fit: all, or where there are too many the front and the latest."""
    if len(rows) <= MOST_FITTED:
        return list(range(len(rows)))
    best = front(rows)[: MOST_FITTED // 2].tolist()
    latest = [i for i in range(len(rows) - 1, -1, -1) if i not in set(best)]
    return sorted(best + latest[: MOST_FITTED - len(best)])


def _extrapolated(
    rows: dict[int, Floats], pairs: Sequence[tuple[Floats, Floats]]
) -> dict[int, Floats]:
    """What results at a rung let expect at the end, given pairs of (rung, end)."""
    if not pairs:
        return rows
    at_rung, at_end = (np.array(side) for side in zip(*pairs, strict=True))
    centre, target = at_rung.mean(axis=0), at_end.mean(axis=0)
    x, y = at_rung - centre, at_end - target
    # a slope of 1, until enough pairs speak for another
    prior = 3 * (at_rung.var(axis=0) + 1e-12)
    slope = ((x * y).sum(axis=0) + prior) / ((x * x).sum(axis=0) + prior)
    return {n: target + slope * (row - centre) for n, row in rows.items()}
