"""What results let expect: extrapolated from rungs, modelled by the most telling, and what is
under way counted in."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from nas.search import beliefs
from nas.search.beliefs import Beliefs, Results
from nas.search.objectives import Objectives
from nas.search.pool import Pool
from nas.search.surrogate import Hyperparameters, tamed
from search_spaces import Architecture, load_space

SPACE = load_space("efficient-lm")


def size(arch: Architecture) -> float:
    return SPACE.describe(arch)["log_parameters"]


def looked_at(count: int, names: Sequence[str] = ("loss", "cost")) -> Pool:
    """A pool of random architectures, their cost being their size."""
    pool = Pool(SPACE, Objectives.of(names), lambda arch: {"cost": size(arch)})
    rng = random.Random(0)
    places = pool.look_at(SPACE.sample(rng) for _ in range(count))
    pool.standardise(places)
    return pool


def believed(pool: Pool, trained: int, noise: float = 0.0) -> Beliefs:
    """After the first have been trained, with a loss that falls with the size."""
    places = np.arange(trained)
    rng = np.random.default_rng(1)
    loss = [10 - size(pool[i]) + noise * rng.normal() for i in places]
    rows = np.column_stack((loss, pool.rows[:trained, 1]))
    results = Results(places, places, rows, np.ones(trained, dtype=bool))
    width = pool.points.shape[1]
    return Beliefs(pool, results, lambda objective: Hyperparameters(np.ones(width)))


NONE = np.arange(0)


def test_what_is_like_nothing_known_promises_more_than_what_is_known() -> None:
    pool = looked_at(300)
    made = believed(pool, 60)
    new, _ = made.promises(np.arange(60, 300), NONE).greatest(np.arange(240))
    again, _ = made.promises(np.arange(60), NONE).greatest(np.arange(60))
    assert new > again
    assert 0 < new < made.hypervolume < 1.1**2


def test_what_is_under_way_is_not_expected_to_add_twice() -> None:
    pool = looked_at(300)
    made = believed(pool, 30)
    left = np.arange(30, 300)
    before, best = made.promises(left, NONE).greatest(np.arange(270))
    after = made.promises(left, left[best : best + 1])
    assert after.greatest(np.array([best]))[0] < 0.5 * before
    assert after.greatest(np.arange(270))[0] < before


def test_none_to_look_at_promises_nothing() -> None:
    made = believed(looked_at(40), 30)
    assert made.promises(NONE, NONE).greatest(NONE) == (0.0, -1)


@pytest.mark.parametrize("feasible", [False, True])
def test_only_feasible_results_make_the_front(feasible: bool) -> None:
    pool = looked_at(40)
    places = np.arange(30)
    rows = np.column_stack((np.arange(30.0), pool.rows[:30, 1]))
    results = Results(places, places, rows, np.full(30, feasible))
    width = pool.points.shape[1]
    made = Beliefs(pool, results, lambda objective: Hyperparameters(np.ones(width)))
    assert bool(made.members) == bool(made.hypervolume) == feasible
    assert made.promises(np.arange(30, 40), NONE).greatest(np.arange(10))[0] > 0


def test_what_a_rung_lets_expect_follows_those_who_went_on() -> None:
    rung = np.array([[4.0, 1.0], [3.0, 2.0], [3.5, 3.0], [np.nan, 4.0]])
    end = np.array([[3.0, 1.0], [2.0, 2.0], [np.nan, 3.0]])
    expected = beliefs.extrapolated(rung, rung[:3], end)
    np.testing.assert_allclose(expected[:3], [[3.0, 1.0], [2.0, 2.0], [2.5, 3.0]])
    assert np.isnan(expected[3, 0])
    np.testing.assert_array_equal(beliefs.extrapolated(rung, rung[:0], end[:0]), rung)


def test_how_bad_a_bad_result_is_does_not_matter() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 1e9])
    np.testing.assert_array_equal(tamed(values), [1, 2, 3, 4, 5])


def test_of_many_results_the_front_and_the_latest_are_fitted() -> None:
    rows = np.column_stack((np.arange(1000.0), np.zeros(1000)))
    chosen = np.flatnonzero(beliefs._most_telling(rows))
    assert len(chosen) == beliefs.MOST_FITTED
    assert chosen[0] == 0
    assert chosen[1] == 1000 - beliefs.MOST_FITTED + 1
    assert beliefs._most_telling(rows[:100]).all()
