"""Coarse to fine, and with fewer trials than chance needs."""

from __future__ import annotations

import numpy as np
import pytest

from nas.search import create_strategy
from nas.search.pareto import hypervolume
from nas.search.strategies import pareto
from search_spaces import Architecture, load_space

SPACE = load_space("efficient-lm")


def parameters(arch: Architecture) -> float:
    return 10 ** (SPACE.describe(arch)["log_parameters"] / np.log(10))


def loss(arch: Architecture) -> float:
    """Size helps, and each mechanism by its place: nothing that a model could not learn."""
    found = SPACE.describe(arch)
    early, late = found["attention.longformer.quarter_1"], found["attention.full.quarter_4"]
    return float(5 - 0.25 * found["log_parameters"] - 0.3 * late - 0.2 * early)


def searched(name: str, seed: int, trials: int) -> tuple[float, list[Architecture]]:
    """Hypervolume after so many trials, and what was tried."""
    strategy = create_strategy(
        name,
        space=SPACE,
        objectives=["loss", "parameters"],
        seed=seed,
        known_costs=lambda arch: {"parameters": parameters(arch)},
    )
    for _ in range(trials):
        candidate = strategy.ask()
        strategy.tell(candidate, {"loss": loss(candidate.architecture)})
    tried = [c.architecture for c in strategy.candidates]
    rows = np.array([(loss(a), np.log10(parameters(a))) for a in tried])
    return hypervolume(rows, [4.0, 6.0]), tried


def test_it_starts_with_the_cheapest_and_the_dearest_homogeneous_architecture() -> None:
    _, tried = searched("pareto", seed=0, trials=6)
    assert all(arch.homogeneous for arch in tried)
    sizes = [parameters(arch) for arch in tried]
    assert sizes[0] == min(sizes)
    assert sizes[1] == max(sizes)
    assert sizes[1] > 20 * sizes[0]


def test_it_gets_further_than_chance_in_as_many_trials() -> None:
    here, there = (
        [searched(name, seed, trials=30)[0] for seed in range(3)] for name in ("pareto", "random")
    )
    assert np.mean(here) > np.mean(there) + 0.1


def test_a_level_that_promises_little_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pareto, "SHARE", 1.0)  # only the most promising level will do
    _, tried = searched("pareto", seed=0, trials=30)
    assert not all(arch.homogeneous for arch in tried[10:])
    monkeypatch.setattr(pareto, "SHARE", 0.0)  # the coarsest always does
    monkeypatch.setattr(pareto, "LEVELS", (1, 1, None))
    _, tried = searched("pareto", seed=0, trials=30)
    assert sum(arch.homogeneous for arch in tried) > 24, "but for exploration"


def test_what_a_rung_lets_expect_follows_those_who_went_on() -> None:
    rung = np.array([[4.0, 1.0], [3.0, 2.0], [3.5, 3.0], [np.nan, 4.0]])
    end = np.array([[3.0, 1.0], [2.0, 2.0], [np.nan, 3.0]])
    expected = pareto._extrapolated(rung, rung[:3], end)
    np.testing.assert_allclose(expected[:3], [[3.0, 1.0], [2.0, 2.0], [2.5, 3.0]])
    assert np.isnan(expected[3, 0])
    np.testing.assert_array_equal(pareto._extrapolated(rung, rung[:0], end[:0]), rung)


def test_how_bad_a_bad_result_is_does_not_matter() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 1e9])
    np.testing.assert_array_equal(pareto._tamed(values), [1, 2, 3, 4, 5])


def test_of_many_results_the_front_and_the_latest_are_fitted() -> None:
    rows = np.column_stack((np.arange(1000.0), np.zeros(1000)))
    chosen = pareto._most_telling(rows)
    assert len(chosen) == pareto.MOST_FITTED
    assert chosen[0] == 0
    assert chosen[1] == 1000 - pareto.MOST_FITTED + 1
