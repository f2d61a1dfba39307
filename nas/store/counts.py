"""How many rows there are in each state, for those who watch the service."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nas.states import ExportState, JobState
from nas.store.tables import ExportRow, JobRow


def jobs(session: Session) -> dict[JobState, int]:
    """Jobs by state, every state named."""
    found = dict.fromkeys(JobState, 0)
    for state, count in session.execute(select(JobRow.state, func.count()).group_by(JobRow.state)):
        found[state] = count
    return found


def exports(session: Session) -> dict[ExportState, int]:
    """Exports by state, every state named."""
    found = dict.fromkeys(ExportState, 0)
    for state, count in session.execute(
        select(ExportRow.state, func.count()).group_by(ExportRow.state)
    ):
        found[state] = count
    return found
