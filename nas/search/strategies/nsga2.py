"""NSGA-II, asynchronous and over rungs: evolution of a population without generations."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from nas.search.pareto import Floats
from nas.search.space import Architecture
from nas.search.standings import Standings
from nas.search.strategy import Candidate, Proposal, Strategy

HOMOGENEOUS_EVERY = 4
"""One in so many of the first population has the same block in every layer."""
REFUSED_PER_MUTATION = 4
"""After so many refused children another mutation is added, so that breeding leaves a crowd."""


class Nsga2(Strategy):
    """Binary tournaments by rank, then crowding; a child comes of crossover, else of mutation.

    Results at different fidelities are never ranked together. The population is filled from the
    highest fidelity down, at each with the better half of what has a result there (so that what
    was promoted only to be audited does not breed), then with the rest of the lowest. Two members
    meet at the highest fidelity that both have reached.
    Source: Deb et al. 2002, doi:10.1109/4235.996017; constraint domination included.
    """

    def __init__(
        self, *args: Any, population_size: int, crossover_probability: float, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._population_size = population_size
        self._crossover_probability = crossover_probability

    def _proposals(self, rng: random.Random) -> Iterator[Proposal]:
        ladder = self._ladder()
        population = _population(ladder, self._inside, self._population_size)
        if len(self._candidates) < self._population_size or len(population) < 2:
            yield from self._first_population(rng)
        refused = 0
        while True:
            child, origin = self._child(population, ladder, rng)
            for _ in range(refused // REFUSED_PER_MUTATION):
                child = self._space.mutate(child, rng)
            yield child, origin
            refused += 1

    def _first_population(self, rng: random.Random) -> Iterator[Proposal]:
        number = len(self._candidates)
        while True:
            if number % HOMOGENEOUS_EVERY == 0:
                yield self._space.sample(rng, segments=1), "homogeneous"
            # and where the homogeneous one is refused, as are all others
            yield self._space.sample(rng), "random"

    def _child(
        self, population: list[Candidate], ladder: list[_Level], rng: random.Random
    ) -> tuple[Architecture, str]:
        mother = _tournament(population, ladder, rng)
        if rng.random() >= self._crossover_probability:
            return self._space.mutate(mother.architecture, rng), "mutation"
        father = _tournament([c for c in population if c is not mother], ladder, rng)
        child = self._space.crossover(mother.architecture, father.architecture, rng)
        return child, "crossover"

    def _ladder(self) -> list[_Level]:
        """What was told, from the highest fidelity down."""
        return [
            _Level(self._results[fidelity])
            for fidelity in sorted(self._results, reverse=True)
            if len(self._results[fidelity])
        ]


class _Level:
    """The standings at one fidelity: (rank, -crowding) by candidate number, less is better."""

    def __init__(self, standings: Standings[int]) -> None:
        crowding = _crowding(standings.rows, standings.ranks)
        self.fitness = dict(
            zip(
                standings.keys,
                zip(standings.ranks.tolist(), (-crowding).tolist(), strict=True),
                strict=True,
            )
        )
        self.best_first = sorted(self.fitness, key=lambda number: (self.fitness[number], number))


def _population(ladder: list[_Level], inside: list[Candidate], size: int) -> list[Candidate]:
    candidates = {candidate.number: candidate for candidate in inside}
    better = [level.best_first[: (len(level.best_first) + 1) // 2] for level in ladder]
    rest = [level.best_first for level in reversed(ladder)]
    numbers = dict.fromkeys(n for part in (*better, *rest) for n in part if n in candidates)
    return [candidates[number] for number in list(numbers)[:size]]


def _tournament(population: list[Candidate], ladder: list[_Level], rng: random.Random) -> Candidate:
    if len(population) == 1:
        return population[0]
    one, other = rng.sample(population, 2)
    for level in ladder:
        if one.number in level.fitness and other.number in level.fitness:
            better = level.fitness[one.number] <= level.fitness[other.number]
            return one if better else other
    return one  # they have no fidelity in common, and so cannot be compared


def _crowding(rows: Floats, ranked: np.ndarray[Any, Any]) -> Floats:
    """Crowding distance (n,) of each row among those of its rank; infinite at the extremes."""
    result = np.zeros(len(rows))
    for rank in np.unique(ranked):
        members = np.flatnonzero(ranked == rank)
        for column in rows[members].T:
            order = np.argsort(column, kind="stable")
            span = column[order[-1]] - column[order[0]]
            result[members[order[[0, -1]]]] = np.inf
            if np.isfinite(span) and span > 0:
                gaps = (column[order[2:]] - column[order[:-2]]) / span
                result[members[order[1:-1]]] += gaps
    return result
