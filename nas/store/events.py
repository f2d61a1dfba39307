"""Events: what happened in a job, numbered without gaps under the lock of the job's row."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from nas.store.records import EventRecord
from nas.store.tables import EventRow, JobRow

_LAST = 2**31 - 1
"""The greatest number that the column holds."""


def append(session: Session, job_id: str, event_type: str, data: dict[str, Any]) -> int:
    """Add an event to the transaction of the change that it tells of; returns its seq."""
    seq = next_seq(session, job_id)
    add(session, job_id, seq, event_type, data)
    return seq


def next_seq(session: Session, job_id: str, count: int = 1) -> int:
    """The first number of the events that the caller adds; the job's row is locked from here on."""
    following = session.scalars(
        update(JobRow)
        .where(JobRow.id == job_id)
        .values(next_seq=JobRow.next_seq + count)
        .returning(JobRow.next_seq)
        # what else is pending may wait for the end of the transaction, and be written together
        .execution_options(synchronize_session=False, autoflush=False)
    ).one()
    return following - count


def add(session: Session, job_id: str, seq: int, event_type: str, data: dict[str, Any]) -> None:
    """Add the event of this number."""
    session.add(EventRow(job_id=job_id, seq=seq, type=event_type, at=datetime.now(UTC), data=data))


def after(session: Session, job_id: str, seq: int = 0, limit: int = 500) -> list[EventRecord]:
    """Up to ``limit`` events of a job that follow number ``seq``, in order."""
    seq = max(0, min(seq, _LAST))
    rows = session.scalars(
        select(EventRow)
        .where(EventRow.job_id == job_id, EventRow.seq > seq)
        .order_by(EventRow.seq)
        .limit(limit)
    )
    return [EventRecord(r.job_id, r.seq, r.type, r.at, r.data) for r in rows]


def heads(session: Session, job_ids: Sequence[str]) -> dict[str, int]:
    """The last seq of each of these jobs that exists: what a tailer polls, in one query."""
    rows = session.execute(select(JobRow.id, JobRow.next_seq).where(JobRow.id.in_(job_ids)))
    return {job_id: next_seq - 1 for job_id, next_seq in rows}
