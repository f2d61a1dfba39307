"""Stopping, pausing, killing: nothing finished is lost or repeated, and nobody is left behind."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from nas.schemas import Job
from nas.states import JobState, TrialState
from tests.e2e.running import Service, family, start_service, survivors

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


def test_cancel_takes_effect_while_trials_train(service: Service) -> None:
    client = service.client
    long = {**SLOW, "fidelity": {"max_steps": 100_000, "min_steps": 50_000}}
    job = client.submit(long)
    until(lambda: client.job(job.id).progress.trials[TrialState.RUNNING] == 2, 60, "two training")
    began = time.monotonic()
    client.cancel(job.id)
    until(lambda: client.job(job.id).state is JobState.CANCELLED, 5, "cancelled")
    assert time.monotonic() - began < 5
    assert client.cancel(job.id).state is JobState.CANCELLED
    assert {t.state for t in client.trials(job.id)} == {TrialState.STOPPED}


def test_pause_and_resume_repeat_nothing(service: Service) -> None:
    client = service.client
    job = client.submit(SLOW)
    until(training(service, job.id, trials=3), 90, "three trials past a rung")
    client.pause(job.id)
    until(lambda: not client.job(job.id).progress.trials[TrialState.RUNNING], 5, "stands still")
    before = curves(service, job.id)
    time.sleep(1.5)
    assert curves(service, job.id) == before
    client.resume(job.id)
    finished = service.wait(job.id)
    assert_whole(service, finished, before)


@pytest.mark.parametrize("victim", ["job", "actor", "worker"])
def test_killing_any_process_loses_nothing(service: Service, victim: str) -> None:
    client = service.client
    job = client.submit({**SLOW, "seed": 7})
    until(training(service, job.id, trials=2), 90, "two trials past a rung")
    before = curves(service, job.id)
    find(service, victim).kill()
    assert not client.job(job.id).state.final
    finished = service.wait(job.id)
    assert_whole(service, finished, before)


def test_killing_the_service_loses_nothing_and_leaves_nobody(tmp_path: Path) -> None:
    first = start_service(tmp_path / "data")
    job = first.client.submit({**SLOW, "seed": 9})
    until(training(first, job.id, trials=2), 90, "two trials past a rung")
    before = curves(first, job.id)
    relatives = family(first.process.pid)
    assert len(relatives) > 5
    first.process.kill()
    first.process.wait()
    assert survivors(relatives, seconds=20) == []
    second = start_service(tmp_path / "data")
    relatives = []
    try:
        finished = second.wait(job.id)
        assert_whole(second, finished, before)
        relatives = family(second.process.pid)
    finally:
        second.stop()
    assert survivors(relatives) == []


def test_ctrl_c_leaves_nobody(tmp_path: Path) -> None:
    service = start_service(tmp_path / "data")
    job = service.client.submit(SLOW)
    until(training(service, job.id), 90, "a trial past a rung")
    relatives = family(service.process.pid)
    assert service.stop(signal.SIGINT, seconds=40) == 0
    assert survivors(relatives) == []


def find(service: Service, victim: str) -> psutil.Process:
    """A process of the service's, by what it does."""
    relatives = family(service.process.pid)

    def running(module: str) -> list[psutil.Process]:
        return [p for p in relatives if module in p.cmdline()]

    if victim == "worker":
        return running("workers.service")[0]
    if victim == "job":  # the older one works, the younger one waits
        return min(running("workers.driver"), key=lambda p: p.create_time())
    # Ray names its processes after what they run: an actor at work after its method
    return until(lambda: [p for p in relatives if "train" in p.cmdline()[0]], 5, "an actor")[0]


def assert_whole(service: Service, job: Job, before: dict[str, list[Any]]) -> None:
    assert job.state is JobState.SUCCEEDED, (job.error, service.log.read_text()[-4000:])
    trials = list(service.client.trials(job.id))
    assert len(trials) == SLOW["budget"]["trials"]
    assert {t.state for t in trials} <= {TrialState.COMPLETED, TrialState.STOPPED}
    after = curves(service, job.id)
    for trial, curve in after.items():
        assert [p.rung for p in curve] == list(range(len(curve)))  # each rung exactly once
        known = before.get(trial, [])
        assert curve[: len(known)] == known
    rungs = [sum(len(c) > r for c in after.values()) for r in range(3)]
    assert rungs[0] == 12
    assert rungs[1] >= 4
    assert rungs[2] >= 1
