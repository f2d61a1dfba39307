"""Exports: requested rows that a worker serves under a lease of their own."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from nas.errors import Conflict, LeaseLost, NotFound
from nas.states import ExportState, TrialState, check_export
from nas.store import clock, events
from nas.store.ids import new_id
from nas.store.records import ExportRecord
from nas.store.tables import ExportRow, JobRow, TrialRow


def request(session: Session, trial_id: str, export_format: str) -> tuple[ExportRecord, bool]:
    """The export of a trial in a format: a new queued one, or the one that is there (False).

    One that failed does not count.

    Raises:
        NotFound: there is no such trial.
        Conflict: it is not trained to full fidelity.
    """
    job_id = session.scalar(select(TrialRow.job_id).where(TrialRow.id == trial_id))
    if job_id is None or not _lock_job(session, job_id):
        raise NotFound(f"there is no trial {trial_id}")
    state = session.scalar(select(TrialRow.state).where(TrialRow.id == trial_id))
    if state not in (TrialState.COMPLETED, TrialState.REUSED):
        raise Conflict(f"trial {trial_id} is {state}: only fully trained ones can be exported")
    known = session.scalar(
        select(ExportRow).where(
            ExportRow.trial_id == trial_id,
            ExportRow.format == export_format,
            ExportRow.state != ExportState.FAILED,
        )
    )
    if known is not None:
        return to_record(known), False
    row = ExportRow(
        id=new_id("export"),
        job_id=job_id,
        trial_id=trial_id,
        format=export_format,
        state=ExportState.QUEUED,
        created_at=clock.now(session),
    )
    session.add(row)
    _tell(session, row)
    return to_record(row), True


def get(session: Session, export_id: str) -> ExportRecord:
    """The export.

    Raises:
        NotFound
    """
    row = session.get(ExportRow, export_id)
    if row is None:
        raise NotFound(f"there is no export {export_id}")
    return to_record(row)


def claim(session: Session, worker: str, lease_seconds: float) -> ExportRecord | None:
    """The oldest export that waits or has lost its worker, now leased to this one and running."""
    now = clock.now(session)
    row = session.scalar(
        select(ExportRow)
        .join(JobRow, JobRow.id == ExportRow.job_id)
        .where(
            or_(
                ExportRow.state == ExportState.QUEUED,
                and_(ExportRow.state == ExportState.RUNNING, ExportRow.lease_expires < now),
            )
        )
        .order_by(ExportRow.created_at, ExportRow.id)
        .limit(1)
        # the job's row first, as everywhere: its events are numbered under that lock
        .with_for_update(of=JobRow, skip_locked=True)
        .execution_options(populate_existing=True)
    )
    if row is None:
        return None
    session.refresh(row)
    expired = row.lease_expires is not None and row.lease_expires < now
    if row.state != ExportState.QUEUED and not (row.state == ExportState.RUNNING and expired):
        return None  # another worker was quicker, between our look and our lock
    row.worker = worker
    row.token += 1
    row.attempts += 1
    row.lease_expires = now + timedelta(seconds=lease_seconds)
    if row.state == ExportState.QUEUED:
        _move(session, row, ExportState.RUNNING)
    session.flush()
    return to_record(row)


def renew(session: Session, export_id: str, token: int, lease_seconds: float) -> None:
    """Hold the lease for longer.

    Raises:
        LeaseLost
    """
    row = _fenced(session, export_id, token)
    row.lease_expires = clock.now(session) + timedelta(seconds=lease_seconds)
    session.flush()


def finish(session: Session, export_id: str, token: int, filename: str) -> None:
    """The export lies in the exports folder under this name.

    Raises:
        LeaseLost
    """
    row = _fenced(session, export_id, token)
    row.filename = filename
    _move(session, row, ExportState.SUCCEEDED)


def fail(session: Session, export_id: str, token: int, error: str) -> None:
    """The export cannot be made, and why.

    Raises:
        LeaseLost
    """
    row = _fenced(session, export_id, token)
    row.error = error
    _move(session, row, ExportState.FAILED)


def release(session: Session, export_id: str, token: int) -> None:
    """Give the export back to the queue without counting the attempt.

    Raises:
        LeaseLost
    """
    row = _fenced(session, export_id, token)
    row.attempts -= 1
    _move(session, row, ExportState.QUEUED)


def abandon(session: Session, export_id: str, token: int) -> None:
    """Give the export back after a crash: the same, but the attempt counts.

    Raises:
        LeaseLost
    """
    _move(session, _fenced(session, export_id, token), ExportState.QUEUED)


def to_record(row: ExportRow) -> ExportRecord:
    """The row as a value."""
    return ExportRecord(**{name: getattr(row, name) for name in ExportRecord.__dataclass_fields__})


def _lock_job(session: Session, job_id: str) -> bool:
    found = session.scalar(select(JobRow.id).where(JobRow.id == job_id).with_for_update())
    return found is not None


def _fenced(session: Session, export_id: str, token: int) -> ExportRow:
    lost = LeaseLost(f"the lease on export {export_id} (token {token}) is held no more")
    job_id = session.scalar(select(ExportRow.job_id).where(ExportRow.id == export_id))
    if job_id is None or not _lock_job(session, job_id):
        raise lost
    row = session.get(ExportRow, export_id, populate_existing=True)
    if row is None or row.token != token or row.worker is None:
        raise lost
    return row


def _move(session: Session, row: ExportRow, state: ExportState) -> None:
    try:
        check_export(row.state, state)
    except Conflict as error:
        raise LeaseLost(str(error)) from error
    row.state = state
    if state != ExportState.RUNNING:
        row.worker = row.lease_expires = None
    if state in (ExportState.SUCCEEDED, ExportState.FAILED):
        row.finished_at = clock.now(session)
    _tell(session, row)


def _tell(session: Session, row: ExportRow) -> None:
    session.flush()
    events.append(session, row.job_id, "export", {"export": row.id, "state": row.state.value})
