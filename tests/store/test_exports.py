"""Exports: one for each trial and format, served under a lease."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy.orm import Session

from nas.errors import LeaseLost, NotFound
from nas.states import ExportState, JobState
from nas.store import events, exports, jobs


@pytest.fixture
def trial(lab: Any) -> Any:
    """A completed trial."""
    job = lab.running()
    return lab.train(job, lab.insert(job), {"loss": 1.0})


def test_the_same_export_is_requested_once(lab: Any, trial: Any) -> None:
    with lab.store.write() as session:
        first, created = exports.request(session, trial.id, "config")
        assert created
        assert exports.request(session, trial.id, "config") == (first, False)
        other, created = exports.request(session, trial.id, "onnx")
    assert created
    assert other.id != first.id


def test_an_export_of_nothing_is_refused(lab: Any) -> None:
    with pytest.raises(NotFound), lab.store.write() as session:
        exports.request(session, "trial_unknown", "config")


def test_an_export_is_made_and_told_of(lab: Any, trial: Any) -> None:
    with lab.store.write() as session:
        asked, _ = exports.request(session, trial.id, "config")
        claimed = exports.claim(session, "worker", 60)
        assert claimed is not None
        assert (claimed.id, claimed.state, claimed.worker) == (asked.id, "running", "worker")
        assert exports.claim(session, "other", 60) is None
        exports.renew(session, claimed.id, claimed.token, 60)
        exports.finish(session, claimed.id, claimed.token, "best.tar.gz")
    with lab.store.read() as session:
        done = exports.get(session, asked.id)
        told = [e.data["state"] for e in events.after(session, asked.job_id) if e.type == "export"]
    assert (done.state, done.filename, done.worker) == ("succeeded", "best.tar.gz", None)
    assert done.finished_at is not None
    assert told == ["queued", "running", "succeeded"]


def test_a_failed_export_can_be_asked_for_again(lab: Any, trial: Any) -> None:
    with lab.store.write() as session:
        first, _ = exports.request(session, trial.id, "config")
        claimed = exports.claim(session, "worker", 60)
        assert claimed is not None
        exports.fail(session, first.id, claimed.token, "disk full")
        assert exports.get(session, first.id).error == "disk full"
        second, created = exports.request(session, trial.id, "config")
    assert created
    assert second.id != first.id


def test_an_export_that_lost_its_worker_goes_to_another(lab: Any, trial: Any) -> None:
    with lab.store.write() as session:
        exports.request(session, trial.id, "config")
        late = exports.claim(session, "late", -1)
        again = exports.claim(session, "next", 60)
        assert late is not None
        assert again is not None
        assert (again.id, again.attempts, again.state) == (late.id, 2, ExportState.RUNNING)
        assert again.token > late.token
    writes: tuple[Callable[[Session], object], ...] = (
        lambda s: exports.renew(s, late.id, late.token, 60),
        lambda s: exports.finish(s, late.id, late.token, "x"),
        lambda s: exports.fail(s, late.id, late.token, "x"),
        lambda s: exports.release(s, late.id, late.token),
    )
    for write in writes:
        with pytest.raises(LeaseLost), lab.store.write() as session:
            write(session)
    with lab.store.read() as session:
        assert exports.get(session, late.id) == again


def test_a_released_export_waits_again(lab: Any, trial: Any) -> None:
    with lab.store.write() as session:
        exports.request(session, trial.id, "config")
        claimed = exports.claim(session, "worker", 60)
        assert claimed is not None
        exports.release(session, claimed.id, claimed.token)
        again = exports.claim(session, "other", 60)
    assert again is not None
    assert (again.id, again.attempts) == (claimed.id, 1)


def test_no_export_is_claimed_twice(lab: Any) -> None:
    job = lab.running()
    asked = []
    for i in range(12):
        trial = lab.insert(job, i)
        lab.train(job, trial, {"loss": 1.0})
        with lab.store.write() as session:
            asked.append(exports.request(session, trial.id, "config")[0].id)

    def work(worker: int) -> list[str]:
        mine, misses = [], 0
        # an empty answer may only mean that another is at the job's row
        while misses < 5:
            with lab.store.write() as session:
                record = exports.claim(session, f"worker-{worker}", 60)
            if record is None:
                misses += 1
            else:
                mine.append(record.id)
        return mine

    with ThreadPoolExecutor(4) as pool:
        claimed = Counter(export_id for mine in pool.map(work, range(4)) for export_id in mine)
    assert set(claimed.values()) <= {1}
    assert set(claimed) <= set(asked)
    assert claimed


def test_a_deleted_job_names_the_files_of_its_exports(lab: Any, trial: Any) -> None:
    with lab.store.write() as session:
        for export_format in ("config", "onnx"):
            exports.request(session, trial.id, export_format)
        claimed = exports.claim(session, "worker", 60)
        assert claimed is not None
        exports.finish(session, claimed.id, claimed.token, "best.json")
        record = jobs.record(session, trial.job_id)
        jobs.finish(session, record.id, record.token, JobState.SUCCEEDED)
        gone = jobs.delete(session, trial.job_id)
    assert gone.export_filenames == ("best.json",)
    with pytest.raises(NotFound), lab.store.read() as session:
        exports.get(session, claimed.id)
