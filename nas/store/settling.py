"""What becomes of a job's open trials when the job ends or changes hands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from nas.states import TrialState, check_trial
from nas.store import events
from nas.store.reading import documents, to_record
from nas.store.records import TrialRecord
from nas.store.tables import TrialRow


def settle(session: Session, job_id: str, state: TrialState, now: datetime) -> None:
    """Bring every open trial of a locked job to this final state."""
    open_states = [s for s in TrialState if not s.final]
    rows = session.scalars(
        select(TrialRow)
        .where(TrialRow.job_id == job_id, TrialRow.state.in_(open_states))
        .order_by(TrialRow.number)
        .execution_options(populate_existing=True)
    ).all()
    move(session, rows, state, now)


def interrupt(session: Session, job_id: str, now: datetime) -> None:
    """Put the running trials of a locked job back to where their last finished rung left them."""
    rows = session.scalars(
        select(TrialRow)
        .where(TrialRow.job_id == job_id, TrialRow.state == TrialState.RUNNING)
        .order_by(TrialRow.number)
        .execution_options(populate_existing=True)
    ).all()
    for row in rows:
        move(session, [row], before_running(row), now)


def before_running(row: TrialRow) -> TrialState:
    """Where an interrupted trial goes back to."""
    return TrialState.WAITING if row.rung is None else TrialState.PAUSED


def move(
    session: Session, rows: Sequence[TrialRow], state: TrialState, now: datetime
) -> list[TrialRecord]:
    """Change the state of trials of a locked job, and tell (see there).

    Raises:
        Conflict: the table of transitions does not have it.
    """
    for row in rows:
        check_trial(row.state, state)
        # an interrupted trial keeps the rung that it was on its way to: that segment goes on first
        interrupted = row.state == TrialState.RUNNING and state == before_running(row)
        row.state = state
        if not interrupted:
            row.active_rung = None
        if state.final:
            row.finished_at = now
    return tell(session, rows)


def tell(
    session: Session,
    rows: Sequence[TrialRow],
    architectures: Mapping[str, dict[str, Any]] | None = None,
) -> list[TrialRecord]:
    """Append the events of trials of one job as they are now; gives them without verifications.

    architectures: by trial, where the caller has them.
    """
    if not rows:
        return []
    if architectures is None:
        architectures = documents(session, [row.id for row in rows])
    first = events.next_seq(session, rows[0].job_id, len(rows))
    trials = [to_record(row, architectures[row.id]) for row in rows]
    for seq, (row, trial) in enumerate(zip(rows, trials, strict=True), start=first):
        row.seq = seq
        events.add(
            session,
            row.job_id,
            seq,
            "trial",
            {
                "trial": trial.id,
                "number": trial.number,
                "state": trial.state.value,
                "rung": trial.rung,
                "steps": trial.steps,
                "metrics": trial.metrics,
                "fingerprint": trial.fingerprint,
                "attention": trial.attention,
            },
        )
    return trials
