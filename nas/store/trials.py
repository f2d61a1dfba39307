"""Trials: every change of one proves its job's lease, and tells. Nothing here commits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from nas.catalogue.metrics import METRICS
from nas.errors import Conflict, LeaseLost, NotFound
from nas.states import TrialState, check_trial
from nas.store import clock, settling
from nas.store.bills import bill_search, bill_verification
from nas.store.ids import new_id
from nas.store.jobs import fence
from nas.store.reading import records, rows_of
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
    row, document = _add(
        session,
        fence(session, job_id, token),
        architecture=architecture,
        origin=origin,
        seed=seed,
        state=state,
        rung=rung,
        reused_from=reused_from,
        metrics={**(metrics or {}), **costs},
    )
    return settling.tell(session, [row], {row.id: document})[0]


def insert_started(
    session: Session,
    job_id: str,
    token: int,
    *,
    architecture: Architecture,
    origin: str,
    seed: int,
    costs: Mapping[str, float],
    rung: int = 0,
    parent: str | None = None,
) -> TrialRecord:
    """A new trial that trains towards this rung at once: ``insert`` and ``start`` in one.

    parent: the trial whose weights it starts from.

    Raises:
        LeaseLost, Conflict: the job has this architecture already.
    """
    row, document = _add(
        session,
        fence(session, job_id, token),
        architecture=architecture,
        origin=origin,
        seed=seed,
        state=TrialState.WAITING,
        metrics=costs,
        parent=parent,
    )
    settling.tell(session, [row], {row.id: document})
    return _start(session, row, rung, {row.id: document})


def start(session: Session, trial_id: str, token: int, rung: int) -> TrialRecord:
    """Mark a trial as training towards this rung.

    Raises:
        LeaseLost, NotFound, Conflict: it runs already or has ended.
    """
    _, row = _fenced(session, trial_id, token)
    return _start(session, row, rung)


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
    metered_kwh: float | None = None,
) -> TrialRecord:
    """Record what a running trial measured at a rung: its curve, its state and the job's bill.

    state: paused, or completed at full fidelity.  core_seconds: added to the bill of the search,
    by default training and evaluation on one core.  metered_kwh: their energy, if counters have
    measured it.

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
    bill_search(job, seconds, metered_kwh)
    job.attempts = 1  # this one gets somewhere: earlier crashes are forgiven
    row.active_rung = None
    return settling.move(session, [row], state, now)[0]


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
    return settling.move(session, [row], settling.before_running(row), clock.now(session))[0]


def set_metrics(
    session: Session,
    trial_id: str,
    token: int,
    metrics: Mapping[str, float],
    *,
    evaluation_seconds: float = 0.0,
    core_seconds: float = 0.0,
) -> TrialRecord:
    """Put measured metrics in the place of those that the trial has, in whatever state it is.

    The seconds that it took are added to the trial's, those of cores to the bill of the search.

    Raises:
        LeaseLost, NotFound
    """
    job, row = _fenced(session, trial_id, token)
    _assign(row, metrics)
    row.evaluation_seconds += evaluation_seconds
    job.search_core_seconds += core_seconds
    settling.tell(session, [row])
    return records(session, [row])[0]


def add_verification(
    session: Session,
    trial_id: str,
    token: int,
    seed: int,
    metrics: Mapping[str, float],
    core_seconds: float = 0.0,
    *,
    test: Mapping[str, float] | None = None,
    metered_kwh: float | None = None,
) -> None:
    """Record a training with a fresh seed; one for each (trial, seed), its cost billed apart.

    test: what it measured on the test split.  metered_kwh: the energy of these core-seconds, if
    counters have measured it.

    Raises:
        LeaseLost, NotFound, Conflict: this seed is recorded already.
    """
    job, row = _fenced(session, trial_id, token)
    if session.get(VerificationRow, (trial_id, seed)) is not None:
        raise Conflict(f"trial {trial_id} is verified with seed {seed} already")
    verification = VerificationRow(trial_id=trial_id, seed=seed, finished_at=clock.now(session))
    _assign(verification, metrics)
    verification.test = dict(test) if test else None
    session.add(verification)
    bill_verification(job, core_seconds, metered_kwh)
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


def _add(
    session: Session,
    job: JobRow,
    *,
    architecture: Architecture,
    origin: str,
    seed: int,
    state: TrialState,
    metrics: Mapping[str, float],
    rung: int | None = None,
    reused_from: str | None = None,
    parent: str | None = None,
) -> tuple[TrialRow, dict[str, Any]]:
    """A new trial of a locked job and its architecture's document."""
    fingerprint = architecture.fingerprint()
    _refuse_duplicate(session, job.id, fingerprint)
    known = state == TrialState.REUSED
    now = clock.now(session)
    row = TrialRow(
        id=new_id("trial"),
        job_id=job.id,
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
        parent=parent,
        result_key=job.result_key,
        created_at=now,
        finished_at=now if state.final else None,
    )
    job.next_number += 1
    _assign(row, metrics)
    session.add(row)
    session.flush()
    document = architecture.model_dump(mode="json")
    session.add(ArchitectureRow(trial_id=row.id, document=document))
    return row, document


def _start(
    session: Session,
    row: TrialRow,
    rung: int,
    architectures: Mapping[str, dict[str, Any]] | None = None,
) -> TrialRecord:
    check_trial(row.state, TrialState.RUNNING)
    row.state = TrialState.RUNNING
    row.active_rung = rung
    row.started_at = row.started_at or clock.now(session)
    return settling.tell(session, [row], architectures)[0]


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
