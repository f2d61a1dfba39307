"""What happens behind the service: a worker's part, done by hand on the real store."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from httpx import Response

from api.server import Server, bind, url_of
from nas.costs import known_costs
from nas.jobs import Jobs
from nas.schemas import JobRequest
from nas.search.pareto import Scale
from nas.settings import Settings
from nas.states import JobState, TrialState
from nas.store import Store, exports, jobs, leases, trials, workers
from nas.store.records import JobRecord, TrialRecord
from search_spaces import load_space

STEPS = (30, 90, 270)
OBJECTIVES = ("loss", "flops", "parameters")
BASE_URL = "http://127.0.0.1"
"""Where a client in this process finds an application: the service answers to such names alone."""


class Scene:
    """A store with a worker at hand."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.jobs = Jobs(store, settings)

    def submit(self, **changes: Any) -> str:
        """A queued job over the tiny space; returns its id."""
        document = {"task": {"name": "text_lm"}, "space": "tiny", "objectives": OBJECTIVES}
        return self.jobs.submit(JobRequest.model_validate({**document, **changes}))[0].id

    def claim(self, lease_seconds: float = 60.0, device: str = "here") -> JobRecord:
        """The next queued job, begun."""
        with self.store.write() as session:
            job = leases.claim_job(session, "worker", lease_seconds)
            assert job is not None
            jobs.begin(
                session,
                job.id,
                job.token,
                task_key="task",
                result_key=job.id,
                data_hash="0" * 64,
                trivial_loss=3.0,
                device=device,
                scales={
                    "loss": Scale(0.0, 3.0, False, False).to_dict(),
                    "flops": Scale(1e7, 1e9, True, False).to_dict(),
                    "parameters": Scale(1e4, 1e6, True, False).to_dict(),
                },
            )
            jobs.set_phase(session, job.id, job.token, "searching")
        return job

    def train(self, job: JobRecord, seed: int, rungs: int = 3) -> TrialRecord:
        """A new trial taken past that many rungs; the more parameters, the lower the loss."""
        request = JobRequest.model_validate(job.request)
        space = load_space(job.space_definition)
        architecture = space.sample(seed)
        costs = known_costs(architecture, request.task.shape(), request.training.batch_size)
        with self.store.write() as session:
            trial = trials.insert(
                session,
                job.id,
                job.token,
                architecture=architecture,
                origin="random",
                seed=seed,
                costs=costs,
            )
            for rung in range(rungs):
                trials.start(session, trial.id, job.token, rung)
                loss = 1.0 + 2e4 / costs["parameters"] + 0.05 * (seed % 7) - 0.1 * rung
                trial = trials.finish_rung(
                    session,
                    trial.id,
                    job.token,
                    rung=rung,
                    steps=STEPS[rung],
                    metrics={"loss": loss, "accuracy": 1 / (1 + loss), "expected_depth": 2.0},
                    training_seconds=2.0,
                    evaluation_seconds=0.5,
                    state=TrialState.COMPLETED if rung == 2 else TrialState.PAUSED,
                )
        return trial

    def finish(self, job: JobRecord, state: JobState = JobState.SUCCEEDED) -> None:
        """End a job."""
        with self.store.write() as session:
            jobs.finish(session, job.id, job.token, state)

    def finished_job(self, trained: int = 12) -> str:
        """A job that succeeded: trials complete and at lower rungs, one failed, one verified."""
        self.submit(name="finished")
        job = self.claim()
        seeds = distinct_seeds(trained)
        done = [self.train(job, seed, 3 if i % 3 else 1) for i, seed in enumerate(seeds)]
        with self.store.write() as session:
            for seed in (1, 2):
                again = {"loss": done[1].metrics["loss"] + 0.01 * seed}
                trials.add_verification(session, done[1].id, job.token, seed, again)
            trials.fail(session, done[0].id, job.token, "diverged at step 31")
        self.finish(job)
        return job.id

    def serve_export(self, content: bytes = b"bundle", error: str | None = None) -> str:
        """Do a worker's part for the next export; returns its id."""
        with self.store.write() as session:
            export = exports.claim(session, "worker", 60)
            assert export is not None
            if error is not None:
                exports.fail(session, export.id, export.token, error)
                return export.id
            self.settings.exports.mkdir(parents=True, exist_ok=True)
            filename = f"{export.id}.zip"
            (self.settings.exports / filename).write_bytes(content)
            exports.finish(session, export.id, export.token, filename)
        return export.id

    def worker_beats(self) -> None:
        """Let a worker say that it is alive."""
        with self.store.write() as session:
            workers.beat(session, "worker", host="here", pid=1, started=0.0)


def distinct_seeds(count: int) -> list[int]:
    """Seeds of different architectures of the tiny space."""
    space = load_space("tiny")
    found: dict[str, int] = {}
    seed = 0
    while len(found) < count:
        found.setdefault(space.fingerprint(space.sample(seed)), seed)
        seed += 1
    return list(found.values())


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until it holds.

    Raises:
        AssertionError: it never did.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.005)


class Running:
    """An application under a real server in a thread of this process, until ``stop``."""

    def __init__(self, app: FastAPI, port: int = 0) -> None:
        self._listening = bind("127.0.0.1", port)
        self.url = url_of(self._listening)
        self.port: int = self._listening.getsockname()[1]
        config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5)
        self._server = Server(config)
        sockets: list[socket.socket] = [self._listening]
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": sockets})
        self._thread.start()
        eventually(lambda: self._server.started)

    def stop(self) -> None:
        """Stop as a signal would have it."""
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._listening.close()


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The URL of an application that answers for the length of the block."""
    server = Running(app)
    try:
        yield server.url
    finally:
        server.stop()


def settings_in(folder: Path) -> Settings:
    """Settings that keep everything in a folder and poll fast."""
    return Settings(data=folder, poll_seconds=0.02)


def problem(response: Response, status: int) -> dict[str, Any]:
    """The problem document, after a look at its form."""
    document: dict[str, Any] = response.json()
    assert response.status_code == status, document
    assert response.headers["content-type"] == "application/problem+json"
    assert set(document) == {"type", "title", "status", "detail", "errors"}
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    for error in document["errors"]:
        assert set(error) == {"pointer", "message", "allowed"}
        assert error["message"]
    return document
