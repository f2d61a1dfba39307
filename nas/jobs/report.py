"""The trust report of a job, computed from its rows whenever it is asked for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, pairwise

from nas import reports, schemas
from nas.jobs import caveats, documents
from nas.search.rungs import is_audited
from nas.search.trust import Agreement, agreement, agreement_beyond
from nas.spread import Estimate
from nas.states import TrialState
from nas.store import Store, estimates, evidence, measurements, reuse, verifications
from nas.store import jobs as job_rows
from nas.store.estimates import Verified
from nas.store.evidence import TrialEvidence
from nas.store.measurements import MeasurementRecord
from nas.store.records import JobRecord, TransferRecord
from nas.store.reuse import Saved

QUALITIES = ("loss", "accuracy")
RELATIVE = frozenset({estimates.LATENCY})


@dataclass(frozen=True)
class _Evidence:
    """All that the rows of a job tell."""

    job: JobRecord
    request: schemas.JobRequest
    metric: str
    trials: list[TrialEvidence]
    verified: Verified
    transfers: list[TransferRecord]
    measured: list[MeasurementRecord]
    saved: Saved

    def estimate(self, trial_id: str) -> Estimate | None:
        """What fresh seeds gave in the report's metric."""
        return self.verified.verified.get(trial_id, {}).get(self.metric)


def trust_report(store: Store, job_id: str) -> reports.TrustReport:
    """What the numbers of a job are worth, so far if it has not ended.

    Raises:
        NotFound: there is no such job.
    """
    with store.read() as session:
        job = job_rows.record(session, job_id)
        request = schemas.JobRequest.model_validate(job.request)
        metric = next((name for name in request.objectives if name in QUALITIES), QUALITIES[0])
        found = _Evidence(
            job=job,
            request=request,
            metric=metric,
            trials=evidence.of_job(session, job_id, metric),
            verified=estimates.of_job(session, job_id),
            transfers=verifications.transfers(session, job_id),
            measured=measurements.of_job(session, job_id),
            saved=reuse.saved(session, job_id),
        )
    figures = reports.TrustReport(
        job=job_id,
        state=job.state,
        metric=metric,
        warnings=[],
        audits=_audits(found),
        rungs=_rungs(found),
        costs=_costs(found.measured),
        spreads=_spreads(found.verified),
        members=_members(found),
        neighbours=_neighbours(found),
        tasks=_tasks(found),
        time=_time(found, datetime.now(UTC)),
        reuse=_reuse(found),
        failures=_failures(found.trials),
        irreproducible=caveats.irreproducible(job, request),
    )
    warnings = caveats.warnings(figures, request, timed_alone=found.verified.alone)
    return figures.model_copy(update={"warnings": warnings})


def _audits(found: _Evidence) -> reports.Audits:
    drawn = _audited(found)
    return reports.Audits(
        share=found.request.fidelity.audit,
        drawn=len(drawn),
        completed=sum(t.state is TrialState.COMPLETED for t in drawn),
    )


def _audited(found: _Evidence) -> list[TrialEvidence]:
    share, seed = found.request.fidelity.audit, found.request.seed
    trained = [t for t in found.trials if t.state is not TrialState.REUSED]
    return [t for t in trained if is_audited(t.number, share, seed)]


def _rungs(found: _Evidence) -> list[reports.RungTrust]:
    steps = found.request.fidelity.rungs()
    top = len(steps) - 1
    completed = [t for t in found.trials if t.state is TrialState.COMPLETED and top in t.rungs]
    drawn = {t.id for t in _audited(found)}
    audited = [t for t in completed if t.id in drawn]
    return [
        reports.RungTrust(
            rung=rung,
            steps=steps[rung],
            audited=_ranks(_agreement(audited, rung, top)),
            audited_beyond_size=_ranks(_beyond_size(audited, rung, top)),
            completed=_ranks(_agreement(completed, rung, top)),
            completed_beyond_size=_ranks(_beyond_size(completed, rung, top)),
        )
        for rung in range(top)
    ]


def _agreement(trials: Sequence[TrialEvidence], rung: int, top: int) -> Agreement:
    return agreement(_at(trials, rung), _at(trials, top))


def _beyond_size(trials: Sequence[TrialEvidence], rung: int, top: int) -> Agreement:
    sizes = [math.log(t.size) if t.size else math.nan for t in trials]
    return agreement_beyond(_at(trials, rung), _at(trials, top), sizes)


def _at(trials: Sequence[TrialEvidence], rung: int) -> list[float]:
    return [trial.rungs.get(rung, math.nan) for trial in trials]


def _ranks(found: Agreement) -> reports.RankAgreement:
    return reports.RankAgreement(
        n=found.n, kendall=found.kendall, spearman=found.spearman, too_few=found.too_few
    )


def _costs(measured: Sequence[MeasurementRecord]) -> list[reports.CostTrust]:
    # relative errors need something to be relative to
    known = [m for m in measured if m.predicted is not None and m.measured > 0]
    return [
        _cost(metric, list(of_metric)) for metric, of_metric in groupby(known, lambda m: m.metric)
    ]


def _cost(metric: str, measured: Sequence[MeasurementRecord]) -> reports.CostTrust:
    predicted = [m.predicted or 0.0 for m in measured]
    errors = [p / m.measured - 1 for p, m in zip(predicted, measured, strict=True)]
    at, worst = max(enumerate(measured), key=lambda pair: abs(errors[pair[0]]))
    within = [
        m.low <= m.measured <= m.high for m in measured if m.low is not None and m.high is not None
    ]
    return reports.CostTrust(
        metric=metric,
        n=len(measured),
        error=sum(map(abs, errors)) / len(errors),
        bias=sum(errors) / len(errors),
        ranks=_ranks(agreement(predicted, [m.measured for m in measured])),
        worst=reports.CostError(
            trial=worst.trial_id,
            number=worst.number,
            predicted=predicted[at],
            measured=worst.measured,
        ),
        covered=sum(within) / len(within) if within else None,
        alone=all(m.alone for m in measured),
    )


def _spreads(verified: Verified) -> list[reports.SeedSpread]:
    return [
        reports.SeedSpread(
            metric=name,
            sd=spread.sd if spread.freedom else None,
            relative=name in RELATIVE,
            degrees_of_freedom=spread.freedom,
        )
        for name, spread in sorted(verified.spreads.items())
    ]


def _members(found: _Evidence) -> list[reports.VerifiedMember]:
    by_id = {t.id: t for t in found.trials}
    members = [
        (by_id[trial_id], estimate)
        for trial_id in found.verified.runs
        if (estimate := found.estimate(trial_id)) is not None
    ]
    return [
        reports.VerifiedMember(
            trial=trial.id,
            number=trial.number,
            homogeneous=trial.homogeneous,
            searched=trial.value,
            verified=documents.interval(estimate),
            tested=_tested(found, trial.id),
        )
        for trial, estimate in sorted(members, key=lambda pair: pair[0].number)
    ]


def _tested(found: _Evidence, trial_id: str) -> schemas.Interval | None:
    estimate = found.verified.tested.get(trial_id, {}).get(found.metric)
    return None if estimate is None else documents.interval(estimate)


def _neighbours(found: _Evidence) -> reports.Neighbours:
    known = [e for t in found.verified.runs if (e := found.estimate(t)) and e.high is not None]
    ordered = sorted(known, key=lambda estimate: estimate.mean)
    alike = [
        b.mean - a.mean <= math.hypot(a.half_width, b.half_width) for a, b in pairwise(ordered)
    ]
    return reports.Neighbours(pairs=len(alike), alike=sum(alike))


def _tasks(found: _Evidence) -> list[reports.TaskTrust]:
    return [
        _task(found, i, task.model_dump(mode="json"))
        for i, task in enumerate(found.request.verification.also)
    ]


def _task(found: _Evidence, task: int, document: dict[str, object]) -> reports.TaskTrust:
    there = {t.trial_id: t.metrics.get(found.metric) for t in found.transfers if t.task == task}
    pairs = [
        (estimate.mean, value)
        for trial_id, value in there.items()
        if value is not None and (estimate := found.estimate(trial_id)) is not None
    ]
    own, other = [a for a, _ in pairs], [b for _, b in pairs]
    return reports.TaskTrust(
        task=document, metric=found.metric, ranks=_ranks(agreement(own, other))
    )


def _time(found: _Evidence, now: datetime) -> reports.TimeShare:
    slots = found.request.resources.trials_at_once
    training = sum(t.training_seconds for t in found.trials)
    evaluation = sum(t.evaluation_seconds for t in found.trials)
    began = [t.started_at for t in found.trials if t.started_at is not None]
    ended = [t.finished_at for t in found.trials if t.finished_at is not None]
    span = (max(ended) - min(began)).total_seconds() if began and ended else 0.0
    # a job that stood still in between has not idled then
    busy = training + evaluation
    idle = max(0.0, slots * min(span, documents.running_seconds(found.job, now)) - busy)
    return reports.TimeShare(
        slots=slots,
        training_seconds=training,
        evaluation_seconds=evaluation,
        idle_seconds=idle,
        share=training / (busy + idle) if busy + idle else None,
    )


def _reuse(found: _Evidence) -> reports.Reuse:
    return reports.Reuse(
        trials=len(found.trials),
        reused=found.saved.trials,
        full_trainings=found.saved.full_trainings,
        core_seconds=found.saved.core_seconds,
    )


def _failures(trials: Sequence[TrialEvidence]) -> list[reports.FailureCount]:
    reasons = Counter(t.error or "unknown" for t in trials if t.state is TrialState.FAILED)
    return [reports.FailureCount(reason=r, trials=n) for r, n in reasons.most_common()]
