"""Latency tables of devices."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from nas.store import clock, upsert
from nas.store.tables import LatencyTableRow


def get(session: Session, device: str, job_id: str | None = None) -> dict[str, Any] | None:
    """The table of this device, if it was measured; a job's own, if one is named."""
    row = session.get(LatencyTableRow, _key(device, job_id))
    return None if row is None else row.table


def newest(session: Session, shape: str) -> dict[str, Any] | None:
    """The table measured last, on whatever device, for this shape of work (``costs.shape_key``)."""
    row = session.scalar(
        select(LatencyTableRow)
        .where(LatencyTableRow.device.endswith(shape, autoescape=True))
        .order_by(LatencyTableRow.updated_at.desc())
        .limit(1)
    )
    return None if row is None else row.table


def put(session: Session, device: str, table: dict[str, Any], job_id: str | None = None) -> None:
    """Keep this table for the device, or for one job alone, in the place of an older one."""
    key = _key(device, job_id)
    values = {"device": key, "table": table, "updated_at": clock.now(session)}
    upsert.put(session, LatencyTableRow, "device", values)


def forget(session: Session, job_id: str) -> None:
    """Drop the tables that a job has kept for itself."""
    mine = LatencyTableRow.device.endswith(_key("", job_id), autoescape=True)
    session.execute(delete(LatencyTableRow).where(mine))


def _key(device: str, job_id: str | None) -> str:
    return device if job_id is None else f"{device} job={job_id}"
