"""The numbers of all trials of a job as arrays, kept in memory and brought up to date by change.

A front needs few columns of many rows. Reading 100,000 rows takes a good part of a second, so a
process keeps the arrays and reads again only the trials that have told of a change since.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import case, select
from sqlalchemy.orm import Session

from nas.catalogue.metrics import METRICS
from nas.errors import NotFound
from nas.states import TrialState
from nas.store.estimates import of_job
from nas.store.reading import records
from nas.store.records import TrialRecord
from nas.store.tables import JobRow, TrialRow

Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]

_COLUMN = {name: i for i, name in enumerate(METRICS)}
_NUMBERS_AT_ONCE = 500


@dataclass(frozen=True)
class Scores:
    """What the trials of a job measured, trial number ``i + 1`` in row i; never changed in place.

    metrics (n, M) in the catalogue's order, NaN where unknown.  complete: at full fidelity, reused
    ones included.  measured: complete, or alive with a finished rung.
    half_widths (n, M): of the intervals of means, infinite where the spread is not known, 0 of what
    is exact; None where all numbers are taken as they are.
    """

    seq: int
    metrics: Floats
    complete: Flags
    measured: Flags
    homogeneous: Flags
    half_widths: Floats | None = None

    def column(self, metric: str) -> Floats:
        """Values (n,) of one metric."""
        return self.metrics[:, _COLUMN[metric]]

    def uncertainty(self, metric: str) -> Floats:
        """Half widths (n,) of the intervals of one metric."""
        if self.half_widths is None:
            return np.zeros(len(self.metrics))
        return self.half_widths[:, _COLUMN[metric]]


class ScoreCache:
    """The scores of the jobs that were asked for last."""

    def __init__(self, capacity: int = 16) -> None:
        self._capacity = capacity
        self._known: OrderedDict[str, Scores] = OrderedDict()
        self._lock = threading.Lock()

    def scores(self, session: Session, job_id: str) -> Scores:
        """The job's scores as the session sees them.

        Raises:
            NotFound: there is no such job.
        """
        with self._lock:
            known = self._known.get(job_id)
        current = _refreshed(session, job_id, known)
        with self._lock:
            newest = self._known.get(job_id, current)
            self._known[job_id] = newest if newest.seq > current.seq else current
            self._known.move_to_end(job_id)
            while len(self._known) > self._capacity:
                self._known.popitem(last=False)
        return current


def joined(parts: Sequence[Scores]) -> Scores:
    """The scores of several jobs, one after the other."""
    return Scores(
        seq=sum(part.seq for part in parts),
        metrics=np.concatenate([part.metrics for part in parts]),
        complete=np.concatenate([part.complete for part in parts]),
        measured=np.concatenate([part.measured for part in parts]),
        homogeneous=np.concatenate([part.homogeneous for part in parts]),
        half_widths=_joined_half_widths(parts),
    )


def verified_only(session: Session, job_id: str, scores: Scores) -> Scores:
    """The scores of verified trials alone, by the means of what fresh seeds measured."""
    found = of_job(session, job_id)
    metrics = scores.metrics.copy()
    half_widths = np.zeros_like(metrics)
    verified = np.zeros(len(metrics), dtype=np.bool_)
    # a quality that was measured once tells nothing of its spread; costs are taken as they are
    half_widths[:, [_COLUMN[name] for name in METRICS if not METRICS[name].cost]] = np.inf
    for trial_id, number in _numbers(session, list(found.verified)).items():
        verified[number - 1] = True
        for name, estimate in found.verified[trial_id].items():
            metrics[number - 1, _COLUMN[name]] = estimate.mean
            half_widths[number - 1, _COLUMN[name]] = estimate.half_width
    return replace(
        scores,
        metrics=metrics,
        complete=scores.complete & verified,
        measured=scores.measured & verified,
        half_widths=half_widths,
    )


def numbered(session: Session, job_id: str, numbers: Sequence[int]) -> list[TrialRecord]:
    """The job's trials of these numbers, in the same order."""
    rows: dict[int, TrialRow] = {}
    for start in range(0, len(numbers), _NUMBERS_AT_ONCE):
        wanted = numbers[start : start + _NUMBERS_AT_ONCE]
        query = select(TrialRow).where(TrialRow.job_id == job_id, TrialRow.number.in_(wanted))
        rows.update((row.number, row) for row in session.scalars(query))
    return records(session, [rows[number] for number in numbers])


def across(
    session: Session, job_ids: Sequence[str], ends: Sequence[int], numbers: Sequence[int]
) -> list[TrialRecord]:
    """The trials of these numbers, counted on from job to job, in the same order.

    ends: for each job the number of its last trial.
    """
    part = np.searchsorted(ends, numbers)
    starts = [0, *ends[:-1]]
    found: dict[int, TrialRecord] = {}
    for i in np.unique(part).tolist():
        own = [number for number, of in zip(numbers, part, strict=True) if of == i]
        rows = numbered(session, job_ids[i], [number - starts[i] for number in own])
        found.update(zip(own, rows, strict=True))
    return [found[number] for number in numbers]


def _joined_half_widths(parts: Sequence[Scores]) -> Floats | None:
    known = [part.half_widths for part in parts if part.half_widths is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


def _numbers(session: Session, trial_ids: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for start in range(0, len(trial_ids), _NUMBERS_AT_ONCE):
        wanted = trial_ids[start : start + _NUMBERS_AT_ONCE]
        query = select(TrialRow.id, TrialRow.number).where(TrialRow.id.in_(wanted))
        found.update((trial_id, number) for trial_id, number in session.execute(query))
    return found


def _refreshed(session: Session, job_id: str, known: Scores | None) -> Scores:
    job = session.execute(
        select(JobRow.next_seq, JobRow.next_number).where(JobRow.id == job_id)
    ).one_or_none()
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    seq, length = job.next_seq - 1, job.next_number - 1
    if known is not None and known.seq == seq:
        return known
    if known is None or known.seq > seq:
        known = Scores(
            0,
            np.empty((0, len(METRICS))),
            np.empty(0, dtype=np.bool_),
            np.empty(0, dtype=np.bool_),
            np.empty(0, dtype=np.bool_),
        )
    changed = _read(session, job_id, known.seq)
    index = changed[:, 0].astype(np.intp) - 1
    scores = Scores(
        seq,
        _grown(known.metrics, length, np.nan),
        _grown(known.complete, length, False),
        _grown(known.measured, length, False),
        _grown(known.homogeneous, length, False),
    )
    scores.homogeneous[index] = changed[:, 1]
    scores.complete[index] = changed[:, 2]
    scores.measured[index] = changed[:, 3]
    scores.metrics[index] = changed[:, 4:]
    return scores


def _grown(array: NDArray[Any], length: int, fill: float | bool) -> NDArray[Any]:
    grown = np.full((length, *array.shape[1:]), fill, dtype=array.dtype)
    grown[: len(array)] = array
    return grown


def _read(session: Session, job_id: str, after_seq: int) -> Floats:
    """(k, 4 + M): number, homogeneous, complete, measured and metrics of what has changed."""
    complete = TrialRow.state.in_((TrialState.COMPLETED, TrialState.REUSED))
    measured = complete | (TrialRow.rung.is_not(None) & (TrialRow.state != TrialState.FAILED))
    columns = (
        TrialRow.number,
        case((TrialRow.homogeneous, 1), else_=0),
        case((complete, 1), else_=0),
        case((measured, 1), else_=0),
        *(getattr(TrialRow, name) for name in METRICS),
    )
    query = select(*columns).where(TrialRow.job_id == job_id)
    if after_seq:
        query = query.where(TrialRow.seq > after_seq)
    # past the session's own rows: wrapping each of 100,000 would take longer than reading it
    result = session.connection().execute(query)
    rows = result.cursor.fetchall() if result.cursor is not None else []
    result.close()
    flat = (np.nan if value is None else value for value in itertools.chain.from_iterable(rows))
    width = len(columns)
    return np.fromiter(flat, dtype=np.float64, count=len(rows) * width).reshape(-1, width)
