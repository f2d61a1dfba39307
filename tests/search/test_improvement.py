"""The closed form against what it stands for: the mean gain in hypervolume over many draws."""

from __future__ import annotations

import numpy as np
import pytest

from nas.search import improvement
from nas.search.improvement import Grid, Promises
from nas.search.pareto import hypervolume


def drawn(n: int, m: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Qualities (n,), costs (n, m) and a reference point (1 + m,)."""
    rng = np.random.default_rng(seed)
    return rng.random(n), rng.random((n, m)), np.full(1 + m, 1.1)


def gain(quality: np.ndarray, costs: np.ndarray, reference: np.ndarray, row: np.ndarray) -> float:
    rows = np.column_stack((quality, costs))
    return hypervolume(np.vstack((rows, row)), reference) - hypervolume(rows, reference)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_a_certain_quality_gains_what_the_hypervolume_gains(
    m: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(improvement, "MAX_CELLS", 20_000)
    quality, costs, reference = drawn(9, m, seed=m)
    candidates = np.random.default_rng(7).random((30, 1 + m)) * 1.2
    grid = Grid.of(quality, costs, reference)
    found = grid.expected_improvement(candidates[:, 0], np.zeros(30), candidates[:, 1:])
    expected = [gain(quality, costs, reference, row) for row in candidates]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert max(expected) > 0.001


@pytest.mark.parametrize("m", [1, 2])
def test_an_uncertain_quality_gains_the_mean_over_its_draws(m: int) -> None:
    quality, costs, reference = drawn(6, m, seed=3)
    candidate = np.full(m, 0.4)
    draws = np.random.default_rng(1).normal(0.3, 0.2, 4000)
    gains = [gain(quality, costs, reference, np.array([q, *candidate])) for q in draws]
    grid = Grid.of(quality, costs, reference)
    (found,) = grid.expected_improvement([0.3], [0.2], candidate[None])
    assert found == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / 4000**0.5)


def test_unknown_and_worthless_results_count_for_nothing() -> None:
    quality, costs, reference = drawn(5, 1, seed=4)
    grid = Grid.of(quality, costs, reference)
    more = Grid.of([*quality, np.nan, 2.0], [*costs, [0.1], [0.1]], reference)
    candidates = [0.2, 0.5], [0.1, 0.1], [[0.3], [0.9]]
    np.testing.assert_array_equal(
        grid.expected_improvement(*candidates), more.expected_improvement(*candidates)
    )


def test_without_results_all_below_the_reference_is_gained() -> None:
    grid = Grid.of([], np.zeros((0, 2)), [1.0, 1.0, 1.0])
    (found,) = grid.expected_improvement([0.5], [0.0], [[0.25, 0.5]])
    assert found == pytest.approx(0.5 * 0.75 * 0.5)


def test_more_cells_than_fit_are_grouped_and_promise_no_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quality, costs, reference = drawn(40, 3, seed=5)
    candidates = np.random.default_rng(2).random((20, 4))
    exact = Grid.of(quality, costs, reference)
    monkeypatch.setattr(improvement, "MAX_CELLS", 200)
    grouped = Grid.of(quality, costs, reference)
    assert grouped.best.size <= 200 < exact.best.size
    found, wanted = (
        g.expected_improvement(candidates[:, 0], np.zeros(20), candidates[:, 1:])
        for g in (grouped, exact)
    )
    assert (found >= wanted - 1e-12).all()
    assert np.corrcoef(found, wanted)[0, 1] > 0.5


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_larger_cells_let_expect_no_less(m: int) -> None:
    quality, costs, reference = drawn(60, m, seed=m)
    rng = np.random.default_rng(8)
    rows, deviation = rng.random((200, 1 + m)) * 1.3, rng.random(200) * 0.3
    grid = Grid.of(quality, costs, reference)
    coarse = grid.coarse()
    assert coarse.best.size <= improvement.COARSE_CELLS
    assert coarse.best.size <= grid.best.size
    exact, most = (
        g.expected_improvement(rows[:, 0], deviation, rows[:, 1:]) for g in (grid, coarse)
    )
    assert (exact <= most + 1e-12).all()
    assert np.corrcoef(exact, most)[0, 1] > 0.8


def test_the_greatest_is_found_without_looking_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    quality, costs, reference = drawn(300, 2, seed=9)
    rng = np.random.default_rng(3)
    rows, deviation = rng.random((500, 3)), np.full(500, 0.02)
    grid = Grid.of(quality, costs, reference)
    expected = grid.expected_improvement(rows[:, 0], deviation, rows[:, 1:])
    looked_at: list[int] = []
    exact = Grid.expected_improvement

    def counted(self: Grid, *args: np.ndarray) -> np.ndarray:
        if self is grid:
            looked_at.append(len(args[0]))
        return exact(self, *args)

    monkeypatch.setattr(Grid, "expected_improvement", counted)
    promises = Promises(grid, rows[:, 0], deviation, rows[:, 1:])
    assert promises.greatest(np.arange(500)) == (expected.max(), expected.argmax())
    assert sum(looked_at) < 250
    some = np.arange(100, 300)
    assert promises.greatest(some) == (expected[some].max(), some[expected[some].argmax()])
    looked_at.clear()
    promises.greatest(some)
    assert not looked_at, "what was taken once is known"


def test_where_nothing_is_to_be_expected_nothing_is_the_greatest() -> None:
    grid = Grid.of([0.0], [[0.0]], [1.0, 1.0])
    promises = Promises(grid, [0.5, 0.7], [0.0, 0.0], [[0.5], [0.9]])
    assert promises.greatest(np.arange(2)) == (0.0, -1)
    assert promises.greatest(np.arange(0)) == (0.0, -1)
    none = Promises(grid, [], [], np.zeros((0, 1)))
    assert none.greatest(np.arange(0)) == (0.0, -1)
