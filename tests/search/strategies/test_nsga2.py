from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from nas.search import Strategy, create_strategy
from nas.search.strategies.nsga2 import _crowding
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


def told(fidelities: dict[int, tuple[float, ...]], losses: dict[int, float]) -> Strategy:
    """Forty candidates, of which some are told at some fidelities."""
    strategy = create_strategy(
        "nsga2", space=Watched(), objectives=["loss"], population_size=8, crossover_probability=0.0
    )
    rng = random.Random(0)
    while len(strategy.candidates) < 40:
        strategy.adopt(SPACE.sample(rng), "random")
    for number, levels in fidelities.items():
        for fidelity in levels:
            strategy.tell(
                strategy.candidates[number], {"loss": losses[number] / fidelity}, fidelity
            )
    return strategy


def parents(strategy: Strategy, asks: int = 60) -> set[int]:
    """Numbers of the candidates from which children are bred."""
    numbers = {c.fingerprint: c.number for c in strategy.candidates}
    for _ in range(asks):
        assert strategy.ask().origin == "mutation"
    watched = strategy._space
    assert isinstance(watched, Watched)
    return {numbers[f] for f in watched.bred_from if f in numbers}


def test_before_enough_is_known_it_samples_some_homogeneous() -> None:
    strategy = create_strategy("nsga2", space=SPACE, objectives=["loss"], population_size=16)
    asked = [strategy.ask() for _ in range(20)]
    assert [c.origin for c in asked[:4]] == ["homogeneous", "random", "random", "random"]
    assert all(c.architecture.homogeneous for c in asked[:16:4])
    assert "homogeneous" in {c.origin for c in asked[16:]}, "nothing was told to breed from"


def test_parents_are_the_better_half() -> None:
    strategy = told(dict.fromkeys(range(16), (1.0,)), {n: 1.0 + n for n in range(16)})
    bred = parents(strategy)
    assert bred <= set(range(8))
    assert bred >= set(range(6)), "tournaments leave out the last now and then"


def test_results_of_different_fidelities_do_not_compete() -> None:
    # numbers 0-15 are told early only, with losses that look bad beside those told in full;
    # 16 and 17 were trained in full, 17 only to be audited
    fidelities: dict[int, tuple[float, ...]] = dict.fromkeys(range(16), (1 / 9,))
    fidelities |= {16: (1 / 9, 1.0), 17: (1 / 9, 1.0)}
    strategy = told(fidelities, {n: 1.0 + n for n in range(16)} | {16: 0.5, 17: 90.0})
    breeding = parents(strategy)
    assert 16 in breeding
    assert 17 not in breeding
    assert breeding & set(range(8))


def test_what_failed_does_not_breed() -> None:
    strategy = told(dict.fromkeys(range(16), (1.0,)), {n: 1.0 + n for n in range(16)})
    strategy.fail(strategy.candidates[0], "diverged")
    assert 0 not in parents(strategy)


def test_what_the_space_no_longer_has_does_not_breed() -> None:
    strategy = create_strategy("nsga2", space=SPACE, objectives=["loss"], population_size=4)
    foreign = strategy.adopt(load_space("tiny").sample(3), "reused")
    strategy.tell(foreign, {"loss": 0.0})
    for _ in range(20):
        candidate = strategy.ask()
        strategy.tell(candidate, {"loss": 1.0})
        assert SPACE.contains(candidate.architecture)


def test_crowding_is_the_distance_between_neighbours_of_a_rank() -> None:
    rows = np.array([[0.0, 4.0], [1.0, 3.0], [2.0, 0.5], [4.0, 0.0], [9.0, 9.0]])
    crowding = _crowding(rows, np.array([0, 0, 0, 0, 1]))
    assert crowding[[0, 3, 4]].tolist() == [np.inf] * 3
    assert crowding[1] == pytest.approx(2 / 4 + 3.5 / 4)
    assert crowding[2] == pytest.approx(3 / 4 + 3 / 4)
