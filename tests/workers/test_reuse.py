"""What an earlier job has found: a search starts from it, and the report says what that saves."""

from __future__ import annotations

from typing import Any

import pytest

from nas.jobs.report import trust_report
from nas.states import JobState, TrialState
from nas.store import jobs as job_rows
from nas.store import leases
from nas.store.records import JobRecord, TrialRecord
from workers.segments import Assignment

from .bed import Bed, drive


def finished(bed: Bed, **changes: Any) -> str:
    """A job that has run to its end."""
    job_id = bed.submit(**changes)
    job = bed.claim()
    search = bed.search(job)
    list(drive(search))
    search.close()
    end(bed, job)
    return job_id


def end(bed: Bed, job: JobRecord) -> None:
    with bed.store.write() as session:
        job_rows.finish(session, job.id, job.token, JobState.SUCCEEDED)


def completed(bed: Bed, job: str) -> dict[str, TrialRecord]:
    return {t.fingerprint: t for t in bed.trials(job) if t.state is TrialState.COMPLETED}


def reused(bed: Bed, job: str) -> dict[str, TrialRecord]:
    return {t.fingerprint: t for t in bed.trials(job) if t.state is TrialState.REUSED}


@pytest.mark.parametrize("strategy", ["pareto", "nsga2", "tpe", "regularized_evolution"])
def test_a_new_job_starts_from_what_is_known_and_says_what_that_saves(
    bed: Bed, strategy: str
) -> None:
    first = finished(bed)
    known = completed(bed, first)
    second = bed.submit(strategy={"name": strategy}, budget={"trials": 5})
    search = bed.search(bed.claim())
    taken = reused(bed, second)
    assert taken.keys() == known.keys(), "before anything is asked"
    for fingerprint, trial in taken.items():
        assert trial.origin == "known"
        assert trial.reused_from == known[fingerprint].id
        assert trial.metrics["loss"] == known[fingerprint].metrics["loss"]
    list(drive(search))
    assert len(bed.trials(second)) == 5 + len(reused(bed, second)), "they cost no trial"
    report = trust_report(bed.store, second).reuse
    assert report.reused == report.full_trainings == len(reused(bed, second)) > 0
    trained = [known[f] for f in taken]
    assert report.core_seconds == sum(t.training_seconds + t.evaluation_seconds for t in trained)
    assert trust_report(bed.store, first).reuse.core_seconds == 0.0


def test_only_what_the_job_may_propose_itself_is_taken_over(bed: Bed) -> None:
    first = finished(bed)
    sizes = {f: costs_of(t)["parameters"] for f, t in completed(bed, first).items()}
    bound = sorted(sizes.values())[len(sizes) // 2]
    bounded = bed.submit(constraints=[{"metric": "parameters", "max": bound}])
    bed.search(bed.claim())
    assert reused(bed, bounded).keys() == {f for f, size in sizes.items() if size <= bound}
    narrow = {"causal": True, "width": [16], "depth": [1], "heads": [2], "attention": ["linear"]}
    other = bed.submit(space=narrow)
    bed.search(bed.claim())
    assert not reused(bed, other)


def costs_of(trial: TrialRecord) -> dict[str, float]:
    return {"parameters": trial.metrics["parameters"]}


@pytest.mark.parametrize("changes", [{"reuse": False}, {"strategy": {"name": "random"}}])
def test_a_job_that_wants_none_or_learns_nothing_starts_afresh(
    bed: Bed, changes: dict[str, Any]
) -> None:
    finished(bed)
    second = bed.submit(**changes)
    bed.search(bed.claim())
    assert not bed.trials(second)


def test_a_search_that_has_asked_takes_nothing_more_over(bed: Bed) -> None:
    job_id = bed.submit(budget={"trials": 30})
    job = bed.claim()
    search = bed.search(job)
    assert isinstance(search.next(), Assignment)
    with bed.store.write() as session:
        leases.renew_job(session, job.id, job.token, 600)
    finished(bed, seed=1)
    with bed.store.write() as session:
        leases.renew_job(session, job.id, job.token, -1)
    bed.search(bed.claim())
    assert not reused(bed, job_id)


def test_one_that_was_killed_while_starting_goes_on_with_it(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = finished(bed)
    second = bed.submit()
    job = bed.claim()
    write, left = bed.store.write, 2

    def dying() -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return write()

    monkeypatch.setattr(bed.store, "write", dying)
    with pytest.raises(KeyboardInterrupt):
        bed.search(job)
    monkeypatch.undo()
    assert 0 < len(reused(bed, second)) < len(completed(bed, first))
    with bed.store.write() as session:
        leases.renew_job(session, job.id, job.token, -1)
    bed.search(bed.claim())
    assert reused(bed, second).keys() == completed(bed, first).keys()
