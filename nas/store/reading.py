"""Trial rows as values: architecture, metrics, curve and verifications put together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from nas.catalogue.metrics import METRICS
from nas.store.estimates import Verified, of_jobs
from nas.store.records import CurveRecord, TrialRecord
from nas.store.tables import ArchitectureRow, RungMetrics, RungRow, TrialRow, VerificationRow

_CHUNK = 500
"""Ids in one query: SQLite and PostgreSQL both limit the parameters of a statement."""

NOTHING_VERIFIED = Verified()

_SAME = tuple(
    name
    for name in TrialRecord.__dataclass_fields__
    if name not in ("architecture", "metrics", "curve", "verifications", "verified", "tested")
)


def metrics_of(row: RungMetrics) -> dict[str, float]:
    """The metrics that the row has, in the catalogue's order."""
    found = {name: getattr(row, name, None) for name in METRICS}
    return {name: value for name, value in found.items() if value is not None}


def to_record(
    row: TrialRow,
    architecture: dict[str, Any],
    curve: Sequence[CurveRecord] = (),
    verified: Verified = NOTHING_VERIFIED,
) -> TrialRecord:
    """The row as a value.

    verified: what its job has verified.
    """
    return TrialRecord(
        architecture=architecture,
        metrics=metrics_of(row),
        curve=tuple(curve),
        verifications=tuple(verified.runs.get(row.id, ())),
        verified=verified.verified.get(row.id, {}),
        tested=verified.tested.get(row.id, {}),
        **{name: getattr(row, name) for name in _SAME},
    )


def rows_of(session: Session, trial_ids: Sequence[str]) -> dict[str, TrialRow]:
    """These trials as they are in the database now, by id; those that do not exist are left out."""
    query = select(TrialRow).execution_options(populate_existing=True)
    return {
        row.id: row
        for ids in _chunks(trial_ids)
        for row in session.scalars(query.where(TrialRow.id.in_(ids)))
    }


def records(
    session: Session, rows: Sequence[TrialRow], *, with_curve: bool = False
) -> list[TrialRecord]:
    """The rows as values, in the same order, with a few queries for all of them."""
    ids = [row.id for row in rows]
    architectures = documents(session, ids)
    verified = _verified(session, rows)
    points = curves(session, ids) if with_curve else {}
    return [
        to_record(
            row,
            architectures[row.id],
            points.get(row.id, ()),
            verified.get(row.job_id, NOTHING_VERIFIED),
        )
        for row in rows
    ]


def documents(session: Session, trial_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The architectures of these trials, by trial."""
    query = select(ArchitectureRow.trial_id, ArchitectureRow.document)
    return {
        trial_id: document
        for ids in _chunks(trial_ids)
        for trial_id, document in session.execute(query.where(ArchitectureRow.trial_id.in_(ids)))
    }


def curves(session: Session, trial_ids: Sequence[str]) -> dict[str, list[CurveRecord]]:
    """The learning curves of these trials, by trial, in the order of the rungs."""
    found: dict[str, list[CurveRecord]] = defaultdict(list)
    for ids in _chunks(trial_ids):
        query = select(RungRow).where(RungRow.trial_id.in_(ids))
        for r in session.scalars(query.order_by(RungRow.trial_id, RungRow.rung)):
            found[r.trial_id].append(
                CurveRecord(
                    r.rung,
                    r.steps,
                    metrics_of(r),
                    r.training_seconds,
                    r.evaluation_seconds,
                    r.finished_at,
                )
            )
    return found


def _verified(session: Session, rows: Sequence[TrialRow]) -> dict[str, Verified]:
    """What the jobs of these trials have verified, where one of the trials is among it."""
    jobs = {row.id: row.job_id for row in rows}
    concerned: set[str] = set()
    for ids in _chunks(list(jobs)):
        query = select(VerificationRow.trial_id).where(VerificationRow.trial_id.in_(ids))
        concerned |= {jobs[trial_id] for trial_id in session.scalars(query)}
    return of_jobs(session, concerned) if concerned else {}


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))
