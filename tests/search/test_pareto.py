from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nas.search.pareto import (
    Scale,
    epsilon_net_order,
    front,
    front_beyond,
    hypervolume,
    knee,
    ranks,
    spread,
)

points = st.integers(1, 5).flatmap(
    lambda m: arrays(
        np.float64,
        st.tuples(st.integers(0, 25), st.just(m)),
        elements=st.sampled_from([0.0, 1.0, 2.0, 3.0, np.inf, np.nan]),
    )
)


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a <= b).all() and (a < b).any())


def ranks_by_definition(rows: np.ndarray) -> list[int]:
    rank = [-1] * len(rows)
    left = {i for i, row in enumerate(rows) if not np.isnan(row).any()}
    for level in itertools.count():
        layer = {i for i in left if not any(dominates(rows[j], rows[i]) for j in left)}
        for i in layer if left else range(len(rows)):
            rank[i] = level if rank[i] < 0 else rank[i]
        if not left:
            return rank
        left -= layer
    raise AssertionError


@given(points)
@settings(max_examples=200, deadline=None)
def test_ranks_and_front_are_what_the_definition_says(rows: np.ndarray) -> None:
    expected = ranks_by_definition(rows)
    assert ranks(rows).tolist() == expected
    known = ~np.isnan(rows).any(axis=1)
    assert front(rows).tolist() == [i for i, r in enumerate(expected) if r == 0 and known[i]]


def test_front_keeps_copies_and_no_nan() -> None:
    rows = [[1, 2], [1, 2], [2, 1], [3, 3], [0, float("nan")]]
    assert front(rows).tolist() == [0, 1, 2]
    assert ranks(rows).tolist() == [0, 0, 0, 1, 2]


def test_nothing_has_an_empty_front() -> None:
    assert front([]).tolist() == []
    assert front(np.zeros((0, 3))).tolist() == []
    assert ranks([]).tolist() == []
    assert hypervolume([], [1.0, 1.0]) == 0.0
    assert epsilon_net_order([]) == []
    assert spread(np.zeros((0, 2))) == []
    with pytest.raises(ValueError, match="no knee"):
        knee([])


def test_hypervolume_of_boxes() -> None:
    assert hypervolume([[1, 1]], [3, 3]) == 4.0
    assert hypervolume([[1, 2], [2, 1], [2, 2]], [3, 3]) == 3.0
    assert hypervolume([[0, 0, 0]], [1, 2, 3]) == 6.0
    assert hypervolume([[2.0], [5.0]], [7.0]) == 5.0


def test_hypervolume_counts_only_what_beats_the_reference_point() -> None:
    rows = [[1, 1], [0, 3], [float("nan"), 0], [9, 9]]
    assert hypervolume(rows, [3, 3]) == 4.0
    assert hypervolume([[3, 0]], [3, 3]) == 0.0


@given(points)
@settings(max_examples=100, deadline=None)
def test_epsilon_net_order_is_a_permutation_by_rank(rows: np.ndarray) -> None:
    order = epsilon_net_order(rows)
    assert sorted(order) == list(range(len(rows)))
    ranked = ranks(rows)[order]
    assert (np.diff(ranked) >= 0).all()
    assert epsilon_net_order(rows, limit=3) == order[:3]


def test_a_front_starts_with_its_extremes_and_goes_to_the_widest_gap() -> None:
    x = np.array([0.5, 0.0, 0.1, 0.45, 1.0, 0.8])
    rows = np.stack([x, 1 - x], axis=1) * [1.0, 1e6]
    assert spread(rows) == [1, 4, 0, 5, 2, 3]


def test_those_chosen_come_after_the_extremes_and_keep_others_away() -> None:
    x = np.array([0.0, 0.25, 0.5, 0.7, 1.0])
    rows = np.stack([x, 1 - x], axis=1)
    # without the chosen one the middle would be next; beside it 0.25 is the loneliest
    assert spread(rows) == [0, 4, 2, 1, 3]
    assert spread(rows, chosen=[3]) == [0, 4, 3, 1, 2]
    assert spread(rows, limit=2, chosen=[3]) == [0, 4]


def test_an_extreme_is_never_a_dominated_tie() -> None:
    # rows 0 and 1 are equally good in the first objective, but 1 is better in the second
    assert spread([[0, 5], [0, 2], [4, 0]])[0] == 1


def test_knee_is_the_balanced_member_of_the_front() -> None:
    rows = [[0, 100], [1, 20], [10, 0], [1, 90], [float("nan"), 0]]
    assert knee(rows) == 1


def test_scale_maps_best_to_0_and_reference_to_1() -> None:
    cost = Scale(low=100.0, high=10_000.0, log=True)
    assert cost.scaled(100.0) == 0.0
    assert cost.scaled(1_000.0) == pytest.approx(0.5)
    assert cost.scaled(10_000.0) == 1.0
    assert cost.scaled(1e6) == pytest.approx(2.0)
    accuracy = Scale(low=0.2, high=1.0, maximize=True)
    assert accuracy.scaled(1.0) == 0.0
    assert accuracy.scaled(0.2) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "scale", [Scale(2.0, 5.0), Scale(1.0, 1e6, log=True), Scale(0.1, 0.9, maximize=True)]
)
def test_scale_there_and_back(scale: Scale) -> None:
    values = np.array([scale.low, (scale.low + scale.high) / 3, scale.high])
    assert scale.original(scale.scaled(values)) == pytest.approx(values)
    assert isinstance(scale.original(scale.scaled(scale.low)), float)
    assert Scale.from_dict(scale.to_dict()) == scale


@given(points)
def test_beyond_no_interval_it_is_the_front(rows: np.ndarray) -> None:
    assert front_beyond(rows, np.zeros_like(rows)).tolist() == front(rows).tolist()


@given(points, st.sampled_from([0.5, 1.0, 2.0]))
def test_intervals_leave_no_front_empty_and_only_add_to_it(rows: np.ndarray, half: float) -> None:
    widths = np.full_like(rows, half)
    found = set(front_beyond(rows, widths).tolist())
    assert bool(found) == bool(len(front(rows)))
    # the best in an objective by more than the interval is beaten by nobody
    known = [i for i, row in enumerate(rows) if not np.isnan(row).any()]
    for column in rows.T if len(rows) else ():
        ordered = sorted(known, key=lambda i: column[i])
        ahead = len(ordered) > 1 and column[ordered[1]] > column[ordered[0]] + half * 2**0.5
        assert not ahead or ordered[0] in found
    assert front_beyond(rows, np.full_like(rows, np.inf)).tolist() == known


def test_dominance_holds_only_beyond_the_interval() -> None:
    losses, half = [[1.0, 5.0], [1.1, 5.0], [1.3, 5.0]], [[0.1, 0.0]] * 3
    # √2 · 0.1 is less than 0.3 and more than 0.1
    assert front_beyond(losses, half).tolist() == [0, 1]
    # what is cheaper wins where the losses cannot be told apart, but not where they can
    assert front_beyond([[1.0, 6.0], [1.1, 5.0]], half[:2]).tolist() == [1]
    assert front_beyond([[1.0, 6.0], [1.2, 5.0]], half[:2]).tolist() == [0, 1]
    # an unknown spread decides nothing
    assert front_beyond([[1.0, 5.0], [9.0, 9.0]], [[0.1, 0.0], [np.inf, 0.0]]).tolist() == [0, 1]


def test_members_that_beat_one_another_in_a_circle_all_stay() -> None:
    circle = [[0.0, 0.9, 1.8], [1.8, 0.0, 0.9], [0.9, 1.8, 0.0]]
    half = np.full((4, 3), 2**-0.5)  # differences of up to 1 are none
    assert front_beyond(circle, half[:3]).tolist() == [0, 1, 2]
    assert front_beyond([*circle, [5.0, 5.0, 5.0]], half).tolist() == [0, 1, 2]


def test_scale_of_what_never_varies_and_of_what_has_no_logarithm() -> None:
    assert Scale(3.0, 3.0).scaled(3.0) == 0.0
    assert np.isnan(Scale(1.0, 10.0, log=True).scaled(np.array([0.0, -1.0]))).all()
    with pytest.raises(ValueError, match="above 0"):
        Scale(0.0, 1.0, log=True)
    with pytest.raises(ValueError, match="low <= high"):
        Scale(2.0, 1.0)


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, nas.search, nas.search.pareto;"
        "heavy = {'torch', 'optuna', 'scipy', 'sklearn', 'ray', 'alembic', 'matplotlib'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
