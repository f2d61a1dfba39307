"""TPE: Optuna's multi-objective tree-structured Parzen estimator, over a space's flat choices."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import TrialState

from nas.search.space import Architecture
from nas.search.standings import Standings
from nas.search.strategy import Candidate, Proposal, Strategy
from search_spaces.errors import InvalidArchitecture
from search_spaces.values import Domain, Scalar

Choices: TypeAlias = dict[str, int]
"""For each decision of the space, the place of its value in its domain."""
Observation: TypeAlias = tuple[Choices, tuple[float, ...] | None]
"""What was chosen, and what came of it where that is known."""

ENOUGH = 3
"""A fidelity is learned from once it has so many times ``startup_trials`` results."""
REDRAWS = 4
"""So many invalid draws in a row before the last one is repaired, or varied if it is known."""
FAR = 1e30
"""Beyond every objective: what breaks a constraint is dominated by all that does not."""


class Tpe(Strategy):
    """Densities of the choices of good and of other trials; proposed is what sets them apart.

    Trials are compared at the highest fidelity with enough results (as in BOHB, Falkner et al.
    2018, arXiv:1807.01774); those without a result there, failed ones too, count as not good. A
    decision that does not matter for an architecture is filled at random, so that all share one
    joint density.
    Source: Ozaki et al. 2022, doi:10.1613/jair.1.13188.
    """

    def __init__(self, *args: Any, startup_trials: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._startup_trials = startup_trials
        self._domains = dict(self._space.domains())
        self._choices: dict[int, Choices] = {}
        self._study = _Study(
            len(self._objectives.names), {n: _distribution(d) for n, d in self._domains.items()}
        )

    def _proposals(self, rng: random.Random) -> Iterator[Proposal]:
        told = self._told(at_least=ENOUGH * self._startup_trials)
        if told is None or len(told[1]) < self._startup_trials:
            while True:
                yield self._space.sample(rng), "random"
        self._study.follow(self._observations(told[1]))
        # a fresh sampler for each ask: one that lives on would not survive a rebuild
        sampler = optuna.samplers.TPESampler(
            seed=rng.getrandbits(32), multivariate=True, constant_liar=True
        )
        while True:
            proposed = self._valid(sampler)
            yield proposed, "tpe"
            for _ in range(REDRAWS):
                proposed = self._space.mutate(proposed, rng)
                yield proposed, "mutation"

    def _valid(self, sampler: optuna.samplers.BaseSampler) -> Architecture:
        for _ in range(REDRAWS):
            decisions = self._decisions(self._study.draw(sampler))
            try:
                return self._space.assemble(decisions)
            except InvalidArchitecture:
                continue  # the study has it as a failure already
        return self._repaired(decisions)

    def _repaired(self, wanted: Mapping[str, Scalar]) -> Architecture:
        """The candidate that has most of the wanted decisions, with as many more as it can take."""
        known = [(c, self._space.decisions(c.architecture)) for c in self._inside]
        nearest, held = max(known, key=lambda item: _shared(wanted, item[1]))
        repaired = nearest.architecture
        decisions = {**wanted, **held}
        for name in [n for n in self._domains if decisions[n] != wanted[n]]:
            try:
                repaired = self._space.assemble({**decisions, name: wanted[name]})
            except InvalidArchitecture:
                continue  # it keeps what it had
            decisions[name] = wanted[name]
        return repaired

    def _observations(self, standings: Standings[int]) -> list[Observation]:
        values = {
            number: _values(row, violation)
            for number, row, violation in zip(
                standings.keys, standings.rows.tolist(), standings.violations, strict=True
            )
        }
        return [(self._choices_of(c), values.get(c.number)) for c in self._inside]

    def _choices_of(self, candidate: Candidate) -> Choices:
        if candidate.number not in self._choices:
            filler = random.Random(f"{self._seed}:{candidate.number}:filler")
            held = self._space.decisions(candidate.architecture)
            self._choices[candidate.number] = {
                name: domain.values.index(held[name])
                if name in held
                else filler.randrange(len(domain.values))
                for name, domain in self._domains.items()
            }
        return self._choices[candidate.number]

    def _decisions(self, choices: Choices) -> dict[str, Scalar]:
        return {name: domain.values[choices[name]] for name, domain in self._domains.items()}


class _Study:
    """An Optuna study in memory that holds the candidates in order, however they were told."""

    def __init__(self, objectives: int, distributions: Mapping[str, BaseDistribution]) -> None:
        self._objectives = objectives
        self._distributions = dict(distributions)
        self._clear()

    def follow(self, observations: Sequence[Observation]) -> None:
        """Hold these; only what is new is passed on, unless something known has changed."""
        known = zip(self._told, observations, strict=False)
        if any(told not in (None, values) for told, (_, values) in known):
            self._clear()
        for i, (choices, values) in enumerate(observations):
            if i == len(self._told):
                self._add(choices, values)
            elif values is not None and self._told[i] is None:
                self._study.tell(self._numbers[i], values)
                self._told[i] = values

    def draw(self, sampler: optuna.samplers.BaseSampler) -> Choices:
        """New choices. They are put down as failed: what becomes of them is told by ``follow``."""
        self._study.sampler = sampler
        trial = self._study.ask(self._distributions)
        self._study.tell(trial, state=TrialState.FAIL)
        self._trials += 1
        return dict(trial.params)

    def _add(self, choices: Choices, values: tuple[float, ...] | None) -> None:
        self._study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING if values is None else TrialState.COMPLETE,
                params=choices,
                distributions=self._distributions,
                values=values,
            )
        )
        self._numbers.append(self._trials)
        self._told.append(values)
        self._trials += 1

    def _clear(self) -> None:
        # Optuna says at level INFO what it does; this process has its own log
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(directions=["minimize"] * self._objectives)
        self._trials = 0
        self._numbers: list[int] = []
        self._told: list[tuple[float, ...] | None] = []


def _distribution(domain: Domain) -> BaseDistribution:
    last = len(domain.values) - 1
    return IntDistribution(0, last) if domain.ordered else CategoricalDistribution(range(last + 1))


def _values(row: Sequence[float], violation: float) -> tuple[float, ...] | None:
    """What Optuna may see of a result, such that it ranks as in ``Standings``; None if unknown."""
    if any(math.isnan(value) for value in row):
        return None
    if violation > 0:
        return (FAR * (1.0 + violation),) * len(row)
    return tuple(min(max(value, -FAR), FAR) for value in row)


def _shared(wanted: Mapping[str, Scalar], held: Mapping[str, Scalar]) -> int:
    return sum(wanted[name] == value for name, value in held.items())
