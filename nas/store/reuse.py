"""Results that hold for other jobs too, and what they have saved. Nothing here commits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, case, select
from sqlalchemy.orm import Session, aliased

from nas.states import TrialState
from nas.store.reading import documents, records
from nas.store.records import TrialRecord
from nas.store.tables import JobRow, TrialRow
from nas.store.trials import RUNG_METRICS


@dataclass(frozen=True)
class Saved:
    """What a job need not have trained: its reused trials, in full trainings and core-seconds.

    core_seconds: as the jobs that trained them were billed, where those are still there.
    """

    trials: int
    full_trainings: float
    core_seconds: float


def reusable(
    session: Session, fingerprint: str, result_key: str, metrics: Iterable[str] = ()
) -> TrialRecord | None:
    """A trial at full fidelity whose result holds for jobs of this key, if there is one.

    metrics: those of them that training gives must be there: not every job measures all.
    """
    row = session.scalar(
        _interchangeable(result_key, metrics)
        .where(
            TrialRow.fingerprint == fingerprint,
            TrialRow.state.in_((TrialState.COMPLETED, TrialState.REUSED)),
        )
        # the one that was trained, rather than one that reused it
        .order_by(case((TrialRow.state == TrialState.COMPLETED, 0), else_=1), TrialRow.id)
        .limit(1)
    )
    return None if row is None else records(session, [row], with_curve=True)[0]


def known_architectures(
    session: Session, result_key: str, metrics: Iterable[str], limit: int
) -> list[dict[str, Any]]:
    """Documents of the latest that were trained in full with results for this key, oldest first."""
    latest = session.scalars(
        _interchangeable(result_key, metrics)
        .where(TrialRow.state == TrialState.COMPLETED)
        .order_by(TrialRow.id.desc())
        .limit(limit)
    ).all()
    trained = {row.fingerprint: row.id for row in reversed(latest)}
    found = documents(session, list(trained.values()))
    return [found[trial_id] for trial_id in trained.values()]


def saved(session: Session, job_id: str) -> Saved:
    """What reuse has saved a job."""
    trained = aliased(TrialRow)
    rows = session.execute(
        select(
            TrialRow.fidelity,
            trained.training_seconds + trained.evaluation_seconds,
            JobRow.request["resources"]["threads"].as_integer(),
        )
        .outerjoin(trained, trained.id == TrialRow.reused_from)
        .outerjoin(JobRow, JobRow.id == trained.job_id)
        .where(TrialRow.job_id == job_id, TrialRow.state == TrialState.REUSED)
    ).all()
    return Saved(
        trials=len(rows),
        full_trainings=sum(fidelity for fidelity, _, _ in rows),
        core_seconds=sum((seconds or 0.0) * (threads or 1) for _, seconds, threads in rows),
    )


def _interchangeable(result_key: str, metrics: Iterable[str]) -> Select[TrialRow]:
    """Trials of jobs of this key that have these metrics."""
    wanted = [name for name in RUNG_METRICS if name in set(metrics)]
    return select(TrialRow).where(
        TrialRow.result_key == result_key,
        *(getattr(TrialRow, name).is_not(None) for name in wanted),
    )
