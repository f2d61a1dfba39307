"""What a trial's costs were predicted to be, and what they were measured to be."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from nas.store import clock
from nas.store.tables import MeasurementRow, TrialRow


@dataclass(frozen=True)
class MeasurementRecord:
    """A cost of a trial; predicted and its interval are None where nothing was predicted.

    alone: whether nothing else ran on the machine meanwhile.
    """

    trial_id: str
    number: int
    metric: str
    predicted: float | None
    measured: float
    low: float | None
    high: float | None
    alone: bool


def put(
    session: Session,
    trial_id: str,
    metric: str,
    *,
    measured: float,
    alone: bool,
    predicted: float | None = None,
    interval: tuple[float, float] | None = None,
) -> None:
    """Keep what a trial's metric was measured to be, in the place of an earlier measurement.

    interval: of what was predicted. Whoever calls proves the job's lease in the same transaction.
    """
    low, high = interval or (None, None)
    session.merge(
        MeasurementRow(
            trial_id=trial_id,
            metric=metric,
            predicted=predicted,
            measured=measured,
            low=low,
            high=high,
            alone=alone,
            finished_at=clock.now(session),
        )
    )


def of_job(session: Session, job_id: str) -> list[MeasurementRecord]:
    """All measurements of a job's trials, by metric and number of the trial."""
    rows = session.execute(
        select(MeasurementRow, TrialRow.number)
        .join(TrialRow, TrialRow.id == MeasurementRow.trial_id)
        .where(TrialRow.job_id == job_id)
        .order_by(MeasurementRow.metric, TrialRow.number)
    )
    return [
        MeasurementRecord(
            row.trial_id,
            number,
            row.metric,
            row.predicted,
            row.measured,
            row.low,
            row.high,
            row.alone,
        )
        for row, number in rows
    ]
