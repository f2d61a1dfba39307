"""Regularised evolution: the population is the latest, and the best of a sample has a child."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from nas.search.pareto import spread
from nas.search.standings import Standings
from nas.search.strategy import Proposal, Strategy

REFUSED_PER_MUTATION = 4
"""After so many refused children another mutation is added."""


class RegularizedEvolution(Strategy):
    """Tournaments over the ``population_size`` latest with a result; a child comes of mutation.

    The parent is the first of ``sample_size`` in the order of the standings: feasible before not,
    by non-dominated rank, then well spread. Of progressive dynamic hurdles it carries what is a
    strategy's: to pass a hurdle is worth more than any result before it. The sample is compared
    at the highest fidelity that any of it reached, among those that did; which trials may train
    on, and so who meets the next hurdle, is the business of the rungs, which raise it as results
    come in.
    Source: Real et al. 2019, arXiv:1802.01548; the hurdles: So et al. 2019, arXiv:1901.11117.
    """

    def __init__(self, *args: Any, population_size: int, sample_size: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._population_size = population_size
        self._sample_size = sample_size

    def _proposals(self, rng: random.Random) -> Iterator[Proposal]:
        told = [self._results[f] for f in sorted(self._results, reverse=True)]
        alive = [c for c in self._inside if any(c.number in standings for standings in told)]
        if len(self._candidates) < self._population_size or not alive:
            while True:
                yield self._space.sample(rng), "random"
        population = {c.number: c for c in alive[-self._population_size :]}
        ladder = [_places(standings, population) for standings in told]
        refused = 0
        while True:
            sample = rng.sample(list(population), min(self._sample_size, len(population)))
            child = self._space.mutate(population[_best(sample, ladder)].architecture, rng)
            for _ in range(refused // REFUSED_PER_MUTATION):
                child = self._space.mutate(child, rng)
            yield child, "mutation"
            refused += 1


def _places(standings: Standings[int], population: Collection[int]) -> dict[int, int]:
    """The place of each of the population that has a result, 0 the best."""
    members = np.array([i for i, n in enumerate(standings.keys) if n in population], dtype=np.intp)
    ranked = standings.ranks[members]
    order: list[int] = []
    for rank in np.unique(ranked):
        equal = members[ranked == rank]
        order.extend(equal[spread(standings.rows[equal])].tolist())
    return {standings.keys[member]: place for place, member in enumerate(order)}


def _best(sample: Sequence[int], ladder: Sequence[dict[int, int]]) -> int:
    """The first of the sample at the highest fidelity that any of it reached."""
    places = next(places for places in ladder if any(number in places for number in sample))
    return min((number for number in sample if number in places), key=places.__getitem__)
