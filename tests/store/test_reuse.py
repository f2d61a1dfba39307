"""What is known from other jobs: found by key, oldest first, and worth what it had cost."""

from __future__ import annotations

from typing import Any

import pytest

from nas.states import TrialState
from nas.store import reuse


def begun(lab: Any, result_key: str = "result", **request: Any) -> Any:
    job = lab.running(**request)
    lab.begin(job, result_key=result_key)
    return job


def known(lab: Any, limit: int = 10, metrics: tuple[str, ...] = ("loss",)) -> list[Any]:
    with lab.store.read() as session:
        return reuse.known_architectures(session, "result", metrics, limit)


def test_the_latest_that_were_trained_in_full_are_known_oldest_first(lab: Any) -> None:
    first, other = begun(lab), begun(lab, "other")
    done = [lab.insert(first, i) for i in range(4)]
    for trial in done[:3]:
        lab.train(first, trial, {"loss": 1.0})
    lab.train(first, done[3], {"loss": 1.0}, rung=0)
    lab.train(other, lab.insert(other, 5), {"loss": 1.0})
    assert known(lab) == [trial.architecture for trial in done[:3]]
    assert known(lab, limit=2) == [trial.architecture for trial in done[1:3]]
    assert known(lab, metrics=("loss", "effective_context")) == []
    # what was trained twice is known once
    second = begun(lab)
    lab.train(second, lab.insert(second, 0), {"loss": 1.0})
    assert known(lab) == [trial.architecture for trial in done[:3]]


@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_reused_saves_what_it_had_cost(lab: Any, threads: int) -> None:
    first = begun(lab, resources={"threads": threads})
    done = lab.insert(first, 0)
    lab.train(first, done, {"loss": 1.0})
    cost = lab.trial(done.id)
    second = begun(lab)
    lab.train(second, lab.insert(second, 1), {"loss": 1.0})
    for i, source in ((0, done.id), (2, "gone")):
        lab.insert(
            second, i, state=TrialState.REUSED, reused_from=source, metrics={"loss": 1.0}, rung=2
        )
    with lab.store.read() as session:
        saved = reuse.saved(session, second.id)
        assert reuse.saved(session, first.id) == reuse.Saved(0, 0.0, 0.0)
    seconds = cost.training_seconds + cost.evaluation_seconds
    assert seconds > 0
    assert saved == reuse.Saved(2, 2.0, seconds * threads)
