"""Records of the store as the documents that the service answers with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from nas import schemas
from nas.billing import SECONDS_PER_HOUR, WORLD_CO2_KG_PER_KWH, Rates
from nas.catalogue.metrics import METRICS
from nas.settings import Settings
from nas.spread import Estimate
from nas.states import EndedBy, JobState, TrialState
from nas.store.progress import Counts, Overview
from nas.store.records import (
    DatasetRecord,
    EventRecord,
    ExportRecord,
    JobRecord,
    TrialRecord,
)


def job(overview: Overview, settings: Settings, now: datetime) -> schemas.Job:
    """A job with its progress and its bill."""
    record = overview.job
    return schemas.Job(
        id=record.id,
        name=record.name,
        project=record.project,
        state=record.state,
        request=record.request,
        space=record.space,
        progress=progress(overview, settings, now),
        bill=bill(record, settings),
        error=record.error,
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
    )


def progress(overview: Overview, settings: Settings, now: datetime) -> schemas.Progress:
    """How far a job is, by whichever bound of its budget is nearest."""
    record, counts = overview.job, overview.counts
    rung_steps = schemas.Fidelity.model_validate(record.request["fidelity"]).rungs()
    last = [(rung, n) for rung, n in counts.last_rungs.items() if rung is not None]
    steps = sum(n * rung_steps[rung] for rung, n in last)
    spent = steps / record.max_steps
    elapsed = running_seconds(record, now)
    fraction = _fraction(record, counts, spent, elapsed, settings)
    return schemas.Progress(
        trials={state: counts.states[state] for state in TrialState},
        phase=record.phase,
        rung_counts=[
            sum(n for finished, n in last if finished >= rung) for rung in range(len(rung_steps))
        ],
        rung_steps=list(rung_steps),
        spent=spent,
        fraction=fraction,
        elapsed_seconds=elapsed,
        eta_seconds=_eta(record.state, fraction, elapsed),
        ended_by=None if record.ended_by is None else EndedBy(record.ended_by),
        best=overview.best,
    )


def bill(record: JobRecord, settings: Settings) -> schemas.Bill:
    """What a job has cost: energy as counters have measured it, the rest at the settings' rates."""
    rates = _rates(record, settings)
    work = record.searched + record.verified
    energy = rates.kwh(work)
    intensity = record.co2_kg_per_kwh
    if intensity is None:
        intensity = settings.co2_kg_per_kwh
    if intensity is None:
        intensity = WORLD_CO2_KG_PER_KWH
    device_hours = rates.device_hours(work)
    return schemas.Bill(
        core_seconds=work.core_seconds,
        search_core_seconds=record.search_core_seconds,
        verification_core_seconds=record.verification_core_seconds,
        device_seconds=device_hours * SECONDS_PER_HOUR,
        energy_kwh=energy,
        energy_source=work.energy_source,
        co2_kg=energy * intensity,
        co2_kg_per_kwh=intensity,
        money=device_hours * settings.price_per_device_hour,
        currency=settings.currency,
    )


def trial(record: TrialRecord) -> schemas.Trial:
    """A trial."""
    return schemas.Trial(
        id=record.id,
        job=record.job_id,
        number=record.number,
        architecture=record.architecture,
        fingerprint=record.fingerprint,
        origin=record.origin,
        parent=record.parent,
        metrics=record.metrics,
        rung=record.rung,
        fidelity=record.fidelity,
        state=record.state,
        error=record.error,
        verified=_intervals(record.verified),
        tested=_intervals(record.tested),
        seed=record.seed,
        created_at=record.created_at,
        finished_at=record.finished_at,
    )


def trial_detail(record: TrialRecord) -> schemas.TrialDetail:
    """A trial with its learning curve."""
    points = [
        schemas.CurvePoint(rung=p.rung, steps=p.steps, metrics=p.metrics) for p in record.curve
    ]
    return schemas.TrialDetail(**dict(trial(record)), curve=points)


def export(record: ExportRecord) -> schemas.Export:
    """An export."""
    return schemas.Export(
        id=record.id,
        job=record.job_id,
        trial=record.trial_id,
        format=record.format,
        state=record.state,
        error=record.error,
        filename=record.filename,
        created_at=record.created_at,
        finished_at=record.finished_at,
    )


def dataset(record: DatasetRecord) -> schemas.Dataset:
    """A data set."""
    return schemas.Dataset(
        name=record.name,
        kind=record.kind,
        sha256=record.sha256,
        bytes=record.bytes,
        created_at=record.created_at,
    )


def event(record: EventRecord) -> schemas.Event:
    """An event."""
    return schemas.Event(seq=record.seq, type=record.type, at=record.at, data=record.data)


def _intervals(estimates: Mapping[str, Estimate]) -> dict[str, schemas.Interval] | None:
    """Means by metric, in the catalogue's order; None without any."""
    names = [name for name in METRICS if name in estimates]
    return {name: interval(estimates[name]) for name in names} or None


def interval(estimate: Estimate) -> schemas.Interval:
    """A mean and its interval."""
    return schemas.Interval(mean=estimate.mean, low=estimate.low, high=estimate.high, n=estimate.n)


def running_seconds(record: JobRecord, now: datetime) -> float:
    """Seconds that a job has run, without those in which it stood still."""
    if record.running_since is None:
        return record.elapsed_seconds
    # a worker that is lost has run until its lease ended
    until = now if record.lease_expires is None else min(now, record.lease_expires)
    return record.elapsed_seconds + max(0.0, (until - record.running_since).total_seconds())


def _fraction(
    record: JobRecord, counts: Counts, spent: float, elapsed: float, settings: Settings
) -> float:
    if record.state == JobState.SUCCEEDED:
        return 1.0
    budget = schemas.Budget.model_validate(record.request["budget"])
    used = (
        (counts.settled, budget.trials),
        (elapsed, budget.wall_seconds),
        (spent, budget.full_trainings),
        (_rates(record, settings).kwh(record.searched), budget.energy_kwh),
    )
    return min(1.0, max((amount / bound for amount, bound in used if bound), default=0.0))


def _eta(state: JobState, fraction: float, elapsed: float) -> float | None:
    if state.final:
        return 0.0
    if state != JobState.RUNNING or fraction <= 0:
        return None
    return elapsed * (1 - fraction) / fraction


def _rates(record: JobRecord, settings: Settings) -> Rates:
    return Rates.of(settings, schemas.Resources.model_validate(record.request["resources"]))
