"""What is compared: strategies of the service, and others through the same adapter to a table."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeAlias

import optuna
from optuna.trial import TrialState

from benchmarks.search.beds import Bed
from benchmarks.search.halving import FACTOR, MoAsha, NewHalving, RayAsha, climb
from benchmarks.search.samplers import distributions, gp, nsga2, tpe
from benchmarks.search.tables import TableSpace, Training, one_hot, segmented, unsegmented
from nas.schemas import Fidelity
from nas.search import SpaceExhausted, create_strategy
from nas.search.objectives import Objectives
from nas.search.rungs import Rungs
from nas.search.strategy import Strategy

Trainings: TypeAlias = Iterator[Training]
"""What is trained, in that order, each row to ascending rungs."""
Rival: TypeAlias = Callable[[Bed, int], Trainings]
"""Given a bed and a seed."""


@dataclass(frozen=True)
class Ours:
    """A strategy of the catalogue. It is told each result before the next ask.

    With rungs it goes as in a job: what may be promoted is, before anything new begins.
    """

    strategy: str
    options: dict[str, Any] = field(default_factory=dict)
    exact_cost: bool = True
    """Whether it knows the cost before training."""
    view: Callable[[TableSpace], TableSpace] | None = None
    """Another view of the same rows."""
    rungs: bool = False
    """Whether it uses those of the bed, else each row is trained in full."""
    audit: float = Fidelity().audit

    def __call__(self, bed: Bed, seed: int) -> Trainings:
        """What it trains."""
        strategy = self._strategy(bed, seed)
        lowest = 0 if self.rungs else bed.top
        rungs: Rungs[int] = Rungs(
            bed.steps[lowest:], FACTOR, bed.objectives, audit=self.audit, seed=seed
        )
        while (chosen := _next(strategy, rungs)) is not None:
            number, rung = chosen
            rungs.start(number, rung)
            candidate = strategy.candidates[number]
            row, reached = candidate.architecture, lowest + rung
            yield Training(row, reached)
            metrics = bed.space.rows[row].at(reached)
            strategy.tell(candidate, metrics, fidelity=bed.steps[reached] / bed.steps[-1])
            rungs.record(number, rung, metrics)

    def _strategy(self, bed: Bed, seed: int) -> Strategy:
        rows, cost = bed.space.rows, bed.objectives[1]
        found: Strategy = create_strategy(
            self.strategy,
            space=self.view(bed.space) if self.view else bed.space,
            objectives=bed.objectives,
            seed=seed,
            known_costs=(lambda row: {cost: rows[row].metrics[cost]}) if self.exact_cost else None,
            **self.options,
        )
        return found


def _next(strategy: Strategy, rungs: Rungs[int]) -> tuple[int, int] | None:
    """The candidate to train now, by number, and the rung."""
    if promotion := rungs.next_promotion():
        return promotion
    try:
        return strategy.ask().number, 0
    except SpaceExhausted:
        return rungs.drain()


@dataclass(frozen=True)
class Optuna:
    """A sampler of Optuna over the flat choices.

    What it draws becomes the nearest row that was not trained yet: that row's own choices are
    enqueued, so that the sampler is told of what was trained, not of what it wished for. Choices
    that do not apply to the row stay as drawn. A trial that halving has stopped is told with what
    it had reached, as Ray Tune's OptunaSearch does.
    """

    sampler: Callable[[int], optuna.samplers.BaseSampler]
    integers: bool = True
    """Whether ordered values are coded as integers; else all are labels."""
    halving: NewHalving | None = None
    marks: bool = False
    """Whether the sampler marks what it draws, as NSGA-II does with generations, and knows nothing
    of what bears no mark."""

    def __call__(self, bed: Bed, seed: int) -> Trainings:
        """What it trains."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        domains = bed.space.domains()
        coded = distributions(domains, self.integers)
        study = optuna.create_study(directions=["minimize"] * 2, sampler=self.sampler(seed))
        wanted = Objectives.of(bed.objectives)
        halving = self.halving(bed, seed) if self.halving else None
        trained: set[int] = set()
        while len(trained) < len(bed.space.rows):
            draw = study.ask(coded)
            study.tell(draw, state=TrialState.FAIL)
            decisions = {n: domains[n].values[place] for n, place in draw.params.items()}
            row = next(r for r in bed.space.nearest(decisions) if r not in trained)
            held = {n: domains[n].values.index(v) for n, v in bed.space.decisions(row).items()}
            study.enqueue_trial({**draw.params, **held})
            trial = study.ask(coded)
            if self.marks:
                _ = trial.relative_params  # drawn only when looked at
            trained.add(row)
            rung = yield from climb(bed, row, halving)
            study.tell(trial, wanted.row(bed.space.rows[row].at(rung)))


@dataclass(frozen=True)
class Drawn:
    """Rows drawn at random, each trained on while halving lets it."""

    halving: NewHalving

    def __call__(self, bed: Bed, seed: int) -> Trainings:
        """What it trains."""
        halving = self.halving(bed, seed)
        rows = range(len(bed.space.rows))
        for row in random.Random(seed).sample(rows, len(rows)):
            yield from climb(bed, row, halving)


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
                yield Training(row, bed.top)


BASELINE = "random"
PARETO = Ours("pareto")
PARETO_RUNGS = replace(PARETO, rungs=True)
OURS = "pareto", "pareto-rungs"
"""What the service does by default, without rungs and with them."""
RIVALS: dict[str, Rival] = {
    "pareto": PARETO,
    BASELINE: Ours("random"),
    "homogeneous": Ours("homogeneous"),
    "cost-strata": cheapest_first,
    "regularized-evolution": Ours("regularized_evolution"),
    "optuna-nsga2": Optuna(nsga2, marks=True),
    "optuna-tpe": Optuna(tpe),
    "optuna-gp-integer": Optuna(gp),
    "optuna-gp-categorical": Optuna(gp, integers=False),
}
"""Compared on every bed. Each row is trained in full."""
WITH_RUNGS: dict[str, Rival] = {
    "pareto-rungs": PARETO_RUNGS,
    "random-rungs": Ours("random", rungs=True),
    "ray-asha-optuna-tpe": Optuna(tpe, halving=RayAsha),
    "moasha-random": Drawn(MoAsha),
}
"""Compared where the bed has rungs."""
ABLATIONS: dict[str, Rival] = {
    "pareto, cost not known": replace(PARETO, exact_cost=False),
    "pareto, one-hot": replace(PARETO, view=one_hot),
    "pareto, segments of rows": replace(PARETO, view=segmented),
    "pareto, no exploration": replace(PARETO, options={"exploration": 0.0}),
    "pareto, exploration 0.3": replace(PARETO, options={"exploration": 0.3}),
    "our nsga2": Ours("nsga2"),
    "our tpe": Ours("tpe"),
}
"""One thing changed at a time, and the service's other strategies: asked for by name."""
ABLATIONS_WITH_RUNGS: dict[str, Rival] = {
    "rungs, cost not known": replace(PARETO_RUNGS, exact_cost=False),
    "rungs, one-hot": replace(PARETO_RUNGS, view=one_hot),
    "rungs, rows without segments": replace(PARETO_RUNGS, view=unsegmented),
    "rungs, no audit": replace(PARETO_RUNGS, audit=0.0),
}
"""The same where the bed has rungs."""
ALL = {**RIVALS, **WITH_RUNGS, **ABLATIONS, **ABLATIONS_WITH_RUNGS}
