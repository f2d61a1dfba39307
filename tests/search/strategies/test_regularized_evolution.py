from __future__ import annotations

import random
from typing import Any

from nas.search import Strategy, create_strategy
from search_spaces import Architecture, load_space

SPACE = load_space("efficient-lm")


class Watched:
    """A space that notes from what its mutants are bred."""

    def __init__(self) -> None:
        self.bred_from: list[str] = []

    def mutate(self, arch: Architecture, rng: random.Random) -> Architecture:
        self.bred_from.append(arch.fingerprint())
        return SPACE.mutate(arch, rng)

    def __getattr__(self, name: str) -> Any:
        return getattr(SPACE, name)


def created(**options: Any) -> Strategy:
    """With thirty candidates of which nothing was told."""
    given = {"objectives": ["loss"], "population_size": 8, "sample_size": 8} | options
    strategy = create_strategy("regularized_evolution", space=Watched(), **given)
    rng = random.Random(0)
    while len(strategy.candidates) < 30:
        strategy.adopt(SPACE.sample(rng), "random")
    return strategy


def parents(strategy: Strategy, asks: int = 12) -> set[int]:
    """Numbers of the candidates from which children are bred."""
    numbers = {c.fingerprint: c.number for c in strategy.candidates}
    for _ in range(asks):
        assert strategy.ask().origin == "mutation"
    watched = strategy._space
    assert isinstance(watched, Watched)
    return {numbers[f] for f in watched.bred_from if f in numbers}


def test_the_best_of_the_latest_has_the_child_and_the_oldest_die() -> None:
    strategy = created()
    for candidate in strategy.candidates:  # the older, the better
        strategy.tell(candidate, {"loss": float(candidate.number)})
    assert parents(strategy) == {22}


def test_a_small_sample_lets_others_breed() -> None:
    strategy = created(sample_size=2)
    for candidate in strategy.candidates:
        strategy.tell(candidate, {"loss": float(candidate.number)})
    bred = parents(strategy, asks=60)
    assert len(bred) > 3
    assert 29 not in bred, "the worst loses each tournament of two"


def test_to_have_passed_a_hurdle_is_worth_more_than_any_result_before_it() -> None:
    strategy = created()
    for candidate in strategy.candidates[22:]:
        strategy.tell(candidate, {"loss": 1.0}, fidelity=1 / 3)
    for number, loss in ((24, 5.0), (25, 4.0)):
        strategy.tell(strategy.candidates[number], {"loss": loss}, fidelity=1.0)
    assert parents(strategy) == {25}


def test_several_objectives_and_a_constraint_are_ranked_as_everywhere() -> None:
    strategy = created(
        objectives=["loss", "expected_depth"],
        constraints=[{"metric": "accuracy", "min": 0.5}],
        sample_size=4,
    )
    rows = {22: (1.0, 4.0), 23: (4.0, 1.0), 24: (5.0, 5.0), 25: (0.0, 0.0)}
    for candidate in strategy.candidates[22:]:
        loss, depth = rows.get(candidate.number, (6.0, 6.0 + candidate.number))
        accuracy = 0.1 if candidate.number == 25 else 0.9
        metrics = {"loss": loss, "expected_depth": depth, "accuracy": accuracy}
        strategy.tell(candidate, metrics)
    bred = parents(strategy, asks=40)
    assert bred >= {22, 23}
    assert 25 not in bred


def test_before_anything_is_told_it_samples() -> None:
    strategy = created()
    assert {strategy.ask().origin for _ in range(5)} == {"random"}
