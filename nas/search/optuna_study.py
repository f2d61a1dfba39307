"""What strategies that ask an Optuna sampler share: flat choices, invalid ones repaired."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeAlias

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

ENOUGH = 3
"""A fidelity is learned from once it has so many times ``startup_trials`` results."""


class StudySearch(Strategy):
    """Random until there are ``startup_trials`` results, then what a sampler draws.

    Trials are compared at the highest fidelity with enough results (as in BOHB, Falkner et al.
    2018, arXiv:1807.01774). A decision that does not matter for an architecture is filled at
    random, so that all share one joint space. A subclass says how the results get into a study,
    and what samples from it.
    """

    origin: ClassVar[str]
    draws: ClassVar[int]
    """So many invalid draws in a row before the last one is repaired."""
    mutations: ClassVar[int]
    """So many variations, each of the one before, of a draw that is known, before the next draw."""

    def __init__(self, *args: Any, startup_trials: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._startup_trials = startup_trials
        self._domains = dict(self._space.domains())
        self._distributions = {name: _distribution(d) for name, d in self._domains.items()}
        self._choices: dict[int, Choices] = {}

    def _proposals(self, rng: random.Random) -> Iterator[Proposal]:
        told = self._told(at_least=ENOUGH * self._startup_trials)
        if told is None or len(told[1]) < self._startup_trials:
            while True:
                yield self._space.sample(rng), "random"
        study = self._study_of(told[1])
        # a fresh sampler for each ask: one that lives on would not survive a rebuild
        study.sampler = self._sampler(rng.getrandbits(32))
        while True:
            proposed = self._valid(study)
            yield proposed, self.origin
            for _ in range(self.mutations):
                proposed = self._space.mutate(proposed, rng)
                yield proposed, "mutation"

    @abstractmethod
    def _study_of(self, standings: Standings[int]) -> optuna.Study:
        """A study that holds what is known."""

    @abstractmethod
    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """What draws from it."""

    def _draw(self, study: optuna.Study) -> Choices:
        """New choices, put down as failed: what becomes of them is told with the candidate."""
        trial = study.ask(self._distributions)
        study.tell(trial, state=TrialState.FAIL)
        return dict(trial.params)

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

    def _valid(self, study: optuna.Study) -> Architecture:
        for _ in range(self.draws):
            decisions = self._decisions(self._draw(study))
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

    def _decisions(self, choices: Choices) -> dict[str, Scalar]:
        return {name: domain.values[choices[name]] for name, domain in self._domains.items()}


def quiet_study(objectives: int) -> optuna.Study:
    """An empty study in memory, of objectives that are minimised."""
    # Optuna says at level INFO what it does; this process has its own log
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(directions=["minimize"] * objectives)


def _distribution(domain: Domain) -> BaseDistribution:
    last = len(domain.values) - 1
    return IntDistribution(0, last) if domain.ordered else CategoricalDistribution(range(last + 1))


def _shared(wanted: Mapping[str, Scalar], held: Mapping[str, Scalar]) -> int:
    return sum(wanted[name] == value for name, value in held.items())
