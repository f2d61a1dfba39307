"""Trials: every change of one proves its job's lease, and tells. Nothing here commits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sqlalchemy import case, select
from sqlalchemy.orm import Session

from nas.catalogue.metrics import METRICS
from nas.errors import Conflict, LeaseLost, NotFound
from nas.states import TrialState, check_trial
from nas.store import clock, settling
from nas.store.ids import new_id
from nas.store.jobs import fence
from nas.store.reading import records, rows_of, to_record
from nas.store.records import TrialRecord
from nas.store.tables import (
    ArchitectureRow,
    JobRow,
    RungMetrics,
    RungRow,
    TrialRow,
    VerificationRow,
)
from search_spaces.architecture import Architecture

RUNG_METRICS = tuple(name for name in METRICS if hasattr(RungRow, name))
"""What a learning curve is made of."""


def insert(
    session: Session,
    job_id: str,
    token: int,
    *,
    architecture: Architecture,
    origin: str,
    seed: int,
    costs: Mapping[str, float],
    state: TrialState = TrialState.WAITING,
    reused_from: str | None = None,
    metrics: Mapping[str, float] | None = None,
    rung: int | None = None,
) -> TrialRecord:
    """A new trial, numbered; ``reused`` ones bring their metrics (and last rung) from elsewhere.

    Raises:
        LeaseLost, Conflict: the job has this architecture already.
    """
    job = fence(session, job_id, token)
    fingerprint = architecture.fingerprint()
    _refuse_duplicate(session, job_id, fingerprint)
    known = state == TrialState.REUSED
    now = clock.now(session)
    row = TrialRow(
        id=new_id("trial"),
        job_id=job_id,
        number=job.next_number,
        fingerprint=fingerprint,
        homogeneous=architecture.homogeneous,
        origin=origin,
        seed=seed,
        state=state,
        rung=rung,
        steps=job.max_steps if known else 0,
        fidelity=1.0 if known else 0.0,
        reused_from=reused_from,
        result_key=job.result_key,
        created_at=now,
        finished_at=now if state.final else None,
    )
    job.next_number += 1
    _assign(row, {**(metrics or {}), **costs})
    session.add(row)
    session.flush()
    document = architecture.model_dump(mode="json")
    session.add(ArchitectureRow(trial_id=row.id, document=document))
    settling.tell(session, [row], {row.id: document})
    return to_record(row, document)


def start(session: Session, trial_id: str, token: int, rung: int) -> TrialRecord:
    """Mark a trial as training towards this rung.

    Raises:
        LeaseLost, NotFound, Conflict: it runs already or has ended.
    """
    _, row = _fenced(session, trial_id, token)
    now = clock.now(session)
    check_trial(row.state, TrialState.RUNNING)
    row.state = TrialState.RUNNING
    row.active_rung = rung
    row.started_at = row.started_at or now
    settling.tell(session, [row])
    return records(session, [row])[0]


def finish_rung(
    session: Session,
    trial_id: str,
    token: int,
    *,
    rung: int,
    steps: int,
    metrics: Mapping[str, float],
    training_seconds: float,
    evaluation_seconds: float,
    state: TrialState,
    core_seconds: float | None = None,
) -> TrialRecord:
    """Record what a running trial measured at a rung: its curve, its state and the job's bill.

    state: paused, or completed at full fidelity.  core_seconds: added to the bill of the search,
    by default training and evaluation on one core.

    Raises:
        LeaseLost, NotFound, Conflict: it was not running, or has this rung already.
    """
    job, row = _fenced(session, trial_id, token)
    if row.rung is not None and rung <= row.rung:
        raise Conflict(f"trial {trial_id} has finished rung {row.rung} already, not only {rung}")
    now = clock.now(session)
    measured = {name: value for name, value in metrics.items() if name in RUNG_METRICS}
    point = RungRow(
        trial_id=trial_id,
        rung=rung,
        steps=steps,
        training_seconds=training_seconds,
        evaluation_seconds=evaluation_seconds,
        finished_at=now,
    )
    _assign(point, measured)
    session.add(point)
    _assign(row, metrics)
    row.rung = rung
    row.steps = steps
    row.fidelity = steps / job.max_steps
    row.training_seconds += training_seconds
    row.evaluation_seconds += evaluation_seconds
    seconds = training_seconds + evaluation_seconds if core_seconds is None else core_seconds
    job.search_core_seconds += seconds
    job.attempts = 1  # this one gets somewhere: earlier crashes are forgiven
    row.active_rung = None
    settling.move(session, [row], state, now)
    return records(session, [row])[0]


def stop(session: Session, trial_ids: Sequence[str], token: int) -> None:
    """End trials of one job where they are: they will not be promoted.

    Raises:
        LeaseLost, NotFound, Conflict: one of them has ended.
    """
    if not trial_ids:
        return
    job, _ = _fenced(session, trial_ids[0], token)
    rows = rows_of(session, trial_ids)
    for trial_id in trial_ids:
        if trial_id not in rows or rows[trial_id].job_id != job.id:
            raise NotFound(f"there is no trial {trial_id} in job {job.id}")
    ordered = sorted(rows.values(), key=lambda row: row.number)
    settling.move(session, ordered, TrialState.STOPPED, clock.now(session))


def fail(session: Session, trial_id: str, token: int, error: str) -> None:
    """End a trial that cannot go on, and say why.

    Raises:
        LeaseLost, NotFound, Conflict: it has ended.
    """
    _, row = _fenced(session, trial_id, token)
    row.error = error
    settling.move(session, [row], TrialState.FAILED, clock.now(session))


def interrupt(session: Session, trial_id: str, token: int) -> TrialRecord:
    """Put a running trial back to where its last finished rung left it: waiting or paused.

    Raises:
        LeaseLost, NotFound, Conflict: it is not running.
    """
    _, row = _fenced(session, trial_id, token)
    settling.move(session, [row], settling.before_running(row), clock.now(session))
    return records(session, [row])[0]


def set_metrics(
    session: Session, trial_id: str, token: int, metrics: Mapping[str, float]
) -> TrialRecord:
    """Put measured metrics in the place of those that the trial has, in whatever state it is.

    Raises:
        LeaseLost, NotFound
    """
    _, row = _fenced(session, trial_id, token)
    _assign(row, metrics)
    settling.tell(session, [row])
    return records(session, [row])[0]


def add_verification(
    session: Session,
    trial_id: str,
    token: int,
    seed: int,
    metrics: Mapping[str, float],
    core_seconds: float = 0.0,
) -> None:
    """Record a training with a fresh seed; one for each (trial, seed), its cost billed apart.

    Raises:
        LeaseLost, NotFound, Conflict: this seed is recorded already.
    """
    job, row = _fenced(session, trial_id, token)
    if session.get(VerificationRow, (trial_id, seed)) is not None:
        raise Conflict(f"trial {trial_id} is verified with seed {seed} already")
    verification = VerificationRow(trial_id=trial_id, seed=seed, finished_at=clock.now(session))
    _assign(verification, metrics)
    session.add(verification)
    job.verification_core_seconds += core_seconds
    settling.tell(session, [row])


def get(session: Session, trial_id: str, *, with_curve: bool = False) -> TrialRecord:
    """The trial.

    Raises:
        NotFound
    """
    row = session.get(TrialRow, trial_id)
    if row is None:
        raise NotFound(f"there is no trial {trial_id}")
    return records(session, [row], with_curve=with_curve)[0]


def source(session: Session, record: TrialRecord) -> TrialRecord | None:
    """The trial that was trained for this one, itself as a rule; None when it was deleted."""
    if record.reused_from is None:
        return record
    row = session.get(TrialRow, record.reused_from)
    return None if row is None else records(session, [row])[0]


def all(  # noqa: A001 - read as trials.all
    session: Session, job_id: str, *, with_curve: bool = True
) -> list[TrialRecord]:
    """Every trial of a job in the order of their numbers: what a worker rebuilds its state from."""
    rows = session.scalars(
        select(TrialRow).where(TrialRow.job_id == job_id).order_by(TrialRow.number)
    ).all()
    return records(session, rows, with_curve=with_curve)


def reusable(session: Session, fingerprint: str, result_key: str) -> TrialRecord | None:
    """A trial at full fidelity whose result holds for jobs of this key, if there is one."""
    row = session.scalar(
        select(TrialRow)
        .where(
            TrialRow.result_key == result_key,
            TrialRow.fingerprint == fingerprint,
            TrialRow.state.in_((TrialState.COMPLETED, TrialState.REUSED)),
        )
        # the one that was trained, rather than one that reused it
        .order_by(case((TrialRow.state == TrialState.COMPLETED, 0), else_=1), TrialRow.id)
        .limit(1)
    )
    return None if row is None else records(session, [row], with_curve=True)[0]


def _fenced(session: Session, trial_id: str, token: int) -> tuple[JobRow, TrialRow]:
    """The locked job and the trial, which nobody else changes then."""
    job_id = session.scalar(select(TrialRow.job_id).where(TrialRow.id == trial_id))
    if job_id is None:
        # a deleted job takes its trials along, and its lease
        raise LeaseLost(f"there is no trial {trial_id} any more")
    job = fence(session, job_id, token)
    row = session.get(TrialRow, trial_id, populate_existing=True)
    if row is None:
        raise NotFound(f"there is no trial {trial_id}")
    return job, row


def _refuse_duplicate(session: Session, job_id: str, fingerprint: str) -> None:
    number = session.scalar(
        select(TrialRow.number).where(
            TrialRow.job_id == job_id, TrialRow.fingerprint == fingerprint
        )
    )
    if number is not None:
        raise Conflict(f"architecture {fingerprint} is trial {number} of job {job_id} already")


def _assign(row: RungMetrics, metrics: Mapping[str, float]) -> None:
    for name, value in metrics.items():
        if not hasattr(type(row), name) or name not in METRICS:
            raise ValueError(f"{name} is not a metric of {type(row).__name__}")
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}, which is no measurement")
        setattr(row, name, float(value))
