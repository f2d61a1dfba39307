"""Pages of trials: complete and without repetition in every order, ties and gaps included."""

from __future__ import annotations

import random
from typing import Any

import pytest

from nas.states import TrialState
from nas.store import cursors, trial_pages, trials
from nas.store.trial_pages import SORTS
from search_spaces.errors import InvalidInput


@pytest.fixture
def job(lab: Any) -> Any:
    """A job of 30 trials, a third of them without a loss, with many equal values."""
    job = lab.running()
    rng = random.Random(0)
    with lab.together():
        for i in range(30):
            trial = lab.insert(job, i, costs={"parameters": float(rng.randrange(8))})
            if i % 3:
                metrics = {"loss": rng.randrange(5) / 4, "accuracy": 0.5}
                lab.train(job, trial, metrics, rung=i % 2 * 2)
    return job


def _walk(lab: Any, job: Any, limit: int, **arguments: Any) -> list[Any]:
    found: list[Any] = []
    cursor = None
    while True:
        with lab.store.read() as session:
            page, cursor = trial_pages.page(
                session, job.id, cursor=cursor, limit=limit, **arguments
            )
        assert len(page) == limit or cursor is None
        found += page
        if cursor is None:
            return found


def test_every_order_shows_every_trial_once(lab: Any, job: Any) -> None:
    for sort in SORTS:
        name, descending = sort.removeprefix("-"), sort.startswith("-")
        found = _walk(lab, job, 7, sort=sort)
        assert len({trial.id for trial in found}) == len(found) == 30
        values = [t.number if name == "number" else t.metrics.get(name) for t in found]
        known = [value for value in values if value is not None]
        assert known == sorted(known, reverse=descending)
        assert values[len(known) :] == [None] * (30 - len(known))


def test_every_length_of_page_gives_the_same_list(lab: Any, job: Any) -> None:
    expected = [trial.id for trial in _walk(lab, job, 1000, sort="-loss")]
    # 20 have a loss: a page may end before, at and after the last of them
    for limit in (1, 6, 19, 20, 21, 29, 30, 31):
        assert [trial.id for trial in _walk(lab, job, limit, sort="-loss")] == expected


def test_pages_of_one_state(lab: Any, job: Any) -> None:
    found = _walk(lab, job, 4, sort="loss", state=TrialState.COMPLETED)
    with lab.store.read() as session:
        everything = trials.all(session, job.id, with_curve=False)
    completed = {t.id for t in everything if t.state == TrialState.COMPLETED}
    assert {trial.id for trial in found} == completed
    assert len(found) == len(completed) > 4


def test_trials_that_are_added_meanwhile_shift_no_page(lab: Any, job: Any) -> None:
    with lab.store.read() as session:
        first, cursor = trial_pages.page(session, job.id, sort="-number", limit=10)
    lab.insert(job, 100)
    with lab.store.read() as session:
        second, _ = trial_pages.page(session, job.id, sort="-number", limit=10, cursor=cursor)
    assert [t.number for t in first + second] == list(range(30, 10, -1))


def test_an_unknown_order_is_refused_with_those_that_are_allowed(lab: Any) -> None:
    job = lab.running()
    with pytest.raises(InvalidInput) as refused, lab.store.read() as session:
        trial_pages.page(session, job.id, sort="beauty")
    (problem,) = refused.value.problems
    assert problem.pointer == "/sort"
    assert {"number", "-loss", "latency_ms"} <= set(problem.allowed)


@pytest.mark.parametrize(
    "cursor",
    [
        *("x", "!!!", "bnVsbA", "W10", "WzEsMiwzXQ", "é", "[1]"),
        cursors.encode("number", True, "trial_1"),
        cursors.encode("number", None, "trial_1"),
        cursors.encode("number", 2**63, "trial_1"),
        cursors.encode("number", 1, "trial_\0"),
    ],
)
def test_a_cursor_that_is_none_is_refused(lab: Any, cursor: str) -> None:
    job = lab.running()
    with pytest.raises(InvalidInput) as refused, lab.store.read() as session:
        trial_pages.page(session, job.id, cursor=cursor)
    assert [problem.pointer for problem in refused.value.problems] == ["/cursor"]


def test_a_cursor_of_another_order_is_refused(lab: Any) -> None:
    job = lab.running()
    for i in range(3):
        lab.insert(job, i)
    with lab.store.read() as session:
        _, cursor = trial_pages.page(session, job.id, sort="loss", limit=2)
        with pytest.raises(InvalidInput) as refused:
            trial_pages.page(session, job.id, sort="-loss", cursor=cursor)
    assert [problem.pointer for problem in refused.value.problems] == ["/cursor"]
