"""A service as it really runs, a job that has ended, and a worker's part in exports."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from typer.testing import CliRunner, Result

from api.app import create_app
from api.server import Server, bind, url_of
from nas.cli.app import app
from nas.export import TrainingConfig, write_config
from nas.export.archive import pack
from nas.jobs.submission import digest, resolve
from nas.schemas import JobRequest
from nas.search.pareto import Scale
from nas.settings import Settings
from nas.states import JobState, TrialState
from nas.store import Store, exports, jobs, leases, migrate, trials
from nas.store.records import JobRecord, TrialRecord
from search_spaces import load_space

STEPS = (30, 90, 270)
OBJECTIVES = ["loss", "latency_ms", "parameters"]


@dataclass
class Service:
    """A running service: where it is, its store and settings."""

    url: str
    store: Store
    settings: Settings

    def submit(self, **changes: Any) -> str:
        """A queued job."""
        request = JobRequest.model_validate(
            {"task": {"name": "text_lm"}, "space": "efficient-lm", **changes}
        )
        resolved = resolve(request, {})
        with self.store.write() as session:
            record, _ = jobs.create(
                session,
                project=request.project,
                name=request.name,
                request=resolved.request,
                request_hash=digest(request),
                idempotency_key=None,
                space=resolved.space,
                space_definition=resolved.space_definition,
                task=request.task.name,
                dataset=resolved.dataset,
                max_steps=request.fidelity.max_steps,
            )
        return record.id

    def claim(self, job_id: str) -> JobRecord:
        """This job, which must be the only one queued, in the hands of a worker that began it."""
        with self.store.write() as session:
            job = leases.claim_job(session, "test-worker", 600)
            assert job is not None
            assert job.id == job_id
            jobs.begin(
                session,
                job.id,
                job.token,
                task_key="task",
                result_key=f"result of {job.id}",
                data_hash="0" * 64,
                trivial_loss=3.5,
                scales={
                    "loss": Scale(0.0, 3.5, False, False).to_dict(),
                    "latency_ms": Scale(0.5, 60.0, True, False).to_dict(),
                    "parameters": Scale(2e4, 2e6, True, False).to_dict(),
                },
            )
            jobs.set_phase(session, job.id, job.token, "searching")
        return job

    def trial(self, job: JobRecord, seed: int, rung: int) -> TrialRecord:
        """A trial trained to a rung: what is wide and deep is good, slow and large."""
        rng = random.Random(seed)
        architecture = load_space("efficient-lm").sample(rng, segments=rng.choice([1, 2]))
        size = architecture.width**2 * 12 * architecture.depth + 512.0 * architecture.width
        costs = {
            "parameters": size,
            "latency_ms": round(architecture.depth * architecture.repeats * rng.uniform(1, 2), 3),
        }
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
            for reached in range(rung + 1):
                trials.start(session, trial.id, job.token, reached)
                loss = 1.2 + 3e4 / (size + 2e4) + 0.3 * (2 - reached) + rng.uniform(0, 0.2)
                metrics = {"loss": loss, "accuracy": 1 / (1 + loss), "expected_depth": 2.0}
                trial = trials.finish_rung(
                    session,
                    trial.id,
                    job.token,
                    rung=reached,
                    steps=STEPS[reached],
                    metrics=metrics,
                    training_seconds=1.0,
                    evaluation_seconds=0.5,
                    state=TrialState.COMPLETED if reached == 2 else TrialState.PAUSED,
                )
        return trial

    def finish(self, job: JobRecord, state: JobState, error: str | None = None) -> None:
        """End a job."""
        with self.store.write() as session:
            jobs.finish(session, job.id, job.token, state, error)

    def serve_export(self, *, error: str | None = None, **task: str) -> None:
        """Do a worker's part: make the next export that is asked for, or fail it."""
        record, deadline = None, time.monotonic() + 15
        while record is None and time.monotonic() < deadline:
            with self.store.write() as session:
                record = exports.claim(session, "test-worker", 60)
            time.sleep(0.02)
        assert record is not None
        with self.store.write() as session:
            if error is not None:
                exports.fail(session, record.id, record.token, error)
                return
            trial = trials.get(session, record.trial_id)
            filename = f"{record.id}.zip"
            target = self.settings.exports / filename
            if record.format == "config":
                pack_config(trial.architecture, target, task)
            else:
                pack_folder(target)
            exports.finish(session, record.id, record.token, filename)


def pack_config(architecture: Mapping[str, Any], target: Path, task: Mapping[str, str]) -> None:
    """An export without weights; ``task`` changes the task's settings."""
    target.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "architecture": architecture,
        "task": {"name": "text_lm", "sequence_length": 32, **task},
        "recipe": {},
        "max_steps": 3,
        "data_hash": "0" * 64,
    }
    config = target.with_suffix(".json")
    write_config(config, TrainingConfig.model_validate(document))
    pack(target, {"config.json": config})
    config.unlink()


def pack_folder(target: Path) -> None:
    """Files under the names that a folder for transformers has."""
    target.parent.mkdir(parents=True, exist_ok=True)
    empty = target.with_suffix(".empty")
    empty.write_text("{}")
    names = ("README.md", "config.json", "model.safetensors", "modeling_paretoformer.py")
    pack(target, dict.fromkeys(names, empty))
    empty.unlink()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The application under uvicorn on a free port."""
    settings = Settings(data=tmp_path_factory.mktemp("service"))
    migrate.upgrade(settings.database_url)
    store = Store(settings.database_url)
    listening = bind("127.0.0.1", 0)
    server = Server(uvicorn.Config(create_app(store, settings), log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield Service(url_of(listening), store, settings)
    server.should_exit = True
    thread.join(20)
    listening.close()
    store.close()


@pytest.fixture(scope="session")
def finished(service: Service) -> str:
    """A job that succeeded, with trials at every rung and a verified one."""
    job = service.claim(service.submit(name="finished", objectives=OBJECTIVES))
    done = [service.trial(job, seed, rung=2 if seed % 2 else seed % 3) for seed in range(24)]
    best = min((t for t in done if t.fidelity == 1), key=lambda t: t.metrics["loss"])
    with service.store.write() as session:
        for seed in (1, 2):
            metrics = {"loss": best.metrics["loss"] + 0.01 * seed}
            trials.add_verification(session, best.id, job.token, seed, metrics)
        trials.fail(session, done[6].id, job.token, "diverged at step 31")
    service.finish(job, JobState.SUCCEEDED)
    return job.id


ROOT = Path(__file__).parents[2]


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The command line as a process of its own, as a shell would start it."""
    return subprocess.Popen(
        [sys.executable, "-m", "nas.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


class Nas:
    """The command line, run in this process against the service."""

    def __init__(self, url: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NAS_URL", url)
        monkeypatch.setenv("NAS_DATA", str(data))
        monkeypatch.setenv("COLUMNS", "100")
        self._runner = CliRunner()
        self.url = url
        self.start = start

    def __call__(self, *arguments: str, stdin: str | None = None) -> Result:
        result = self._runner.invoke(app, list(arguments), input=stdin)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def json(self, *arguments: str, stdin: str | None = None) -> Any:
        """The document that a command prints with --json."""
        result = self(*arguments, "--json", stdin=stdin)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    def fetch(self, path: str) -> Any:
        """What the service answers."""
        return httpx.get(self.url + path).json()

    def refused(self, *arguments: str, stdin: str | None = None, code: int = 2) -> str:
        """What a command that fails says; it prints nothing else."""
        result = self(*arguments, stdin=stdin)
        assert result.exit_code == code, result.output
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        return result.stderr


@pytest.fixture
def nas(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nas:
    """The command line of the service's user."""
    return Nas(service.url, tmp_path / "data-of-nas", monkeypatch)
