"""Worker processes and their heartbeats."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from nas.store import clock, upsert
from nas.store.records import WorkerRecord
from nas.store.tables import WorkerRow


def beat(session: Session, worker: str, *, host: str, pid: int, started: float) -> None:
    """Say that this worker is alive; the first time, that it is there."""
    values = {"id": worker, "host": host, "pid": pid, "started": started}
    upsert.put(session, WorkerRow, "id", {**values, "heartbeat": clock.now(session)})


def leave(session: Session, worker: str) -> None:
    """Say that this worker is gone."""
    session.execute(delete(WorkerRow).where(WorkerRow.id == worker))


def all(session: Session) -> list[WorkerRecord]:  # noqa: A001 - read as workers.all
    """Every worker that has not left, by id; old heartbeats tell the dead."""
    rows = session.scalars(select(WorkerRow).order_by(WorkerRow.id))
    return [WorkerRecord(r.id, r.host, r.pid, r.started, r.heartbeat) for r in rows]
