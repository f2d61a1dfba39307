"""Optuna's samplers as they are compared, and the decisions of a space coded for them."""

from __future__ import annotations

from collections.abc import Mapping

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from search_spaces.values import Domain


def distributions(
    domains: Mapping[str, Domain], integers: bool = True
) -> dict[str, BaseDistribution]:
    """Of the place of each decision's value in its domain.

    integers: whether ordered values are coded as integers; else all are labels.
    """
    return {name: _distribution(domain, integers) for name, domain in domains.items()}


def _distribution(domain: Domain, integers: bool) -> BaseDistribution:
    last = len(domain.values) - 1
    if integers and domain.ordered:
        return IntDistribution(0, last)
    return CategoricalDistribution(range(last + 1))


def nsga2(seed: int) -> optuna.samplers.BaseSampler:
    """NSGA-II, of a population as small as the budgets here."""
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=16)


def tpe(seed: int) -> optuna.samplers.BaseSampler:
    """The tree-structured Parzen estimator."""
    return optuna.samplers.TPESampler(seed=seed, multivariate=True)


def gp(seed: int) -> optuna.samplers.BaseSampler:
    """The Gaussian process."""
    return optuna.samplers.GPSampler(seed=seed)
