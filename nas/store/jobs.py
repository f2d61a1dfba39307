"""Jobs: creation, reading, and every change of state. Nothing here commits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete as delete_rows
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, undefer_group

from nas.errors import Conflict, LeaseLost, NotFound
from nas.states import JobState, TrialState, check_job
from nas.store import clock, events, latency, settling
from nas.store.ids import new_id
from nas.store.records import DeletedJob, JobRecord
from nas.store.tables import ExportRow, JobRow, TrialRow


def create(
    session: Session,
    *,
    project: str,
    name: str,
    request: dict[str, Any],
    request_hash: str,
    idempotency_key: str | None,
    space: str,
    space_definition: dict[str, Any],
    task: str,
    dataset: str | None,
    max_steps: int,
) -> tuple[JobRecord, bool]:
    """A new queued job, or the one that the same key created from the same request (False).

    request_hash: of the request as it was given, before defaults of this version were pinned.

    Raises:
        Conflict: the key was used for another request.
    """
    row = JobRow(
        id=new_id("job"),
        project=project,
        name=name,
        state=JobState.QUEUED,
        phase="queued",
        request=request,
        request_hash=request_hash,
        idempotency_key=idempotency_key,
        space=space,
        space_definition=space_definition,
        task=task,
        dataset=dataset,
        max_steps=max_steps,
        created_at=clock.now(session),
    )
    try:
        with session.begin_nested():
            session.add(row)
            session.flush()
    except IntegrityError:
        known = with_key(session, project, idempotency_key)
        if known is None:
            raise
        return _same(known, request_hash), False
    _tell(session, row)
    return record(session, row.id), True


def with_key(session: Session, project: str, idempotency_key: str | None) -> JobRow | None:
    """The job that this key created in this project."""
    if idempotency_key is None:
        return None
    return session.scalar(
        select(JobRow)
        .where(JobRow.project == project, JobRow.idempotency_key == idempotency_key)
        .options(undefer_group("documents"))
    )


def known_submission(
    session: Session, project: str, idempotency_key: str | None, request_hash: str
) -> JobRecord | None:
    """The job that this key has created already, if any.

    Raises:
        Conflict: the key was used for another request.
    """
    row = with_key(session, project, idempotency_key)
    return None if row is None else _same(row, request_hash)


def record(session: Session, job_id: str) -> JobRecord:
    """The job.

    Raises:
        NotFound: there is none of that id.
    """
    row = session.scalar(
        select(JobRow)
        .where(JobRow.id == job_id)
        .options(undefer_group("documents"))
        .execution_options(populate_existing=True)
    )
    if row is None:
        raise NotFound(f"there is no job {job_id}")
    return to_record(row)


def page(
    session: Session,
    *,
    state: JobState | None = None,
    project: str | None = None,
    before: str | None = None,
    limit: int = 50,
) -> list[JobRecord]:
    """Up to ``limit`` jobs, newest first; ``before``: only those older than this id."""
    query = select(JobRow).options(undefer_group("documents"))
    if state is not None:
        query = query.where(JobRow.state == state)
    if project is not None:
        query = query.where(JobRow.project == project)
    if before is not None:
        query = query.where(JobRow.id < before)
    return [to_record(r) for r in session.scalars(query.order_by(JobRow.id.desc()).limit(limit))]


def newest_of_task(session: Session, task: str) -> JobRecord:
    """The newest job of the task of this name that a worker has begun.

    Raises:
        NotFound: there is none.
    """
    row = session.scalar(
        select(JobRow)
        .where(JobRow.task == task, JobRow.task_key.is_not(None))
        .options(undefer_group("documents"))
        .order_by(JobRow.id.desc())
        .limit(1)
    )
    if row is None:
        raise NotFound(f"no job of task {task} has begun")
    return to_record(row)


def comparable(session: Session, job: JobRecord, *, same_device: bool) -> Sequence[str]:
    """Ids of the jobs whose trials compare with this one's: of the same task, data and batch size.

    The job itself comes first, then the newest.  same_device: latencies compare as well.
    """
    batch_size = JobRow.request["training"]["batch_size"].as_integer()
    query = select(JobRow.id).where(
        JobRow.task_key == job.task_key,
        batch_size == job.request["training"]["batch_size"],
        JobRow.id != job.id,
    )
    if same_device:
        query = query.where(JobRow.device == job.device)
    return [job.id, *session.scalars(query.order_by(JobRow.id.desc()))]


def cancel(session: Session, job_id: str) -> JobRecord:
    """Cancel at once what no worker runs, ask the worker otherwise; idempotent.

    Raises:
        NotFound, Conflict: it has ended another way.
    """
    row = locked(session, job_id)
    if row.state == JobState.RUNNING:
        move(session, row, JobState.CANCELLING)
    elif row.state not in (JobState.CANCELLING, JobState.CANCELLED):
        move(session, row, JobState.CANCELLED)
    session.flush()
    return record(session, job_id)


def pause(session: Session, job_id: str) -> JobRecord:
    """Let the job stand still; its worker sees it at its next renewal. Idempotent.

    Raises:
        NotFound, Conflict: it is being cancelled or has ended.
    """
    row = locked(session, job_id)
    if row.state != JobState.PAUSED:
        move(session, row, JobState.PAUSED)
    session.flush()
    return record(session, job_id)


def resume(session: Session, job_id: str) -> JobRecord:
    """Queue a paused job again; idempotent.

    Raises:
        NotFound, Conflict: it is being cancelled or has ended.
    """
    row = locked(session, job_id)
    if row.state not in (JobState.QUEUED, JobState.RUNNING):
        move(session, row, JobState.QUEUED)
    session.flush()
    return record(session, job_id)


def delete(session: Session, job_id: str) -> DeletedJob:
    """Remove a job that has ended, with all that belongs to it.

    Raises:
        NotFound, Conflict: it has not ended.
    """
    row = locked(session, job_id)
    if not row.state.final:
        raise Conflict(f"job {job_id} is {row.state}: cancel it before deleting it")
    trial_ids = session.scalars(select(TrialRow.id).where(TrialRow.job_id == job_id)).all()
    filenames = session.scalars(
        select(ExportRow.filename).where(
            ExportRow.job_id == job_id, ExportRow.filename.is_not(None)
        )
    ).all()
    session.execute(delete_rows(JobRow).where(JobRow.id == job_id))
    latency.forget(session, job_id)
    return DeletedJob(job_id, tuple(trial_ids), tuple(name for name in filenames if name))


def unfinished_with_dataset(session: Session, dataset: str) -> Sequence[str]:
    """Ids of the jobs that have not ended and need this data set."""
    open_states = [state for state in JobState if not state.final]
    return session.scalars(
        select(JobRow.id).where(JobRow.dataset == dataset, JobRow.state.in_(open_states))
    ).all()


# --- on a worker's side: each proves its lease first ------------------------------------------


def fence(session: Session, job_id: str, token: int) -> JobRow:
    """Lock the job's row for the holder of this token; every write of a worker starts here.

    Raises:
        LeaseLost: the lease was taken, given back, or the job is gone.
    """
    row = session.scalar(
        select(JobRow)
        .where(JobRow.id == job_id, JobRow.token == token, JobRow.worker.is_not(None))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if row is None:
        raise LeaseLost(f"the lease on job {job_id} (token {token}) is held no more")
    return row


def begin(
    session: Session,
    job_id: str,
    token: int,
    *,
    task_key: str,
    result_key: str,
    data_hash: str,
    trivial_loss: float,
    scales: dict[str, dict[str, Any]],
    device: str | None = None,
    co2_kg_per_kwh: float | None = None,
) -> None:
    """Fix what the job's numbers are measured against, once.

    task_key: equal for jobs whose results compare.  result_key: equal for jobs whose results are
    interchangeable.  scales: by metric ``{"low", "high", "log", "maximize"}``.
    device: the hardware that latencies are of.  co2_kg_per_kwh: of the electricity here.

    Raises:
        LeaseLost, Conflict: it was fixed before, and differently.
    """
    row = fence(session, job_id, token)
    if row.task_key is not None and (row.result_key, row.data_hash) != (result_key, data_hash):
        raise Conflict(f"job {job_id} was begun with other data or another training revision")
    if row.task_key is None:
        row.task_key = task_key
        row.result_key = result_key
        row.data_hash = data_hash
        row.trivial_loss = trivial_loss
        row.scales = scales
        row.device = device
        row.co2_kg_per_kwh = co2_kg_per_kwh
        session.flush()


def set_phase(session: Session, job_id: str, token: int, phase: str) -> None:
    """Say what the job is at: preparing, searching, verifying …

    Raises:
        LeaseLost
    """
    row = fence(session, job_id, token)
    if row.phase != phase:
        row.phase = phase
        _tell(session, row)


def end_asking(session: Session, job_id: str, token: int, ended_by: str) -> None:
    """Say, for good, for what no new trial is asked any more.

    Raises:
        LeaseLost
    """
    fence(session, job_id, token).ended_by = ended_by
    session.flush()


def finish(
    session: Session, job_id: str, token: int, state: JobState, error: str | None = None
) -> None:
    """End the job and give the lease back; trials that have not ended are stopped.

    Raises:
        LeaseLost, Conflict: the job's state does not allow it (it was paused or cancelled).
    """
    move(session, fence(session, job_id, token), state, error=error)


def move(session: Session, row: JobRow, state: JobState, error: str | None = None) -> None:
    """Change the state of a locked row, with all that follows from it, and tell.

    Raises:
        Conflict: the table of transitions does not have it.
    """
    check_job(row.state, state)
    now = clock.now(session)
    if row.state == JobState.RUNNING and state != JobState.CANCELLING:
        stop_timer(row, now)
    row.state = state
    row.error = error
    if state == JobState.RUNNING:
        row.started_at = row.started_at or now
        row.running_since = now
    if state.final:
        stop_timer(row, now)
        row.finished_at = now
        row.worker = row.lease_expires = None
        settling.settle(session, row.id, TrialState.STOPPED, now)
    _tell(session, row)


def stop_timer(row: JobRow, now: datetime) -> None:
    """Close the current span of running time, which a lost worker's lease has ended."""
    if row.running_since is not None:
        until = now if row.lease_expires is None else min(now, row.lease_expires)
        row.elapsed_seconds += max(0.0, (until - row.running_since).total_seconds())
        row.running_since = None


def to_record(row: JobRow) -> JobRecord:
    """The row as a value; its documents must be loaded."""
    same = {
        name: getattr(row, name)
        for name in JobRecord.__dataclass_fields__
        if name not in ("last_seq",)
    }
    return JobRecord(**same, last_seq=row.next_seq - 1)


def _same(row: JobRow, request_hash: str) -> JobRecord:
    if row.request_hash != request_hash:
        raise Conflict(
            f"the idempotency key was used for job {row.id}, whose request is another one"
        )
    return to_record(row)


def locked(session: Session, job_id: str) -> JobRow:
    """Lock the job's row whoever holds it.

    Raises:
        NotFound
    """
    row = session.scalar(
        select(JobRow)
        .where(JobRow.id == job_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if row is None:
        raise NotFound(f"there is no job {job_id}")
    return row


def _tell(session: Session, row: JobRow) -> None:
    session.flush()
    events.append(
        session,
        row.id,
        "job",
        {"state": row.state.value, "phase": row.phase, "error": row.error},
    )
