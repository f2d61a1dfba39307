from __future__ import annotations

import pytest

from nas.search import SpaceExhausted, Strategy, create_strategy
from nas.search.strategies import homogeneous
from search_spaces import load_space


def test_only_homogeneous_architectures_and_each_of_them() -> None:
    space = load_space("tiny")
    grid = {space.fingerprint(a) for a in space.homogeneous()}
    strategy = create_strategy("homogeneous", space=space, objectives=["loss"])
    asked = [strategy.ask() for _ in grid]
    assert {c.fingerprint for c in asked} == grid
    assert all(c.architecture.homogeneous for c in asked)
    with pytest.raises(SpaceExhausted):
        strategy.ask()


def test_the_order_is_drawn_by_the_seed() -> None:
    space = load_space("tiny")
    orders = []
    for seed in (0, 1):
        strategy = create_strategy("homogeneous", space=space, objectives=["loss"], seed=seed)
        orders.append([strategy.ask().fingerprint for _ in range(64)])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_a_grid_too_large_to_list_is_drawn_from() -> None:
    space = load_space("efficient-lm")
    strategy = create_strategy("homogeneous", space=space, objectives=["loss"])
    asked = [strategy.ask().architecture for _ in range(200)]
    assert all(a.homogeneous for a in asked)
    assert {a.depth for a in asked} == {1, 2, 3, 4}


def test_a_large_grid_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homogeneous, "LISTED", 10)
    space = load_space("tiny")
    strategy = create_strategy("homogeneous", space=space, objectives=["loss"])
    with pytest.raises(SpaceExhausted):
        ask_forever(strategy)
    assert 50 < len(strategy.candidates) <= 64


def ask_forever(strategy: Strategy) -> None:
    while strategy.ask():
        pass
