"""Cost-exact expected hypervolume improvement, from homogeneous architectures to mixed ones."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from nas.search.beliefs import Beliefs, Results, extrapolated
from nas.search.objectives import Metrics
from nas.search.pareto import Floats, Indices
from nas.search.pool import Pool
from nas.search.space import Architecture
from nas.search.standings import Standings
from nas.search.strategy import Candidate, Proposal, Strategy
from nas.search.surrogate import Hyperparameters
from nas.search.tuning import MOST_TUNED, Tuning

LEVELS: tuple[int | None, ...] = (1, 2, 4, None)
"""Segments of the architectures that are looked at, coarse to fine."""
SHARE = 0.5
"""A coarse level is left when it promises less than this share of what the best level does."""
LOOKED_AT = 1024
"""Architectures that one ask compares at most."""
MUTANTS = 6
"""Of each member of the front, at each level."""
NEIGHBOURS = 256
"""Mutants at a level, all in all: each member of a large front has fewer."""
FEWEST_FITTED = 4
"""Results before which there is no model."""
PATIENCE = 3
"""A search has settled when it would have without its latest results, fewer than so many, too."""

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

    Architectures are looked at in an order that candidates, results and seed decide, never in the
    one in which they came to the pool, for a rebuilt strategy does not share that.
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
        self._mutants: dict[tuple[int, Level], tuple[Iterator[Architecture], list[int]]] = {}
        self._around: tuple[tuple[int, ...], list[Indices]] | None = None
        self._start: Indices | None = None
        self._tuning = Tuning()
        self._beliefs: Beliefs | None = None

    def tell(self, candidate: Candidate, metrics: Metrics, fidelity: float = 1.0) -> None:
        """Take in a result: what was believed before holds no more."""
        super().tell(candidate, metrics, fidelity)
        self._beliefs = None

    def fail(self, candidate: Candidate, reason: str) -> None:
        """Give up a candidate, and what was believed because of it."""
        super().fail(candidate, reason)
        self._beliefs = None

    def is_settled(self, tolerance: float) -> bool:
        """Whether no level is expected to add this share to the hypervolume that there is."""
        rng = random.Random(f"{self._seed}:{len(self._candidates)}:settled")
        if len(self._candidates) < self._startup_trials:
            return False
        for without in range(PATIENCE):
            beliefs = self._believed(without)
            if beliefs is None:
                return False
            looked_at = self._some(self._levels(beliefs), rng)
            promises = beliefs.promises(looked_at, self._under_way(beliefs))
            if promises.greatest(np.arange(len(looked_at)))[0] >= tolerance * beliefs.hypervolume:
                return False
        return True

    def _register(
        self, architecture: Architecture, fingerprint: str, origin: str, costs: Metrics
    ) -> Candidate:
        candidate = super()._register(architecture, fingerprint, origin, costs)
        inside = bool(self._inside) and self._inside[-1] is candidate
        self._places.append(self._pool.ask(architecture, costs, inside))
        return candidate

    def _proposals(self, rng: random.Random) -> Iterator[Proposal]:
        if len(self._candidates) < self._startup_trials:
            # one that starts from what is known still needs the cheapest and the dearest
            yield from ((self._pool[p], "start") for p in self._pool.open(self._first()))
        beliefs = self._believed()
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

    # --- what is promising ------------------------------------------------------------------

    def _promising(self, beliefs: Beliefs, rng: random.Random) -> Iterator[int]:
        """The place that promises most, of the coarsest level that promises enough, if any."""
        levels = self._levels(beliefs)
        looked_at = self._some(levels, rng)
        promises = beliefs.promises(looked_at, self._under_way(beliefs))
        most, _ = promises.greatest(np.arange(len(looked_at)))
        for level in levels:
            promised, whose = promises.greatest(_found_in(looked_at, level, len(self._pool)))
            if promised and promised >= SHARE * most:
                yield int(looked_at[whose])
                return

    def _levels(self, beliefs: Beliefs) -> list[Indices]:
        """What is open of each level and of the neighbours of the front, each once in a level."""
        if self._around is None or self._around[0] != beliefs.members:
            each = max(1, min(MUTANTS, NEIGHBOURS // max(1, len(beliefs.members))))
            around = []
            for level in LEVELS:
                near = [m for p in beliefs.members for m in self._mutants_of(p, level, each)]
                drawn = self._level(level)
                around.append(_once(np.concatenate((drawn, np.array(near, dtype=np.intp)))))
            self._around = beliefs.members, around
        return [self._pool.open(places) for places in self._around[1]]

    def _some(self, levels: list[Indices], rng: random.Random) -> Indices:
        """At random from all levels, as many as are compared."""
        everything = _once(np.concatenate(levels))
        if len(everything) <= LOOKED_AT:
            return everything
        order = np.random.default_rng(rng.getrandbits(64)).permutation(len(everything))
        return everything[order[:LOOKED_AT]]

    def _under_way(self, beliefs: Beliefs) -> Indices:
        """Where those are that have no result among these, and may still have one."""
        waiting = np.ones(len(self._places), dtype=bool)
        waiting[beliefs.results.numbers] = False
        waiting[list(self._failed)] = False
        places = np.array(self._places, dtype=np.intp)[waiting]
        return places[self._pool.described[places]]

    # --- what is believed -------------------------------------------------------------------

    def _believed(self, without: int = 0) -> Beliefs | None:
        """What the results let expect, those of the latest candidates left out if wished."""
        if not without and self._beliefs is not None:
            return self._beliefs
        results = self._told_so_far()
        results = results[: len(results) - without]
        if self._pool.described[results.places].sum() < FEWEST_FITTED:
            return None
        if not self._pool.standardised:
            self._pool.standardise(np.concatenate([self._level(level) for level in LEVELS]))
        beliefs = Beliefs(self._pool, results, self._hyperparameters)
        if not without:
            self._beliefs = beliefs
        return beliefs

    def _told_so_far(self) -> Results:
        """Results of all candidates that have a complete one, at the highest fidelity of each."""
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
            expected = extrapolated(told.rows, told.rows[further], rows[keys[further]])
            rows[keys[~further]] = expected[~further]
            feasible[keys[~further]] = told.violations[~further] == 0
            known[keys] = True
        complete = np.isfinite(rows).all(axis=1)
        places = np.array(self._places, dtype=np.intp)
        everything = Results(np.arange(count), places, rows, feasible)
        return everything[complete]

    def _hyperparameters(self, objective: int) -> Hyperparameters:
        """Chosen by the first results at the fidelity that has most, which hardly ever change."""
        places, rows = max(
            (self._usable(told) for _, told in sorted(self._results.items(), reverse=True)),
            key=lambda usable: len(usable[0]),
        )
        first, values = places[:MOST_TUNED], rows[:MOST_TUNED, objective]
        return self._tuning.hyperparameters(self._pool.points[first], values)

    def _usable(self, told: Standings[int]) -> tuple[Indices, Floats]:
        """Places and rows of the results that can be learned from, in the candidates' order."""
        places = np.array(self._places, dtype=np.intp)[told.keys]
        usable = np.flatnonzero(np.isfinite(told.rows).all(axis=1) & self._pool.described[places])
        return places[usable], told.rows[usable]

    # --- the pool ---------------------------------------------------------------------------

    def _level(self, level: Level) -> Indices:
        """Places of what was drawn at a level."""
        if level not in self._drawn:
            rng = random.Random(f"{self._seed}:pool:{level}")
            drawn = (self._space.sample(rng, level) for _ in range(self._pool_size))
            self._drawn[level] = self._pool.look_at(drawn)
        return self._drawn[level]

    def _mutants_of(self, place: int, level: Level, count: int) -> list[int]:
        key = place, level
        if key not in self._mutants:
            architecture = self._pool[place]
            rng = random.Random(f"{self._seed}:{self._space.fingerprint(architecture)}:{level}")
            self._mutants[key] = self._varied(architecture, level, rng), []
        varied, found = self._mutants[key]
        for architecture in itertools.islice(varied, max(0, count - len(found))):
            found.extend(self._pool.look_at((architecture,)).tolist())
        return found[:count]

    def _varied(
        self, architecture: Architecture, level: Level, rng: random.Random
    ) -> Iterator[Architecture]:
        if not self._space.contains(architecture):
            return
        for i in range(MUTANTS):
            varied = self._space.mutate(architecture, rng, level)
            yield self._space.mutate(varied, rng, level) if i % 3 == 2 else varied


def _once(places: Indices) -> Indices:
    """Each in the place where it comes first."""
    return places[np.sort(np.unique(places, return_index=True)[1])]


def _found_in(places: Indices, level: Indices, size: int) -> Indices:
    """Which of the places, all below a size, are of a level, in its order."""
    where = np.full(size, -1)
    where[places] = np.arange(len(places))
    found = where[level]
    return found[found >= 0]
