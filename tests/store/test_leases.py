"""Leases: exclusive claims, recovery of what a dead worker left, fencing of the late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy.orm import Session

from nas.errors import LeaseLost
from nas.states import JobState, TrialState
from nas.store import bills, events, jobs, leases, trials
from search_spaces.architecture import Architecture


def test_jobs_are_claimed_in_the_order_of_their_submission(lab: Any) -> None:
    queued = [lab.queue() for _ in range(3)]
    assert [lab.claim().id for _ in range(3)] == queued
    with lab.store.write() as session:
        assert leases.claim_job(session, "worker", 60) is None


def test_a_claim_starts_the_job_and_counts_the_attempt(lab: Any) -> None:
    lab.queue()
    record = lab.claim("worker-7")
    assert record.state == JobState.RUNNING
    assert (record.worker, record.token, record.attempts) == ("worker-7", 1, 1)
    assert record.started_at is not None
    assert record.lease_expires > record.started_at


def test_no_job_is_claimed_twice_by_eight_threads(lab: Any) -> None:
    queued = [lab.queue() for _ in range(24)]

    def work(worker: int) -> list[str]:
        mine = []
        misses = 0
        # with SKIP LOCKED an empty answer may only mean that others hold what is left
        while misses < 3:
            with lab.store.write() as session:
                record = leases.claim_job(session, f"worker-{worker}", 60)
            if record is None:
                misses += 1
            else:
                mine.append(record.id)
        return mine

    with ThreadPoolExecutor(8) as pool:
        claimed = [job_id for mine in pool.map(work, range(8)) for job_id in mine]
    assert Counter(claimed) == Counter(queued)


def test_a_lost_job_is_taken_over_with_a_higher_token(lab: Any) -> None:
    job_id = lab.queue()
    first = lab.claim("dead", lease_seconds=-1)
    second = lab.claim("alive")
    assert (second.id, second.worker, second.state) == (job_id, "alive", JobState.RUNNING)
    assert second.token > first.token
    assert second.attempts == 2


def test_a_held_job_is_not_taken_over(lab: Any) -> None:
    lab.queue()
    lab.claim("alive", lease_seconds=60)
    with lab.store.write() as session:
        assert leases.claim_job(session, "other", 60) is None


def test_renewing_keeps_a_job_from_being_taken_over(lab: Any) -> None:
    job_id = lab.queue()
    record = lab.claim("alive", lease_seconds=-1)
    with lab.store.write() as session:
        assert leases.renew_job(session, job_id, record.token, 60) == JobState.RUNNING
        assert leases.claim_job(session, "other", 60) is None


def test_cancelling_a_lost_job_is_ended_by_the_next_worker(lab: Any) -> None:
    job_id = lab.queue()
    lab.claim("dead", lease_seconds=-1)
    with lab.store.write() as session:
        jobs.cancel(session, job_id)
    record = lab.claim("alive")
    assert (record.id, record.state) == (job_id, JobState.CANCELLING)
    with lab.store.write() as session:
        leases.release_job(session, job_id, record.token)
    assert lab.record(job_id).state == JobState.CANCELLED


WRITES: dict[str, Callable[[Session, str, str, int], object]] = {
    "renew_job": lambda s, job, trial, token: leases.renew_job(s, job, token, 60),
    "release_job": lambda s, job, trial, token: leases.release_job(s, job, token),
    "record_process": lambda s, job, trial, token: leases.record_process(s, job, token, 1, 2.0),
    "begin": lambda s, job, trial, token: jobs.begin(
        s, job, token, task_key="t", result_key="r", data_hash="d", trivial_loss=1.0, scales={}
    ),
    "set_phase": lambda s, job, trial, token: jobs.set_phase(s, job, token, "searching"),
    "finish": lambda s, job, trial, token: jobs.finish(s, job, token, JobState.SUCCEEDED),
    "add_cost": lambda s, job, trial, token: bills.add_cost(s, job, token, search_core_seconds=1),
    "insert": lambda s, job, trial, token: trials.insert(
        s, job, token, architecture=_other(), origin="random", seed=0, costs={}
    ),
    "insert_started": lambda s, job, trial, token: trials.insert_started(
        s, job, token, architecture=_other(), origin="random", seed=0, costs={}
    ),
    "start": lambda s, job, trial, token: trials.start(s, trial, token, 0),
    "finish_rung": lambda s, job, trial, token: trials.finish_rung(
        s,
        trial,
        token,
        rung=0,
        steps=30,
        metrics={"loss": 1.0},
        training_seconds=1,
        evaluation_seconds=1,
        state=TrialState.PAUSED,
    ),
    "stop": lambda s, job, trial, token: trials.stop(s, [trial], token),
    "fail": lambda s, job, trial, token: trials.fail(s, trial, token, "diverged"),
    "interrupt": lambda s, job, trial, token: trials.interrupt(s, trial, token),
    "set_metrics": lambda s, job, trial, token: trials.set_metrics(
        s, trial, token, {"latency_ms": 1.0}
    ),
    "add_verification": lambda s, job, trial, token: trials.add_verification(
        s, trial, token, 1, {"loss": 1.0}
    ),
}


def _other() -> Architecture:
    layer = {"attention": {"type": "full"}, "feedforward": {"type": "gated"}}
    return Architecture.model_validate({"width": 16, "layers": [layer]})


@pytest.mark.parametrize("write", WRITES)
def test_who_lost_the_lease_can_write_nothing(lab: Any, write: str) -> None:
    lab.queue()
    late = lab.claim("late", lease_seconds=-1)
    trial = lab.insert(late)
    lab.claim("next")
    before = (lab.record(late.id), lab.trial(trial.id))
    with pytest.raises(LeaseLost), lab.store.write() as session:
        WRITES[write](session, late.id, trial.id, late.token)
    assert (lab.record(late.id), lab.trial(trial.id)) == before


@pytest.mark.parametrize("write", WRITES)
def test_who_gave_the_lease_back_can_write_nothing(lab: Any, write: str) -> None:
    job = lab.running()
    trial = lab.insert(job)
    with lab.store.write() as session:
        leases.release_job(session, job.id, job.token)
    with pytest.raises(LeaseLost), lab.store.write() as session:
        WRITES[write](session, job.id, trial.id, job.token)


def test_a_release_queues_the_job_again_and_interrupts_its_trials(lab: Any) -> None:
    job = lab.running()
    fresh, trained = lab.insert(job, 0), lab.insert(job, 1)
    lab.train(job, trained, {"loss": 2.0}, rung=0)
    with lab.store.write() as session:
        trials.start(session, fresh.id, job.token, 0)
        trials.start(session, trained.id, job.token, 1)
        leases.release_job(session, job.id, job.token)
    record = lab.record(job.id)
    assert (record.state, record.worker, record.attempts) == (JobState.QUEUED, None, 0)
    assert lab.trial(fresh.id).state == TrialState.WAITING
    assert lab.trial(trained.id).state == TrialState.PAUSED
    assert lab.claim().token == job.token + 1


def test_a_pause_is_seen_at_the_next_renewal_and_survives_the_release(lab: Any) -> None:
    job = lab.running()
    with lab.store.write() as session:
        assert jobs.pause(session, job.id).state == JobState.PAUSED
        assert leases.renew_job(session, job.id, job.token, 60) == JobState.PAUSED
        leases.release_job(session, job.id, job.token)
        assert leases.claim_job(session, "other", 60) is None
    assert lab.record(job.id).state == JobState.PAUSED


def test_a_job_resumed_before_its_worker_let_go_waits_for_that(lab: Any) -> None:
    job = lab.running()
    with lab.store.write() as session:
        jobs.pause(session, job.id)
        assert jobs.resume(session, job.id).state == JobState.QUEUED
        assert leases.claim_job(session, "other", 60) is None
        assert leases.renew_job(session, job.id, job.token, 60) == JobState.QUEUED
        leases.release_job(session, job.id, job.token)
    assert lab.claim("other").id == job.id


def test_cancelling_what_is_paused_takes_the_lease_away(lab: Any) -> None:
    job = lab.running()
    with lab.store.write() as session:
        jobs.pause(session, job.id)
        assert jobs.cancel(session, job.id).state == JobState.CANCELLED
    with pytest.raises(LeaseLost), lab.store.write() as session:
        leases.renew_job(session, job.id, job.token, 60)


def test_time_stands_still_while_a_job_is_paused(lab: Any) -> None:
    job = lab.running()
    assert job.running_since is not None
    with lab.store.write() as session:
        paused = jobs.pause(session, job.id)
    assert paused.running_since is None
    assert paused.elapsed_seconds > 0
    with lab.store.write() as session:
        leases.release_job(session, job.id, job.token)
        jobs.resume(session, job.id)
    again = lab.claim()
    assert again.elapsed_seconds == paused.elapsed_seconds
    assert again.running_since > job.running_since


def test_the_process_of_a_job_is_remembered_until_the_next_claim(lab: Any) -> None:
    lab.queue()
    first = lab.claim(lease_seconds=-1)
    with lab.store.write() as session:
        leases.record_process(session, first.id, first.token, 4321, 1700000000.25)
    record = lab.record(first.id)
    assert (record.pid, record.process_started) == (4321, 1700000000.25)
    assert lab.claim().pid is None


def test_a_claim_tells(lab: Any) -> None:
    job = lab.running()
    with lab.store.read() as session:
        told = events.after(session, job.id)
    assert [(e.seq, e.type, e.data["state"]) for e in told] == [
        (1, "job", "queued"),
        (2, "job", "running"),
    ]
