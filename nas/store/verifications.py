"""Verification beyond fresh seeds: rounds of latency, and training on other tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from nas.errors import Conflict
from nas.store import clock, settling
from nas.store.bills import bill_verification
from nas.store.jobs import fence
from nas.store.reading import rows_of
from nas.store.records import TransferRecord
from nas.store.tables import LatencyRoundsRow, TransferRow, TrialRow


def put_rounds(
    session: Session,
    job_id: str,
    token: int,
    rounds: Mapping[str, Sequence[float]],
    *,
    alone: bool,
) -> None:
    """Keep what each of these trials of a job took in each round, in place of earlier rounds.

    rounds: milliseconds by trial, as many of each.  alone: whether nothing else ran meanwhile.

    Raises:
        LeaseLost
    """
    fence(session, job_id, token)
    own = select(TrialRow.id).where(TrialRow.job_id == job_id)
    session.execute(delete(LatencyRoundsRow).where(LatencyRoundsRow.trial_id.in_(own)))
    now = clock.now(session)
    session.add_all(
        LatencyRoundsRow(
            trial_id=trial, milliseconds=list(milliseconds), alone=alone, finished_at=now
        )
        for trial, milliseconds in rounds.items()
    )
    session.flush()
    settling.tell(session, sorted(rows_of(session, [*rounds]).values(), key=lambda r: r.number))


def add_transfer(
    session: Session,
    job_id: str,
    token: int,
    transfer: TransferRecord,
    *,
    core_seconds: float = 0.0,
    metered_kwh: float | None = None,
) -> None:
    """Record a training on another task, its cost billed as verification.

    Raises:
        LeaseLost, Conflict: it is recorded already.
    """
    job = fence(session, job_id, token)
    key = (transfer.trial_id, transfer.task, transfer.seed)
    if session.get(TransferRow, key) is not None:
        raise Conflict(f"trial {key[0]} is trained on task {key[1]} with seed {key[2]} already")
    session.add(
        TransferRow(
            trial_id=transfer.trial_id,
            task=transfer.task,
            seed=transfer.seed,
            metrics=dict(transfer.metrics),
            finished_at=clock.now(session),
        )
    )
    bill_verification(job, core_seconds, metered_kwh)
    session.flush()


def transfers(session: Session, job_id: str) -> list[TransferRecord]:
    """What the trials of a job gave on other tasks, by task, trial and seed."""
    rows = session.scalars(
        select(TransferRow)
        .join(TrialRow, TrialRow.id == TransferRow.trial_id)
        .where(TrialRow.job_id == job_id)
        .order_by(TransferRow.task, TransferRow.trial_id, TransferRow.seed)
    )
    return [TransferRecord(r.trial_id, r.task, r.seed, dict(r.metrics)) for r in rows]
