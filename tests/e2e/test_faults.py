"""What a service stands on goes away: the one thing concerned fails clearly, the rest goes on."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil

from nas.states import JobState, TrialState
from nas.store.database import CONNECT_SECONDS
from nas.store.silence import SILENT_SECONDS
from tests.e2e.full_disk import small_disk
from tests.e2e.lost_database import database_server
from tests.e2e.running import Service, family, start_service
from tests.e2e.slow_job import SLOW, assert_whole, curves, more_rows, training, until

BRIEF: dict[str, Any] = {
    **SLOW,
    "fidelity": {**SLOW["fidelity"], "max_steps": 45, "min_steps": 5},
    "budget": {"trials": 9},
}
ONE_TRIAL: dict[str, Any] = {
    **SLOW,
    "task": {"name": "text_lm", "sequence_length": 64},
    "fidelity": {"max_steps": 2, "min_steps": 2},
    "budget": {"trials": 1},
}
ENDLESS = {**SLOW, "fidelity": {"max_steps": 100_000, "min_steps": 50_000}}
LOST_SECONDS = 10
"""Longer than a heartbeat and about a lease: whoever runs the job must neither die nor give up."""


def assert_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    problem: dict[str, Any] = answer.json()
    return problem


def worker_of(service: Service) -> psutil.Process:
    (worker,) = [p for p in family(service.process.pid) if "workers.service" in p.cmdline()]
    return worker


def claims(service: Service) -> list[str]:
    """What the log says of each claim."""
    return [line for line in service.log.read_text().splitlines() if "job claimed" in line]


def test_a_database_that_is_lost_for_a_while(tmp_path: Path) -> None:
    with database_server() as database:
        service = start_service(tmp_path / "data", database=database.url)
        try:
            job = service.client.submit({**BRIEF, "seed": 31}).id
            until(training(service, job, trials=3), 60, "three trials past a rung")
            worker = worker_of(service)
            before = curves(service, job)
            database.lose()
            lost = time.monotonic()
            while time.monotonic() - lost < LOST_SECONDS:
                for path in (f"/v1/jobs/{job}", "/v1/jobs", f"/v1/jobs/{job}/events"):
                    problem = assert_problem(httpx.get(f"{service.url}{path}"), 503)
                    assert "database" in problem["detail"]
                assert_problem(httpx.post(f"{service.url}/v1/jobs", json=ONE_TRIAL), 503)
                assert httpx.get(f"{service.url}/readyz").status_code == 503
                assert httpx.get(f"{service.url}/healthz").status_code == 200
                time.sleep(1)
            database.find()
            until(lambda: httpx.get(f"{service.url}/v1/jobs").is_success, 5, "jobs are told again")
            # given back and claimed again, rather than left until its lease has run out
            until(lambda: len(claims(service)) == 2, 5, "claimed again")
            assert_whole(service, service.wait(job), before)
            assert worker.is_running()
            # a lost database is no crash of the job's, of which it may have three
            assert all("attempt=1" in claim for claim in claims(service))
            assert "Traceback" not in service.log.read_text()
        finally:
            service.stop()


def test_a_database_that_stands_still_for_a_while(tmp_path: Path) -> None:
    with database_server() as database:
        service = start_service(tmp_path / "data", database=database.url)
        try:
            job = service.client.submit({**BRIEF, "seed": 32}).id
            until(training(service, job, trials=3), 60, "three trials past a rung")
            worker = worker_of(service)
            before = curves(service, job)
            with database.frozen():
                patience = SILENT_SECONDS + 2 * CONNECT_SECONDS + 5
                for path in (f"/v1/jobs/{job}", "/v1/jobs"):
                    answer = httpx.get(f"{service.url}{path}", timeout=patience)
                    assert "database" in assert_problem(answer, 503)["detail"]
                assert httpx.get(f"{service.url}/healthz").status_code == 200
            until(lambda: len(claims(service)) == 2, 30, "claimed again")
            assert_whole(service, service.wait(job), before)
            assert worker.is_running()
            assert all("attempt=1" in claim for claim in claims(service))
        finally:
            service.stop()


def test_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    data = tmp_path / "data"
    service: Service

    def everybody() -> list[psutil.Process]:
        return [psutil.Process(service.process.pid), *family(service.process.pid)]

    def actors() -> list[psutil.Process]:
        return [p for p in everybody() if "".join(p.cmdline()[:1]).startswith("ray::")]

    with ExitStack() as stack:
        whole = stack.enter_context(small_disk(data, 64, everybody))
        checkpoints = stack.enter_context(small_disk(data / "checkpoints", 16, actors))
        service = start_service(data)
        stack.callback(service.stop)
        job = service.client.submit({**BRIEF, "seed": 32}).id
        until(training(service, job, trials=2), 60, "two trials past a rung")
        worker = worker_of(service)

        # nothing can be kept of what was trained: it is trained again
        checkpoints.fill()
        until(lambda: checkpoints.complaint in service.log.read_text(), 30, "the disk is full")
        (line, *_) = [t for t in service.log.read_text().splitlines() if checkpoints.complaint in t]
        assert str(data / "checkpoints" / job / "trial_") in line
        time.sleep(3)
        checkpoints.free()
        until(more_rows(service, job), 30, "rungs are finished again")
        before = curves(service, job)

        # nor can anything be recorded
        whole.fill()
        refused = until(lambda: refusal(service), 30, "the database cannot grow")
        assert refused["type"].endswith("store-unavailable")
        place = f"{service.url}/v1/datasets?name=too-much"
        problem = assert_problem(httpx.post(place, content=bytes(1 << 22)), 507)
        assert str(data / "datasets") in problem["detail"]
        time.sleep(2)
        whole.free()
        assert_whole(service, service.wait(job), before)
        assert worker.is_running()
        assert "Traceback" not in service.log.read_text()


def refusal(service: Service) -> dict[str, Any] | None:
    answer = httpx.post(f"{service.url}/v1/jobs", json=ONE_TRIAL)
    return None if answer.is_success else assert_problem(answer, 503)


def test_data_that_vanish_or_are_damaged_while_their_job_waits(
    service: Service, tmp_path: Path
) -> None:
    client = service.client
    first = client.submit(ENDLESS).id
    jobs = {}
    for name in ("vanishing", "damaged", "sound"):
        text = tmp_path / f"{name}.txt"
        text.write_bytes(f"{name} data, ".encode() * 2000)
        assert service.nas("data", "add", str(text), "--name", name).returncode == 0
        task = {"name": "text_lm", "dataset": name, "sequence_length": 64}
        jobs[name] = client.submit({**ONE_TRIAL, "task": task}).id
    files = {f.read_bytes()[:4]: f for f in (service.data / "datasets").iterdir()}
    files[b"vani"].unlink()
    damaged = bytearray(files[b"dama"].read_bytes())
    damaged[100] ^= 1
    files[b"dama"].write_bytes(damaged)
    client.cancel(first)
    vanishing, changed, sound = (service.wait(job, 60) for job in jobs.values())
    assert vanishing.state is JobState.FAILED
    assert "data set vanishing is gone" in (vanishing.error or "")
    assert str(files[b"vani"]) in (vanishing.error or "")
    assert changed.state is JobState.FAILED
    assert "data set damaged is damaged" in (changed.error or "")
    assert sound.state is JobState.SUCCEEDED, sound.error


def test_corrupt_checkpoints_are_trained_anew(service: Service) -> None:
    client = service.client
    job = client.submit({**BRIEF, "seed": 33}).id
    until(training(service, job, trials=3), 90, "three trials past a rung")
    client.pause(job)
    until(lambda: not client.job(job).progress.trials[TrialState.RUNNING], 5, "stands still")
    before = curves(service, job)
    kept = sorted((service.data / "checkpoints" / job).glob("trial_*.pt"))
    assert kept
    for i, path in enumerate(kept):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if i % 2 else b"")
    client.resume(job)
    assert_whole(service, service.wait(job), before)
