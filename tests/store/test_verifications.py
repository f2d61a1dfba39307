"""Fresh seeds, rounds of latency and other tasks, as rows and as what they say together."""

from __future__ import annotations

import math
from typing import Any

import pytest
from scipy import stats

from nas.errors import Conflict, LeaseLost
from nas.store import estimates, events, trials, verifications
from nas.store.records import JobRecord, TransferRecord, VerificationRecord


@pytest.fixture
def job(lab: Any) -> JobRecord:
    """A running job with three complete trials."""
    running: JobRecord = lab.running()
    for i in range(3):
        lab.train(running, lab.insert(running, i), {"loss": 1.0 + i})
    return running


def numbered(lab: Any, job: JobRecord) -> list[str]:
    with lab.store.read() as session:
        return [t.id for t in trials.all(session, job.id)]


def verify(lab: Any, job: JobRecord, trial: str, *losses: float, test: float = 0.5) -> None:
    with lab.store.write() as session:
        for seed, loss in enumerate(losses):
            trials.add_verification(
                session, trial, job.token, seed, {"loss": loss}, test={"loss": loss + test}
            )


def test_the_spread_is_pooled_over_the_members_of_a_job(lab: Any, job: JobRecord) -> None:
    one, two, _ = numbered(lab, job)
    verify(lab, job, one, 1.0, 1.2)
    verify(lab, job, two, 2.0, 2.4)
    sd = math.sqrt((0.02 + 0.08) / 2)
    half = stats.t.ppf(0.975, 2) * sd / math.sqrt(2)
    first, second = lab.trial(one), lab.trial(two)
    assert first.verified["loss"].mean == pytest.approx(1.1)
    assert first.verified["loss"].high == pytest.approx(1.1 + half)
    assert second.verified["loss"].low == pytest.approx(2.2 - half)
    # a test loss is of the same seeds, but stands apart
    assert first.tested["loss"].mean == pytest.approx(1.6)
    assert first.tested["loss"].half_width == pytest.approx(half)
    assert first.metrics["loss"] == 1.0
    assert first.verifications[0] == VerificationRecord(0, {"loss": 1.0}, {"loss": 1.5})


def test_another_jobs_members_do_not_count(lab: Any, job: JobRecord) -> None:
    one, _, _ = numbered(lab, job)
    verify(lab, job, one, 1.0, 1.2)
    before = lab.trial(one).verified
    other = lab.running()
    trial = lab.insert(other, 7)
    lab.train(other, trial, {"loss": 1.0})
    verify(lab, other, trial.id, 1.0, 9.0)
    assert lab.trial(one).verified == before
    with lab.store.read() as session:
        found = estimates.of_jobs(session, [job.id, other.id])
    assert {j: set(v.runs) for j, v in found.items()} == {job.id: {one}, other.id: {trial.id}}


def test_trials_without_verification_have_none(lab: Any, job: JobRecord) -> None:
    one, two, _ = numbered(lab, job)
    verify(lab, job, one, 1.0)
    assert lab.trial(one).verified["loss"].low is None
    assert (lab.trial(two).verified, lab.trial(two).tested) == ({}, {})
    with lab.store.read() as session:
        assert estimates.of_job(session, "job_unknown") == estimates.Verified()


def test_rounds_are_compared_without_what_they_share(lab: Any, job: JobRecord) -> None:
    one, two, three = numbered(lab, job)
    verify(lab, job, one, 1.0)
    verify(lab, job, two, 1.0)
    drift = (1.0, 2.0, 3.0, 1.5)
    rounds = {one: [10.0 * d for d in drift], two: [20.0 * d for d in drift]}
    rounds[three] = [5.0 * d for d in drift]
    with lab.store.write() as session:
        verifications.put_rounds(session, job.id, job.token, {one: [5.0]}, alone=True)
        verifications.put_rounds(session, job.id, job.token, rounds, alone=False)
    first, second = lab.trial(one).verified["latency_ms"], lab.trial(two).verified["latency_ms"]
    assert first.n == second.n == 4
    assert second.mean / first.mean == pytest.approx(2.0)
    assert first.half_width == pytest.approx(0.0, abs=1e-9)
    assert lab.trial(three).verified == {}  # timed, and not trained again
    with lab.store.read() as session:
        found = estimates.of_job(session, job.id)
        told = events.after(session, job.id, lab.record(job.id).last_seq - 3, 9)
    assert (found.rounds, found.alone) == (rounds, False)
    assert [event.data["trial"] for event in told] == [one, two, three]


def test_another_task_is_recorded_once_and_billed_as_verification(lab: Any, job: JobRecord) -> None:
    one, two, _ = numbered(lab, job)
    given = [
        TransferRecord(one, 0, 1, {"loss": 3.0}),
        TransferRecord(two, 0, 1, {"loss": 4.0}),
        TransferRecord(one, 1, 1, {"loss": 5.0, "accuracy": 0.5}),
    ]
    with lab.store.write() as session:
        for transfer in given:
            verifications.add_transfer(session, job.id, job.token, transfer, core_seconds=8.0)
    with lab.store.read() as session:
        assert verifications.transfers(session, job.id) == given
    with pytest.raises(Conflict, match="already"), lab.store.write() as session:
        verifications.add_transfer(session, job.id, job.token, given[0])
    assert lab.record(job.id).verification_core_seconds == 24.0


def test_a_lost_lease_writes_nothing(lab: Any, job: JobRecord) -> None:
    one, _, _ = numbered(lab, job)
    with pytest.raises(LeaseLost), lab.store.write() as session:
        verifications.put_rounds(session, job.id, job.token + 1, {one: [1.0]}, alone=True)
    transfer = TransferRecord(one, 0, 1, {"loss": 3.0})
    with pytest.raises(LeaseLost), lab.store.write() as session:
        verifications.add_transfer(session, job.id, job.token + 1, transfer)
    with lab.store.read() as session:
        assert estimates.of_job(session, job.id) == estimates.Verified()
        assert verifications.transfers(session, job.id) == []
