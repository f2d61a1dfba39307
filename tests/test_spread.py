"""Pooled spreads and Student's intervals, against the library and by hand."""

from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest
from scipy import stats

from nas.spread import Estimate, Spread, pooled, pooled_rounds, student_t


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8, 17, 40, 301])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_students_t_is_the_librarys(freedom: int, confidence: float) -> None:
    expected = stats.t.ppf((1 + confidence) / 2, freedom)
    assert student_t(freedom, confidence) == pytest.approx(expected, rel=1e-10)


def test_the_spread_is_pooled_around_each_groups_own_mean() -> None:
    spread = pooled([[1.0, 3.0], [10.0, 14.0], [7.0]])
    # squares 1 + 1 and 4 + 4, with one degree of freedom each; a single value has none
    assert spread == Spread(math.sqrt(10 / 2), 2)
    assert pooled([[1.0], [2.0]]) == Spread(0.0, 0)
    one = [2.0, 3.0, 7.0, 1.0]
    assert pooled([one]).sd == pytest.approx(statistics.stdev(one))


def test_an_interval_narrows_with_repetitions_and_is_unknown_without_any() -> None:
    spread = pooled([[1.0, 3.0], [10.0, 14.0]])
    estimate = Estimate.of([1.0, 3.0], spread)
    half = stats.t.ppf(0.975, 2) * math.sqrt(5) / math.sqrt(2)
    assert (estimate.mean, estimate.n) == (2.0, 2)
    assert (estimate.low, estimate.high) == (pytest.approx(2 - half), pytest.approx(2 + half))
    assert estimate.half_width == pytest.approx(half)
    alone = Estimate.of([4.0], pooled([[4.0]]))
    assert (alone.mean, alone.low, alone.high, alone.n) == (4.0, None, None, 1)
    assert alone.half_width == math.inf


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = random.Random(0)
    held = 0
    for _ in range(500):
        groups = [[rng.gauss(mean, 0.3) for _ in range(2)] for mean in range(5)]
        spread = pooled(groups)
        estimates = [Estimate.of(group, spread) for group in groups]
        held += sum(e.low <= mean <= e.high for mean, e in enumerate(estimates))  # type: ignore[operator]
    assert held / 2500 == pytest.approx(0.95, abs=0.02)


def test_what_a_round_does_to_all_of_its_members_is_no_spread() -> None:
    rng = np.random.default_rng(0)
    own = rng.normal(0, 0.01, (4, 400))
    drift = rng.normal(0, 1.0, 400)
    spread = pooled_rounds(np.array([[1.0], [2.0], [5.0], [9.0]]) + drift + own)
    assert spread.freedom == 3 * 399
    assert spread.sd == pytest.approx(0.01, rel=0.1)
    assert pooled_rounds(np.ones((1, 9))) == Spread(0.0, 0)
    assert pooled_rounds(np.ones((9, 1))) == Spread(0.0, 0)


def test_ratios_have_a_geometric_mean() -> None:
    estimate = Estimate.of_ratios([2.0, 8.0], Spread(0.1, 30))
    half = stats.t.ppf(0.975, 30) * 0.1 / math.sqrt(2)
    assert estimate.mean == pytest.approx(4.0)
    assert estimate.low == pytest.approx(4.0 * math.exp(-half))
    assert estimate.high == pytest.approx(4.0 * math.exp(half))
