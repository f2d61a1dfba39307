"""The time by which leases are held: the database's own, where it has one for all its clients."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session


def now(session: Session) -> datetime:
    """PostgreSQL's clock, since its clients' clocks may differ; else this machine's."""
    if session.get_bind().dialect.name == "postgresql":
        at = session.scalar(select(func.clock_timestamp()))
        if isinstance(at, datetime):
            return at.astimezone(UTC)
    return datetime.now(UTC)
