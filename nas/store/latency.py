"""Latency tables of devices."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from nas.store import clock, upsert
from nas.store.tables import LatencyTableRow


def get(session: Session, device: str) -> dict[str, Any] | None:
    """The table of this device, if it was measured."""
    row = session.get(LatencyTableRow, device)
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


def put(session: Session, device: str, table: dict[str, Any]) -> None:
    """Keep this table for the device, in the place of an older one."""
    values = {"device": device, "table": table, "updated_at": clock.now(session)}
    upsert.put(session, LatencyTableRow, "device", values)
