"""A laboratory: a store with shorthand for the jobs and trials that tests are about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from nas.schemas import JobRequest
from nas.states import TrialState
from nas.store import Store, jobs, leases, trials
from nas.store.records import JobRecord, TrialRecord
from nas.submission import digest, resolve
from search_spaces.architecture import Architecture

STEPS = (30, 90, 270)


class Laboratory:
    """Makes jobs and trials in a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def queue(self, **changes: Any) -> str:
        """A queued job; returns its id."""
        request = JobRequest.model_validate({"task": {"name": "text_lm"}, **changes})
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

    def claim(self, worker: str = "worker", lease_seconds: float = 60.0) -> JobRecord:
        """The next job, claimed."""
        with self.store.write() as session:
            record = leases.claim_job(session, worker, lease_seconds)
        assert record is not None
        return record

    def running(self, **changes: Any) -> JobRecord:
        """A new job, claimed; there must be no other to claim."""
        job_id = self.queue(**changes)
        record = self.claim()
        assert record.id == job_id
        return record

    def insert(self, job: JobRecord, index: int = 0, **arguments: Any) -> TrialRecord:
        """A waiting trial, or as the arguments say."""
        arguments = {"origin": "random", "seed": index, "costs": {}, **arguments}
        with self.store.write() as session:
            return trials.insert(
                session, job.id, job.token, architecture=architecture(index), **arguments
            )

    def train(
        self,
        job: JobRecord,
        trial: TrialRecord,
        metrics: Mapping[str, float],
        rung: int = 2,
    ) -> TrialRecord:
        """Bring a trial to a rung; to completion at the last."""
        with self.store.write() as session:
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
                state=TrialState.COMPLETED if rung == 2 else TrialState.PAUSED,
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
