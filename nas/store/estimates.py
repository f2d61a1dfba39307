"""What verification gave: each member's means, under the spread pooled over all of its job."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from nas.catalogue.metrics import METRICS
from nas.spread import Estimate, Spread, pooled, pooled_rounds
from nas.store.records import VerificationRecord
from nas.store.tables import LatencyRoundsRow, TrialRow, VerificationRow

LATENCY = "latency_ms"
Values = dict[str, list[float]]


@dataclass(frozen=True)
class Verified:
    """The verified trials of one job, by id.

    runs: in the order of their seeds.  rounds: milliseconds, round by round beside one another, of
    all that were to be verified, be there runs of them or not.
    verified, tested: by trial and metric, on the validation and on the test split.  spreads: by
    metric; that of latency is of logarithms.
    """

    runs: dict[str, list[VerificationRecord]] = field(default_factory=dict)
    rounds: dict[str, list[float]] = field(default_factory=dict)
    verified: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    tested: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    spreads: dict[str, Spread] = field(default_factory=dict)
    alone: bool = True


def of_job(session: Session, job_id: str) -> Verified:
    """All that the job has verified."""
    return of_jobs(session, [job_id]).get(job_id, Verified())


def of_jobs(session: Session, job_ids: Collection[str]) -> dict[str, Verified]:
    """All that each of these jobs has verified; jobs without any are left out."""
    runs: dict[str, dict[str, list[VerificationRecord]]] = defaultdict(lambda: defaultdict(list))
    found = session.execute(
        select(TrialRow.job_id, VerificationRow)
        .join(TrialRow, TrialRow.id == VerificationRow.trial_id)
        .where(TrialRow.job_id.in_(job_ids))
        .order_by(VerificationRow.trial_id, VerificationRow.seed)
    )
    for job_id, row in found:
        runs[job_id][row.trial_id].append(to_record(row))
    rounds: dict[str, dict[str, LatencyRoundsRow]] = defaultdict(dict)
    timed = session.execute(
        select(TrialRow.job_id, LatencyRoundsRow)
        .join(TrialRow, TrialRow.id == LatencyRoundsRow.trial_id)
        .where(TrialRow.job_id.in_(job_ids))
        .order_by(LatencyRoundsRow.trial_id)
    )
    for job_id, timing in timed:
        rounds[job_id][timing.trial_id] = timing
    return {job_id: _estimated(runs[job_id], rounds[job_id]) for job_id in {*runs, *rounds}}


def to_record(row: VerificationRow) -> VerificationRecord:
    """The row as a value."""
    found = {name: getattr(row, name) for name in METRICS}
    metrics = {name: value for name, value in found.items() if value is not None}
    return VerificationRecord(row.seed, metrics, dict(row.test or {}))


def _estimated(
    runs: Mapping[str, list[VerificationRecord]], rounds: Mapping[str, LatencyRoundsRow]
) -> Verified:
    validation = {trial: _by_metric(r.metrics for r in own) for trial, own in runs.items()}
    test = {trial: _by_metric(r.test for r in own) for trial, own in runs.items()}
    spreads = _spreads(validation)
    verified = {
        trial: {name: Estimate.of(values, spreads[name]) for name, values in own.items()}
        for trial, own in validation.items()
    }
    test_spreads = _spreads(test)
    tested = {
        trial: {name: Estimate.of(values, test_spreads[name]) for name, values in own.items()}
        for trial, own in test.items()
    }
    times = {trial: list(row.milliseconds) for trial, row in rounds.items()}
    if times:
        # rounds are of all members together: what one of them lacks is of no use to the others
        least = min(map(len, times.values()))
        spreads[LATENCY] = pooled_rounds(np.log([own[:least] for own in times.values()]))
        for trial in verified.keys() & times.keys():
            estimate = Estimate.of_ratios(times[trial][:least], spreads[LATENCY])
            verified[trial][LATENCY] = estimate
    return Verified(
        dict(runs), times, verified, tested, spreads, all(row.alone for row in rounds.values())
    )


def _by_metric(measured: Iterable[Mapping[str, float]]) -> Values:
    values: Values = defaultdict(list)
    for metrics in measured:
        for name, value in metrics.items():
            values[name].append(value)
    return values


def _spreads(members: Mapping[str, Values]) -> dict[str, Spread]:
    names = {name for own in members.values() for name in own}
    return {name: pooled(own[name] for own in members.values() if name in own) for name in names}
