"""Leases on jobs: who may run one, for how long, proved by a fencing token that only grows."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from nas.states import JobState
from nas.store import clock, jobs, settling
from nas.store.records import JobRecord
from nas.store.tables import JobRow


def claim_job(session: Session, worker: str, lease_seconds: float) -> JobRecord | None:
    """The oldest job that waits for a worker or has lost its own, now leased to this one.

    It is running afterwards, or cancelling still: then the worker ends it. Trials that the lost
    worker left running are as it left them.
    """
    now = clock.now(session)
    free = or_(JobRow.worker.is_(None), JobRow.lease_expires < now)
    row = session.scalar(
        select(JobRow)
        .where(
            or_(
                # queued with a lease: paused and resumed before its worker has let go
                and_(JobRow.state == JobState.QUEUED, free),
                and_(
                    JobRow.state.in_((JobState.RUNNING, JobState.CANCELLING)),
                    JobRow.lease_expires < now,
                ),
            )
        )
        .order_by(JobRow.created_at, JobRow.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    if row is None:
        return None
    if row.running_since is not None:
        jobs.stop_timer(row, now)
        row.running_since = now
    row.worker = worker
    row.token += 1
    row.attempts += 1
    row.lease_expires = now + timedelta(seconds=lease_seconds)
    row.pid = row.process_started = None
    if row.state == JobState.QUEUED:
        jobs.move(session, row, JobState.RUNNING)
    session.flush()
    return jobs.record(session, row.id)


def renew_job(session: Session, job_id: str, token: int, lease_seconds: float) -> JobState:
    """Hold the lease for longer; a state other than running says: stop, then release.

    Raises:
        LeaseLost
    """
    row = jobs.fence(session, job_id, token)
    row.lease_expires = clock.now(session) + timedelta(seconds=lease_seconds)
    session.flush()
    return row.state


def release_job(session: Session, job_id: str, token: int) -> None:
    """Give the job back without counting the attempt; running trials are interrupted.

    A running job is queued again, a cancelling one is cancelled, a paused one stays.

    Raises:
        LeaseLost
    """
    abandon_job(session, job_id, token)
    jobs.locked(session, job_id).attempts -= 1
    session.flush()


def abandon_job(session: Session, job_id: str, token: int) -> None:
    """Give a job back whose process has crashed: the same, but the attempt counts.

    Raises:
        LeaseLost
    """
    row = jobs.fence(session, job_id, token)
    settling.interrupt(session, job_id, clock.now(session))
    row.worker = row.lease_expires = row.pid = row.process_started = None
    if row.state == JobState.RUNNING:
        jobs.move(session, row, JobState.QUEUED)
    elif row.state == JobState.CANCELLING:
        jobs.move(session, row, JobState.CANCELLED)
    session.flush()


def record_process(session: Session, job_id: str, token: int, pid: int, started: float) -> None:
    """Remember the process that runs the job, so that its leftovers can be found and ended.

    started: its start time as the operating system tells it.

    Raises:
        LeaseLost
    """
    row = jobs.fence(session, job_id, token)
    row.pid = pid
    row.process_started = started
    session.flush()
