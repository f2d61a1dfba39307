"""A job that lasts long enough to be disturbed, and what must hold of it afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from nas.schemas import Job
from nas.states import JobState, TrialState
from tests.e2e.running import Service

SLOW: dict[str, Any] = {
    "task": {"name": "text_lm", "sequence_length": 256},
    "space": "tiny",
    "training": {"batch_size": 8, "evaluation_batches": 2},
    "fidelity": {"max_steps": 90, "min_steps": 10, "reduction_factor": 3, "audit": 0},
    "budget": {"trials": 12},
    "strategy": {"name": "random"},
    "verification": {"seeds": 0},
    "reuse": False,
}


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


def training(service: Service, job: str, trials: int = 1) -> Callable[[], bool]:
    """Whether the job trains and so many trials have finished a rung."""

    def look() -> bool:
        state = service.client.job(job)
        assert not state.state.final, state.error
        progress = state.progress
        return progress.trials[TrialState.RUNNING] > 0 and progress.rung_counts[0] >= trials

    return look


def curves(service: Service, job: str) -> dict[str, list[Any]]:
    client = service.client
    return {t.id: client.trial(t.id).curve for t in client.trials(job)}


def more_rows(service: Service, job: str) -> Callable[[], bool]:
    """Whether any trial has finished a rung since now."""

    def rows() -> int:
        return sum(service.client.job(job).progress.rung_counts)

    now = rows()
    return lambda: rows() > now


def assert_whole(service: Service, job: Job, before: dict[str, list[Any]]) -> None:
    """The job succeeded with every rung of every trial exactly once, and what was known stands."""
    assert job.state is JobState.SUCCEEDED, (job.error, service.log.read_text()[-4000:])
    trials = list(service.client.trials(job.id))
    asked = job.request["budget"]["trials"]
    assert len(trials) == asked
    assert {t.state for t in trials} <= {TrialState.COMPLETED, TrialState.STOPPED}
    after = curves(service, job.id)
    for trial, curve in after.items():
        assert [p.rung for p in curve] == list(range(len(curve)))
        known = before.get(trial, [])
        assert curve[: len(known)] == known
    first, second, third = (sum(len(c) > r for c in after.values()) for r in range(3))
    assert first == asked
    assert second >= asked // 3
    assert third >= 1
