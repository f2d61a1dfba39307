"""Fronts as they are asked for: of one job, and across all jobs of one task."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from nas.catalogue.tasks import TASKS
from nas.jobs import documents, fronts
from nas.jobs.fronts import Fidelities, Numbers
from nas.schemas import Constraint, Front, TaskFront, Trial
from nas.store import Store, scores
from nas.store import jobs as job_rows
from search_spaces.errors import InvalidInput, Problem

OF_A_DEVICE = frozenset({"latency_ms", "step_latency_ms", "throughput", "energy_j"})
"""Metrics that do not compare from one machine to another."""


def job_front(
    store: Store,
    cache: scores.ScoreCache,
    job_id: str,
    *,
    objectives: Sequence[str] | None,
    bounds: Sequence[Constraint],
    verified: bool,
    fidelity: Fidelities,
) -> Front:
    """The front of a job under its constraints and these bounds; see ``Jobs.front``."""
    fronts.check(objectives, bounds, fidelity)
    with store.read() as session:
        job = job_rows.record(session, job_id)
        known = cache.scores(session, job_id)
        if verified:
            known = scores.verified_only(session, job_id, known)
        wanted = tuple(objectives or job.request["objectives"])
        own = [Constraint.model_validate(c) for c in job.request["constraints"]]
        found = fronts.front(known, wanted, [*own, *bounds], job.scales, fidelity)
        members = scores.numbered(session, job_id, found.members)
        homogeneous = scores.numbered(session, job_id, found.homogeneous)
    return Front(
        objectives=list(wanted),
        items=[documents.trial(t) for t in members],
        hypervolume=found.hypervolume,
        reference_point=found.reference_point,
        knee=next((t.id for t in members if t.number == found.knee), None),
        homogeneous=[documents.trial(t) for t in homogeneous],
    )


def task_front(
    store: Store,
    cache: scores.ScoreCache,
    task: str | None,
    job_id: str | None,
    *,
    objectives: Sequence[str] | None,
    bounds: Sequence[Constraint],
    verified: bool,
    fidelity: Fidelities,
) -> TaskFront:
    """The front of all trials that compare with those of one job, each architecture once.

    The job is named, or it is the newest of the task of that name. Its trials compare with those of
    jobs of the same task with the same settings, on the same data, with the same batch size; where
    a latency is asked for, of the same device. objectives: by default the job's, whose scales count
    as well; no job's constraints do, the bounds alone.

    Raises:
        InvalidInput: neither a task nor a job is named, or both, and they do not agree.
        NotFound: there is no such job, or none of the task has begun.
    """
    fronts.check(objectives, bounds, fidelity)
    if task is None and job_id is None:
        raise InvalidInput([Problem("task", "name a task, or one of its jobs", ("task", "job"))])
    if task is not None and task not in TASKS:
        raise InvalidInput([Problem("task", f"{task!r} is not a task", tuple(TASKS))])
    with store.read() as session:
        job = (
            job_rows.newest_of_task(session, task or "")
            if job_id is None
            else job_rows.record(session, job_id)
        )
        if task not in (None, job.task):
            raise InvalidInput([Problem("task", f"job {job.id} is of another task", (job.task,))])
        wanted = tuple(objectives or job.request["objectives"])
        named = {*wanted, *(bound.metric for bound in bounds)}
        ids = job_rows.comparable(session, job, same_device=bool(named & OF_A_DEVICE))
        parts = [cache.scores(session, i) for i in ids]
        ends = list(accumulate(len(part.complete) for part in parts))
        if verified:
            parts = [
                scores.verified_only(session, i, part) for i, part in zip(ids, parts, strict=True)
            ]
        found = fronts.front(scores.joined(parts), wanted, bounds, job.scales, fidelity)

        def trials(numbers: Numbers) -> list[Trial]:
            records = scores.across(session, ids, ends, numbers)
            once = {record.fingerprint: record for record in reversed(records)}
            return [documents.trial(r) for r in reversed(once.values())]

        members = trials(found.members)
        (knee,) = trials([found.knee]) if found.knee else (None,)
        return TaskFront(
            objectives=list(wanted),
            items=members,
            hypervolume=found.hypervolume,
            reference_point=found.reference_point,
            knee=next((t.id for t in members if knee and t.fingerprint == knee.fingerprint), None),
            homogeneous=trials(found.homogeneous),
            task=job.task,
            jobs=list(ids),
        )
