"""Rank correlations against the library's, and what is left when size is taken out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from nas.search.trust import Agreement, agreement, agreement_beyond, residuals


@pytest.mark.parametrize("n", [3, 4, 10, 57, 400])
@pytest.mark.parametrize("values", [2, 5, 10**6])
@pytest.mark.parametrize("weight", [-1.0, 0.0, 1.0])
def test_correlations_are_the_librarys_ties_included(n: int, values: int, weight: float) -> None:
    rng = np.random.default_rng(n * values)
    x = rng.integers(0, values, n).astype(float)
    y = rng.integers(0, values, n) + weight * x
    found = agreement(x, y)
    assert found.n == n
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert (found.kendall, found.spearman) == (None, None)
        return
    assert found.kendall == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    assert found.spearman == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_few_pairs_say_so_and_fewer_say_nothing() -> None:
    assert agreement([], []) == Agreement(0, None, None)
    assert agreement([1, 2], [1, 2]) == Agreement(2, None, None)
    assert agreement([1, 2, 3], [1, 2, 3]) == Agreement(3, pytest.approx(1), pytest.approx(1))
    assert agreement(range(9), range(9)).too_few
    assert not agreement(range(10), range(10)).too_few


def test_what_is_not_known_is_left_out_with_its_partner() -> None:
    found = agreement([1, 2, math.nan, 3, 4], [1, 2, 3, math.inf, 4])
    assert found == Agreement(3, pytest.approx(1), pytest.approx(1))


def test_ties_alone_have_no_order() -> None:
    assert agreement([1, 1, 1, 1], [1, 2, 3, 4]) == Agreement(4, None, None)


def test_size_explains_what_it_explains() -> None:
    rng = np.random.default_rng(1)
    size = rng.uniform(0, 10, 300)
    skill = rng.normal(0, 1, 300)
    early = size + rng.normal(0, 1, 300)  # of skill it knows nothing
    final = size + skill
    raw = agreement(early, final)
    beyond = agreement_beyond(early, final, size)
    assert raw.spearman is not None
    assert raw.spearman > 0.85
    assert beyond.spearman is not None
    assert abs(beyond.spearman) < 0.15
    knowing = agreement_beyond(size + skill + rng.normal(0, 0.1, 300), final, size)
    assert knowing.spearman is not None
    assert knowing.spearman > 0.95
    expected = stats.spearmanr(
        *(v - np.polyval(np.polyfit(size, v, 1), size) for v in (early, final))
    ).statistic
    assert beyond.spearman == pytest.approx(expected, abs=1e-6)


def test_what_size_explains_wholly_has_no_order_left() -> None:
    size = np.linspace(0, 1, 20)
    assert agreement_beyond(3 * size + 1, -0.3 * size, size) == Agreement(20, None, None)
    assert agreement_beyond([1, 2, 3], [1, 2, 3], [1, 1, 2]) == Agreement(3, None, None)
    assert agreement_beyond([1, 2, 3, 5], [1, 2, 3, 4], [math.nan, 1, 2, 3]).n == 3


def test_one_size_takes_nothing_out() -> None:
    values = np.array([1.0, 4.0, 2.0])
    np.testing.assert_allclose(residuals(values, np.ones(3)), values - values.mean())
