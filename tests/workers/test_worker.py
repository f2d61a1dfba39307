"""What a worker holds when its database goes away at the worst moment, without processes or Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy.orm import Session

from nas.errors import StoreUnavailable
from nas.jobs import Jobs
from nas.schemas import JobRequest
from nas.settings import Settings
from nas.states import JobState
from nas.store import Store, leases
from nas.store import jobs as job_rows
from nas.store.migrate import upgrade
from workers.job import JobRun
from workers.orders import Exit, Order, crash_reason, note_crash
from workers.processes import Child, Identity
from workers.worker import Worker


class Process(Child):
    """A job's process in name only."""

    def __init__(self) -> None:
        self.identity = Identity(1, 0.0)
        self.said: list[str] = []
        self.code: int | None = None

    @property
    def exit_code(self) -> int | None:
        return self.code

    def say(self, line: str) -> None:
        self.said.append(line)

    def end(self, grace: float) -> int:
        self.code = -9
        return self.code


class Faulty(Store):
    """A store whose database can be away."""

    away = False

    @contextmanager
    def write(self) -> Iterator[Session]:
        if self.away:
            raise StoreUnavailable("away")
        with super().write() as session:
            yield session


class Bed:
    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data=folder, lease_seconds=30.0)
        upgrade(self.settings.database_url)
        self.store = Faulty(self.settings.database_url)
        self.worker = cast(Any, Worker(self.settings, self.store))
        request = JobRequest.model_validate({"task": {"name": "text_lm"}, "space": "tiny"})
        self.job = Jobs(self.store, self.settings).submit(request)[0].id

    def claimed(self) -> Process:
        process = Process()
        self.worker._claim(process)
        assert self.worker._job is not None
        return process

    def state(self) -> tuple[JobState, int]:
        with self.store.read() as session:
            job = job_rows.record(session, self.job)
        return job.state, job.attempts


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


def test_a_claim_that_breaks_off_holds_no_job(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object, **__: object) -> None:
        raise StoreUnavailable("lost")

    process = Process()
    with monkeypatch.context() as broken:
        broken.setattr(leases, "record_process", lost)
        with pytest.raises(StoreUnavailable):
            bed.worker._claim(process)
    assert bed.worker._job is None
    assert process.said == []
    assert bed.state() == (JobState.QUEUED, 0)
    assert bed.claimed().said != []


@pytest.mark.parametrize(
    ("code", "attempts"), [(Exit.STORE_UNAVAILABLE, 0), (Exit.DRAINED, 0), (-11, 1)]
)
def test_a_job_that_ends_while_the_database_is_away_is_given_back_later(
    bed: Bed, code: int, attempts: int
) -> None:
    process = bed.claimed()
    process.code = code
    bed.store.away = True
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            bed.worker._tend_job()
    bed.store.away = False
    bed.worker._tend_job()
    assert bed.state() == (JobState.QUEUED, attempts)
    assert bed.worker._job is None


def test_a_lease_that_runs_out_unseen_ends_the_process_and_is_no_crash(bed: Bed) -> None:
    process = bed.claimed()
    bed.worker._job.renewed -= 2 * bed.settings.lease_seconds
    bed.worker._give_up_expired()
    assert process.code is not None
    bed.worker._tend_job()
    assert bed.state() == (JobState.QUEUED, 0)


def test_why_a_process_crashed_is_known_until_it_is_recorded(bed: Bed) -> None:
    note_crash(bed.settings, bed.job, "RuntimeError: a bug")
    process = bed.claimed()
    process.code = 1
    bed.store.away = True
    with pytest.raises(StoreUnavailable):
        bed.worker._tend_job()
    assert crash_reason(bed.settings, bed.job) == "RuntimeError: a bug"
    bed.store.away = False
    bed.worker._tend_job()
    assert crash_reason(bed.settings, bed.job) is None


def test_a_reason_that_cannot_be_noted_hides_no_other(bed: Bed) -> None:
    bed.settings.checkpoints.write_text("a file where the folder should be")
    note_crash(bed.settings, bed.job, "OSError: disk full")
    assert crash_reason(bed.settings, bed.job) is None


def test_a_job_that_fails_as_it_is_paused_stays_paused(bed: Bed) -> None:
    bed.claimed()
    run = JobRun(bed.settings, bed.store, Order(bed.job, 1))
    Jobs(bed.store, bed.settings).pause(bed.job)
    assert run.fail("no data") is Exit.DRAINED
    assert bed.state()[0] is JobState.PAUSED
