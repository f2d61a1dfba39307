"""Throughput: a cost that is known before training and is best where it is greatest."""

from __future__ import annotations

import random
import statistics

import pytest

from nas.search import create_strategy
from nas.search.strategies import STRATEGIES
from search_spaces import Architecture, load_space

SPACE = load_space("tiny")


def throughput(arch: Architecture) -> float:
    """Between 1,000 and 2,000."""
    return 1000.0 * (1 + random.Random(SPACE.fingerprint(arch)).random())


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_strategy_goes_below_the_least_that_is_wanted(name: str) -> None:
    strategy = create_strategy(
        name,
        space=SPACE,
        objectives=["loss", "throughput"],
        seed=0,
        known_costs=lambda arch: {"throughput": throughput(arch)},
        constraints=[{"metric": "throughput", "min": 1600.0}],
    )
    for _ in range(8):
        candidate = strategy.ask()
        found = throughput(candidate.architecture)
        assert found >= 1600.0
        strategy.tell(candidate, {"loss": 2.0, "throughput": found})


def test_the_default_strategy_seeks_the_fast_where_quality_is_the_same() -> None:
    strategy = create_strategy(
        "pareto",
        space=SPACE,
        objectives=["loss", "throughput"],
        seed=0,
        known_costs=lambda arch: {"throughput": throughput(arch)},
    )
    asked = []
    for _ in range(40):
        candidate = strategy.ask()
        asked.append(throughput(candidate.architecture))
        strategy.tell(candidate, {"loss": 2.0, "throughput": asked[-1]})
    rng = random.Random(1)
    anywhere = statistics.mean(throughput(SPACE.sample(rng)) for _ in range(200))
    assert statistics.median(asked[20:]) > anywhere + 100
