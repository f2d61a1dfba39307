"""Stopping, pausing, killing: nothing finished is lost or repeated, and nobody is left behind."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import httpx

from nas.states import JobState, TrialState
from tests.e2e.running import Service, family, start_service, survivors
from tests.e2e.slow_job import SLOW, assert_whole, curves, training, until


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
    for transition in ("pause", "resume"):
        assert httpx.post(f"{service.url}/v1/jobs/{job.id}/{transition}").status_code == 409
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


def test_ctrl_c_leaves_nobody(tmp_path: Path) -> None:
    service = start_service(tmp_path / "data")
    job = service.client.submit(SLOW)
    until(training(service, job.id), 90, "a trial past a rung")
    relatives = family(service.process.pid)
    assert service.stop(signal.SIGINT, seconds=40) == 0
    assert survivors(relatives) == []


def test_sigterm_drains_and_the_next_worker_goes_on(tmp_path: Path) -> None:
    first = start_service(tmp_path / "data")
    job = first.client.submit({**SLOW, "seed": 4})
    until(training(first, job.id, trials=2), 90, "two trials past a rung")
    before = curves(first, job.id)
    assert first.stop(signal.SIGTERM, seconds=40) == 0
    second = start_service(tmp_path / "data")
    try:
        # the lease was given back: nobody waits for it to run out
        until(lambda: second.client.job(job.id).state is JobState.RUNNING, 5, "claimed again")
        assert_whole(second, second.wait(job.id), before)
    finally:
        second.stop()
