"""Hyperparameters: chosen by few of the results, fitted ahead, and always the same."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from nas.search import tuning
from nas.search.surrogate import Hyperparameters, likeliest, tamed
from nas.search.tuning import MOST_TUNED, Tuning

POINTS = np.random.default_rng(0).normal(size=(80, 3))
VALUES = np.sin(POINTS).sum(axis=1)


def counted(fit: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a fit say by its signal how many results it was made of."""

    def stand_in(points: np.ndarray, values: np.ndarray) -> Hyperparameters:
        fit(len(values))
        return Hyperparameters(np.ones(points.shape[1]), signal=float(len(values)))

    monkeypatch.setattr(tuning, "likeliest", stand_in)


def chosen(made: Tuning, results: int) -> int:
    return int(made.hyperparameters(POINTS[:results], VALUES[:results]).signal)


def test_they_are_the_likeliest_for_the_first_results() -> None:
    found = Tuning().hyperparameters(POINTS, VALUES)
    expected = likeliest(POINTS[:48], tamed(VALUES[:48]))
    np.testing.assert_array_equal(found.weights, expected.weights)
    assert (found.signal, found.noise) == (expected.signal, expected.noise)


def test_more_results_change_them_seldom_and_at_last_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fits: list[int] = []
    counted(fits.append, monkeypatch)
    made = Tuning()
    sizes = [chosen(made, results) for results in range(1, 81)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) <= 8
    assert len(fits) == len(set(fits)) == len(set(sizes)), "each fit once"
    assert set(sizes[MOST_TUNED - 1 :]) == {48}


def test_the_next_fit_is_begun_ahead_and_not_waited_for_before_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def fit(results: int) -> None:
        if results == 48:
            begun.set()
            assert go_on.wait(60)

    counted(fit, monkeypatch)
    made = Tuning()
    assert chosen(made, 48) == 32
    assert begun.wait(60)
    assert chosen(made, 50) == 32
    threading.Timer(0.05, go_on.set).start()
    assert chosen(made, 51) == 48, "due, and so waited for"


def test_other_results_have_other_hyperparameters_in_whatever_order_they_are_asked_for() -> None:
    one, other = Tuning(), Tuning()
    results = [(POINTS[:n], VALUES[:n]) for n in (5, 20, 80)] + [(POINTS, VALUES[::-1].copy())]
    forth = [one.hyperparameters(*r).weights for r in results]
    back = [other.hyperparameters(*r).weights for r in reversed(results)]
    for a, b in zip(forth, reversed(back), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len({w.tobytes() for w in forth}) == 4


def test_what_goes_wrong_in_a_fit_is_raised_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fit(results: int) -> None:
        raise np.linalg.LinAlgError("not positive definite")

    counted(fit, monkeypatch)
    with pytest.raises(np.linalg.LinAlgError, match="not positive"):
        chosen(Tuning(), 4)
