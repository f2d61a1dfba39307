"""What a job's trials tell of its rungs, read in bulk and without their architectures."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from nas.states import TrialState
from nas.store.tables import RungRow, TrialRow


@dataclass(frozen=True)
class TrialEvidence:
    """One trial: its size in non-embedding parameters, one metric at each rung that it finished.

    value: of that metric as the trial has it now.  finished_at: of its last rung.
    """

    id: str
    number: int
    state: TrialState
    error: str | None
    homogeneous: bool
    size: float | None
    value: float | None
    rungs: dict[int, float]
    training_seconds: float
    evaluation_seconds: float
    started_at: datetime | None
    finished_at: datetime | None


def of_job(session: Session, job_id: str, metric: str) -> list[TrialEvidence]:
    """All trials of a job in the order of their numbers.

    metric: one that is measured at each rung.
    """
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    ends: dict[str, datetime] = {}
    points = session.execute(
        select(RungRow.trial_id, RungRow.rung, getattr(RungRow, metric), RungRow.finished_at)
        .join(TrialRow, TrialRow.id == RungRow.trial_id)
        .where(TrialRow.job_id == job_id)
    )
    for trial_id, rung, value, finished_at in points:
        if value is not None:
            curves[trial_id][rung] = value
        ends[trial_id] = max(finished_at, ends.get(trial_id, finished_at))
    trials = session.execute(
        select(
            TrialRow.id,
            TrialRow.number,
            TrialRow.state,
            TrialRow.error,
            TrialRow.homogeneous,
            TrialRow.non_embedding_parameters,
            getattr(TrialRow, metric),
            TrialRow.training_seconds,
            TrialRow.evaluation_seconds,
            TrialRow.started_at,
        )
        .where(TrialRow.job_id == job_id)
        .order_by(TrialRow.number)
    )
    return [
        TrialEvidence(
            id=row.id,
            number=row.number,
            state=row.state,
            error=row.error,
            homogeneous=row.homogeneous,
            size=row.non_embedding_parameters,
            value=row[6],
            rungs=curves.get(row.id, {}),
            training_seconds=row.training_seconds,
            evaluation_seconds=row.evaluation_seconds,
            started_at=row.started_at,
            finished_at=ends.get(row.id),
        )
        for row in trials
    ]
