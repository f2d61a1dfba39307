"""The search of a job as a source of segments, against a real store and without Ray."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

import pytest

from nas.errors import LeaseLost, TrialFailed
from nas.jobs import Jobs
from nas.states import JobState, TrialState
from nas.store import jobs as job_rows
from nas.store import leases
from workers.search import FRUITLESS_TRIALS, LOST_SEGMENTS
from workers.segments import Assignment, Outcome
from workers.tuning import Finished

from .bed import Bed, drive, train


def test_a_search_fills_the_rungs(bed: Bed) -> None:
    counts = []
    for seed in range(5):  # how many are promoted depends on who comes first
        job_id = bed.submit(seed=seed, reuse=False)
        search = bed.search(bed.claim())
        segments = list(drive(search))
        search.close()
        trials = bed.trials(job_id)
        assert len(trials) == 18
        counts.append([sum(a.rung == r for a in segments) for r in range(3)])
        assert {t.state for t in trials} == {TrialState.STOPPED, TrialState.COMPLETED}
        assert all([p.rung for p in t.curve] == list(range(len(t.curve))) for t in trials)
    first, second, third = (statistics.median(at_rung) for at_rung in zip(*counts, strict=True))
    assert first == 18
    assert 6 <= second <= 12  # asynchronous: the early best of few are promoted, too
    assert 2 <= third <= second / 2


@pytest.mark.parametrize("lives", [1, 3, 7])
def test_however_often_it_is_killed_nothing_is_lost_or_repeated(bed: Bed, lives: int) -> None:
    job_id = bed.submit()
    segments: list[tuple[str, int]] = []
    for life in range(lives):
        job = bed.claim()
        search = bed.search(job)
        last = life == lives - 1
        ended = drive(search, stop_after=None if last else 5)
        segments += [(a.trial, a.rung) for a in ended]
        if not last:  # a killed process says nothing: its lease runs out
            with bed.store.write() as session:
                leases.renew_job(session, job.id, job.token, -1)
    trials = bed.trials(job_id)
    assert len(segments) == len(set(segments))
    assert sorted(segments) == sorted((t.id, p.rung) for t in trials for p in t.curve)
    assert len(trials) == 18
    assert sum(len(t.curve) > 1 for t in trials) >= 6
    assert sum(t.state is TrialState.COMPLETED for t in trials) >= 2


def test_a_process_that_lost_its_lease_writes_nothing(bed: Bed) -> None:
    job_id = bed.submit()
    old = bed.claim()
    search = bed.search(old)
    assignment = search.next()
    assert isinstance(assignment, Assignment)
    with bed.store.write() as session:
        leases.renew_job(session, old.id, old.token, -1)
    bed.claim()
    with pytest.raises(LeaseLost):
        search.ended(assignment, train(assignment))
    with pytest.raises(LeaseLost):
        search.next()
    assert all(not t.curve for t in bed.trials(job_id))


def test_an_interrupted_promotion_goes_on_first(bed: Bed) -> None:
    bed.submit()
    job = bed.claim()
    search = bed.search(job)
    running: Assignment | None = None
    for _ in range(40):
        chosen = search.next()
        assert isinstance(chosen, Assignment)
        if chosen.rung:
            running = chosen
            break
        search.ended(chosen, train(chosen))
    assert running is not None
    with bed.store.write() as session:
        leases.renew_job(session, job.id, job.token, -1)
    again = bed.search(bed.claim()).next()
    assert isinstance(again, Assignment)
    assert (again.trial, again.rung) == (running.trial, running.rung)


def test_a_failed_trial_ends_alone(bed: Bed) -> None:
    job_id = bed.submit()
    search = bed.search(bed.claim())
    first = search.next()
    assert isinstance(first, Assignment)
    search.ended(first, Outcome("failed", 0, {}, 0.0, 0.0, "diverged at step 2: loss is nan"))
    list(drive(search))
    failed = [t for t in bed.trials(job_id) if t.state is TrialState.FAILED]
    assert [t.error for t in failed] == ["diverged at step 2: loss is nan"]
    assert len(bed.trials(job_id)) == 18


def test_a_trial_that_keeps_killing_its_process_fails(bed: Bed) -> None:
    job_id = bed.submit()
    search = bed.search(bed.claim())
    first = search.next()
    assert isinstance(first, Assignment)
    for _ in range(LOST_SEGMENTS - 1):
        search.lost(first)
        again = search.next()
        assert isinstance(again, Assignment)
        assert (again.trial, again.rung) == (first.trial, first.rung)
    search.lost(first)
    (trial,) = [t for t in bed.trials(job_id) if t.id == first.trial]
    assert trial.state is TrialState.FAILED
    assert trial.error is not None
    assert "died" in trial.error


def test_known_results_are_reused_and_not_counted(bed: Bed) -> None:
    first = bed.submit(strategy={"name": "homogeneous"}, budget={"trials": 9})
    job = bed.claim()
    search = bed.search(job)
    list(drive(search))
    search.close()
    with bed.store.write() as session:
        leases.renew_job(session, job.id, job.token, -1)
        leases.release_job(session, job.id, job.token)
    Jobs(bed.store, bed.settings).cancel(first)
    completed = {t.fingerprint: t for t in bed.trials(first) if t.state is TrialState.COMPLETED}
    assert completed
    second = bed.submit(strategy={"name": "homogeneous"}, budget={"trials": 9})
    list(drive(bed.search(bed.claim())))
    trials = bed.trials(second)
    reused = {t.fingerprint: t for t in trials if t.state is TrialState.REUSED}
    assert reused.keys() == completed.keys()
    assert len(trials) == 9 + len(reused)
    for fingerprint, trial in reused.items():
        assert trial.metrics["loss"] == completed[fingerprint].metrics["loss"]
        assert trial.reused_from == completed[fingerprint].id


def test_results_that_lack_a_named_metric_are_trained_again(bed: Bed) -> None:
    first = bed.submit(strategy={"name": "homogeneous"}, budget={"trials": 9})
    job = bed.claim()
    search = bed.search(job)
    list(drive(search))
    search.close()
    with bed.store.write() as session:
        job_rows.finish(session, job.id, job.token, JobState.SUCCEEDED)
    bound = {"metric": "effective_context", "min": 1}
    second = bed.submit(strategy={"name": "homogeneous"}, budget={"trials": 9}, constraints=[bound])
    list(drive(bed.search(bed.claim())))
    completed = {t.fingerprint for t in bed.trials(first) if t.state is TrialState.COMPLETED}
    again = bed.trials(second)
    assert completed & {t.fingerprint for t in again}
    assert all(t.state is not TrialState.REUSED for t in again)


@pytest.mark.parametrize(
    ("budget", "segments"),
    [({"full_trainings": 1.0}, (9, 11)), ({"energy_kwh": 1.4e-5}, (9, 11))],
)
def test_a_bound_that_is_met_starts_nothing_more(
    bed: Bed, budget: dict[str, float], segments: tuple[int, int]
) -> None:
    bed.submit(budget=budget)
    low, high = segments
    ended = list(drive(bed.search(bed.claim())))
    steps = sum(a.to_steps - (0, 3, 9)[a.rung] for a in ended)
    if "full_trainings" in budget:
        assert 27 <= steps <= 27 + 18
    else:
        assert low <= len(ended) <= high


def test_energy_counts_as_measured_where_it_is_and_is_billed_once(bed: Bed) -> None:
    job_id = bed.submit(budget={"energy_kwh": 4.5e-3})
    search = bed.search(bed.claim())
    for _ in range(2):
        assignment = search.next()
        assert isinstance(assignment, Assignment)
        search.ended(assignment, replace(train(assignment), joules=7200.0))
    lost = search.next()
    assert isinstance(lost, Assignment)
    search.ended(lost, replace(train(lost), kind="failed", reason="no luck", joules=3600.0))
    with bed.store.read() as session:
        job = job_rows.record(session, job_id)
    assert job.search_metered_kwh == pytest.approx(5e-3)
    assert job.search_metered_core_seconds == job.search_core_seconds == 4.5
    assert isinstance(search.next(), Finished)  # by the estimate it would be far from its bound
    again = bed.search(job)  # so it would be for who takes it up now
    assert isinstance(again.next(), Finished)


def test_a_new_trial_is_written_and_started_at_once(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = bed.submit()
    search = bed.search(bed.claim())
    written = 0
    write = bed.store.write

    def counted() -> Any:
        nonlocal written
        written += 1
        return write()

    monkeypatch.setattr(bed.store, "write", counted)
    assert isinstance(search.next(), Assignment)
    assert written == 1
    (trial,) = bed.trials(job_id)
    assert (trial.state, trial.active_rung) == (TrialState.RUNNING, 0)


def test_time_that_is_up_starts_nothing_more(bed: Bed) -> None:
    bed.submit(budget={"wall_seconds": 10.0})
    search = bed.search(bed.claim())
    first = search.next()
    assert isinstance(first, Assignment)
    bed.elapsed = 10.0
    assert search.next() is None  # one is running still
    search.ended(first, train(first))
    assert isinstance(search.next(), Finished)


def test_failures_are_charged(bed: Bed) -> None:
    job_id = bed.submit(budget={"full_trainings": 0.5}, fidelity={"max_steps": 9, "min_steps": 9})
    search = bed.search(bed.claim())
    first = search.next()
    assert isinstance(first, Assignment)
    search.ended(first, Outcome("failed", 0, {}, 2.0, 0.0, "out of memory"))
    assert isinstance(search.next(), Finished)
    job = Jobs(bed.store, bed.settings).get(job_id)
    assert job.bill.search_core_seconds == 2.0
    assert search.nothing_found() == (
        "no trial was fully trained, 1 failed; most often: out of memory"
    )


def test_a_job_whose_trials_all_fail_is_told_so_early(bed: Bed) -> None:
    bed.submit()
    search = bed.search(bed.claim())

    def fail_one() -> None:
        assignment = search.next()
        assert isinstance(assignment, Assignment)
        search.ended(assignment, Outcome("failed", 0, {}, 0.0, 0.0, "no luck"))

    for _ in range(FRUITLESS_TRIALS - 1):
        fail_one()
    with pytest.raises(TrialFailed, match="the first 10 trials all failed; most often: no luck"):
        fail_one()


def test_hyperband_begins_some_trials_higher_and_charges_what_they_train(bed: Bed) -> None:
    fidelity = {"max_steps": 27, "min_steps": 3, "reduction_factor": 3, "audit": 0}
    job_id = bed.submit(fidelity={**fidelity, "scheme": "hyperband"}, budget={"trials": 40})
    search = bed.search(bed.claim())
    list(drive(search))
    curves = [[p.rung for p in t.curve] for t in bed.trials(job_id)]
    first = [curve[0] for curve in curves]
    assert {first.count(rung) > 2 for rung in range(3)} == {True}
    assert first.count(0) > first.count(1)
    for curve in curves:
        assert curve == list(range(curve[0], curve[-1] + 1))
    trained = sum((3, 9, 27)[curve[-1]] for curve in curves)
    assert Jobs(bed.store, bed.settings).get(job_id).progress.spent == trained / 27


@pytest.mark.parametrize("lives", [2, 4])
def test_where_trials_begin_is_known_after_a_crash(bed: Bed, lives: int) -> None:
    fidelity = {"max_steps": 27, "min_steps": 3, "reduction_factor": 3, "audit": 0}
    job_id = bed.submit(fidelity={**fidelity, "scheme": "hyperband"}, budget={"trials": 20})
    segments: list[tuple[str, int]] = []
    for life in range(lives):
        job = bed.claim()
        ended = drive(bed.search(job), stop_after=None if life == lives - 1 else 4)
        segments += [(a.trial, a.rung) for a in ended]
        with bed.store.write() as session:
            leases.renew_job(session, job.id, job.token, -1)
    assert len(segments) == len(set(segments))
    assert sorted(segments) == sorted((t.id, p.rung) for t in bed.trials(job_id) for p in t.curve)
    assert {p.rung for t in bed.trials(job_id) for p in t.curve[:1]} == {0, 1, 2}


def test_without_rungs_each_trial_is_trained_in_full(bed: Bed) -> None:
    fidelity = {"max_steps": 27, "reduction_factor": 3, "audit": 0, "scheme": "full"}
    job_id = bed.submit(fidelity=fidelity, budget={"trials": 6})
    segments = list(drive(bed.search(bed.claim())))
    assert [a.to_steps for a in segments] == [27] * 6
    assert {t.state for t in bed.trials(job_id)} == {TrialState.COMPLETED}
