"""How far jobs are, counted by the database."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from nas.catalogue.metrics import METRICS
from nas.states import TrialState
from nas.store.records import JobRecord
from nas.store.tables import TrialRow

Bound = tuple[str, float | None, float | None]
"""Metric, least and greatest value allowed."""

COMPLETE = (TrialState.COMPLETED, TrialState.REUSED)


@dataclass
class Counts:
    """Trials of one job by state, and by the last rung that they were trained to here (or None)."""

    states: Counter[TrialState] = field(default_factory=Counter)
    last_rungs: Counter[int | None] = field(default_factory=Counter)
    settled: int = 0
    """Trained to a rung or ended, reused ones not counted."""


@dataclass(frozen=True)
class Overview:
    """A job with what its trials have come to."""

    job: JobRecord
    counts: Counts
    best: dict[str, float]


def overview(session: Session, jobs: Sequence[JobRecord]) -> list[Overview]:
    """Each of these jobs with what its trials have come to."""
    counted = counts(session, [job.id for job in jobs])
    return [
        Overview(
            job,
            counted[job.id],
            best(
                session,
                job.id,
                job.request["objectives"],
                [(c["metric"], c["min"], c["max"]) for c in job.request["constraints"]],
            ),
        )
        for job in jobs
    ]


def counts(session: Session, job_ids: Sequence[str]) -> dict[str, Counts]:
    """Of each of these jobs, by one walk along an index."""
    rows = session.execute(
        select(TrialRow.job_id, TrialRow.state, TrialRow.rung, func.count())
        .where(TrialRow.job_id.in_(job_ids))
        .group_by(TrialRow.job_id, TrialRow.state, TrialRow.rung)
    )
    found: dict[str, Counts] = defaultdict(Counts)
    for job_id, state, rung, number in rows:
        job = found[job_id]
        job.states[state] += number
        if state != TrialState.REUSED:
            job.last_rungs[rung] += number
            if rung is not None or state.final:
                job.settled += number
    return found


def best(
    session: Session, job_id: str, objectives: Sequence[str], bounds: Iterable[Bound]
) -> dict[str, float]:
    """The best value of each objective among complete feasible trials.

    While none is complete: among those that have come to the highest rung reached.
    """
    conditions = [TrialRow.job_id == job_id, *feasible(bounds)]
    among = [*conditions, TrialRow.state.in_(COMPLETE)]
    if session.scalar(select(TrialRow.id).where(*among).limit(1)) is None:
        highest = session.scalar(select(func.max(TrialRow.rung)).where(*conditions))
        if highest is None:
            return {}
        among = [*conditions, TrialRow.rung == highest]
    found = {}
    for name in objectives:
        column = getattr(TrialRow, name)
        order = column.asc() if METRICS[name].direction == "minimize" else column.desc()
        # the first fit along the metric's index, rather than an aggregate over all that fit
        query = select(column).where(*among, column.is_not(None)).order_by(order).limit(1)
        value = session.scalar(query)
        if value is not None:
            found[name] = value
    return found


def feasible(bounds: Iterable[Bound]) -> list[ColumnElement[bool]]:
    """Conditions that hold for trials whose metrics are known to keep the bounds."""
    conditions: list[ColumnElement[bool]] = []
    for metric, low, high in bounds:
        # an expression, which no index serves: a bound is not what a query should begin with
        column = getattr(TrialRow, metric) + 0.0
        if low is not None:
            conditions.append(column >= low)
        if high is not None:
            conditions.append(column <= high)
    return conditions
