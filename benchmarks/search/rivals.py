"""What is compared: strategies of the service, and others through the same adapter to a table."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeAlias

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import TrialState

from benchmarks.search.beds import Bed
from benchmarks.search.tables import OneHot, Segmented, TableSpace
from nas.search import SpaceExhausted, create_strategy
from nas.search.objectives import Objectives
from search_spaces.values import Domain

Trainings: TypeAlias = Iterator[int]
"""Rows of the table in the order in which they are trained, none twice."""
Rival: TypeAlias = Callable[[Bed, int], Trainings]
"""Given a bed and a seed."""


@dataclass(frozen=True)
class Ours:
    """A strategy of the catalogue. It is told each result before the next ask."""

    strategy: str
    options: dict[str, Any] = field(default_factory=dict)
    exact_cost: bool = True
    """Whether it knows the cost before training."""
    space: type[TableSpace] | None = None
    """Another view of the same rows."""

    def __call__(self, bed: Bed, seed: int) -> Trainings:
        """What it trains."""
        rows, cost = bed.space.rows, bed.objectives[1]
        space = self.space(rows, bed.space.domains()) if self.space else bed.space
        known = (lambda row: {cost: rows[row].metrics[cost]}) if self.exact_cost else None
        strategy = create_strategy(
            self.strategy,
            space=space,
            objectives=bed.objectives,
            seed=seed,
            known_costs=known,
            **self.options,
        )
        while True:
            try:
                candidate = strategy.ask()
            except SpaceExhausted:
                return
            yield candidate.architecture
            strategy.tell(candidate, rows[candidate.architecture].metrics)


@dataclass(frozen=True)
class Optuna:
    """A sampler of Optuna over the flat choices.

    What it draws becomes the nearest row that was not trained yet: that row's own choices are
    enqueued, so that the sampler is told of what was trained, not of what it wished for. Choices
    that do not apply to the row stay as drawn.
    """

    sampler: Callable[[int], optuna.samplers.BaseSampler]
    integers: bool = True
    """Whether ordered values are coded as integers; else all are labels."""

    def __call__(self, bed: Bed, seed: int) -> Trainings:
        """What it trains."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        domains = bed.space.domains()
        coded = {name: self._distribution(domain) for name, domain in domains.items()}
        study = optuna.create_study(directions=["minimize"] * 2, sampler=self.sampler(seed))
        wanted = Objectives.of(bed.objectives)
        trained: set[int] = set()
        while len(trained) < len(bed.space.rows):
            draw = study.ask(coded)
            study.tell(draw, state=TrialState.FAIL)
            decisions = {n: domains[n].values[place] for n, place in draw.params.items()}
            row = next(r for r in bed.space.nearest(decisions) if r not in trained)
            held = {n: domains[n].values.index(v) for n, v in bed.space.decisions(row).items()}
            study.enqueue_trial({**draw.params, **held})
            trial = study.ask(coded)
            trained.add(row)
            yield row
            study.tell(trial, wanted.row(bed.space.rows[row].metrics))

    def _distribution(self, domain: Domain) -> BaseDistribution:
        last = len(domain.values) - 1
        if self.integers and domain.ordered:
            return IntDistribution(0, last)
        return CategoricalDistribution(range(last + 1))


def cheapest_first(bed: Bed, seed: int) -> Trainings:
    """Quality is taken to follow the size: rows evenly spread over the cost, ever more closely."""
    order = bed.points[:, 1].argsort().tolist()
    rng = random.Random(seed)
    left = set(order)
    parts = 1
    while left:
        parts = min(2 * parts, len(order))
        bounds = [i * len(order) // parts for i in range(parts + 1)]
        for low, high in pairwise(bounds):
            if fresh := [row for row in order[low:high] if row in left]:
                left.remove(row := rng.choice(fresh))
                yield row


def _nsga2(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=16)


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, multivariate=True)


def _gp(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.GPSampler(seed=seed)


BASELINE = "random"
PARETO = Ours("pareto")
RIVALS: dict[str, Rival] = {
    "pareto": PARETO,
    BASELINE: Ours("random"),
    "homogeneous": Ours("homogeneous"),
    "cost-strata": cheapest_first,
    "regularized-evolution": Ours("regularized_evolution"),
    "optuna-nsga2": Optuna(_nsga2),
    "optuna-tpe": Optuna(_tpe),
    "optuna-gp-integer": Optuna(_gp),
    "optuna-gp-categorical": Optuna(_gp, integers=False),
}
"""Compared on every bed. A table trains each row in full: what stops early needs rungs to show."""
ABLATIONS: dict[str, Rival] = {
    "pareto, cost not known": replace(PARETO, exact_cost=False),
    "pareto, one-hot": replace(PARETO, space=OneHot),
    "pareto, segments of rows": replace(PARETO, space=Segmented),
    "pareto, no exploration": replace(PARETO, options={"exploration": 0.0}),
    "pareto, exploration 0.3": replace(PARETO, options={"exploration": 0.3}),
    "our nsga2": Ours("nsga2"),
    "our tpe": Ours("tpe"),
}
"""One thing changed at a time, and the service's other strategies: asked for by name."""
ALL = {**RIVALS, **ABLATIONS}
