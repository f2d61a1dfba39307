"""Events: gapless, in the order of the changes, in the transaction of the change."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nas.errors import Conflict
from nas.states import JobState, TrialState
from nas.store import events, exports, jobs


def test_numbers_have_no_gaps_under_concurrent_writers(lab: Any) -> None:
    job = lab.running()
    writers, each = 8, 12

    def undone(writer: int) -> None:
        with lab.store.write() as session:
            events.append(session, job.id, "job", {"lost": writer})
            raise Conflict("after the event")

    def write(writer: int) -> None:
        for i in range(each):
            if i % 4 == 3:
                with pytest.raises(Conflict):
                    undone(writer)
            lab.insert(job, writer * each + i)

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    with lab.store.read() as session:
        told = events.after(session, job.id)
        assert events.heads(session, [job.id, "job_unknown"]) == {job.id: len(told)}
    assert [event.seq for event in told] == list(range(1, 2 + writers * each + 1))
    assert sorted(e.data["number"] for e in told if e.type == "trial") == list(
        range(1, writers * each + 1)
    )


def test_a_reader_that_follows_the_head_misses_nothing(lab: Any) -> None:
    job = lab.running()
    seen: list[int] = []

    def write() -> None:
        for i in range(40):
            lab.insert(job, i)

    with ThreadPoolExecutor(2) as pool:
        writing = [pool.submit(write)]
        while not all(w.done() for w in writing) or len(seen) < 42:
            with lab.store.read() as session:
                seen += [e.seq for e in events.after(session, job.id, seen[-1] if seen else 0, 7)]
    assert seen == list(range(1, 43))


def test_events_tell_what_a_listener_needs(lab: Any) -> None:
    job = lab.running()
    trial = lab.insert(job, 1, costs={"parameters": 10.0})
    lab.train(job, trial, {"loss": 1.5})
    with lab.store.write() as session:
        export, _ = exports.request(session, trial.id, "config")
        jobs.set_phase(session, job.id, job.token, "verifying")
        jobs.set_phase(session, job.id, job.token, "verifying")
        jobs.finish(session, job.id, job.token, JobState.FAILED, "no more")
    with lab.store.read() as session:
        told = events.after(session, job.id, 2)
    assert [(e.type, e.data.get("state")) for e in told] == [
        ("trial", "waiting"),
        ("trial", "running"),
        ("trial", "completed"),
        ("export", "queued"),
        ("job", "running"),
        ("job", "failed"),
    ]
    assert told[2].data == {
        "trial": trial.id,
        "number": 1,
        "state": "completed",
        "rung": 2,
        "steps": 270,
        "metrics": {"loss": 1.5, "parameters": 10.0},
        "fingerprint": trial.fingerprint,
        "attention": ["full", "linear"],
    }
    assert told[3].data == {"export": export.id, "state": "queued"}
    assert told[5].data == {"state": "failed", "phase": "verifying", "error": "no more"}
    assert all(event.at.tzinfo is not None for event in told)


def test_a_change_that_is_undone_tells_nothing(lab: Any) -> None:
    job = lab.running()
    trial = lab.insert(job)
    with pytest.raises(Conflict):
        lab.train(job, trial, {"loss": 1.0}, rung=0, state=TrialState.REUSED)
    with lab.store.read() as session:
        assert events.heads(session, [job.id]) == {job.id: 3}
