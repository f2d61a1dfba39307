"""TPE: Optuna's multi-objective tree-structured Parzen estimator, over a space's flat choices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from nas.search.optuna_study import Choices, StudySearch, quiet_study
from nas.search.standings import Standings

Observation: TypeAlias = tuple[Choices, tuple[float, ...] | None]
"""What was chosen, and what came of it where that is known."""

FAR = 1e30
"""Beyond every objective: what breaks a constraint is dominated by all that does not."""


class Tpe(StudySearch):
    """Densities of the choices of good and of other trials; proposed is what sets them apart.

    Those without a result at the fidelity that is learned from, failed ones too, count as not
    good.
    Source: Ozaki et al. 2022, doi:10.1613/jair.1.13188.
    """

    origin = "tpe"
    draws = 4
    mutations = 4

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held = _Held(len(self._objectives.names), self._distributions)

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        return _Sampler(self._distributions, seed)

    def _study_of(self, standings: Standings[int]) -> optuna.Study:
        values = {
            number: _values(row, violation)
            for number, row, violation in zip(
                standings.keys, standings.rows.tolist(), standings.violations, strict=True
            )
        }
        return self._held.follow(
            [(self._choices_of(c), values.get(c.number)) for c in self._inside]
        )


class _Sampler(optuna.samplers.TPESampler):
    """One that need not go through all trials to find what they have in common: all of it."""

    def __init__(self, distributions: Mapping[str, BaseDistribution], seed: int) -> None:
        super().__init__(seed=seed, multivariate=True, constant_liar=True)
        self._common = {
            name: distributions[name]
            for name in sorted(distributions)
            if not distributions[name].single()
        }

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Every decision of the space."""
        return self._common


class _Held:
    """An Optuna study in memory that holds the candidates in order, however they were told."""

    def __init__(self, objectives: int, distributions: Mapping[str, BaseDistribution]) -> None:
        self._objectives = objectives
        self._distributions = dict(distributions)
        self._clear()

    def follow(self, observations: Sequence[Observation]) -> optuna.Study:
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
        return self._study

    def _add(self, choices: Choices, values: tuple[float, ...] | None) -> None:
        # draws are trials of the study too, so that numbers have gaps
        self._numbers.append(len(self._study.get_trials(deepcopy=False)))
        self._told.append(values)
        self._study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING if values is None else TrialState.COMPLETE,
                params=choices,
                distributions=self._distributions,
                values=values,
            )
        )

    def _clear(self) -> None:
        self._study = quiet_study(self._objectives)
        self._numbers: list[int] = []
        self._told: list[tuple[float, ...] | None] = []


def _values(row: Sequence[float], violation: float) -> tuple[float, ...] | None:
    """What Optuna may see of a result, such that it ranks as in ``Standings``; None if unknown."""
    if any(math.isnan(value) for value in row):
        return None
    if violation > 0:
        return (FAR * (1.0 + violation),) * len(row)
    return tuple(min(max(value, -FAR), FAR) for value in row)
